//! `swiglu`, alone and with the quantisation after it.

use super::elementwise::{each_block, each_value};
use super::{Launch, Node, Step};
use crate::kernels::Source;

pub(super) fn lower(n: &Node<'_>, step: &Step) -> Launch {
    each_value(Launch::new(Source::of("swiglu.hip"), "swiglu"), n, step)
}

pub(super) fn quantized(n: &Node<'_>, step: &Step) -> Launch {
    each_block(Launch::new(Source::of("swiglu.hip"), "swiglu_quantize"), n, step)
}
