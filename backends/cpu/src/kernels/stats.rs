//! Statistics of a tapped row's segments, compiled for each instruction set.

use crate::simd::{Kernel, Level, Simd};
use greta_ops::Stats;

/// [`Stats::of_segment`] of segment `index` on this instruction set.
pub fn stats(level: Level, values: &[f32], index: usize) -> Stats {
    level.run(Reals(values, index))
}

/// The same of codes.
pub fn stats_of_codes(level: Level, codes: &[i8], index: usize) -> Stats {
    level.run(Codes(codes, index))
}

struct Reals<'a>(&'a [f32], usize);

impl Kernel for Reals<'_> {
    type Out = Stats;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Stats {
        Stats::of_segment(self.0, self.1)
    }
}

struct Codes<'a>(&'a [i8], usize);

impl Kernel for Codes<'_> {
    type Out = Stats;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Stats {
        let mut wide = [0f32; Stats::SEGMENT];
        let wide = &mut wide[..self.0.len()];
        wide.iter_mut().zip(self.0).for_each(|(w, &c)| *w = f32::from(c));
        Stats::of_segment(wide, self.1)
    }
}
