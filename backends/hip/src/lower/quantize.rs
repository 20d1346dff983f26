//! `quantize`.

use super::elementwise::each_block;
use super::{Launch, Node, Step};
use crate::kernels::Source;

pub(super) fn lower(n: &Node<'_>, step: &Step) -> Launch {
    each_block(Launch::new(Source::of("quantize.hip"), "quantize"), n, step)
}
