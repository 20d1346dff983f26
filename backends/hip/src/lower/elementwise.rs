//! What value-by-value kernels have in common.

use super::{Launch, Node, Step, THREADS};
use greta_ops::ACT_BLOCK;

/// A kernel with a thread for each value: outputs, operands, then the number of values.
pub(super) fn each_value(l: Launch, n: &Node<'_>, step: &Step) -> Launch {
    let count = n.rows(step) * n.width();
    l.grid(count.div_ceil(THREADS as usize), 1, 1)
        .buffers(n.outs.iter().copied())
        .buffers(n.ins.iter().copied())
        .sizes([count])
}

/// A kernel with 32 lanes for each block of activations: outputs, operands, then the number of blocks.
pub(super) fn each_block(l: Launch, n: &Node<'_>, step: &Step) -> Launch {
    let blocks = n.rows(step) * n.width() / ACT_BLOCK;
    l.grid(blocks.div_ceil(THREADS as usize / ACT_BLOCK), 1, 1)
        .buffers(n.outs.iter().copied())
        .buffers(n.ins.iter().copied())
        .sizes([blocks])
}
