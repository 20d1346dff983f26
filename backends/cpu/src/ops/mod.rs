//! Lowering: one file per op, one line per op here.

mod add;
mod attention;
mod cache_write;
mod dequant;
mod embed;
mod matmul;
mod memory;
mod quantize;
mod rmsnorm;
mod rope;
mod swiglu;

pub(crate) use memory::{Memory, Place};

use crate::kv::StateShape;
use crate::simd::Level;
use crate::weights::Prepared;
use greta_graph::{Graph, NodeId};
use greta_ops::{Bindings, Op, Pattern, TensorDesc};
use std::ops::Range;

/// An op of a plan, ready to be computed chunk by chunk.
pub(crate) trait Kernel: Send + Sync {
    /// Into how many independent chunks this step's work is cut.
    fn chunks(&self, m: &Memory) -> usize;

    /// Computes a chunk.
    ///
    /// # Safety
    /// The step's buffers are laid out by the plan; operands are complete and not being written; each chunk is run by
    /// one thread.
    unsafe fn run(&self, m: &Memory, chunk: usize);

    /// The kernel that a step of this size takes, for people and records.
    fn route(&self, at: &Bindings) -> String;

    /// A session was opened: what is kept of earlier steps is forgotten, for its buffers may be those of an old one.
    fn opened(&self) {}
}

/// What lowering knows of a node.
pub(crate) struct Lowering<'a> {
    pub graph: &'a Graph,
    pub node: NodeId,
    pub level: Level,
    pub threads: usize,
    pub ins: Vec<Place>,
    pub outs: Vec<Place>,
    pub descs: Vec<TensorDesc>,
    pub states: &'a [StateShape],
    pub prepared: &'a Prepared,
}

/// Makes an op's kernel. What [`supports`] refuses does not get here.
pub(crate) fn lower(op: &Op, l: Lowering<'_>) -> Box<dyn Kernel> {
    match op {
        Op::Embed(_) => Box::new(embed::Embed::new(l)),
        Op::Dequant(_) => Box::new(dequant::Dequant::new(l)),
        Op::Quantize(_) => Box::new(quantize::Quantize::new(l)),
        Op::MatMul(_) => matmul::lower(l),
        Op::RmsNorm(op) => Box::new(rmsnorm::RmsNorm::new(op, l)),
        Op::Rope(op) => Box::new(rope::Rope::new(op, l)),
        Op::CacheWrite(_) => Box::new(cache_write::CacheWrite::new(l)),
        Op::Attention(op) => Box::new(attention::Attention::new(op, l)),
        Op::Swiglu(_) => Box::new(swiglu::Swiglu::new(l)),
        Op::Add(_) => Box::new(add::Add::new(l)),
        Op::Fused(f) => match f.pattern {
            Pattern::NormQuantize => Box::new(rmsnorm::NormQuantize::new(f, l)),
            Pattern::SwigluQuantize => Box::new(swiglu::SwigluQuantize::new(l)),
        },
    }
}

/// Whether there is a kernel for these operands; if not, why.
pub(crate) fn supports(op: &Op, ins: &[&TensorDesc]) -> Result<(), String> {
    match op {
        // A small constant in a dequant's or norm's place is read where it lies; all else is decided by infer.
        Op::Rope(r) if r.dims > r.head_dim => Err("more values rotate than a head has".into()),
        Op::Attention(a) if a.head_dim % 8 != 0 || a.head_dim > 256 => {
            Err(format!("heads of {} values; a multiple of 8 up to 256 is needed", a.head_dim))
        }
        _ => op.spec().infer(ins).map(|_| ()).map_err(|e| e.to_string()),
    }
}

/// How many pieces to cut `n` units of work into, and how large: a few for each thread, so that one that is late leaves
/// little behind, but none smaller than `least` units.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    pub threads: usize,
    pub least: usize,
}

impl Cut {
    fn size(self, n: usize) -> usize {
        match self.threads {
            1 => n.max(1),
            t => n.div_ceil(4 * t).max(self.least).max(1),
        }
    }

    pub fn chunks(self, n: usize) -> usize {
        n.div_ceil(self.size(n))
    }

    pub fn range(self, n: usize, chunk: usize) -> Range<usize> {
        let size = self.size(n);
        (chunk * size).min(n)..((chunk + 1) * size).min(n)
    }
}
