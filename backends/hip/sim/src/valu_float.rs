//! f32 and f64 arithmetic. Denormals are kept and rounding is to nearest, ties to even.
//!
//! Reciprocals, square roots and transcendental functions come out as the host's f64 or f32 library gives them, which is
//! more exact than the hardware's 1 ulp; they don't have its bits.

use crate::inst::Row;
use crate::lanes::{F2, M, op};

/// `maxNum`: a NaN loses, +0 wins over -0.
#[inline(always)]
pub(crate) fn max(a: f32, b: f32) -> f32 {
    let r = if a > b { a } else { b };
    let r = if a == b { f32::from_bits(a.to_bits() & b.to_bits()) } else { r };
    let r = if a.is_nan() { b } else { r };
    if b.is_nan() { a } else { r }
}

#[inline(always)]
pub(crate) fn min(a: f32, b: f32) -> f32 {
    let r = if a < b { a } else { b };
    let r = if a == b { f32::from_bits(a.to_bits() | b.to_bits()) } else { r };
    let r = if a.is_nan() { b } else { r };
    if b.is_nan() { a } else { r }
}

#[inline(always)]
fn med3(a: f32, b: f32, c: f32) -> f32 {
    let r = max(min(a, b), min(max(a, b), c));
    if a.is_nan() || b.is_nan() || c.is_nan() { min(min(a, b), c) } else { r }
}

#[inline(always)]
fn max64(a: f64, b: f64) -> f64 {
    if a == b { f64::from_bits(a.to_bits() & b.to_bits()) } else { a.max(b) }
}

#[inline(always)]
fn min64(a: f64, b: f64) -> f64 {
    if a == b { f64::from_bits(a.to_bits() | b.to_bits()) } else { a.min(b) }
}

/// `x · 2^e` with one rounding.
#[inline(always)]
pub(crate) fn ldexp(x: f32, e: i32) -> f32 {
    let e = i64::from(e.clamp(-600, 600));
    (f64::from(x) * f64::from_bits(((1023 + e) as u64) << 52)) as f32
}

/// Mantissa in [1, 2) and exponent of a finite value that isn't zero.
pub(crate) fn split64(x: f64) -> (f64, i32) {
    let up = if x.abs() < f64::MIN_POSITIVE { 64 } else { 0 };
    let bits = (x * f64::from_bits((1023 + up) << 52)).to_bits();
    let e = (bits >> 52 & 0x7ff) as i32 - 1023 - up as i32;
    (f64::from_bits(bits & !(0x7ff << 52) | 1023 << 52), e)
}

pub(crate) fn ldexp64(x: f64, e: i32) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let power = |e: i32| f64::from_bits(((1023 + e) as u64) << 52);
    let (m, own) = split64(x);
    match own.saturating_add(e) {
        e if e > 1023 => f64::INFINITY.copysign(x),
        e if e >= -1022 => m * power(e),
        // The first product is exact, so that only the second rounds.
        e => m * power(-1000) * power((e + 1000).max(-1000)),
    }
}

fn frexp_exp(x: f64) -> i32 {
    if x == 0.0 || !x.is_finite() { 0 } else { split64(x).1 + 1 }
}

fn frexp_mant(x: f64) -> f64 {
    if x == 0.0 || !x.is_finite() { x } else { split64(x).0 * 0.5 }
}

pub(crate) const ROWS: &[Row] = &[
    op!(float "v_add_f32", |a: f32, b: f32| -> f32 { a + b }),
    op!(float "v_sub_f32", |a: f32, b: f32| -> f32 { a - b }),
    op!(float "v_subrev_f32", |a: f32, b: f32| -> f32 { b - a }),
    op!(float "v_mul_f32", |a: f32, b: f32| -> f32 { a * b }),
    op!(float "v_mul_legacy_f32", |a: f32, b: f32| -> f32 { if a == 0.0 || b == 0.0 { 0.0 } else { a * b } }),
    op!(float "v_fma_f32", |a: f32, b: f32, c: f32| -> f32 { a.mul_add(b, c) }),
    op!(acc "v_fmac_f32", |a: f32, b: f32, c: f32| -> f32 { a.mul_add(b, c) }),
    op!(float "v_fmamk_f32", |a: f32, k: f32, b: f32| -> f32 { a.mul_add(k, b) }),
    op!(float "v_fmaak_f32", |a: f32, b: f32, k: f32| -> f32 { a.mul_add(b, k) }),
    op!(float "v_max_f32", |a: f32, b: f32| -> f32 { max(a, b) }),
    op!(float "v_min_f32", |a: f32, b: f32| -> f32 { min(a, b) }),
    op!(float "v_max3_f32", |a: f32, b: f32, c: f32| -> f32 { max(max(a, b), c) }),
    op!(float "v_min3_f32", |a: f32, b: f32, c: f32| -> f32 { min(min(a, b), c) }),
    op!(float "v_med3_f32", |a: f32, b: f32, c: f32| -> f32 { med3(a, b, c) }),
    op!(float "v_rcp_f32", |a: f32| -> f32 { 1.0 / a }),
    op!(float "v_rcp_iflag_f32", |a: f32| -> f32 { 1.0 / a }),
    op!(float "v_rsq_f32", |a: f32| -> f32 { (1.0 / f64::from(a).sqrt()) as f32 }),
    op!(float "v_sqrt_f32", |a: f32| -> f32 { a.sqrt() }),
    op!(float "v_exp_f32", |a: f32| -> f32 { a.exp2() }),
    op!(float "v_log_f32", |a: f32| -> f32 { a.log2() }),
    op!(float "v_exp_legacy_f32", |a: f32| -> f32 { a.exp2() }),
    op!(float "v_log_legacy_f32", |a: f32| -> f32 { a.log2() }),
    op!(float "v_sin_f32", |a: f32| -> f32 { (f64::from(a) * std::f64::consts::TAU).sin() as f32 }),
    op!(float "v_cos_f32", |a: f32| -> f32 { (f64::from(a) * std::f64::consts::TAU).cos() as f32 }),
    op!(float "v_floor_f32", |a: f32| -> f32 { a.floor() }),
    op!(float "v_ceil_f32", |a: f32| -> f32 { a.ceil() }),
    op!(float "v_trunc_f32", |a: f32| -> f32 { a.trunc() }),
    op!(float "v_rndne_f32", |a: f32| -> f32 { a.round_ties_even() }),
    op!(float "v_fract_f32", |a: f32| -> f32 { min(a - a.floor(), f32::from_bits(0x3f7f_ffff)) }),
    op!(float "v_ldexp_f32", |a: f32, b: i32| -> f32 { ldexp(a, b) }),
    op!(float "v_frexp_exp_i32_f32", |a: f32| -> i32 { frexp_exp(a.into()) }),
    op!(float "v_frexp_mant_f32", |a: f32| -> f32 { frexp_mant(a.into()) as f32 }),
    op!(float "v_pk_add_f32", |a: F2, b: F2| -> F2 { F2(a.0 + b.0, a.1 + b.1) }),
    op!(float "v_pk_mul_f32", |a: F2, b: F2| -> F2 { F2(a.0 * b.0, a.1 * b.1) }),
    op!(float "v_pk_fma_f32", |a: F2, b: F2, c: F2| -> F2 { F2(a.0.mul_add(b.0, c.0), a.1.mul_add(b.1, c.1)) }),
    // Either word is picked by op_sel, of its own operand.
    op!(int "v_pk_mov_b32", |a: F2, b: F2| -> F2 { F2(a.0, b.0) }),
    op!(float "v_fma_mix_f32", |a: M, b: M, c: M| -> f32 { a.0.mul_add(b.0, c.0) }),
    op!(float "v_mad_mix_f32", |a: M, b: M, c: M| -> f32 { a.0 * b.0 + c.0 }),
    op!(float "v_add_f64", |a: f64, b: f64| -> f64 { a + b }),
    op!(float "v_mul_f64", |a: f64, b: f64| -> f64 { a * b }),
    op!(float "v_fma_f64", |a: f64, b: f64, c: f64| -> f64 { a.mul_add(b, c) }),
    op!(acc "v_fmac_f64", |a: f64, b: f64, c: f64| -> f64 { a.mul_add(b, c) }),
    op!(float "v_max_f64", |a: f64, b: f64| -> f64 { max64(a, b) }),
    op!(float "v_min_f64", |a: f64, b: f64| -> f64 { min64(a, b) }),
    op!(float "v_rcp_f64", |a: f64| -> f64 { 1.0 / a }),
    op!(float "v_rsq_f64", |a: f64| -> f64 { 1.0 / a.sqrt() }),
    op!(float "v_sqrt_f64", |a: f64| -> f64 { a.sqrt() }),
    op!(float "v_floor_f64", |a: f64| -> f64 { a.floor() }),
    op!(float "v_ceil_f64", |a: f64| -> f64 { a.ceil() }),
    op!(float "v_trunc_f64", |a: f64| -> f64 { a.trunc() }),
    op!(float "v_rndne_f64", |a: f64| -> f64 { a.round_ties_even() }),
    op!(float "v_fract_f64", |a: f64| -> f64 { (a - a.floor()).min(f64::from_bits(0x3fef_ffff_ffff_ffff)) }),
    op!(float "v_ldexp_f64", |a: f64, b: i32| -> f64 { ldexp64(a, b) }),
    op!(float "v_frexp_exp_i32_f64", |a: f64| -> i32 { frexp_exp(a) }),
    op!(float "v_frexp_mant_f64", |a: f64| -> f64 { frexp_mant(a) }),
];
