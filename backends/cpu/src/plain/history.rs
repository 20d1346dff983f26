//! What an op read in the step before, for the faults that read it again.

use super::step::{Operand, Step};
use crate::ops::{Kernel, Memory, Place};
use greta_ops::Bindings;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Copies of operands, by the address of the buffer they were in: sessions have buffers of their own.
#[derive(Default)]
pub(crate) struct History(Mutex<HashMap<usize, Kept>>);

/// An op's operands after a step.
#[derive(Clone, Default)]
pub(super) struct Kept {
    /// Rows of the step.
    pub rows: usize,
    /// The bytes of each operand. What the last step did not reach is older, as in the buffer itself.
    pub images: Vec<Vec<u32>>,
}

impl History {
    /// Keeps the operands `which` of this step; gives what was kept of the step before.
    pub(super) fn exchange(&self, s: &Step, ins: &[Operand], which: &[usize]) -> Option<Kept> {
        let &first = which.first()?;
        let key = s.m.out::<u8>(&ins[first].place) as usize;
        let mut all = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let before = all.get(&key).cloned();
        let kept = all.entry(key).or_default();
        kept.rows = s.rows(first);
        kept.images.resize(which.len(), Vec::new());
        for (image, &i) in kept.images.iter_mut().zip(which) {
            let now = words(s.bytes(i));
            if image.len() < now.len() {
                image.resize(now.len(), 0);
            }
            image[..now.len()].copy_from_slice(&now);
        }
        before
    }

    /// Forgets everything: buffers of sessions gone may be given to new ones.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).clear();
    }
}

/// Bytes as words, the last filled with zeros.
pub(super) fn words(bytes: &[u8]) -> Vec<u32> {
    let word = |c: &[u8]| c.iter().rev().fold(0, |w, &b| w << 8 | u32::from(b));
    bytes.chunks(4).map(word).collect()
}

/// The operands that carry activations: what a stale or wrong row would be read from.
pub(super) fn activations(op: &greta_ops::Op, ins: &[Operand]) -> Vec<usize> {
    use greta_ops::Op;
    match op {
        Op::MatMul(_) => (1..ins.len()).collect(),
        Op::CacheWrite(_) => vec![1],
        _ => vec![0],
    }
}

/// A kernel without fault that keeps its operands for the kernel of the other phase, which has one.
pub(super) struct Watched {
    pub kernel: Box<dyn Kernel>,
    pub ins: Vec<Operand>,
    pub which: Vec<usize>,
    pub history: Arc<History>,
}

impl Kernel for Watched {
    fn chunks(&self, m: &Memory) -> usize {
        self.kernel.chunks(m)
    }

    unsafe fn run(&self, m: &Memory, chunk: usize) {
        if chunk == 0 {
            // SAFETY: the caller's promise; nothing is swapped or written.
            let step = unsafe { Step::new(m, &self.ins) };
            self.history.exchange(&step, &self.ins, &self.which);
        }
        // SAFETY: the caller's promise.
        unsafe { self.kernel.run(m, chunk) }
    }

    fn route(&self, at: &Bindings) -> String {
        self.kernel.route(at)
    }

    fn opened(&self) {
        self.history.clear();
        self.kernel.opened();
    }
}

/// Whether all of these lie in buffers of the plan, which change from step to step.
pub(super) fn in_slots(ins: &[Operand], which: &[usize]) -> bool {
    which.iter().all(|&i| matches!(ins[i].place, Place::Slot(_)))
}
