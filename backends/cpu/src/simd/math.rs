//! Functions that no instruction gives, shared by every kernel.

use super::Simd;

/// e^x, within 1.1 ulp of the true value wherever that is normal, and correctly denormal, 0 or infinite beyond.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2; e^r is a polynomial of degree 6 (coefficients of Cephes' `expf`); 2^n is
/// multiplied on in two halves, so that the result may be denormal. NaN stays NaN.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // Rounds to an integer when added, and leaves it in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    // Beyond these the result is 0 or infinite. The second operand survives a NaN, so a NaN stays.
    let x = s.min(s.splat(89.0), s.max(s.splat(-106.0), x));
    let t = s.fma(x, s.splat(std::f32::consts::LOG2_E), s.splat(MAGIC));
    let n = s.sub(t, s.splat(MAGIC));
    let i = s.isub(s.bits(t), s.isplat(MAGIC.to_bits() as i32));
    let r = s.fnma(n, s.splat(0.693_359_4), x);
    let r = s.fnma(n, s.splat(-2.121_944_4e-4), r);
    let mut p = s.splat(1.987_569_1e-4);
    p = s.fma(p, r, s.splat(1.398_2e-3));
    p = s.fma(p, r, s.splat(8.333_452e-3));
    p = s.fma(p, r, s.splat(4.166_579_6e-2));
    p = s.fma(p, r, s.splat(1.666_666_5e-1));
    p = s.fma(p, r, s.splat(0.5));
    p = s.add(s.fma(p, s.mul(r, r), r), s.splat(1.0));
    let half = s.isra::<1>(i);
    let p = s.mul(p, power_of_two(s, half));
    s.mul(p, power_of_two(s, s.isub(i, half)))
}

/// 2^i for a normal result.
#[inline(always)]
fn power_of_two<S: Simd>(s: S, i: S::I) -> S::F {
    s.float_of_bits(s.ishl::<23>(s.iadd(i, s.isplat(127))))
}
