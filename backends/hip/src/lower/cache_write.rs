//! `cache_write`: a thread a value.

use super::{Launch, Node, Step, THREADS};
use crate::kernels::Source;
use greta_ops::DType;

pub(super) fn lower(n: &Node<'_>, step: &Step) -> Launch {
    let tokens = n.in_descs[1].rows().at(&step.bindings());
    let kernel = if n.in_descs[0].dtype == DType::F16 { "cache_write_f16" } else { "cache_write_f32" };
    Launch::new(Source::of("cache_write.hip"), kernel)
        .grid((tokens * n.width()).div_ceil(THREADS as usize), 1, 1)
        .buffers([n.ins[0], n.ins[1], n.ins[2]])
        .sizes([tokens, n.width(), step.slots])
}
