//! Sum of two tensors.

use crate::simd::{Kernel, Level, Simd};

/// `out = a + b`, value by value, each rounded once.
///
/// # Panics
/// If the lengths differ.
pub fn add(level: Level, a: &[f32], b: &[f32], out: &mut [f32]) {
    assert!(a.len() == out.len() && b.len() == out.len(), "operands of one length");
    level.run(Add { a, b, out });
}

struct Add<'a> {
    a: &'a [f32],
    b: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Add<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for ((out, a), b) in self.out.iter_mut().zip(self.a).zip(self.b) {
            *out = a + b;
        }
    }
}
