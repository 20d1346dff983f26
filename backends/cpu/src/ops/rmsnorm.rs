//! `rmsnorm` and `rmsnorm → quantize`, row by row.

use super::{Cut, Kernel, Lowering, Memory, Place};
use crate::kernels;
use crate::simd::Level;
use greta_ops::{ACT_BLOCK, Bindings, Dim, Fused, Op};
use std::cell::Cell;

struct Operands {
    level: Level,
    cut: Cut,
    eps: f32,
    x: Place,
    weight: Place,
    outs: Vec<Place>,
    rows: Dim,
    width: usize,
}

impl Operands {
    fn new(eps: f32, l: Lowering) -> Operands {
        let (rows, width) = (l.descs[0].rows(), l.descs[0].cols().constant().unwrap_or(0));
        let cut = Cut { threads: l.threads, least: 1 };
        Operands { level: l.level, cut, eps, x: l.ins[0].clone(), weight: l.ins[1].clone(), outs: l.outs, rows, width }
    }

    fn chunks(&self, m: &Memory) -> usize {
        self.cut.chunks(self.rows.at(&m.at))
    }

    /// Calls `f(row, x, weight)` for the rows of a chunk.
    ///
    /// # Safety
    /// As [`Kernel::run`].
    unsafe fn each(&self, m: &Memory, chunk: usize, mut f: impl FnMut(usize, &[f32], &[f32])) {
        let (rows, n) = (self.rows.at(&m.at), self.width);
        // SAFETY: the operands have these sizes.
        let (x, weight) = unsafe { (m.read::<f32>(&self.x, rows * n), m.read::<f32>(&self.weight, n)) };
        for t in self.cut.range(rows, chunk) {
            f(t, &x[t * n..][..n], weight);
        }
    }
}

pub(super) struct RmsNorm(Operands);

impl RmsNorm {
    pub fn new(op: &greta_ops::RmsNorm, l: Lowering) -> RmsNorm {
        RmsNorm(Operands::new(op.eps, l))
    }
}

impl Kernel for RmsNorm {
    fn chunks(&self, m: &Memory) -> usize {
        self.0.chunks(m)
    }

    unsafe fn run(&self, m: &Memory, chunk: usize) {
        let o = &self.0;
        // SAFETY: the caller's promise; output row t is this chunk's.
        unsafe {
            o.each(m, chunk, |t, x, w| {
                kernels::rmsnorm::rmsnorm(o.level, x, w, o.eps, m.write(&o.outs[0], t * o.width, o.width))
            });
        }
    }

    fn route(&self, _: &Bindings) -> String {
        format!("rmsnorm.{}", self.0.level.name())
    }
}

pub(super) struct NormQuantize(Operands);

impl NormQuantize {
    pub fn new(f: &Fused, l: Lowering) -> NormQuantize {
        let eps = match f.steps.first().map(|s| &s.op) {
            Some(Op::RmsNorm(norm)) => norm.eps,
            _ => unreachable!("the pattern says that the first step is rmsnorm"),
        };
        NormQuantize(Operands::new(eps, l))
    }
}

thread_local! {
    /// A normalised row on its way to its codes.
    static ROW: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

impl Kernel for NormQuantize {
    fn chunks(&self, m: &Memory) -> usize {
        self.0.chunks(m)
    }

    unsafe fn run(&self, m: &Memory, chunk: usize) {
        let (o, blocks) = (&self.0, self.0.width / ACT_BLOCK);
        let mut row = ROW.take();
        row.resize(o.width, 0.0);
        // SAFETY: the caller's promise; output row t is this chunk's.
        unsafe {
            o.each(m, chunk, |t, x, w| {
                kernels::rmsnorm::rmsnorm(o.level, x, w, o.eps, &mut row);
                let (codes, scales) =
                    (m.write(&o.outs[0], t * o.width, o.width), m.write(&o.outs[1], t * blocks, blocks));
                kernels::quantize::quantize(o.level, &row, codes, scales);
            });
        }
        ROW.set(row);
    }

    fn route(&self, _: &Bindings) -> String {
        format!("norm_quantize.{}", self.0.level.name())
    }
}
