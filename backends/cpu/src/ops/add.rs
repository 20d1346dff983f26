//! `add`, element by element.

use super::{Cut, Kernel, Lowering, Memory, Place};
use crate::kernels;
use crate::simd::Level;
use greta_ops::{Bindings, TensorDesc};

pub(super) struct Add {
    level: Level,
    cut: Cut,
    a: Place,
    b: Place,
    out: Place,
    shape: TensorDesc,
}

impl Add {
    pub fn new(l: Lowering) -> Add {
        let cut = Cut { threads: l.threads, least: 4096 };
        Add {
            level: l.level,
            cut,
            a: l.ins[0].clone(),
            b: l.ins[1].clone(),
            out: l.outs[0].clone(),
            shape: l.descs[0].clone(),
        }
    }
}

impl Kernel for Add {
    fn chunks(&self, m: &Memory) -> usize {
        self.cut.chunks(self.shape.elements(&m.at))
    }

    unsafe fn run(&self, m: &Memory, chunk: usize) {
        let n = self.shape.elements(&m.at);
        let part = self.cut.range(n, chunk);
        // SAFETY: both operands have n elements; the output's range is this chunk's.
        let (a, b, out) =
            unsafe { (m.read(&self.a, n), m.read(&self.b, n), m.write(&self.out, part.start, part.len())) };
        kernels::add::add(self.level, &a[part.clone()], &b[part], out);
    }

    fn route(&self, _: &Bindings) -> String {
        format!("add.{}", self.level.name())
    }
}
