//! One step as a plain kernel sees it: its operands by number, some of them swapped for others.

use crate::ops::{Memory, Place};
use greta_ops::TensorDesc;

/// Where an operand is and what it is.
#[derive(Clone)]
pub(super) struct Operand {
    pub place: Place,
    pub desc: TensorDesc,
}

/// The operands of one step.
pub(super) struct Step<'a> {
    pub m: &'a Memory<'a>,
    ins: &'a [Operand],
    /// Operands that are read from a copy instead.
    swapped: Vec<(usize, Vec<u32>)>,
}

impl<'a> Step<'a> {
    /// # Safety
    /// The step's buffers are laid out by the plan, and the operands are complete and not being written while the step
    /// is in use.
    pub unsafe fn new(m: &'a Memory<'a>, ins: &'a [Operand]) -> Step<'a> {
        Step { m, ins, swapped: Vec::new() }
    }

    /// Reads operand `i` from here on as these bytes, which are as many as it has.
    pub fn swap(&mut self, i: usize, bytes: Vec<u32>) {
        self.swapped.push((i, bytes));
    }

    /// Rows of operand `i` in this step.
    pub fn rows(&self, i: usize) -> usize {
        self.ins[i].desc.rows().at(&self.m.at)
    }

    /// Values in a row of operand `i`.
    pub fn cols(&self, i: usize) -> usize {
        self.ins[i].desc.cols().at(&self.m.at)
    }

    /// Operand `i` as f32.
    pub fn reals(&self, i: usize) -> &[f32] {
        self.values(i)
    }

    /// Operand `i` as integers.
    pub fn ints(&self, i: usize) -> &[i32] {
        self.values(i)
    }

    /// Operand `i` as 8-bit codes.
    pub fn codes(&self, i: usize) -> &[i8] {
        self.values(i)
    }

    /// Operand `i` as it is stored.
    pub fn bytes(&self, i: usize) -> &[u8] {
        self.values(i)
    }

    /// `T` is a plain number no wider than four bytes, of which any bits are a value.
    fn values<T>(&self, i: usize) -> &[T] {
        let n = self.ins[i].desc.bytes(&self.m.at) / size_of::<T>();
        match self.swapped.iter().find(|(at, _)| *at == i) {
            Some((_, copy)) => {
                let n = n.min(copy.len() * 4 / size_of::<T>());
                // SAFETY: the copy is aligned to four bytes and has these elements.
                unsafe { std::slice::from_raw_parts(copy.as_ptr().cast(), n) }
            }
            // SAFETY: the promise of `new`; the descriptor says how many bytes there are.
            None => unsafe { self.m.read(&self.ins[i].place, n) },
        }
    }
}
