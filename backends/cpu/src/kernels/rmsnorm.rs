//! Root-mean-square normalisation (Zhang and Sennrich, arXiv 1910.07467).
//!
//! Sixteen sums of squares, of the values with i ≡ 0 … 15 (mod 16), each `sum = fma(x, x, sum)` in ascending order from
//! 0, folded by halves (lane i + lane i+8, +4, +2, +1). Then `inv = 1 / sqrt(ss / n + eps)` and
//! `out = (x · inv) · weight`, every operation rounded to f32.

use crate::simd::{Kernel, LANES, Level, Simd};

/// Normalises one row.
///
/// # Panics
/// If the lengths differ.
pub fn rmsnorm(level: Level, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && x.len() == out.len(), "row, weight and output of one length");
    level.run(RmsNorm { x, weight, eps, out });
}

struct RmsNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let n = self.x.len();
        let mut sums = s.splat(0.0);
        let mut i = 0;
        while i < n {
            let lanes = LANES.min(n - i);
            // SAFETY: `lanes` values remain. A lane past the end adds 0 · 0, which changes no sum.
            let v = unsafe { s.load_n(self.x.as_ptr().add(i), lanes) };
            sums = s.fma(v, v, sums);
            i += LANES;
        }
        let inv = 1.0 / (s.sum(sums) / n as f32 + self.eps).sqrt();
        for ((out, x), w) in self.out.iter_mut().zip(self.x).zip(self.weight) {
            *out = (x * inv) * w;
        }
    }
}
