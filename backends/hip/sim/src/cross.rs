//! Vector instructions that look across lanes or at masks: selects, carries, lane reads and writes, lane counts.

use crate::cpu::{Cpu, Lanes, Step, Stop, fault};
use crate::fault::{Cause, What};
use crate::inst::{Class, Inst, Kind, Role, Row, Ty, exec};
use crate::lanes::{finish, prepare, unknown};

const B: Role = Role::Src(Ty::B32);
const D: Role = Role::Dst(Ty::B32);
const MASK: Role = Role::Src(Ty::Mask);

pub(crate) fn unknown_scalar(reg: u16) -> Stop {
    fault(Cause { lane: None, what: What::Register { vector: false, reg } })
}

/// The mask operand `k`, which must hold a value.
#[inline(always)]
fn mask(cx: &Cpu<'_>, i: &Inst, k: usize) -> Result<u64, Stop> {
    match cx.w.scalar(&i.src[k], 2) {
        (m, true) => Ok(m),
        _ => Err(unknown_scalar(i.src[k].reg)),
    }
}

/// Chooses lane by lane; a lane holds a value if the chosen operand does.
#[inline(always)]
fn cndmask(cx: &mut Cpu<'_>, i: &Inst) -> Step {
    let m = mask(cx, i, 2)?;
    prepare(cx, i, false)?;
    let known = |k: usize| {
        let s = &i.src[k];
        match s.kind {
            Kind::Vector => cx.w.init[s.reg as usize],
            Kind::Scalar if !cx.w.sknown(s.reg, 1) => 0,
            _ => !0,
        }
    };
    let known = if i.special.as_ref().is_some_and(|s| s.dpp.is_some()) { !0 } else { known(0) & !m | known(1) & m };
    let mut r = Lanes::ZERO;
    {
        let a = &cx.w.regs[i.slot[0][0] as usize].0;
        let b = &cx.w.regs[i.slot[1][0] as usize].0;
        let on = Lanes::mask(m).0;
        for l in 0..64 {
            r.0[l] = a[l] & !on[l] | b[l] & on[l];
        }
    }
    finish(cx, i, Ty::B32, &mut r, None, [known; 2])
}

/// Adds or subtracts with a carry out, and in if there is a third source.
#[inline(always)]
fn carry(cx: &mut Cpu<'_>, i: &Inst, f: impl Fn(u32, u32, bool) -> (u32, bool)) -> Step {
    let cin = if i.nsrc > 2 { mask(cx, i, 2)? } else { 0 };
    let known = prepare(cx, i, false)?;
    let (mut r, mut out) = (Lanes::ZERO, 0u64);
    {
        let a = &cx.w.regs[i.slot[0][0] as usize].0;
        let b = &cx.w.regs[i.slot[1][0] as usize].0;
        for l in 0..64 {
            let (x, c) = f(a[l], b[l], cin >> l & 1 != 0);
            r.0[l] = x;
            out |= u64::from(c) << l;
        }
    }
    let m = cx.w.wmask;
    // A carry of undefined operands is undefined, and so is the mask it is a bit of.
    cx.w.set_s64(i.sdst, out & m, known[0] & m == m);
    finish(cx, i, Ty::B32, &mut r, None, known)
}

#[inline(always)]
fn add(a: u32, b: u32, c: bool) -> (u32, bool) {
    let s = u64::from(a) + u64::from(b) + u64::from(c);
    (s as u32, s >> 32 != 0)
}

#[inline(always)]
fn sub(a: u32, b: u32, c: bool) -> (u32, bool) {
    (a.wrapping_sub(b).wrapping_sub(c.into()), u64::from(b) + u64::from(c) > u64::from(a))
}

/// `v_mad_u64_u32`, `v_mad_i64_i32`. Clang also uses them for 32-bit sums, with an undefined high word to add.
#[inline(always)]
fn mad64(cx: &mut Cpu<'_>, i: &Inst, signed: bool) -> Step {
    let known = prepare(cx, i, false)?;
    let (mut lo, mut hi, mut out) = (Lanes::ZERO, Lanes::ZERO, 0u64);
    let lanes = |k: usize, w: usize| &cx.w.regs[i.slot[k][w] as usize].0;
    let (a, b, c, d) = (lanes(0, 0), lanes(1, 0), lanes(2, 0), lanes(2, 1));
    for l in 0..64 {
        let (a, b) = (a[l], b[l]);
        let product =
            if signed { (i64::from(a as i32) * i64::from(b as i32)) as u64 } else { u64::from(a) * u64::from(b) };
        let (s, c) = product.overflowing_add(u64::from(c[l]) | u64::from(d[l]) << 32);
        (lo.0[l], hi.0[l]) = (s as u32, (s >> 32) as u32);
        out |= u64::from(c) << l;
    }
    let m = cx.w.wmask;
    cx.w.set_s64(i.sdst, out & m, known[1] & m == m);
    finish(cx, i, Ty::B64, &mut lo, Some(&mut hi), known)
}

fn read_lane(cx: &mut Cpu<'_>, i: &Inst, first: bool) -> Step {
    let lane = if first {
        cx.w.exec().trailing_zeros() as usize & 63
    } else {
        match cx.w.scalar(&i.src[1], 1) {
            (l, true) => l as usize & 63,
            _ => return Err(unknown_scalar(i.src[1].reg)),
        }
    };
    let s = &i.src[0];
    let (x, known) = match s.kind {
        Kind::Vector => (cx.w.regs[s.reg as usize].0[lane], cx.w.init[s.reg as usize] >> lane & 1 != 0),
        _ => {
            let (x, known) = cx.w.scalar(s, 1);
            (x as u32, known)
        }
    };
    cx.w.set_s32(i.dst.reg, x, known);
    Ok(())
}

fn write_lane(cx: &mut Cpu<'_>, i: &Inst) -> Step {
    let (x, known) = cx.w.scalar(&i.src[0], 1);
    let (l, set) = cx.w.scalar(&i.src[1], 1);
    if !set {
        return Err(unknown_scalar(i.src[1].reg));
    }
    let (l, d) = (l & 63, i.dst.reg as usize);
    cx.w.regs[d].0[l as usize] = x as u32;
    cx.w.init[d] = cx.w.init[d] & !(1 << l) | u64::from(known) << l;
    Ok(())
}

/// Counts the bits of a mask word that stand for lower lanes.
fn mbcnt(cx: &mut Cpu<'_>, i: &Inst, first: u32) -> Step {
    let known = prepare(cx, i, true)?;
    let mut r = Lanes::ZERO;
    let lanes = |k: usize| &cx.w.regs[i.slot[k][0] as usize].0;
    let (a, b) = (lanes(0), lanes(1));
    for l in 0..64u32 {
        let below = l.saturating_sub(first).min(32);
        let m = ((1u64 << below) - 1) as u32;
        r.0[l as usize] = (a[l as usize] & m).count_ones().wrapping_add(b[l as usize]);
    }
    finish(cx, i, Ty::B32, &mut r, None, known)
}

/// Swaps two registers.
fn swap(cx: &mut Cpu<'_>, i: &Inst) -> Step {
    let (a, b) = (i.dst.reg as usize, i.src[0].reg as usize);
    if i.src[0].kind != Kind::Vector {
        return Err(unknown(cx, i, 0));
    }
    let (x, y, kx, ky) = (cx.w.regs[a], cx.w.regs[b], cx.w.init[a], cx.w.init[b]);
    cx.w.wmask = cx.w.exec();
    cx.w.put(a, &y, ky);
    cx.w.put(b, &x, kx);
    Ok(())
}

macro_rules! row {
    ($name:literal, $roles:expr, $f:expr) => {
        Row { name: $name, class: Class::Valu, reads_dst: false, roles: $roles, exec: exec!(|cx, i| $f(cx, i)) }
    };
}

const MAD: &[Role] = &[Role::Dst(Ty::B64), Role::Sdst, B, B, Role::Src(Ty::B64)];

pub(crate) const ROWS: &[Row] = &[
    row!("v_cndmask_b32", &[D, B, B, MASK], cndmask),
    row!("v_add_co_u32", &[D, Role::Sdst, B, B], |cx, i| carry(cx, i, add)),
    row!("v_sub_co_u32", &[D, Role::Sdst, B, B], |cx, i| carry(cx, i, sub)),
    row!("v_subrev_co_u32", &[D, Role::Sdst, B, B], |cx, i| carry(cx, i, |a, b, c| sub(b, a, c))),
    row!("v_addc_co_u32", &[D, Role::Sdst, B, B, MASK], |cx, i| carry(cx, i, add)),
    row!("v_subb_co_u32", &[D, Role::Sdst, B, B, MASK], |cx, i| carry(cx, i, sub)),
    row!("v_subbrev_co_u32", &[D, Role::Sdst, B, B, MASK], |cx, i| carry(cx, i, |a, b, c| sub(b, a, c))),
    row!("v_mad_u64_u32", MAD, |cx, i| mad64(cx, i, false)),
    row!("v_mad_i64_i32", MAD, |cx, i| mad64(cx, i, true)),
    row!("v_readlane_b32", &[D, Role::Src(Ty::Rows), Role::Src(Ty::Rows)], |cx, i| read_lane(cx, i, false)),
    row!("v_readfirstlane_b32", &[D, Role::Src(Ty::Rows)], |cx, i| read_lane(cx, i, true)),
    row!("v_writelane_b32", &[D, Role::Src(Ty::Rows), Role::Src(Ty::Rows)], write_lane),
    row!("v_mbcnt_lo_u32_b32", &[D, B, B], |cx, i| mbcnt(cx, i, 0)),
    row!("v_mbcnt_hi_u32_b32", &[D, B, B], |cx, i| mbcnt(cx, i, 32)),
    row!("v_swap_b32", &[D, Role::Src(Ty::Rows)], swap),
    row!("v_nop", &[], |_cx, _i| Ok(())),
];
