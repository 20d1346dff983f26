//! `quantize`, block by block.

use super::{Cut, Kernel, Lowering, Memory, Place};
use crate::kernels;
use crate::simd::Level;
use greta_ops::{ACT_BLOCK, Bindings, TensorDesc};

pub(super) struct Quantize {
    level: Level,
    cut: Cut,
    x: Place,
    outs: Vec<Place>,
    shape: TensorDesc,
}

impl Quantize {
    pub fn new(l: Lowering) -> Quantize {
        let cut = Cut { threads: l.threads, least: 64 };
        Quantize { level: l.level, cut, x: l.ins[0].clone(), outs: l.outs, shape: l.descs[0].clone() }
    }
}

impl Kernel for Quantize {
    fn chunks(&self, m: &Memory) -> usize {
        self.cut.chunks(self.shape.elements(&m.at) / ACT_BLOCK)
    }

    unsafe fn run(&self, m: &Memory, chunk: usize) {
        let n = self.shape.elements(&m.at);
        let part = self.cut.range(n / ACT_BLOCK, chunk);
        let at = part.start * ACT_BLOCK..part.end * ACT_BLOCK;
        // SAFETY: the operand has n elements; the blocks are this chunk's.
        let (x, codes, scales) = unsafe {
            let x = m.read(&self.x, n);
            (x, m.write(&self.outs[0], at.start, at.len()), m.write(&self.outs[1], part.start, part.len()))
        };
        kernels::quantize::quantize(self.level, &x[at], codes, scales);
    }

    fn route(&self, _: &Bindings) -> String {
        format!("quantize.{}", self.level.name())
    }
}
