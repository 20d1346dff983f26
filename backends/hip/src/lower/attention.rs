//! `attention`: few rows are split over the context, many are taken in tiles; both give the same bits.

use super::{Arg, Buffer, Launch, Node, Step};
use crate::kernels::Source;
use greta_ops::Attention;

/// Keys that are taken together; they are cut at multiples of this.
pub const SEGMENT: usize = 128;
/// Query rows of a workgroup.
const ROWS: usize = 16;
/// Tokens up to which a step is split over the context.
const SPLIT_TOKENS: usize = 16;

pub(super) fn lower(op: &Attention, n: &Node<'_>, step: &Step) -> Vec<Launch> {
    let split = match n.forced {
        Some(route) => route == "attention-split",
        None => n.rows(step) <= SPLIT_TOKENS,
    };
    if split { parts(op, n, step) } else { vec![tile(op, n, step)] }
}

fn source(op: &Attention, n: &Node<'_>) -> Source {
    Source::of("attention.hip").with("HEAD_DIM", op.head_dim).with("KV", n.in_descs[1].dtype.name())
}

/// What the kernel's `Shared` holds: weights in rows that begin four banks apart, nine numbers a row.
const LDS: u32 = (ROWS * (SEGMENT + 4) * 4 + ROWS * 9 * 4) as u32;

/// Four numbers of each of 256 segments, and room to find one of them.
const MERGE_LDS: u32 = 256 * 4 * 5;

fn shape(l: Launch, op: &Attention, n: &Node<'_>, step: &Step) -> Launch {
    let pages = n.in_descs[5].cols().at(&step.bindings());
    l.sizes([op.heads, op.kv_heads, n.rows(step), pages]).float(op.scale)
}

fn tile(op: &Attention, n: &Node<'_>, step: &Step) -> Launch {
    let rows = n.rows(step) * (op.heads / op.kv_heads);
    let l = Launch::new(source(op, n), "attention_tile")
        .grid(rows.div_ceil(ROWS), op.kv_heads, 1)
        .lds(LDS)
        .buffers([n.outs[0]])
        .buffers(n.ins.iter().copied());
    shape(l, op, n, step)
}

fn parts(op: &Attention, n: &Node<'_>, step: &Step) -> Vec<Launch> {
    let segments = step.context.div_ceil(SEGMENT).max(1);
    let tiles = (op.heads / op.kv_heads).div_ceil(ROWS);
    let tokens = n.rows(step);
    let bytes = tokens * op.heads * segments * (op.head_dim + 2) * 4;
    let part = Launch::new(source(op, n), "attention_part")
        .grid(segments, op.kv_heads, tokens * tiles)
        .lds(LDS)
        .buffers([Buffer::Scratch])
        .buffers(n.ins.iter().copied())
        .scratch(bytes as u64);
    let mut part = shape(part, op, n, step);
    part.args.push(Arg::U32(segments as u32));
    let merge = Launch::new(source(op, n), "attention_merge")
        .grid(op.heads, tokens, 1)
        .lds(MERGE_LDS)
        .buffers([n.outs[0], Buffer::Scratch, n.ins[3]])
        .sizes([op.heads, segments]);
    vec![part, merge]
}
