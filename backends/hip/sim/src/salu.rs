//! Scalar ALU. Results carry on whether their operands held values; SCC does too.

use crate::cpu::{Cpu, EXEC, Step};
use crate::inst::{Class, Inst, Kind, Role, Row, Ty, exec};

const S: Role = Role::Src(Ty::B32);
const Q: Role = Role::Src(Ty::B64);
const D: Role = Role::Dst(Ty::B32);
const DQ: Role = Role::Dst(Ty::B64);

/// Runs `f` on up to two sources and SCC; it gives the result and SCC if it changes.
#[inline(always)]
fn run(cx: &mut Cpu<'_>, i: &Inst, carry: bool, f: impl Fn(u64, u64, bool) -> (u64, Option<bool>)) -> Step {
    let (mut v, mut known) = ([0; 2], !carry || cx.w.scc_known);
    for (k, s) in i.src[..i.nsrc as usize].iter().enumerate().take(2) {
        let (x, ok) = cx.w.scalar(s, s.ty.words());
        v[k] = x;
        known &= ok;
    }
    let (x, scc) = f(v[0], v[1], cx.w.scc);
    if i.dst.kind == Kind::Scalar {
        if i.dst.ty.words() == 2 {
            cx.w.set_s64(i.dst.reg, x, known);
        } else {
            cx.w.set_s32(i.dst.reg, x as u32, known);
        }
        if i.dst.reg >= EXEC && !known {
            return Err(crate::lanes::unknown(cx, i, 0));
        }
    }
    if let Some(scc) = scc {
        cx.w.scc = scc;
        cx.w.scc_known = known;
    }
    Ok(())
}

/// `D = EXEC; EXEC = f(S, EXEC)`.
fn saveexec(cx: &mut Cpu<'_>, i: &Inst, f: impl Fn(u64, u64) -> u64) -> Step {
    let (s, known) = cx.w.scalar(&i.src[0], 2);
    if !known {
        return Err(crate::cross::unknown_scalar(i.src[0].reg));
    }
    let exec = cx.w.exec();
    let new = f(s, exec);
    cx.w.set_s64(i.dst.reg, exec, true);
    cx.w.set_s64(EXEC, new, true);
    cx.w.scc = new != 0;
    cx.w.scc_known = true;
    Ok(())
}

fn getpc(cx: &mut Cpu<'_>, i: &Inst) -> Step {
    cx.w.set_s64(i.dst.reg, crate::program::IMAGE + i.pc + 4, true);
    Ok(())
}

fn nz(x: u64) -> (u64, Option<bool>) {
    (x, Some(x != 0))
}

fn nz32(x: u32) -> (u64, Option<bool>) {
    nz(x.into())
}

fn only(x: u32) -> (u64, Option<bool>) {
    (x.into(), None)
}

fn signed_add(a: u64, b: u64) -> (u64, Option<bool>) {
    let (x, over) = (a as i32).overflowing_add(b as i32);
    (u64::from(x as u32), Some(over))
}

fn bfe(x: u64, field: u64, bits: u64) -> u64 {
    let (at, n) = (field & (bits - 1), field >> 16 & 0x7f);
    let x = if at >= bits { 0 } else { x >> at };
    if n == 0 {
        0
    } else if n >= 64 {
        x
    } else {
        x & ((1 << n) - 1)
    }
}

fn bfe_signed(x: i64, field: u64, bits: u64) -> i64 {
    let (at, n) = (field & (bits - 1), field >> 16 & 0x7f);
    let x = x >> at;
    if n == 0 {
        0
    } else if n >= 64 {
        x
    } else {
        x << (64 - n) >> (64 - n)
    }
}

fn bits_of(x: u64, n: u64) -> u64 {
    let ones = |n: u64| if n >= 64 { !0 } else { (1u64 << n) - 1 };
    ones(x) << n
}

/// Leading bits equal to the sign, or all ones if all are.
fn same_bits(x: i64, unused: u32) -> u32 {
    let y = if x < 0 { !x } else { x };
    if y == 0 { !0 } else { y.leading_zeros() - unused }
}

macro_rules! s {
    ($name:literal, [$($role:expr),*], |$a:ident, $b:ident, $c:ident| $e:expr) => {
        Row { name: $name, class: Class::Salu, reads_dst: false, roles: &[$($role),*],
            exec: exec!(|cx, i| run(cx, i, false, |$a: u64, $b: u64, $c: bool| $e)) }
    };
    (carry $name:literal, [$($role:expr),*], |$a:ident, $b:ident, $c:ident| $e:expr) => {
        Row { name: $name, class: Class::Salu, reads_dst: false, roles: &[$($role),*],
            exec: exec!(|cx, i| run(cx, i, true, |$a: u64, $b: u64, $c: bool| $e)) }
    };
    (dst $name:literal, [$($role:expr),*], |$a:ident, $b:ident, $c:ident| $e:expr) => {
        Row { name: $name, class: Class::Salu, reads_dst: true, roles: &[$($role),*],
            exec: exec!(|cx, i| run(cx, i, false, |$a: u64, $b: u64, $c: bool| $e)) }
    };
    (cmp $name:literal, $t:expr, |$a:ident, $b:ident| $e:expr) => {
        Row { name: $name, class: Class::Salu, reads_dst: false, roles: &[$t, $t],
            exec: exec!(|cx, i| run(cx, i, false, |$a: u64, $b: u64, _c: bool| (0, Some($e)))) }
    };
    (save $name:literal, |$a:ident, $b:ident| $e:expr) => {
        Row { name: $name, class: Class::Salu, reads_dst: false, roles: &[DQ, Q],
            exec: exec!(|cx, i| saveexec(cx, i, |$a: u64, $b: u64| $e)) }
    };
}

pub(crate) const ROWS: &[Row] = &[
    s!("s_mov_b32", [D, S], |a, _b, _c| (a, None)),
    s!("s_mov_b64", [DQ, Q], |a, _b, _c| (a, None)),
    s!("s_movk_i32", [D, S], |a, _b, _c| only(a as i16 as u32)),
    s!("s_not_b32", [D, S], |a, _b, _c| nz32(!(a as u32))),
    s!("s_not_b64", [DQ, Q], |a, _b, _c| nz(!a)),
    s!("s_brev_b32", [D, S], |a, _b, _c| only((a as u32).reverse_bits())),
    s!("s_brev_b64", [DQ, Q], |a, _b, _c| (a.reverse_bits(), None)),
    s!("s_bcnt1_i32_b32", [D, S], |a, _b, _c| nz32(a.count_ones())),
    s!("s_bcnt1_i32_b64", [D, Q], |a, _b, _c| nz32(a.count_ones())),
    s!("s_bcnt0_i32_b32", [D, S], |a, _b, _c| nz32((a as u32).count_zeros())),
    s!("s_bcnt0_i32_b64", [D, Q], |a, _b, _c| nz32(a.count_zeros())),
    s!("s_ff1_i32_b32", [D, S], |a, _b, _c| only(if a == 0 { !0 } else { a.trailing_zeros() })),
    s!("s_ff1_i32_b64", [D, Q], |a, _b, _c| only(if a == 0 { !0 } else { a.trailing_zeros() })),
    s!("s_ff0_i32_b32", [D, S], |a, _b, _c| only(if a as u32 == !0 { !0 } else { a.trailing_ones() })),
    s!("s_ff0_i32_b64", [D, Q], |a, _b, _c| only(if a == !0 { !0 } else { a.trailing_ones() })),
    s!("s_flbit_i32_b32", [D, S], |a, _b, _c| only(if a == 0 { !0 } else { (a as u32).leading_zeros() })),
    s!("s_flbit_i32_b64", [D, Q], |a, _b, _c| only(if a == 0 { !0 } else { a.leading_zeros() })),
    s!("s_flbit_i32", [D, S], |a, _b, _c| only(same_bits(i64::from(a as i32), 32))),
    s!("s_flbit_i32_i64", [D, Q], |a, _b, _c| only(same_bits(a as i64, 0))),
    s!("s_sext_i32_i8", [D, S], |a, _b, _c| only(a as i8 as u32)),
    s!("s_sext_i32_i16", [D, S], |a, _b, _c| only(a as i16 as u32)),
    s!("s_abs_i32", [D, S], |a, _b, _c| nz32((a as i32).wrapping_abs() as u32)),
    s!("s_add_u32", [D, S, S], |a, b, _c| ((a + b) & 0xffff_ffff, Some((a + b) >> 32 != 0))),
    s!(carry "s_addc_u32", [D, S, S], |a, b, c| {
        let x = a + b + u64::from(c);
        (x & 0xffff_ffff, Some(x >> 32 != 0))
    }),
    s!("s_sub_u32", [D, S, S], |a, b, _c| (a.wrapping_sub(b) & 0xffff_ffff, Some(b > a))),
    s!(carry "s_subb_u32", [D, S, S], |a, b, c| {
        (a.wrapping_sub(b).wrapping_sub(c.into()) & 0xffff_ffff, Some(b + u64::from(c) > a))
    }),
    s!("s_add_i32", [D, S, S], |a, b, _c| signed_add(a, b)),
    s!("s_sub_i32", [D, S, S], |a, b, _c| {
        let (x, over) = (a as i32).overflowing_sub(b as i32);
        (u64::from(x as u32), Some(over))
    }),
    s!(dst "s_addk_i32", [D, S, S], |a, b, _c| signed_add(b, a as i16 as u64)),
    s!(dst "s_mulk_i32", [D, S, S], |a, b, _c| only((b as u32).wrapping_mul(a as i16 as u32))),
    s!(carry "s_cselect_b32", [D, S, S], |a, b, c| (if c { a } else { b }, None)),
    s!(carry "s_cselect_b64", [DQ, Q, Q], |a, b, c| (if c { a } else { b }, None)),
    s!(dst "s_cmov_b32", [D, S, S], |a, b, c| (if c { a } else { b }, None)),
    s!(dst "s_cmov_b64", [DQ, Q, Q], |a, b, c| (if c { a } else { b }, None)),
    s!(dst "s_cmovk_i32", [D, S, S], |a, b, c| (if c { u64::from(a as i16 as u32) } else { b }, None)),
    s!("s_mul_i32", [D, S, S], |a, b, _c| only((a as u32).wrapping_mul(b as u32))),
    s!("s_mul_hi_u32", [D, S, S], |a, b, _c| ((a * b) >> 32, None)),
    s!("s_mul_hi_i32", [D, S, S], |a, b, _c| { only(((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32) }),
    s!("s_min_u32", [D, S, S], |a, b, _c| (a.min(b), Some(a <= b))),
    s!("s_max_u32", [D, S, S], |a, b, _c| (a.max(b), Some(a >= b))),
    s!("s_min_i32", [D, S, S], |a, b, _c| if (a as i32) <= b as i32 { (a, Some(true)) } else { (b, Some(false)) }),
    s!("s_max_i32", [D, S, S], |a, b, _c| if a as i32 >= b as i32 { (a, Some(true)) } else { (b, Some(false)) }),
    s!("s_and_b32", [D, S, S], |a, b, _c| nz(a & b)),
    s!("s_and_b64", [DQ, Q, Q], |a, b, _c| nz(a & b)),
    s!("s_or_b32", [D, S, S], |a, b, _c| nz(a | b)),
    s!("s_or_b64", [DQ, Q, Q], |a, b, _c| nz(a | b)),
    s!("s_xor_b32", [D, S, S], |a, b, _c| nz(a ^ b)),
    s!("s_xor_b64", [DQ, Q, Q], |a, b, _c| nz(a ^ b)),
    s!("s_andn2_b32", [D, S, S], |a, b, _c| nz(a & !b)),
    s!("s_andn2_b64", [DQ, Q, Q], |a, b, _c| nz(a & !b)),
    s!("s_orn2_b32", [D, S, S], |a, b, _c| nz32(a as u32 | !(b as u32))),
    s!("s_orn2_b64", [DQ, Q, Q], |a, b, _c| nz(a | !b)),
    s!("s_nand_b32", [D, S, S], |a, b, _c| nz32(!(a & b) as u32)),
    s!("s_nand_b64", [DQ, Q, Q], |a, b, _c| nz(!(a & b))),
    s!("s_nor_b32", [D, S, S], |a, b, _c| nz32(!(a | b) as u32)),
    s!("s_nor_b64", [DQ, Q, Q], |a, b, _c| nz(!(a | b))),
    s!("s_xnor_b32", [D, S, S], |a, b, _c| nz32(!(a ^ b) as u32)),
    s!("s_xnor_b64", [DQ, Q, Q], |a, b, _c| nz(!(a ^ b))),
    s!("s_lshl_b32", [D, S, S], |a, b, _c| nz32((a as u32) << (b & 31))),
    s!("s_lshl_b64", [DQ, Q, S], |a, b, _c| nz(a << (b & 63))),
    s!("s_lshr_b32", [D, S, S], |a, b, _c| nz(a >> (b & 31))),
    s!("s_lshr_b64", [DQ, Q, S], |a, b, _c| nz(a >> (b & 63))),
    s!("s_ashr_i32", [D, S, S], |a, b, _c| nz32((a as i32 >> (b & 31)) as u32)),
    s!("s_ashr_i64", [DQ, Q, S], |a, b, _c| nz((a as i64 >> (b & 63)) as u64)),
    s!("s_lshl1_add_u32", [D, S, S], |a, b, _c| shifted(a, b, 1)),
    s!("s_lshl2_add_u32", [D, S, S], |a, b, _c| shifted(a, b, 2)),
    s!("s_lshl3_add_u32", [D, S, S], |a, b, _c| shifted(a, b, 3)),
    s!("s_lshl4_add_u32", [D, S, S], |a, b, _c| shifted(a, b, 4)),
    s!("s_bfm_b32", [D, S, S], |a, b, _c| only(bits_of(a & 31, b & 31) as u32)),
    s!("s_bfm_b64", [DQ, S, S], |a, b, _c| (bits_of(a & 63, b & 63), None)),
    s!("s_bfe_u32", [D, S, S], |a, b, _c| nz(bfe(a, b, 32))),
    s!("s_bfe_i32", [D, S, S], |a, b, _c| nz32(bfe_signed(i64::from(a as i32), b, 32) as u32)),
    s!("s_bfe_u64", [DQ, Q, S], |a, b, _c| nz(bfe(a, b, 64))),
    s!("s_bfe_i64", [DQ, Q, S], |a, b, _c| nz(bfe_signed(a as i64, b, 64) as u64)),
    s!("s_absdiff_i32", [D, S, S], |a, b, _c| nz32((a as i32).wrapping_sub(b as i32).wrapping_abs() as u32)),
    s!("s_pack_ll_b32_b16", [D, S, S], |a, b, _c| (a & 0xffff | (b & 0xffff) << 16, None)),
    s!("s_pack_lh_b32_b16", [D, S, S], |a, b, _c| (a & 0xffff | b & 0xffff_0000, None)),
    s!("s_pack_hh_b32_b16", [D, S, S], |a, b, _c| (a >> 16 | b & 0xffff_0000, None)),
    s!(dst "s_bitset0_b32", [D, S, S], |a, b, _c| (b & !(1 << (a & 31)), None)),
    s!(dst "s_bitset1_b32", [D, S, S], |a, b, _c| (b | 1 << (a & 31), None)),
    s!(dst "s_bitset0_b64", [DQ, S, Q], |a, b, _c| (b & !(1 << (a & 63)), None)),
    s!(dst "s_bitset1_b64", [DQ, S, Q], |a, b, _c| (b | 1 << (a & 63), None)),
    s!(cmp "s_cmp_eq_i32", S, |a, b| a as u32 == b as u32),
    s!(cmp "s_cmp_lg_i32", S, |a, b| a as u32 != b as u32),
    s!(cmp "s_cmp_gt_i32", S, |a, b| a as i32 > b as i32),
    s!(cmp "s_cmp_ge_i32", S, |a, b| a as i32 >= b as i32),
    s!(cmp "s_cmp_lt_i32", S, |a, b| (a as i32) < b as i32),
    s!(cmp "s_cmp_le_i32", S, |a, b| a as i32 <= b as i32),
    s!(cmp "s_cmp_eq_u32", S, |a, b| a == b),
    s!(cmp "s_cmp_lg_u32", S, |a, b| a != b),
    s!(cmp "s_cmp_gt_u32", S, |a, b| a > b),
    s!(cmp "s_cmp_ge_u32", S, |a, b| a >= b),
    s!(cmp "s_cmp_lt_u32", S, |a, b| a < b),
    s!(cmp "s_cmp_le_u32", S, |a, b| a <= b),
    s!(cmp "s_cmp_eq_u64", Q, |a, b| a == b),
    s!(cmp "s_cmp_lg_u64", Q, |a, b| a != b),
    s!(cmp "s_cmpk_eq_i32", S, |a, b| a as i32 == i32::from(b as i16)),
    s!(cmp "s_cmpk_lg_i32", S, |a, b| a as i32 != i32::from(b as i16)),
    s!(cmp "s_cmpk_gt_i32", S, |a, b| a as i32 > i32::from(b as i16)),
    s!(cmp "s_cmpk_ge_i32", S, |a, b| a as i32 >= i32::from(b as i16)),
    s!(cmp "s_cmpk_lt_i32", S, |a, b| (a as i32) < i32::from(b as i16)),
    s!(cmp "s_cmpk_le_i32", S, |a, b| a as i32 <= i32::from(b as i16)),
    s!(cmp "s_cmpk_eq_u32", S, |a, b| a == b & 0xffff),
    s!(cmp "s_cmpk_lg_u32", S, |a, b| a != b & 0xffff),
    s!(cmp "s_cmpk_gt_u32", S, |a, b| a > b & 0xffff),
    s!(cmp "s_cmpk_ge_u32", S, |a, b| a >= b & 0xffff),
    s!(cmp "s_cmpk_lt_u32", S, |a, b| a < b & 0xffff),
    s!(cmp "s_cmpk_le_u32", S, |a, b| a <= b & 0xffff),
    s!(cmp "s_bitcmp0_b32", S, |a, b| a >> (b & 31) & 1 == 0),
    s!(cmp "s_bitcmp1_b32", S, |a, b| a >> (b & 31) & 1 != 0),
    s!("s_bitcmp0_b64", [Q, S], |a, b, _c| (0, Some(a >> (b & 63) & 1 == 0))),
    s!("s_bitcmp1_b64", [Q, S], |a, b, _c| (0, Some(a >> (b & 63) & 1 != 0))),
    s!(save "s_and_saveexec_b64", |s, e| s & e),
    s!(save "s_or_saveexec_b64", |s, e| s | e),
    s!(save "s_xor_saveexec_b64", |s, e| s ^ e),
    s!(save "s_andn2_saveexec_b64", |s, e| s & !e),
    s!(save "s_orn2_saveexec_b64", |s, e| s | !e),
    s!(save "s_nand_saveexec_b64", |s, e| !(s & e)),
    s!(save "s_nor_saveexec_b64", |s, e| !(s | e)),
    s!(save "s_xnor_saveexec_b64", |s, e| !(s ^ e)),
    s!(save "s_andn1_saveexec_b64", |s, e| !s & e),
    s!(save "s_orn1_saveexec_b64", |s, e| !s | e),
    Row { name: "s_getpc_b64", class: Class::Salu, reads_dst: false, roles: &[DQ], exec: exec!(|cx, i| getpc(cx, i)) },
];

fn shifted(a: u64, b: u64, n: u32) -> (u64, Option<bool>) {
    let x = (a << n) + b;
    (x & 0xffff_ffff, Some(x >> 32 != 0))
}
