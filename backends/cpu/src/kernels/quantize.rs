//! Activations to signed bytes, 32 values a scale.
//!
//! `scale = amax / 127`, `code = round-half-even(x · (127 / amax))`, both f32. A block of zeros has scale 0; a block with
//! NaN or infinity has scale NaN and codes 0, so that it spoils what reads it instead of passing for a number. Where
//! amax < 2⁻¹⁰⁰, x and amax are first multiplied by 2⁶⁴ for the codes, so that 127 / amax is finite.

use crate::simd::{Kernel, LANES, Level, Simd};

/// Values under one scale.
pub const BLOCK: usize = 32;

/// Quantises one row (or any number of whole blocks).
///
/// # Panics
/// If `x` is not whole blocks or a length does not fit.
pub fn quantize(level: Level, x: &[f32], codes: &mut [i8], scales: &mut [f32]) {
    assert!(x.len().is_multiple_of(BLOCK), "whole blocks");
    assert!(codes.len() == x.len() && scales.len() == x.len() / BLOCK, "a code a value, a scale a block");
    level.run(Quantize { x, codes, scales });
}

struct Quantize<'a> {
    x: &'a [f32],
    codes: &'a mut [i8],
    scales: &'a mut [f32],
}

impl Kernel for Quantize<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let codes = self.codes.as_chunks_mut::<BLOCK>().0;
        for ((x, codes), scale) in self.x.as_chunks::<BLOCK>().0.iter().zip(codes).zip(self.scales) {
            // SAFETY: two vectors are a block.
            unsafe {
                let v = [s.load(x.as_ptr()), s.load(x.as_ptr().add(LANES))];
                *scale = block(s, v, codes.as_mut_ptr());
            }
        }
    }
}

/// Quantises a block; returns its scale.
///
/// # Safety
/// `codes` is writable for 32 bytes.
#[inline(always)]
unsafe fn block<S: Simd>(s: S, x: [S::F; 2], codes: *mut i8) -> f32 {
    // Sizes order as their bits do, with infinity and then NaN above all numbers.
    let size = s.isplat(0x7fff_ffff);
    let top = s.imax(s.iand(s.bits(x[0]), size), s.iand(s.bits(x[1]), size));
    let amax = f32::from_bits(s.imax_lane(top) as u32);
    let (scale, id, up) = if !amax.is_finite() {
        (f32::NAN, 0.0, 0.0)
    } else if amax == 0.0 {
        (0.0, 0.0, 0.0)
    } else {
        let up = if amax < f32::from_bits((127 - 100) << 23) { f32::from_bits((127 + 64) << 23) } else { 1.0 };
        (amax / 127.0, 127.0 / (amax * up), up)
    };
    // SAFETY: the caller's.
    unsafe {
        if id == 0.0 {
            s.store_i8(codes, s.isplat(0));
            s.store_i8(codes.add(LANES), s.isplat(0));
        } else {
            let (id, up) = (s.splat(id), s.splat(up));
            s.store_i8(codes, s.round(s.mul(s.mul(x[0], up), id)));
            s.store_i8(codes.add(LANES), s.round(s.mul(s.mul(x[1], up), id)));
        }
    }
    scale
}
