//! 32- and 16-bit integer operations, packed 16-bit ones, and integer dot products.

use crate::inst::Row;
use crate::lanes::{W2, op};

fn w2(f: impl Fn(u16, u16) -> u16, a: W2, b: W2) -> W2 {
    W2(f(a.0, b.0), f(a.1, b.1))
}

#[inline(always)]
fn dot4(a: u32, b: u32, c: u32) -> u32 {
    // Sign-extended by shifts, which the compiler turns into vector code.
    let product = |q: u32| {
        let byte = |x: u32| (x << (24 - 8 * q)) as i32 >> 24;
        byte(a).wrapping_mul(byte(b)) as u32
    };
    c.wrapping_add(product(0)).wrapping_add(product(1)).wrapping_add(product(2)).wrapping_add(product(3))
}

#[inline(always)]
fn dot4u(a: u32, b: u32, c: u32) -> u32 {
    (0..4).fold(c, |s, q| s.wrapping_add((a >> (8 * q) & 0xff) * (b >> (8 * q) & 0xff)))
}

#[inline(always)]
fn dot8(a: u32, b: u32, c: u32) -> u32 {
    (0..8).fold(c as i32, |s, q| {
        let nibble = |x: u32| (x << (28 - 4 * q)) as i32 >> 28;
        s.wrapping_add(nibble(a) * nibble(b))
    }) as u32
}

#[inline(always)]
fn dot8u(a: u32, b: u32, c: u32) -> u32 {
    (0..8).fold(c, |s, q| s.wrapping_add((a >> (4 * q) & 15) * (b >> (4 * q) & 15)))
}

#[inline(always)]
fn dot2(a: u32, b: u32, c: u32) -> u32 {
    let lo = i32::from(a as i16) * i32::from(b as i16);
    let hi = ((a as i32) >> 16).wrapping_mul((b as i32) >> 16);
    c.wrapping_add(lo as u32).wrapping_add(hi as u32)
}

#[inline(always)]
fn i24(x: u32) -> i32 {
    (x << 8) as i32 >> 8
}

#[inline(always)]
fn u24(x: u32) -> u32 {
    x & 0xff_ffff
}

#[inline(always)]
fn sad8(a: u32, b: u32, c: u32) -> u32 {
    (0..4).fold(c, |s, q| s.wrapping_add((a >> (8 * q) & 0xff).abs_diff(b >> (8 * q) & 0xff)))
}

/// `v_perm_b32`: byte `s` of the 8 bytes `a:b`, signs, or a constant.
#[inline(always)]
fn perm(a: u32, b: u32, sel: u32) -> u32 {
    let both = u64::from(a) << 32 | u64::from(b);
    (0..4).fold(0, |out, q| {
        let s = sel >> (8 * q) & 0xff;
        let sign = |bit: u32| if both >> bit & 1 != 0 { 0xff } else { 0 };
        let byte = match s {
            0..8 => (both >> (8 * s)) as u32 & 0xff,
            8 => sign(15),
            9 => sign(31),
            10 => sign(47),
            11 => sign(63),
            12 => 0,
            _ => 0xff,
        };
        out | byte << (8 * q)
    })
}

#[inline(always)]
fn med3<T: Ord + Copy>(a: T, b: T, c: T) -> T {
    a.min(b).max(a.max(b).min(c))
}

pub(crate) const ROWS: &[Row] = &[
    op!(int "v_mov_b32", |a: u32| -> u32 { a }),
    op!(int "v_accvgpr_read_b32", |a: u32| -> u32 { a }),
    op!(int "v_accvgpr_write_b32", |a: u32| -> u32 { a }),
    op!(int "v_accvgpr_mov_b32", |a: u32| -> u32 { a }),
    op!(int "v_not_b32", |a: u32| -> u32 { !a }),
    op!(int "v_bfrev_b32", |a: u32| -> u32 { a.reverse_bits() }),
    op!(int "v_ffbh_u32", |a: u32| -> u32 { if a == 0 { !0 } else { a.leading_zeros() } }),
    op!(int "v_ffbl_b32", |a: u32| -> u32 { if a == 0 { !0 } else { a.trailing_zeros() } }),
    op!(int "v_ffbh_i32", |a: i32| -> i32 {
        let same = if a < 0 { !a } else { a };
        if same == 0 { -1 } else { same.leading_zeros() as i32 }
    }),
    op!(int "v_bcnt_u32_b32", |a: u32, b: u32| -> u32 { a.count_ones().wrapping_add(b) }),
    op!(int "v_add_u32", |a: u32, b: u32| -> u32 { a.wrapping_add(b) }),
    op!(int "v_sub_u32", |a: u32, b: u32| -> u32 { a.wrapping_sub(b) }),
    op!(int "v_subrev_u32", |a: u32, b: u32| -> u32 { b.wrapping_sub(a) }),
    op!(int "v_add_u32 clamp", |a: u32, b: u32| -> u32 { a.saturating_add(b) }),
    op!(int "v_sub_u32 clamp", |a: u32, b: u32| -> u32 { a.saturating_sub(b) }),
    op!(int "v_subrev_u32 clamp", |a: u32, b: u32| -> u32 { b.saturating_sub(a) }),
    op!(int "v_add_i32", |a: i32, b: i32| -> i32 { a.wrapping_add(b) }),
    op!(int "v_sub_i32", |a: i32, b: i32| -> i32 { a.wrapping_sub(b) }),
    op!(int "v_add_i32 clamp", |a: i32, b: i32| -> i32 { a.saturating_add(b) }),
    op!(int "v_sub_i32 clamp", |a: i32, b: i32| -> i32 { a.saturating_sub(b) }),
    op!(int "v_mul_lo_u32", |a: u32, b: u32| -> u32 { a.wrapping_mul(b) }),
    op!(int "v_mul_hi_u32", |a: u32, b: u32| -> u32 { ((u64::from(a) * u64::from(b)) >> 32) as u32 }),
    op!(int "v_mul_hi_i32", |a: i32, b: i32| -> i32 { ((i64::from(a) * i64::from(b)) >> 32) as i32 }),
    op!(int "v_mul_u32_u24", |a: u32, b: u32| -> u32 { u24(a).wrapping_mul(u24(b)) }),
    op!(int "v_mul_i32_i24", |a: u32, b: u32| -> i32 { i24(a).wrapping_mul(i24(b)) }),
    op!(int "v_mul_hi_u32_u24", |a: u32, b: u32| -> u32 { ((u64::from(u24(a)) * u64::from(u24(b))) >> 32) as u32 }),
    op!(int "v_mul_hi_i32_i24", |a: u32, b: u32| -> i32 { ((i64::from(i24(a)) * i64::from(i24(b))) >> 32) as i32 }),
    op!(int "v_mad_u32_u24", |a: u32, b: u32, c: u32| -> u32 { u24(a).wrapping_mul(u24(b)).wrapping_add(c) }),
    op!(int "v_mad_i32_i24", |a: u32, b: u32, c: i32| -> i32 { i24(a).wrapping_mul(i24(b)).wrapping_add(c) }),
    op!(int "v_min_u32", |a: u32, b: u32| -> u32 { a.min(b) }),
    op!(int "v_max_u32", |a: u32, b: u32| -> u32 { a.max(b) }),
    op!(int "v_min_i32", |a: i32, b: i32| -> i32 { a.min(b) }),
    op!(int "v_max_i32", |a: i32, b: i32| -> i32 { a.max(b) }),
    op!(int "v_min3_u32", |a: u32, b: u32, c: u32| -> u32 { a.min(b).min(c) }),
    op!(int "v_max3_u32", |a: u32, b: u32, c: u32| -> u32 { a.max(b).max(c) }),
    op!(int "v_med3_u32", |a: u32, b: u32, c: u32| -> u32 { med3(a, b, c) }),
    op!(int "v_min3_i32", |a: i32, b: i32, c: i32| -> i32 { a.min(b).min(c) }),
    op!(int "v_max3_i32", |a: i32, b: i32, c: i32| -> i32 { a.max(b).max(c) }),
    op!(int "v_med3_i32", |a: i32, b: i32, c: i32| -> i32 { med3(a, b, c) }),
    op!(int "v_and_b32", |a: u32, b: u32| -> u32 { a & b }),
    op!(int "v_or_b32", |a: u32, b: u32| -> u32 { a | b }),
    op!(int "v_xor_b32", |a: u32, b: u32| -> u32 { a ^ b }),
    op!(int "v_xnor_b32", |a: u32, b: u32| -> u32 { !(a ^ b) }),
    op!(int "v_lshlrev_b32", |a: u32, b: u32| -> u32 { b << (a & 31) }),
    op!(int "v_lshrrev_b32", |a: u32, b: u32| -> u32 { b >> (a & 31) }),
    op!(int "v_ashrrev_i32", |a: u32, b: i32| -> i32 { b >> (a & 31) }),
    op!(int "v_and_or_b32", |a: u32, b: u32, c: u32| -> u32 { a & b | c }),
    op!(int "v_or3_b32", |a: u32, b: u32, c: u32| -> u32 { a | b | c }),
    op!(int "v_lshl_or_b32", |a: u32, b: u32, c: u32| -> u32 { a << (b & 31) | c }),
    op!(int "v_lshl_add_u32", |a: u32, b: u32, c: u32| -> u32 { (a << (b & 31)).wrapping_add(c) }),
    op!(int "v_add_lshl_u32", |a: u32, b: u32, c: u32| -> u32 { a.wrapping_add(b) << (c & 31) }),
    op!(int "v_add3_u32", |a: u32, b: u32, c: u32| -> u32 { a.wrapping_add(b).wrapping_add(c) }),
    op!(int "v_xad_u32", |a: u32, b: u32, c: u32| -> u32 { (a ^ b).wrapping_add(c) }),
    op!(int "v_bfe_u32", |a: u32, b: u32, c: u32| -> u32 { a >> (b & 31) & ((1u64 << (c & 31)) - 1) as u32 }),
    op!(int "v_bfe_i32", |a: i32, b: u32, c: u32| -> i32 {
        let n = c & 31;
        let x = i64::from(a) >> (b & 31);
        if n == 0 { 0 } else { (x << (64 - n) >> (64 - n)) as i32 }
    }),
    op!(int "v_bfi_b32", |a: u32, b: u32, c: u32| -> u32 { a & b | !a & c }),
    op!(int "v_bfm_b32", |a: u32, b: u32| -> u32 { (((1u64 << (a & 31)) - 1) << (b & 31)) as u32 }),
    op!(int "v_alignbit_b32", |a: u32, b: u32, c: u32| -> u32 {
        ((u64::from(a) << 32 | u64::from(b)) >> (c & 31)) as u32
    }),
    op!(int "v_alignbyte_b32", |a: u32, b: u32, c: u32| -> u32 {
        ((u64::from(a) << 32 | u64::from(b)) >> (8 * (c & 3))) as u32
    }),
    op!(int "v_perm_b32", |a: u32, b: u32, c: u32| -> u32 { perm(a, b, c) }),
    op!(int "v_sad_u32", |a: u32, b: u32, c: u32| -> u32 { a.abs_diff(b).wrapping_add(c) }),
    op!(int "v_sad_u8", |a: u32, b: u32, c: u32| -> u32 { sad8(a, b, c) }),
    op!(int "v_sad_hi_u8", |a: u32, b: u32, c: u32| -> u32 { (sad8(a, b, 0) << 16).wrapping_add(c) }),
    op!(int "v_lerp_u8", |a: u32, b: u32, c: u32| -> u32 {
        (0..4).fold(0, |o, q| {
            let byte = |x: u32| x >> (8 * q) & 0xff;
            o | ((byte(a) + byte(b) + (byte(c) & 1)) >> 1 & 0xff) << (8 * q)
        })
    }),
    op!(int "v_add_u16", |a: u16, b: u16| -> u16 { a.wrapping_add(b) }),
    op!(int "v_sub_u16", |a: u16, b: u16| -> u16 { a.wrapping_sub(b) }),
    op!(int "v_subrev_u16", |a: u16, b: u16| -> u16 { b.wrapping_sub(a) }),
    op!(int "v_add_u16 clamp", |a: u16, b: u16| -> u16 { a.saturating_add(b) }),
    op!(int "v_sub_u16 clamp", |a: u16, b: u16| -> u16 { a.saturating_sub(b) }),
    op!(int "v_add_i16", |a: i16, b: i16| -> i16 { a.wrapping_add(b) }),
    op!(int "v_sub_i16", |a: i16, b: i16| -> i16 { a.wrapping_sub(b) }),
    op!(int "v_add_i16 clamp", |a: i16, b: i16| -> i16 { a.saturating_add(b) }),
    op!(int "v_sub_i16 clamp", |a: i16, b: i16| -> i16 { a.saturating_sub(b) }),
    op!(int "v_mul_lo_u16", |a: u16, b: u16| -> u16 { a.wrapping_mul(b) }),
    op!(int "v_mad_u16", |a: u16, b: u16, c: u16| -> u16 { a.wrapping_mul(b).wrapping_add(c) }),
    op!(int "v_mad_i16", |a: i16, b: i16, c: i16| -> i16 { a.wrapping_mul(b).wrapping_add(c) }),
    op!(int "v_mad_legacy_u16", |a: u16, b: u16, c: u16| -> u16 { a.wrapping_mul(b).wrapping_add(c) }),
    op!(int "v_mad_u32_u16", |a: u16, b: u16, c: u32| -> u32 { (u32::from(a) * u32::from(b)).wrapping_add(c) }),
    op!(int "v_mad_i32_i16", |a: i16, b: i16, c: i32| -> i32 { (i32::from(a) * i32::from(b)).wrapping_add(c) }),
    op!(int "v_min_u16", |a: u16, b: u16| -> u16 { a.min(b) }),
    op!(int "v_max_u16", |a: u16, b: u16| -> u16 { a.max(b) }),
    op!(int "v_min_i16", |a: i16, b: i16| -> i16 { a.min(b) }),
    op!(int "v_max_i16", |a: i16, b: i16| -> i16 { a.max(b) }),
    op!(int "v_min3_u16", |a: u16, b: u16, c: u16| -> u16 { a.min(b).min(c) }),
    op!(int "v_max3_u16", |a: u16, b: u16, c: u16| -> u16 { a.max(b).max(c) }),
    op!(int "v_min3_i16", |a: i16, b: i16, c: i16| -> i16 { a.min(b).min(c) }),
    op!(int "v_max3_i16", |a: i16, b: i16, c: i16| -> i16 { a.max(b).max(c) }),
    op!(int "v_med3_i16", |a: i16, b: i16, c: i16| -> i16 { med3(a, b, c) }),
    op!(int "v_med3_u16", |a: u16, b: u16, c: u16| -> u16 { med3(a, b, c) }),
    op!(int "v_lshlrev_b16", |a: u16, b: u16| -> u16 { b << (a & 15) }),
    op!(int "v_lshrrev_b16", |a: u16, b: u16| -> u16 { b >> (a & 15) }),
    op!(int "v_ashrrev_i16", |a: u16, b: i16| -> i16 { b >> (a & 15) }),
    op!(int "v_pack_b32_f16", |a: u16, b: u16| -> u32 { u32::from(a) | u32::from(b) << 16 }),
    op!(int "v_pk_add_u16", |a: W2, b: W2| -> W2 { w2(u16::wrapping_add, a, b) }),
    op!(int "v_pk_add_i16", |a: W2, b: W2| -> W2 { w2(u16::wrapping_add, a, b) }),
    op!(int "v_pk_sub_u16", |a: W2, b: W2| -> W2 { w2(u16::wrapping_sub, a, b) }),
    op!(int "v_pk_sub_i16", |a: W2, b: W2| -> W2 { w2(u16::wrapping_sub, a, b) }),
    op!(int "v_pk_add_u16 clamp", |a: W2, b: W2| -> W2 { w2(u16::saturating_add, a, b) }),
    op!(int "v_pk_sub_u16 clamp", |a: W2, b: W2| -> W2 { w2(u16::saturating_sub, a, b) }),
    op!(int "v_pk_add_i16 clamp", |a: W2, b: W2| -> W2 { w2(|x, y| (x as i16).saturating_add(y as i16) as u16, a, b) }),
    op!(int "v_pk_sub_i16 clamp", |a: W2, b: W2| -> W2 { w2(|x, y| (x as i16).saturating_sub(y as i16) as u16, a, b) }),
    op!(int "v_pk_mul_lo_u16", |a: W2, b: W2| -> W2 { w2(u16::wrapping_mul, a, b) }),
    op!(int "v_pk_min_u16", |a: W2, b: W2| -> W2 { w2(u16::min, a, b) }),
    op!(int "v_pk_max_u16", |a: W2, b: W2| -> W2 { w2(u16::max, a, b) }),
    op!(int "v_pk_min_i16", |a: W2, b: W2| -> W2 { w2(|x, y| (x as i16).min(y as i16) as u16, a, b) }),
    op!(int "v_pk_max_i16", |a: W2, b: W2| -> W2 { w2(|x, y| (x as i16).max(y as i16) as u16, a, b) }),
    op!(int "v_pk_lshlrev_b16", |a: W2, b: W2| -> W2 { w2(|x, y| y << (x & 15), a, b) }),
    op!(int "v_pk_lshrrev_b16", |a: W2, b: W2| -> W2 { w2(|x, y| y >> (x & 15), a, b) }),
    op!(int "v_pk_ashrrev_i16", |a: W2, b: W2| -> W2 { w2(|x, y| (y as i16 >> (x & 15)) as u16, a, b) }),
    op!(int "v_pk_mad_u16", |a: W2, b: W2, c: W2| -> W2 { w2(u16::wrapping_add, w2(u16::wrapping_mul, a, b), c) }),
    op!(int "v_pk_mad_i16", |a: W2, b: W2, c: W2| -> W2 { w2(u16::wrapping_add, w2(u16::wrapping_mul, a, b), c) }),
    op!(dot "v_dot4_i32_i8", |a: u32, b: u32, c: u32| -> u32 { dot4(a, b, c) }),
    op!(dotacc "v_dot4c_i32_i8", |a: u32, b: u32, c: u32| -> u32 { dot4(a, b, c) }),
    op!(dot "v_dot4_u32_u8", |a: u32, b: u32, c: u32| -> u32 { dot4u(a, b, c) }),
    op!(dot "v_dot8_i32_i4", |a: u32, b: u32, c: u32| -> u32 { dot8(a, b, c) }),
    op!(dotacc "v_dot8c_i32_i4", |a: u32, b: u32, c: u32| -> u32 { dot8(a, b, c) }),
    op!(dot "v_dot8_u32_u4", |a: u32, b: u32, c: u32| -> u32 { dot8u(a, b, c) }),
    op!(dot "v_dot2_i32_i16", |a: u32, b: u32, c: u32| -> u32 { dot2(a, b, c) }),
    op!(dotacc "v_dot2c_i32_i16", |a: u32, b: u32, c: u32| -> u32 { dot2(a, b, c) }),
    op!(dot "v_dot2_u32_u16", |a: u32, b: u32, c: u32| -> u32 {
        ((a & 0xffff) * (b & 0xffff)).wrapping_add((a >> 16) * (b >> 16)).wrapping_add(c)
    }),
];
