//! How much of each buffer a launch may touch: what holds a value in this step. Buffers are as large as the largest value
//! they ever hold, so a kernel that goes past the end of a smaller one would go unnoticed.

use super::{Arg, Buffer, Launch, Node, Step};
use greta_ops::Op;

/// Fences an op's launches to the values of this step.
pub(super) fn fence(launches: &mut [Launch], op: &Op, n: &Node<'_>, step: &Step) {
    let at = step.bindings();
    // What one of an op's kernels leaves for the next.
    let scratch = launches.iter().map(|l| l.scratch).max().unwrap_or(0);
    let values = n.ins.iter().copied().zip(n.in_descs.iter().copied()).chain(n.outs.iter().copied().zip(n.out_descs));
    let values: Vec<(Buffer, u64)> = values.map(|(b, d)| (b, d.bytes(&at) as u64)).collect();
    for l in launches {
        for arg in &l.args {
            let Arg::Buffer(b) = *arg else { continue };
            let bytes = match (b, op) {
                (Buffer::Scratch, _) => Some(scratch),
                (Buffer::Table(_), Op::Rope(op)) => Some(op.dims as u64 / 2 * 8),
                // An operand's buffer may be an output's as well.
                _ => values.iter().filter(|(other, _)| *other == b).map(|(_, bytes)| *bytes).max(),
            };
            l.live.extend(bytes.map(|bytes| (b, bytes)));
        }
    }
}
