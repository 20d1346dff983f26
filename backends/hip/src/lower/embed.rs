//! `embed` and `dequant`: packed rows to f32.

use super::{Launch, Node, Step, constant};
use crate::kernels::Source;
use greta_ops::DType;

/// Rows of a workgroup of `dequant`.
const ROWS: usize = 8;

fn source(file: &'static str, weight: DType) -> Source {
    Source::of(file).with("WEIGHT", weight.name())
}

pub(super) fn lower(n: &Node<'_>, step: &Step) -> Launch {
    let table = n.in_descs[0];
    let rows = n.rows(step);
    Launch::new(source("embed.hip", table.dtype), "embed")
        .grid(rows, 1, 1)
        .buffers([n.outs[0], n.ins[0], n.ins[1]])
        .sizes([table.rows().at(&step.bindings()), n.width(), rows])
}

pub(super) fn dequant(n: &Node<'_>) -> Launch {
    let weight = n.in_descs[0];
    let rows = constant(weight.rows());
    Launch::new(source("dequant.hip", weight.dtype), "dequant")
        .grid(rows.div_ceil(ROWS), 1, 1)
        .buffers([n.outs[0], n.ins[0]])
        .sizes([rows, n.width()])
}
