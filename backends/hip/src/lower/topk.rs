//! The largest logits of each row, so that the others need not leave the device.

use super::{Buffer, Launch};
use crate::kernels::Source;

/// Values of a workgroup of the first kernel.
const SLICE: usize = 2048;
/// Eight keys.
const LDS: u32 = 64;

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct TopK {
    /// Rows of logits.
    pub rows: usize,
    /// Logits of a row.
    pub vocab: usize,
    /// How many of each.
    pub want: usize,
}

/// The module that looks for the largest logits.
pub fn top_k_source() -> Source {
    Source::of("topk.hip")
}

/// The kernels: `want` pairs of id and logit a row go to the side buffer at `to`.
pub fn top_k(logits: Buffer, k: TopK, to: u64) -> [Launch; 2] {
    let slices = k.vocab.div_ceil(SLICE);
    let parts = k.rows * slices * k.want * 8;
    let live = [(Buffer::Scratch, parts), (logits, k.rows * k.vocab * 4)];
    [
        Launch::new(top_k_source(), "topk_parts")
            .grid(slices, k.rows, 1)
            .lds(LDS)
            .buffers([Buffer::Scratch, logits])
            .sizes([k.vocab, k.want])
            .live(live)
            .scratch(parts as u64),
        Launch::new(top_k_source(), "topk_merge")
            .grid(k.rows, 1, 1)
            .lds(LDS)
            .buffers([Buffer::Side(to), Buffer::Scratch, logits])
            .sizes([k.vocab, slices * k.want, k.want])
            .live(live)
            .live([(Buffer::Side(to), k.rows * k.want * 8)]),
    ]
}
