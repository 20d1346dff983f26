//! The gated activation of Llama's feed-forward (Shazeer, arXiv 2002.05202): `silu(gate) · up`.
//!
//! `silu(g) = g / (1 + e^−g)`, computed as `e = e^−|g|`, `num = g < 0 ? g · e : g`, `silu = num / (1 + e)`, so that
//! nothing overflows and a large negative gate gives the tiny value it should. Within 4 ulp where the result is normal.

use crate::simd::{Kernel, LANES, Level, Simd, math};

/// `out = silu(gate) · up`, value by value.
///
/// # Panics
/// If the lengths differ.
pub fn swiglu(level: Level, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == out.len() && up.len() == out.len(), "operands of one length");
    level.run(Swiglu { gate, up, out });
}

struct Swiglu<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Swiglu<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let n = self.out.len();
        let mut i = 0;
        while i < n {
            let lanes = LANES.min(n - i);
            // SAFETY: `lanes` values remain of each of the three, which are of one length.
            unsafe {
                let g = s.load_n(self.gate.as_ptr().add(i), lanes);
                let u = s.load_n(self.up.as_ptr().add(i), lanes);
                s.store_n(self.out.as_mut_ptr().add(i), lanes, s.mul(silu(s, g), u));
            }
            i += LANES;
        }
    }
}

#[inline(always)]
fn silu<S: Simd>(s: S, g: S::F) -> S::F {
    // Minus infinity would give −∞ · 0; from −200 on the result is −0 anyway.
    let g = s.max(s.splat(-200.0), g);
    let zero = s.splat(0.0);
    let size = s.select_lt(g, zero, g, s.sub(zero, g));
    let e = math::exp(s, size);
    let num = s.select_lt(g, zero, s.mul(g, e), g);
    s.div(num, s.add(s.splat(1.0), e))
}
