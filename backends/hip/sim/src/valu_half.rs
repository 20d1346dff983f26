//! f16 arithmetic, single and packed, and dot products of f16 pairs.
//!
//! Sums, products and quotients are taken in f32 and rounded: 24 bits are enough that the second rounding changes nothing.
//! A fused multiply-add rounds once, by way of round-to-odd.

use crate::convert::{f2h, h2f};
use crate::inst::Row;
use crate::lanes::{H, H2, M, op};
use crate::valu_float::{ldexp, max, min};

#[inline(always)]
fn fma(a: f32, b: f32, c: f32) -> u16 {
    // The product of two f16 is exact in f32.
    let p = a * b;
    let s = p + c;
    let t = s - p;
    let e = (p - (s - t)) + (c - t);
    let odd = if e != 0.0 && e.is_finite() && s.to_bits() & 1 == 0 {
        let away = (e > 0.0) == (s > 0.0);
        f32::from_bits(if away { s.to_bits() + 1 } else { s.to_bits() - 1 })
    } else {
        s
    };
    f2h(odd)
}

#[inline(always)]
fn h1(f: impl Fn(f32) -> f32, a: H) -> H {
    H(f2h(f(h2f(a.0))))
}

#[inline(always)]
fn h(f: impl Fn(f32, f32) -> f32, a: H, b: H) -> H {
    H(f2h(f(h2f(a.0), h2f(b.0))))
}

#[inline(always)]
fn pk(f: impl Fn(f32, f32) -> f32, a: H2, b: H2) -> H2 {
    H2(f2h(f(h2f(a.0), h2f(b.0))), f2h(f(h2f(a.1), h2f(b.1))))
}

/// The dot product of f16 pairs onto an f32, in f32 with a rounding after each step. What the hardware rounds isn't documented.
#[inline(always)]
fn dot2(a: H2, b: H2, c: f32) -> f32 {
    h2f(a.1).mul_add(h2f(b.1), h2f(a.0).mul_add(h2f(b.0), c))
}

fn exp_of(a: f32) -> i16 {
    if a == 0.0 || !a.is_finite() { 0 } else { crate::valu_float::split64(a.into()).1 as i16 + 1 }
}

fn div_fixup(q: f32, d: f32, n: f32) -> f32 {
    let sign = if d.is_sign_negative() != n.is_sign_negative() { -1.0f32 } else { 1.0 };
    if n.is_nan() || d.is_nan() || d == 0.0 && n == 0.0 || d.is_infinite() && n.is_infinite() {
        f32::NAN
    } else if d == 0.0 || n.is_infinite() {
        f32::INFINITY.copysign(sign)
    } else if d.is_infinite() || n == 0.0 {
        0f32.copysign(sign)
    } else {
        q.copysign(sign)
    }
}

pub(crate) const ROWS: &[Row] = &[
    op!(float "v_add_f16", |a: H, b: H| -> H { h(|x, y| x + y, a, b) }),
    op!(float "v_sub_f16", |a: H, b: H| -> H { h(|x, y| x - y, a, b) }),
    op!(float "v_subrev_f16", |a: H, b: H| -> H { h(|x, y| y - x, a, b) }),
    op!(float "v_mul_f16", |a: H, b: H| -> H { h(|x, y| x * y, a, b) }),
    op!(float "v_max_f16", |a: H, b: H| -> H { h(max, a, b) }),
    op!(float "v_min_f16", |a: H, b: H| -> H { h(min, a, b) }),
    op!(float "v_max3_f16", |a: H, b: H, c: H| -> H { h(max, h(max, a, b), c) }),
    op!(float "v_min3_f16", |a: H, b: H, c: H| -> H { h(min, h(min, a, b), c) }),
    op!(float "v_med3_f16", |a: H, b: H, c: H| -> H { h(max, h(min, a, b), h(min, h(max, a, b), c)) }),
    op!(float "v_fma_f16", |a: H, b: H, c: H| -> H { H(fma(h2f(a.0), h2f(b.0), h2f(c.0))) }),
    op!(float "v_mad_f16", |a: H, b: H, c: H| -> H { h(|x, y| x + y, h(|x, y| x * y, a, b), c) }),
    op!(acc "v_fmac_f16", |a: H, b: H, c: H| -> H { H(fma(h2f(a.0), h2f(b.0), h2f(c.0))) }),
    op!(acc "v_mac_f16", |a: H, b: H, c: H| -> H { h(|x, y| x + y, h(|x, y| x * y, a, b), c) }),
    op!(float "v_madmk_f16", |a: H, k: H, b: H| -> H { h(|x, y| x + y, h(|x, y| x * y, a, k), b) }),
    op!(float "v_madak_f16", |a: H, b: H, k: H| -> H { h(|x, y| x + y, h(|x, y| x * y, a, b), k) }),
    op!(float "v_rcp_f16", |a: H| -> H { h1(|x| 1.0 / x, a) }),
    op!(float "v_rsq_f16", |a: H| -> H { h1(|x| 1.0 / x.sqrt(), a) }),
    op!(float "v_sqrt_f16", |a: H| -> H { h1(f32::sqrt, a) }),
    op!(float "v_exp_f16", |a: H| -> H { h1(f32::exp2, a) }),
    op!(float "v_log_f16", |a: H| -> H { h1(f32::log2, a) }),
    op!(float "v_sin_f16", |a: H| -> H { h1(|x| (x * std::f32::consts::TAU).sin(), a) }),
    op!(float "v_cos_f16", |a: H| -> H { h1(|x| (x * std::f32::consts::TAU).cos(), a) }),
    op!(float "v_floor_f16", |a: H| -> H { h1(f32::floor, a) }),
    op!(float "v_ceil_f16", |a: H| -> H { h1(f32::ceil, a) }),
    op!(float "v_trunc_f16", |a: H| -> H { h1(f32::trunc, a) }),
    op!(float "v_rndne_f16", |a: H| -> H { h1(f32::round_ties_even, a) }),
    op!(float "v_fract_f16", |a: H| -> H { h1(|x| min(x - x.floor(), 0.999_511_7), a) }),
    op!(float "v_ldexp_f16", |a: H, b: i16| -> H { h1(|x| ldexp(x, b.into()), a) }),
    op!(float "v_frexp_exp_i16_f16", |a: H| -> i16 { exp_of(h2f(a.0)) }),
    op!(float "v_frexp_mant_f16", |a: H| -> H { h1(|x| ldexp(x, -i32::from(exp_of(x))), a) }),
    op!(float "v_div_fixup_f16", |q: H, d: H, n: H| -> H { H(f2h(div_fixup(h2f(q.0), h2f(d.0), h2f(n.0)))) }),
    op!(float "v_fma_mixlo_f16", |a: M, b: M, c: M| -> H { H(f2h(a.0.mul_add(b.0, c.0))) }),
    op!(float "v_fma_mixhi_f16", |a: M, b: M, c: M| -> H { H(f2h(a.0.mul_add(b.0, c.0))) }),
    op!(float "v_pk_add_f16", |a: H2, b: H2| -> H2 { pk(|x, y| x + y, a, b) }),
    op!(float "v_pk_mul_f16", |a: H2, b: H2| -> H2 { pk(|x, y| x * y, a, b) }),
    op!(float "v_pk_max_f16", |a: H2, b: H2| -> H2 { pk(max, a, b) }),
    op!(float "v_pk_min_f16", |a: H2, b: H2| -> H2 { pk(min, a, b) }),
    op!(float "v_pk_fma_f16", |a: H2, b: H2, c: H2| -> H2 {
        H2(fma(h2f(a.0), h2f(b.0), h2f(c.0)), fma(h2f(a.1), h2f(b.1), h2f(c.1)))
    }),
    op!(acc "v_pk_fmac_f16", |a: H2, b: H2, c: H2| -> H2 {
        H2(fma(h2f(a.0), h2f(b.0), h2f(c.0)), fma(h2f(a.1), h2f(b.1), h2f(c.1)))
    }),
    op!(dot "v_dot2_f32_f16", |a: H2, b: H2, c: f32| -> f32 { dot2(a, b, c) }),
    op!(dotacc "v_dot2c_f32_f16", |a: H2, b: H2, c: f32| -> f32 { dot2(a, b, c) }),
];
