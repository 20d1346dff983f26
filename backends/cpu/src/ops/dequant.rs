//! `dequant`, row by row. It runs only where a pass left it: fused matmuls read panels.

use super::{Cut, Kernel, Lowering, Memory, Place};
use crate::weights::Mapped;
use greta_ops::{Bindings, quant};

pub(super) struct Dequant {
    cut: Cut,
    weight: Mapped,
    rows: usize,
    width: usize,
    out: Place,
}

impl Dequant {
    pub fn new(l: Lowering) -> Dequant {
        let Place::Weight(id) = &l.ins[0] else { unreachable!("only a weight can be of a quantised type") };
        let d = &l.descs[0];
        Dequant {
            cut: Cut { threads: l.threads, least: 16 },
            weight: l.prepared.mapped[id].clone(),
            rows: d.rows().constant().unwrap_or(0),
            width: d.cols().constant().unwrap_or(0),
            out: l.outs[0].clone(),
        }
    }
}

impl Kernel for Dequant {
    fn chunks(&self, _: &Memory) -> usize {
        self.cut.chunks(self.rows)
    }

    unsafe fn run(&self, m: &Memory, chunk: usize) {
        let dtype = self.weight.dtype;
        let row = self.width / dtype.block_len() * dtype.block_bytes();
        let part = self.cut.range(self.rows, chunk);
        // SAFETY: the rows are this chunk's.
        let out: &mut [f32] = unsafe { m.write(&self.out, part.start * self.width, part.len() * self.width) };
        quant::dequantize_row(dtype, &self.weight.bytes()[part.start * row..part.end * row], out);
    }

    fn route(&self, _: &Bindings) -> String {
        "dequant".into()
    }
}
