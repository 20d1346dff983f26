//! `rope`: a thread a pair; frequencies come from a table.

use super::{Buffer, Launch, Node, Step, THREADS};
use crate::kernels::Source;
use greta_ops::{Pairing, Rope};

pub(super) fn lower(op: &Rope, n: &Node<'_>, step: &Step) -> Launch {
    let (tokens, width) = (n.rows(step), n.width());
    let threads = tokens * (width / op.head_dim) * op.head_dim.div_ceil(2);
    Launch::new(Source::of("rope.hip"), "rope")
        .grid(threads.div_ceil(THREADS as usize), 1, 1)
        .buffers([n.outs[0], n.ins[0], n.ins[1], Buffer::Table(n.id)])
        .sizes([tokens, width, op.head_dim, op.dims, usize::from(op.pairing == Pairing::Adjacent)])
}

/// The table: for each pair its turns per position, as two f32 that add up to it.
pub fn turns(op: &Rope, factors: Option<&[f32]>) -> Vec<f32> {
    let pair = |i: usize| {
        let factor = factors.map_or(1.0, |f| f64::from(f[i]));
        let turns = op.frequency(i, factor) / std::f64::consts::TAU;
        let high = turns as f32;
        [high, (turns - f64::from(high)) as f32]
    };
    (0..op.dims / 2).flat_map(pair).collect()
}
