//! Where a kernel finds its operands in a step.

use crate::kv::Cache;
use crate::memory::Block;
use crate::taps::TapView;
use greta_graph::{Input, NodeId, SlotId};
use greta_ops::Bindings;
use std::sync::Arc;

/// Where a value is.
#[derive(Clone)]
pub(crate) enum Place {
    /// A buffer of the plan.
    Slot(SlotId),
    /// Brought by the step.
    Input(Input),
    /// A KV cache.
    State(usize),
    /// A small weight, copied.
    Small(Arc<Block>),
    /// A large weight that its reader has in a form of its own.
    Weight(NodeId),
}

/// One step's memory, shared by all threads.
pub(crate) struct Memory<'a> {
    /// The step's sizes.
    pub at: Bindings,
    inputs: [&'a [i32]; 6],
    slots: Vec<*mut u8>,
    cache: &'a Cache,
    taps: &'a [TapView],
}

// SAFETY: the pointers are to the session's own blocks; kernels keep to the parts of them that are theirs.
unsafe impl Sync for Memory<'_> {}

impl<'a> Memory<'a> {
    /// `inputs` in the order of [`Input::ALL`]; `slots` by number.
    pub fn new(
        at: Bindings,
        inputs: [&'a [i32]; 6],
        slots: Vec<*mut u8>,
        cache: &'a Cache,
        taps: &'a [TapView],
    ) -> Self {
        Memory { at, inputs, slots, cache, taps }
    }

    pub fn input(&self, input: Input) -> &[i32] {
        self.inputs[Input::ALL.iter().position(|&i| i == input).unwrap_or(0)]
    }

    /// What a tap writes through in this step.
    pub fn tap(&self, index: usize) -> Option<TapView> {
        self.taps.get(index).copied()
    }

    /// A token's row of a cache as stored.
    ///
    /// # Safety
    /// Nobody writes to the cache meanwhile.
    pub unsafe fn cache_row(&self, state: usize, slot: usize) -> Vec<f32> {
        self.cache.row(state, slot)
    }

    pub fn slot(&self, slot: SlotId) -> *mut u8 {
        self.slots[slot.0 as usize]
    }

    /// Where the pages of a cache begin.
    pub fn pages(&self, place: &Place) -> &[*mut u8] {
        match place {
            Place::State(i) => self.cache.bases(*i),
            _ => &[],
        }
    }

    fn base(&self, place: &Place) -> *mut u8 {
        match place {
            Place::Slot(s) => self.slot(*s),
            Place::Small(b) => b.base(),
            Place::Input(i) => self.input(*i).as_ptr().cast_mut().cast(),
            // Not read through a pointer: an empty slice is all anyone gets.
            Place::State(_) | Place::Weight(_) => std::ptr::dangling_mut::<u64>().cast(),
        }
    }

    /// The first `n` values of an operand.
    ///
    /// # Safety
    /// The value is complete, of type `T`, has at least `n` elements, and nobody writes to it meanwhile.
    pub unsafe fn read<T>(&self, place: &Place, n: usize) -> &[T] {
        let n = if matches!(place, Place::State(_) | Place::Weight(_)) { 0 } else { n };
        // SAFETY: as the caller promises; buffers are aligned to 64 bytes and initialised.
        unsafe { std::slice::from_raw_parts(self.base(place).cast(), n) }
    }

    /// Elements `at .. at + n` of an output.
    ///
    /// # Safety
    /// The output is of type `T` and has these elements, and they are this chunk's alone.
    #[allow(clippy::mut_from_ref, reason = "disjoint parts go to different threads")]
    pub unsafe fn write<T>(&self, place: &Place, at: usize, n: usize) -> &mut [T] {
        let n = if matches!(place, Place::Slot(_)) { n } else { 0 };
        // SAFETY: as the caller promises; buffers are aligned to 64 bytes and initialised.
        unsafe { std::slice::from_raw_parts_mut(self.base(place).cast::<T>().add(if n == 0 { 0 } else { at }), n) }
    }

    /// Where an output begins.
    pub fn out<T>(&self, place: &Place) -> *mut T {
        self.base(place).cast()
    }
}
