//! Modifiers: neg and abs, op_sel, DPP, SDWA, clamp and omod.
//!
//! Before the operation every source is copied with its modifiers applied; after it the result is changed or merged.

use crate::convert::{f2h, h2f};
use crate::cpu::{Cpu, Lanes};
use crate::inst::{ABS, Dpp, Inst, Kind, NEG, Sel, Special, Src, Ty, Unused};

/// The lane a DPP operand of lane `l` comes from, if there is one.
fn dpp_lane(d: Dpp, l: usize) -> Option<usize> {
    let (row, r) = (l & !15, l & 15);
    match d {
        Dpp::QuadPerm(p) => Some((l & !3) + p[l & 3] as usize),
        Dpp::RowShl(n) => (r + (n as usize) < 16).then(|| l + n as usize),
        Dpp::RowShr(n) => (r >= n as usize).then(|| l - n as usize),
        Dpp::RowRor(n) => Some(row + ((r + 16 - n as usize) & 15)),
        Dpp::WaveShl => (l < 63).then(|| l + 1),
        Dpp::WaveRol => Some((l + 1) & 63),
        Dpp::WaveShr => (l > 0).then(|| l - 1),
        Dpp::WaveRor => Some((l + 63) & 63),
        Dpp::Mirror => Some(row + 15 - r),
        Dpp::HalfMirror => Some((l & !7) + 7 - (l & 7)),
        Dpp::Bcast15 => (row >= 16).then(|| row - 1),
        Dpp::Bcast31 => (l >= 32).then_some(31),
        Dpp::NewBcast(n) => Some(row + n as usize),
    }
}

impl Special {
    /// Whether source `k` isn't simply what its register holds.
    pub(crate) fn changes(&self, s: &Src, k: u8) -> bool {
        let bit = |bits: u8| bits >> k & 1 != 0;
        let signs = s.neg || s.abs || bit(self.neg_lo) || bit(self.neg_hi);
        let halves = match s.ty {
            Ty::P16 | Ty::I16x2 | Ty::P32 => bit(self.op_sel) || !bit(self.op_sel_hi),
            Ty::F16 | Ty::B16 => bit(self.op_sel),
            Ty::Mix => bit(self.op_sel_hi),
            _ => false,
        };
        let part = self.sdwa.is_some_and(|d| k < 2 && d.src[k as usize] != Sel::Dword);
        let moved = self.dpp.is_some() && k == 0;
        s.ty != Ty::Mask && s.ty != Ty::Rows && (signs || halves || part || moved)
    }
}

impl Special {
    /// What becomes of the signs of source `k`'s words, if its words are otherwise what registers hold.
    pub(crate) fn signs(&self, s: &Src, k: u8) -> Option<[u8; 2]> {
        let bit = |bits: u8| bits >> k & 1 != 0;
        let sign = |neg: bool| if neg { NEG } else { 0 } | if s.abs { ABS } else { 0 };
        if self.sdwa.is_some() || self.dpp.is_some() {
            return None;
        }
        match s.ty {
            Ty::F32 | Ty::B32 => Some([sign(s.neg), 0]),
            Ty::F64 => Some([0, sign(s.neg)]),
            Ty::P32 => Some([sign(bit(self.neg_lo) ^ s.neg), sign(bit(self.neg_hi) ^ s.neg)]),
            _ => None,
        }
    }
}

/// Changes every lane; the loop has no branches, so it vectorises.
#[inline(always)]
fn each(x: &mut Lanes, f: impl Fn(u32) -> u32) {
    for v in &mut x.0 {
        *v = f(*v);
    }
}

#[inline(always)]
fn select(x: &mut Lanes, sel: Sel, sext: bool) {
    match (sel, sext) {
        (Sel::Dword, _) => {}
        (Sel::Byte(b), false) => each(x, |x| x >> (8 * b) & 0xff),
        (Sel::Byte(b), true) => each(x, |x| (x >> (8 * b)) as i8 as u32),
        (Sel::Word(w), false) => each(x, |x| x >> (16 * w) & 0xffff),
        (Sel::Word(w), true) => each(x, |x| (x >> (16 * w)) as i16 as u32),
    }
}

/// Clears, then flips the sign bits in `bits`.
#[inline(always)]
fn sign(x: &mut Lanes, bits: u32, neg: bool, abs: bool) {
    let (keep, flip) = (if abs { !bits } else { !0 }, if neg { bits } else { 0 });
    if neg || abs {
        each(x, |x| x & keep ^ flip);
    }
}

/// Applies everything but DPP to source `k`, and says which words of the lanes hold values then.
#[inline(always)]
fn modify(sp: &Special, s: &Src, k: usize, x: &mut [Lanes; 2], ok: &mut [u64; 2]) {
    let bit = |bits: u8| bits >> k & 1 != 0;
    if let (Some(sdwa), true) = (&sp.sdwa, k < 2) {
        select(&mut x[0], sdwa.src[k], s.sext);
    }
    let (lo, hi) = (bit(sp.op_sel), bit(sp.op_sel_hi));
    let (nlo, nhi) = (bit(sp.neg_lo), bit(sp.neg_hi));
    let top = 1 << 31;
    match s.ty {
        Ty::F16 | Ty::B16 => {
            if lo {
                each(&mut x[0], |x| x >> 16);
            }
            sign(&mut x[0], 0x8000, s.neg, s.abs);
        }
        Ty::P16 | Ty::I16x2 => {
            let (a, b) = (16 * u32::from(lo), 16 * u32::from(hi));
            each(&mut x[0], |x| x >> a & 0xffff | x >> b << 16);
            sign(&mut x[0], 0x8000, nlo ^ s.neg, s.abs);
            sign(&mut x[0], top, nhi ^ s.neg, s.abs);
        }
        Ty::P32 => {
            let pick = |w: bool| usize::from(w);
            (*x, *ok) = ([x[pick(lo)], x[pick(hi)]], [ok[pick(lo)], ok[pick(hi)]]);
            sign(&mut x[0], top, nlo ^ s.neg, s.abs);
            sign(&mut x[1], top, nhi ^ s.neg, s.abs);
        }
        Ty::Mix => {
            if hi && s.kind != Kind::Const {
                let shift = 16 * u32::from(lo);
                each(&mut x[0], |x| h2f((x >> shift) as u16).to_bits());
            }
            sign(&mut x[0], top, s.neg ^ nlo, s.abs ^ nhi);
        }
        Ty::F64 => sign(&mut x[1], top, s.neg, s.abs),
        Ty::F32 | Ty::B32 => sign(&mut x[0], top, s.neg, s.abs),
        Ty::B64 | Ty::Mask | Ty::Rows => {}
    }
}

/// The register that word `w` of source `k` is read from: `op_sel` exchanges the words of two f32.
pub(crate) fn word_of(i: &Inst, k: usize, w: u16) -> u16 {
    let s = &i.src[k];
    match i.special.as_deref() {
        Some(sp) if s.ty == Ty::P32 => s.reg + u16::from(if w == 0 { sp.op_sel } else { sp.op_sel_hi } >> k & 1),
        _ => s.reg + w,
    }
}

/// Copies source `k` to its slots, with all modifiers.
pub(crate) fn change(cx: &mut Cpu<'_>, i: &Inst, k: usize) {
    let (Some(sp), s) = (i.special.as_deref(), &i.src[k]) else { return };
    let last = s.ty.words() - 1;
    let (mut x, mut ok) = if s.kind == Kind::Vector {
        let of = |w: u16| (s.reg + w) as usize;
        ([cx.w.regs[of(0)], cx.w.regs[of(last)]], [cx.w.init[of(0)], cx.w.init[of(last)]])
    } else {
        let (x, set) = cx.w.scalar(s, last + 1);
        // `op_sel` may pick one word of a pair, so each is known by itself.
        let known = |w: u16| if s.kind == Kind::Scalar { cx.w.sknown(s.reg + w, 1) } else { set };
        let ok = [0, last].map(|w| if known(w) { !0 } else { 0 });
        ([Lanes([x as u32; 64]), Lanes([(x >> 32) as u32; 64])], ok)
    };
    if sp.dpp.is_some() && k == 0 {
        move_lanes(cx, sp, last as usize + 1, &mut x, &mut ok);
    }
    modify(sp, s, k, &mut x, &mut ok);
    for w in 0..=last as usize {
        let slot = i.slot[k][w] as usize;
        (cx.w.regs[slot], cx.w.init[slot]) = (x[w], ok[w]);
    }
}

/// Moves source 0 between lanes, and leaves out of `wmask` the lanes that get nothing.
fn move_lanes(cx: &mut Cpu<'_>, sp: &Special, words: usize, lanes: &mut [Lanes; 2], ok: &mut [u64; 2]) {
    let (from, had, exec) = (*lanes, *ok, cx.w.exec());
    let Some(source) = sp.from.first_chunk::<64>() else { return };
    let moved = |m: u64| (0..64).fold(0, |r, l| r | (m >> (source[l] & 63) & 1) << l);
    let some = sp.there & if exec == !0 { !0 } else { moved(exec) };
    // A lane without a source reads 0, or is left alone.
    let there = Lanes::mask(some).0;
    for w in 0..words {
        for l in 0..64 {
            lanes[w].0[l] = from[w].0[(source[l] & 63) as usize] & there[l];
        }
        ok[w] = !some | if had[w] == !0 { !0 } else { moved(had[w]) };
    }
    cx.w.wmask = exec & sp.enabled & if sp.bound_ctrl { !0 } else { some };
}

fn scale32(x: f32, sp: &Special) -> f32 {
    let x = match sp.omod {
        1 => x * 2.0,
        2 => x * 4.0,
        3 => x * 0.5,
        _ => x,
    };
    if !sp.clamp {
        x
    } else if x > 0.0 {
        // NaN and everything that isn't above zero become 0, as DX10_CLAMP has it.
        x.min(1.0)
    } else {
        0.0
    }
}

impl Special {
    /// Whether results aren't simply written.
    pub(crate) fn changes_result(&self) -> bool {
        self.clamp || self.omod != 0 || self.keep_high || self.write_high || self.sdwa.is_some() || self.op_sel != 0
    }

    /// Makes the tables that DPP needs.
    pub(crate) fn tabulate(&mut self) {
        let Some(dpp) = self.dpp else { return };
        self.from = (0..64).map(|l| dpp_lane(dpp, l).map_or(64, |l| l as u8)).collect();
        for l in 0..64 {
            self.there |= u64::from(self.from[l] < 64) << l;
            self.enabled |= u64::from((self.row_mask >> (l / 16)) & (self.bank_mask >> ((l / 4) & 3)) & 1) << l;
        }
    }
}

/// Changes a result as the modifiers say.
#[inline(never)]
pub(crate) fn result(cx: &mut Cpu<'_>, i: &Inst, ty: Ty, lo: &mut Lanes, hi: &mut Lanes) {
    let Some(sp) = i.special.as_deref() else { return };
    if sp.clamp || sp.omod != 0 {
        for l in 0..64 {
            let (x, y) = (&mut lo.0[l], &mut hi.0[l]);
            match ty {
                Ty::F32 => *x = scale32(f32::from_bits(*x), sp).to_bits(),
                Ty::F16 => *x = f2h(scale32(h2f(*x as u16), sp)).into(),
                Ty::P16 => {
                    let a = f2h(scale32(h2f(*x as u16), sp));
                    let b = f2h(scale32(h2f((*x >> 16) as u16), sp));
                    *x = u32::from(a) | u32::from(b) << 16;
                }
                Ty::P32 => {
                    *x = scale32(f32::from_bits(*x), sp).to_bits();
                    *y = scale32(f32::from_bits(*y), sp).to_bits();
                }
                Ty::F64 => {
                    let d = f64::from_bits(u64::from(*x) | u64::from(*y) << 32);
                    let d = d * [1.0, 2.0, 4.0, 0.5][sp.omod as usize & 3];
                    let d = if !sp.clamp {
                        d
                    } else if d > 0.0 {
                        d.min(1.0)
                    } else {
                        0.0
                    };
                    (*x, *y) = (d.to_bits() as u32, (d.to_bits() >> 32) as u32);
                }
                _ => {}
            }
        }
    }
    let old = cx.w.regs[i.dst.reg as usize];
    let sources = i.nsrc - u8::from(i.reads_dst);
    let high = sp.write_high || sp.op_sel >> sources & 1 != 0;
    if matches!(ty, Ty::F16 | Ty::B16) && (sp.keep_high || high) && sp.sdwa.is_none() {
        for l in 0..64 {
            let x = lo.0[l] & 0xffff;
            lo.0[l] = if high { old.0[l] & 0xffff | x << 16 } else { old.0[l] & 0xffff_0000 | x };
        }
    }
    if let Some(sdwa) = &sp.sdwa {
        let (shift, bits) = match sdwa.dst {
            Sel::Dword => return,
            Sel::Byte(b) => (8 * u32::from(b), 8),
            Sel::Word(w) => (16 * u32::from(w), 16),
        };
        let mask = ((1u32 << bits) - 1) << shift;
        for l in 0..64 {
            let x = lo.0[l] << shift & mask;
            lo.0[l] = match sdwa.unused {
                Unused::Pad => x,
                Unused::Preserve => x | old.0[l] & !mask,
                Unused::Sext => ((x << (32 - shift - bits)) as i32 >> (32 - bits) << shift) as u32,
            };
        }
    }
}
