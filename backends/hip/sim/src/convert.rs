//! Conversions between number formats.

use crate::inst::Row;
use crate::lanes::{F2, H, op};

/// f16 to f32, without branches so that it vectorises.
#[inline(always)]
pub(crate) fn h2f(h: u16) -> f32 {
    let magnitude = u32::from(h & 0x7fff) << 13;
    let sign = u32::from(h & 0x8000) << 16;
    let exponent = magnitude & (0x1f << 23);
    let normal = magnitude + (112 << 23);
    let special = normal + (112 << 23);
    // A denormal is what its bits add to 2^-14.
    let denormal = (f32::from_bits(magnitude + (113 << 23)) - f32::from_bits(113 << 23)).to_bits();
    let x = if exponent == 0x1f << 23 { special } else { normal };
    let x = if exponent == 0 { denormal } else { x };
    f32::from_bits(x | sign)
}

/// f32 to f16, to nearest, ties to even; NaN keeps its upper payload and is quiet.
#[inline(always)]
pub(crate) fn f2h(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = bits >> 16 & 0x8000;
    let a = bits & 0x7fff_ffff;
    let magic = 126u32 << 23;
    let denormal = (f32::from_bits(a) + f32::from_bits(magic)).to_bits().wrapping_sub(magic);
    let odd = a >> 13 & 1;
    let normal = a.wrapping_sub(112 << 23).wrapping_add(0xfff + odd) >> 13;
    let nan = 0x7e00 | a >> 13 & 0x1ff;
    let r = if a < 113 << 23 { denormal } else { normal };
    let r = if a >= 143 << 23 { 0x7c00 } else { r };
    let r = if a > 0x7f80_0000 { nan } else { r };
    (r | sign) as u16
}

/// f32 to f16 towards zero.
fn f2h_rtz(x: f32) -> u16 {
    let h = f2h(x);
    let back = h2f(h);
    if x.is_nan() || back.abs() <= x.abs() { h } else { h - 1 }
}

/// E4M3FNUZ, the 8-bit format of gfx942 with 3 bits of mantissa.
pub(crate) fn fp8(b: u32) -> f32 {
    small_float(b, 3, 8)
}

/// E5M2FNUZ.
pub(crate) fn bf8(b: u32) -> f32 {
    small_float(b, 2, 16)
}

fn small_float(b: u32, mantissa: u32, bias: i32) -> f32 {
    let b = b & 0xff;
    if b == 0x80 {
        return f32::NAN;
    }
    let sign = if b & 0x80 != 0 { -1.0f32 } else { 1.0 };
    let e = ((b & 0x7f) >> mantissa) as i32;
    let m = (b & ((1 << mantissa) - 1)) as f32 / (1 << mantissa) as f32;
    sign * if e == 0 { m * 2f32.powi(1 - bias) } else { (1.0 + m) * 2f32.powi(e - bias) }
}

/// To the nearest value of an 8-bit format, ties to even mantissa, saturating.
fn to_small(x: f32, decode: fn(u32) -> f32) -> u32 {
    if x.is_nan() {
        return 0x80;
    }
    let mut best = 0;
    for b in 0..0x80u32 {
        let (d, old) = ((decode(b) - x.abs()).abs(), (decode(best) - x.abs()).abs());
        if d < old || d == old && b & 1 == 0 {
            best = b;
        }
    }
    if x < 0.0 && best != 0 { best | 0x80 } else { best }
}

#[inline(always)]
fn ubyte(a: u32, n: u32) -> f32 {
    (a >> (8 * n) & 0xff) as f32
}

fn norm(x: f32, scale: f32) -> i32 {
    if x.is_nan() { 0 } else { (x.clamp(-1.0, 1.0) * scale).round_ties_even() as i32 }
}

fn two(a: u16, b: u16) -> u32 {
    u32::from(a) | u32::from(b) << 16
}

pub(crate) const ROWS: &[Row] = &[
    op!(float "v_cvt_f32_f16", |a: H| -> f32 { h2f(a.0) }),
    op!(float "v_cvt_f16_f32", |a: f32| -> H { H(f2h(a)) }),
    op!(float "v_cvt_f32_i32", |a: i32| -> f32 { a as f32 }),
    op!(float "v_cvt_f32_u32", |a: u32| -> f32 { a as f32 }),
    op!(float "v_cvt_i32_f32", |a: f32| -> i32 { a as i32 }),
    op!(float "v_cvt_u32_f32", |a: f32| -> u32 { a as u32 }),
    op!(float "v_cvt_rpi_i32_f32", |a: f32| -> i32 { (a + 0.5).floor() as i32 }),
    op!(float "v_cvt_flr_i32_f32", |a: f32| -> i32 { a.floor() as i32 }),
    op!(float "v_cvt_f64_f32", |a: f32| -> f64 { a.into() }),
    op!(float "v_cvt_f32_f64", |a: f64| -> f32 { a as f32 }),
    op!(float "v_cvt_f64_i32", |a: i32| -> f64 { a.into() }),
    op!(float "v_cvt_f64_u32", |a: u32| -> f64 { a.into() }),
    op!(float "v_cvt_i32_f64", |a: f64| -> i32 { a as i32 }),
    op!(float "v_cvt_u32_f64", |a: f64| -> u32 { a as u32 }),
    op!(float "v_cvt_f16_u16", |a: u16| -> H { H(f2h(a.into())) }),
    op!(float "v_cvt_f16_i16", |a: i16| -> H { H(f2h(a.into())) }),
    op!(float "v_cvt_u16_f16", |a: H| -> u16 { h2f(a.0) as u16 }),
    op!(float "v_cvt_i16_f16", |a: H| -> i16 { h2f(a.0) as i16 }),
    op!(float "v_cvt_f32_ubyte0", |a: u32| -> f32 { ubyte(a, 0) }),
    op!(float "v_cvt_f32_ubyte1", |a: u32| -> f32 { ubyte(a, 1) }),
    op!(float "v_cvt_f32_ubyte2", |a: u32| -> f32 { ubyte(a, 2) }),
    op!(float "v_cvt_f32_ubyte3", |a: u32| -> f32 { ubyte(a, 3) }),
    op!(float "v_cvt_off_f32_i4", |a: u32| -> f32 { ((a << 28) as i32 >> 28) as f32 / 16.0 }),
    op!(float "v_cvt_pkrtz_f16_f32", |a: f32, b: f32| -> u32 { two(f2h_rtz(a), f2h_rtz(b)) }),
    op!(float "v_cvt_pknorm_i16_f32", |a: f32, b: f32| -> u32 { two(norm(a, 32767.0) as u16, norm(b, 32767.0) as u16) }),
    op!(float "v_cvt_pknorm_u16_f32", |a: f32, b: f32| -> u32 {
        two(norm(a.max(0.0), 65535.0) as u16, norm(b.max(0.0), 65535.0) as u16)
    }),
    op!(int "v_cvt_pk_i16_i32", |a: i32, b: i32| -> u32 {
        two(a.clamp(-32768, 32767) as u16, b.clamp(-32768, 32767) as u16)
    }),
    op!(int "v_cvt_pk_u16_u32", |a: u32, b: u32| -> u32 { two(a.min(65535) as u16, b.min(65535) as u16) }),
    op!(float "v_cvt_pk_u8_f32", |a: f32, b: u32, c: u32| -> u32 {
        let s = 8 * (b & 3);
        let byte = u32::from(a.round_ties_even() as u8);
        c & !(0xff << s) | byte << s
    }),
    op!(float "v_cvt_f32_fp8", |a: u32| -> f32 { fp8(a) }),
    op!(float "v_cvt_f32_bf8", |a: u32| -> f32 { bf8(a) }),
    op!(float "v_cvt_pk_f32_fp8", |a: u32| -> F2 { F2(fp8(a), fp8(a >> 8)) }),
    op!(float "v_cvt_pk_f32_bf8", |a: u32| -> F2 { F2(bf8(a), bf8(a >> 8)) }),
    op!(float "v_cvt_pk_fp8_f32", |a: f32, b: f32| -> u16 { (to_small(a, fp8) | to_small(b, fp8) << 8) as u16 }),
    op!(float "v_cvt_pk_bf8_f32", |a: f32, b: f32| -> u16 { (to_small(a, bf8) | to_small(b, bf8) << 8) as u16 }),
];
