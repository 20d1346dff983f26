//! Statistics of a tapped row, compiled for each instruction set.

use crate::simd::{Kernel, Level, Simd};
use greta_ops::Stats;

/// [`Stats::of`] on this instruction set.
pub fn stats(level: Level, row: &[f32]) -> Stats {
    level.run(Row(row))
}

struct Row<'a>(&'a [f32]);

impl Kernel for Row<'_> {
    type Out = Stats;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Stats {
        Stats::of(self.0)
    }
}
