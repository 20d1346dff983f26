//! `rmsnorm`, alone and with the quantisation after it: a workgroup a row, or several where rows are few.

use super::{Launch, Node, Step};
use crate::kernels::Source;
use greta_ops::{Fused, Op, RmsNorm};

/// Eight partial sums.
const LDS: u32 = 32;

pub(super) fn lower(op: &RmsNorm, n: &Node<'_>, step: &Step) -> Launch {
    launch("rmsnorm", op.eps, n, step)
}

pub(super) fn quantized(f: &Fused, n: &Node<'_>, step: &Step) -> Launch {
    let eps = match f.steps.first().map(|s| &s.op) {
        Some(Op::RmsNorm(norm)) => norm.eps,
        _ => 0.0,
    };
    launch("rmsnorm_quantize", eps, n, step)
}

/// Values of a row a workgroup makes where there are fewer than `FEW` rows: each of its 256 threads four.
const SLICE: usize = 1024;
/// From this many rows on a workgroup makes a whole one: they fill the device.
const FEW: usize = 64;

fn launch(kernel: &'static str, eps: f32, n: &Node<'_>, step: &Step) -> Launch {
    let slice = if n.rows(step) < FEW { SLICE } else { n.width().next_multiple_of(256) };
    Launch::new(Source::of("rmsnorm.hip"), kernel)
        .grid(n.rows(step), n.width().div_ceil(slice), 1)
        .lds(LDS)
        .buffers(n.outs.iter().copied())
        .buffers(n.ins.iter().copied())
        .sizes([n.width(), slice])
        .float(eps)
}
