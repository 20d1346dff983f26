//! `add`.

use super::elementwise::each_value;
use super::{Launch, Node, Step};
use crate::kernels::Source;

pub(super) fn lower(n: &Node<'_>, step: &Step) -> Launch {
    each_value(Launch::new(Source::of("add.hip"), "add"), n, step)
}
