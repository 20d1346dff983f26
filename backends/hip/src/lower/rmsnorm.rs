//! `rmsnorm`, alone and with the quantisation after it: a workgroup a row.

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

fn launch(kernel: &'static str, eps: f32, n: &Node<'_>, step: &Step) -> Launch {
    Launch::new(Source::of("rmsnorm.hip"), kernel)
        .grid(n.rows(step), 1, 1)
        .lds(LDS)
        .buffers(n.outs.iter().copied())
        .buffers(n.ins.iter().copied())
        .sizes([n.width()])
        .float(eps)
}
