//! A tap: statistics and first values of some rows, computed where they lie.

use super::{Buffer, Launch};
use crate::kernels::Source;
use greta_ops::DType;

/// Bytes of a row's statistics.
pub const STATS_BYTES: u64 = 64;
/// What the kernel's chunk of values and its partial results take.
const LDS: u32 = 8 * (512 + 16) * 4 + 3 * 8 * 8 + 8 * 7 * 4;

/// The module that looks at values of this type.
pub fn stats_source(dtype: DType) -> Source {
    Source::of("stats.hip").with("TYPE", dtype.name())
}

/// `rows` of them, named by a list; statistics, kept values and the list lie in the step's side buffer. The value has
/// `bytes`.
pub fn stats(
    (value, bytes): (Buffer, usize),
    dtype: DType,
    cols: usize,
    keep: usize,
    rows: usize,
    side: [u64; 3],
) -> Launch {
    let [stats, kept, list] = side.map(Buffer::Side);
    Launch::new(stats_source(dtype), "stats")
        .grid(rows, 1, 1)
        .lds(LDS)
        .buffers([stats, kept, value, list])
        .sizes([cols, keep])
        .live([(value, bytes), (stats, rows * STATS_BYTES as usize), (kept, rows * keep * 4), (list, rows * 4)])
}
