//! Rotary position embedding (Su et al., RoFormer, arXiv 2104.09864).
//!
//! A pair (a, b) turned by an angle: `a' = fma(−b, sin, a · cos)`, `b' = fma(a, sin, b · cos)`.

use crate::simd::{Kernel, Level, Simd};

/// Turns the first `2 · cos.len()` values of every head of one token's row, in place; the rest stay.
///
/// Pair `i` is values `2i` and `2i + 1` of a head if `adjacent`, else `i` and `i + cos.len()`. `cos` and `sin` are those
/// of the token's position.
///
/// # Panics
/// If the row is not whole heads, or the turned width exceeds a head.
pub fn rope(level: Level, row: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32], adjacent: bool) {
    assert!(head_dim > 0 && row.len().is_multiple_of(head_dim), "whole heads");
    assert!(cos.len() == sin.len() && 2 * cos.len() <= head_dim, "turned width");
    level.run(Rope { row, head_dim, cos, sin, adjacent });
}

struct Rope<'a> {
    row: &'a mut [f32],
    head_dim: usize,
    cos: &'a [f32],
    sin: &'a [f32],
    adjacent: bool,
}

impl Kernel for Rope<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (cos, sin) = (self.cos, &self.sin[..self.cos.len()]);
        for head in self.row.chunks_exact_mut(self.head_dim) {
            if self.adjacent {
                for ((pair, &c), &s) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                    *pair = turn(pair[0], pair[1], c, s);
                }
            } else {
                let (first, second) = head.split_at_mut(cos.len());
                for (((a, b), &c), &s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    [*a, *b] = turn(*a, *b, c, s);
                }
            }
        }
    }
}

#[inline(always)]
fn turn(a: f32, b: f32, cos: f32, sin: f32) -> [f32; 2] {
    [(-b).mul_add(sin, a * cos), a.mul_add(sin, b * cos)]
}
