//! The instructions IEEE division is made of: `v_div_scale`, `v_div_fmas`, `v_div_fixup`.
//!
//! `v_div_scale` moves operands by 2^±64 (f64: 2^±128) where a step of the sequence would leave the range of normal
//! numbers, and says so in VCC; `v_div_fmas` takes the scale back with a single rounding.

use crate::cpu::{Cpu, Lanes, Step, VCC};
use crate::inst::{Class, Inst, Role, Row, Ty, exec};
use crate::lanes::{Lane, finish, op, prepare, wide};
use crate::valu_float::{ldexp, ldexp64};

fn exponent(x: f32) -> i32 {
    (x.to_bits() >> 23 & 0xff) as i32
}

fn exponent64(x: f64) -> i32 {
    (x.to_bits() >> 52 & 0x7ff) as i32
}

/// What `v_div_scale` makes of `s`, which is the denominator `d` or the numerator `n`, and VCC.
fn scale(s: f32, d: f32, n: f32) -> (f32, bool) {
    let same = |x: f32| s.to_bits() == x.to_bits();
    let reciprocal = (1.0 / f64::from(d)).abs() < f64::from(f32::MIN_POSITIVE);
    let quotient = (f64::from(n) / f64::from(d)).abs() < f64::from(f32::MIN_POSITIVE);
    if d == 0.0 || n == 0.0 {
        (f32::NAN, false)
    } else if exponent(n) - exponent(d) >= 96 {
        (if same(d) { ldexp(s, 64) } else { s }, true)
    } else if d.is_subnormal() {
        (ldexp(s, 64), false)
    } else if reciprocal && quotient {
        (if same(d) { ldexp(s, -64) } else { s }, true)
    } else if reciprocal {
        (ldexp(s, -64), false)
    } else if quotient {
        (if same(n) { ldexp(s, 64) } else { s }, true)
    } else if exponent(n) <= 23 {
        (ldexp(s, 64), false)
    } else {
        (s, false)
    }
}

fn scale64(s: f64, d: f64, n: f64) -> (f64, bool) {
    let same = |x: f64| s.to_bits() == x.to_bits();
    let reciprocal = (1.0 / d).abs() < f64::MIN_POSITIVE;
    let quotient = (n / d).abs() < f64::MIN_POSITIVE;
    if d == 0.0 || n == 0.0 {
        (f64::NAN, false)
    } else if exponent64(n) - exponent64(d) >= 768 {
        (if same(d) { ldexp64(s, 128) } else { s }, true)
    } else if d.is_subnormal() {
        (ldexp64(s, 128), false)
    } else if reciprocal && quotient {
        (if same(d) { ldexp64(s, -128) } else { s }, true)
    } else if reciprocal {
        (ldexp64(s, -128), false)
    } else if quotient {
        (if same(n) { ldexp64(s, 128) } else { s }, true)
    } else if exponent64(n) <= 53 {
        (ldexp64(s, 128), false)
    } else {
        (s, false)
    }
}

/// `(a·b + c) · 2^±64`, rounded once.
fn fmas(a: f32, b: f32, c: f32) -> f32 {
    let (p, c64) = (f64::from(a) * f64::from(b), f64::from(c));
    let s = p + c64;
    let t = s - p;
    let e = (p - (s - t)) + (c64 - t);
    // Rounding to odd keeps what the second rounding needs to know.
    let s = if e != 0.0 && e.is_finite() && s.to_bits() & 1 == 0 {
        f64::from_bits(if (e > 0.0) == (s > 0.0) { s.to_bits() + 1 } else { s.to_bits() - 1 })
    } else {
        s
    };
    (s * if exponent(c) > 127 { 2f64.powi(64) } else { 2f64.powi(-64) }) as f32
}

/// `(a·b + c) · 2^±128`, rounded once.
fn fmas64(a: f64, b: f64, c: f64) -> f64 {
    let r = a.mul_add(b, c);
    if exponent64(c) > 1023 {
        return r * 2f64.powi(128);
    }
    let scaled = r * 2f64.powi(-128);
    if !scaled.is_subnormal() {
        return scaled;
    }
    // The error of the fused sum (Boldo and Muller): its sign decides how the shift rounds.
    let p = a * b;
    let pe = a.mul_add(b, -p);
    let two_sum = |x: f64, y: f64| {
        let s = x + y;
        let t = s - x;
        (s, (x - (s - t)) + (y - t))
    };
    let (u, z) = two_sum(c, pe);
    let (v, w) = two_sum(p, u);
    let err = ((v - r) + w) + z;
    let err = if r < 0.0 { -err } else { err };
    let sticky = if err > 0.0 {
        1
    } else if err < 0.0 {
        -1
    } else {
        0i64
    };
    let mantissa = (((r.to_bits() & ((1 << 52) - 1)) | 1 << 52) as i64) << 2;
    let shift = (2 + 1 - (exponent64(r) - 128)) as u32;
    if shift > 60 {
        return 0f64.copysign(r);
    }
    let m = mantissa + sticky;
    let (q, rest, half) = (m >> shift, m & ((1 << shift) - 1), 1i64 << (shift - 1));
    let q = q + i64::from(rest > half || rest == half && q & 1 != 0);
    f64::from_bits(q as u64).copysign(r)
}

fn fixup(q: f32, d: f32, n: f32) -> f32 {
    let sign = if d.is_sign_negative() != n.is_sign_negative() { -1.0f32 } else { 1.0 };
    if n.is_nan() {
        f32::from_bits(n.to_bits() | 1 << 22)
    } else if d.is_nan() {
        f32::from_bits(d.to_bits() | 1 << 22)
    } else if d == 0.0 && n == 0.0 || d.is_infinite() && n.is_infinite() {
        f32::from_bits(0xffc0_0000)
    } else if d == 0.0 || n.is_infinite() {
        f32::INFINITY.copysign(sign)
    } else if d.is_infinite() || n == 0.0 || exponent(n) - exponent(d) < -150 {
        0f32.copysign(sign)
    } else if q.is_nan() {
        // Both operands are finite, so the sequence ran out of range upwards.
        f32::INFINITY.copysign(sign)
    } else {
        q.copysign(sign)
    }
}

fn fixup64(q: f64, d: f64, n: f64) -> f64 {
    let sign = if d.is_sign_negative() != n.is_sign_negative() { -1.0f64 } else { 1.0 };
    if n.is_nan() {
        f64::from_bits(n.to_bits() | 1 << 51)
    } else if d.is_nan() {
        f64::from_bits(d.to_bits() | 1 << 51)
    } else if d == 0.0 && n == 0.0 || d.is_infinite() && n.is_infinite() {
        f64::from_bits(0xfff8 << 48)
    } else if d == 0.0 || n.is_infinite() {
        f64::INFINITY.copysign(sign)
    } else if d.is_infinite() || n == 0.0 || exponent64(n) - exponent64(d) < -1075 {
        0f64.copysign(sign)
    } else if q.is_nan() {
        // Both operands are finite, so the sequence ran out of range upwards.
        f64::INFINITY.copysign(sign)
    } else {
        q.copysign(sign)
    }
}

/// An operation of three sources with a mask going in (VCC) or out (the scalar destination).
#[inline(always)]
fn masked<T: Lane>(cx: &mut Cpu<'_>, i: &Inst, out: bool, f: impl Fn(T, T, T, bool) -> (T, bool)) -> Step {
    let known = prepare(cx, i, true)?;
    let vcc = cx.w.s64(VCC);
    if !out && !cx.w.sknown(VCC, 2) {
        return Err(crate::cross::unknown_scalar(VCC));
    }
    let (mut lo, mut hi, mut mask) = (Lanes::ZERO, Lanes::ZERO, 0u64);
    let lanes = |k: usize| {
        let [a, b] = i.slot[k];
        let a = &cx.w.regs[a as usize].0;
        (a, if crate::lanes::wide(T::TY) { &cx.w.regs[b as usize].0 } else { a })
    };
    let (a, b, c) = (lanes(0), lanes(1), lanes(2));
    for l in 0..64 {
        let get = |x: (&[u32; 64], &[u32; 64])| T::get(x.0[l], x.1[l]);
        let (x, bit) = f(get(a), get(b), get(c), vcc >> l & 1 != 0);
        (lo.0[l], hi.0[l]) = x.put();
        mask |= u64::from(bit) << l;
    }
    if out {
        cx.w.set_s64(i.sdst, mask & cx.w.exec(), true);
    }
    finish(cx, i, T::TY, &mut lo, wide(T::TY).then_some(&mut hi), known)
}

macro_rules! row {
    ($name:literal, $t:ty, $out:literal, $roles:expr, $f:expr) => {
        Row {
            name: $name,
            class: Class::Valu,
            reads_dst: false,
            roles: $roles,
            exec: exec!(|cx, i| masked::<$t>(cx, i, $out, $f)),
        }
    };
}

const SCALE32: &[Role] = &[Role::Dst(Ty::F32), Role::Sdst, Role::Src(Ty::F32), Role::Src(Ty::F32), Role::Src(Ty::F32)];
const SCALE64: &[Role] = &[Role::Dst(Ty::F64), Role::Sdst, Role::Src(Ty::F64), Role::Src(Ty::F64), Role::Src(Ty::F64)];
const FMAS32: &[Role] = &[Role::Dst(Ty::F32), Role::Src(Ty::F32), Role::Src(Ty::F32), Role::Src(Ty::F32)];
const FMAS64: &[Role] = &[Role::Dst(Ty::F64), Role::Src(Ty::F64), Role::Src(Ty::F64), Role::Src(Ty::F64)];

pub(crate) const ROWS: &[Row] = &[
    row!("v_div_scale_f32", f32, true, SCALE32, |s, d, n, _| scale(s, d, n)),
    row!("v_div_scale_f64", f64, true, SCALE64, |s, d, n, _| scale64(s, d, n)),
    row!("v_div_fmas_f32", f32, false, FMAS32, |a: f32, b, c, vcc| {
        (if vcc { fmas(a, b, c) } else { a.mul_add(b, c) }, false)
    }),
    row!("v_div_fmas_f64", f64, false, FMAS64, |a: f64, b, c, vcc| {
        (if vcc { fmas64(a, b, c) } else { a.mul_add(b, c) }, false)
    }),
    op!(float "v_div_fixup_f32", |q: f32, d: f32, n: f32| -> f32 { fixup(q, d, n) }),
    op!(float "v_div_fixup_f64", |q: f64, d: f64, n: f64| -> f64 { fixup64(q, d, n) }),
];
