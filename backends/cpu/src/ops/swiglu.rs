//! `swiglu`, and `swiglu → quantize` block by block.

use super::{Cut, Kernel, Lowering, Memory, Place};
use crate::kernels;
use crate::simd::Level;
use greta_ops::{ACT_BLOCK, Bindings, TensorDesc};

struct Operands {
    level: Level,
    cut: Cut,
    gate: Place,
    up: Place,
    outs: Vec<Place>,
    shape: TensorDesc,
}

impl Operands {
    fn new(l: Lowering, least: usize) -> Operands {
        let cut = Cut { threads: l.threads, least };
        Operands {
            level: l.level,
            cut,
            gate: l.ins[0].clone(),
            up: l.ins[1].clone(),
            outs: l.outs,
            shape: l.descs[0].clone(),
        }
    }
}

pub(super) struct Swiglu(Operands);

impl Swiglu {
    pub fn new(l: Lowering) -> Swiglu {
        Swiglu(Operands::new(l, 2048))
    }
}

impl Kernel for Swiglu {
    fn chunks(&self, m: &Memory) -> usize {
        self.0.cut.chunks(self.0.shape.elements(&m.at))
    }

    unsafe fn run(&self, m: &Memory, chunk: usize) {
        let o = &self.0;
        let n = o.shape.elements(&m.at);
        let part = o.cut.range(n, chunk);
        // SAFETY: both operands have n elements; the output's range is this chunk's.
        let (g, u, out) =
            unsafe { (m.read(&o.gate, n), m.read(&o.up, n), m.write(&o.outs[0], part.start, part.len())) };
        kernels::swiglu::swiglu(o.level, &g[part.clone()], &u[part], out);
    }

    fn route(&self, _: &Bindings) -> String {
        format!("swiglu.{}", self.0.level.name())
    }
}

pub(super) struct SwigluQuantize(Operands);

impl SwigluQuantize {
    pub fn new(l: Lowering) -> SwigluQuantize {
        SwigluQuantize(Operands::new(l, 32))
    }

    /// Rows are whole blocks, so blocks can be counted across them.
    fn blocks(&self, m: &Memory) -> usize {
        self.0.shape.elements(&m.at) / ACT_BLOCK
    }
}

impl Kernel for SwigluQuantize {
    fn chunks(&self, m: &Memory) -> usize {
        self.0.cut.chunks(self.blocks(m))
    }

    unsafe fn run(&self, m: &Memory, chunk: usize) {
        let (o, n) = (&self.0, self.0.shape.elements(&m.at));
        let part = o.cut.range(self.blocks(m), chunk);
        // SAFETY: both operands have n elements.
        let (gate, up) = unsafe { (m.read::<f32>(&o.gate, n), m.read::<f32>(&o.up, n)) };
        let mut act = [0.0; 8 * ACT_BLOCK];
        for first in part.clone().step_by(8) {
            let blocks = 8.min(part.end - first);
            let at = first * ACT_BLOCK..(first + blocks) * ACT_BLOCK;
            let act = &mut act[..at.len()];
            kernels::swiglu::swiglu(o.level, &gate[at.clone()], &up[at.clone()], act);
            // SAFETY: the blocks are this chunk's.
            let (codes, scales) =
                unsafe { (m.write(&o.outs[0], at.start, at.len()), m.write(&o.outs[1], first, blocks)) };
            kernels::quantize::quantize(o.level, act, codes, scales);
        }
    }

    fn route(&self, _: &Bindings) -> String {
        format!("swiglu_quantize.{}", self.0.level.name())
    }
}
