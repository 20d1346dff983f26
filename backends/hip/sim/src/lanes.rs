//! How a vector instruction runs: sources are prepared, a closure is applied to each lane, the result is written.
//!
//! The loops over lanes have a fixed length and no branches, so that the compiler makes vector code of them. Scalar
//! operands are spread over 64 lanes first, and operands with modifiers are copied (`special.rs`); both then look like
//! registers.
//!
//! **Uninitialised registers.** Integer operations and moves carry "holds no value" on to their result, since clang
//! copies and combines undefined halves it never looks at. Float arithmetic, comparisons, addresses and stored data
//! must hold values.

use crate::cpu::{Cpu, Lanes, Step, Stop, fault};
use crate::fault::{Cause, What};
use crate::inst::{ABS, Fetch, Inst, Kind, NEG, Ty, either};
use crate::special;

/// A type that a lane's operand has.
pub(crate) trait Lane: Copy {
    const TY: Ty;
    fn get(lo: u32, hi: u32) -> Self;
    fn put(self) -> (u32, u32);
}

macro_rules! lane {
    ($t:ty, $ty:ident, |$lo:ident, $hi:ident| $get:expr, |$x:ident| $put:expr) => {
        impl Lane for $t {
            const TY: Ty = Ty::$ty;
            #[inline(always)]
            fn get($lo: u32, $hi: u32) -> $t {
                $get
            }
            #[inline(always)]
            fn put(self) -> (u32, u32) {
                let $x = self;
                $put
            }
        }
    };
}

/// An f16's bits.
#[derive(Clone, Copy)]
pub(crate) struct H(pub u16);
/// Two f16.
#[derive(Clone, Copy)]
pub(crate) struct H2(pub u16, pub u16);
/// Two 16-bit integers.
#[derive(Clone, Copy)]
pub(crate) struct W2(pub u16, pub u16);
/// Two f32.
#[derive(Clone, Copy)]
pub(crate) struct F2(pub f32, pub f32);
/// An operand of `v_fma_mix`, already widened.
#[derive(Clone, Copy)]
pub(crate) struct M(pub f32);

lane!(u32, B32, |lo, _hi| lo, |x| (x, 0));
lane!(i32, B32, |lo, _hi| lo as i32, |x| (x as u32, 0));
lane!(f32, F32, |lo, _hi| f32::from_bits(lo), |x| (x.to_bits(), 0));
lane!(u16, B16, |lo, _hi| lo as u16, |x| (x.into(), 0));
lane!(i16, B16, |lo, _hi| lo as i16, |x| (u32::from(x as u16), 0));
lane!(H, F16, |lo, _hi| H(lo as u16), |x| (x.0.into(), 0));
lane!(M, Mix, |lo, _hi| M(f32::from_bits(lo)), |x| (x.0.to_bits(), 0));
lane!(H2, P16, |lo, _hi| H2(lo as u16, (lo >> 16) as u16), |x| (u32::from(x.0) | u32::from(x.1) << 16, 0));
lane!(W2, I16x2, |lo, _hi| W2(lo as u16, (lo >> 16) as u16), |x| (u32::from(x.0) | u32::from(x.1) << 16, 0));
lane!(u64, B64, |lo, hi| u64::from(lo) | u64::from(hi) << 32, |x| (x as u32, (x >> 32) as u32));
lane!(i64, B64, |lo, hi| (u64::from(lo) | u64::from(hi) << 32) as i64, |x| (x as u32, (x >> 32) as u32));
lane!(f64, F64, |lo, hi| f64::from_bits(u64::from(lo) | u64::from(hi) << 32), |x| {
    let b = x.to_bits();
    (b as u32, (b >> 32) as u32)
});
lane!(F2, P32, |lo, hi| F2(f32::from_bits(lo), f32::from_bits(hi)), |x| (x.0.to_bits(), x.1.to_bits()));

pub(crate) const fn wide(ty: Ty) -> bool {
    matches!(ty, Ty::B64 | Ty::F64 | Ty::P32)
}

/// Makes the sources' slots hold the lanes to read, and says which lanes of the low and of all words hold values.
#[inline(always)]
pub(crate) fn prepare(cx: &mut Cpu<'_>, i: &Inst, strict: bool) -> Result<[u64; 2], Stop> {
    cx.w.wmask = cx.w.exec();
    if i.fetch {
        fetch(cx, i);
    }
    let known = |w: usize| {
        let of = |k: usize| cx.w.init[i.slot[k][w] as usize];
        of(0) & of(1) & of(2)
    };
    let low = known(0);
    let all = low & known(1);
    if strict && all & cx.w.wmask != cx.w.wmask {
        return Err(unknown(cx, i, cx.w.wmask));
    }
    Ok([low, all])
}

/// Copies the sources that aren't read as they lie in registers.
#[inline(never)]
fn fetch(cx: &mut Cpu<'_>, i: &Inst) {
    either!(cx, sources(i: &Inst) -> ())
}

#[inline(always)]
fn sources(cx: &mut Cpu<'_>, i: &Inst) {
    for (k, s) in i.src[..i.nsrc as usize].iter().enumerate() {
        let slot = i.slot[k].map(usize::from);
        match s.fetch {
            Fetch::Ready => {}
            Fetch::Spread => {
                let words = s.ty.words();
                let (x, ok) = cx.w.scalar(s, words);
                let known = if ok { !0 } else { 0 };
                for w in 0..words as usize {
                    cx.w.regs[slot[w]] = Lanes([changed((x >> (32 * w)) as u32, s.sign[w]); 64]);
                    cx.w.init[slot[w]] = known;
                }
            }
            Fetch::Sign => {
                for w in 0..s.ty.words() {
                    let (to, from) = (slot[w as usize], special::word_of(i, k, w) as usize);
                    if to != from {
                        let mut x = cx.w.regs[from];
                        for v in &mut x.0 {
                            *v = changed(*v, s.sign[w as usize]);
                        }
                        cx.w.regs[to] = x;
                        cx.w.init[to] = cx.w.init[from];
                    }
                }
            }
            Fetch::Change => special::change(cx, i, k),
        }
    }
}

/// A word with its sign changed.
#[inline(always)]
fn changed(x: u32, sign: u8) -> u32 {
    let bit = |b: u8| u32::from(sign & b != 0) << 31;
    x & !bit(ABS) ^ bit(NEG)
}

/// The fault for a source that holds no value in a lane of `mask`.
#[cold]
pub(crate) fn unknown(cx: &Cpu<'_>, i: &Inst, mask: u64) -> Stop {
    for s in &i.src[..i.nsrc as usize] {
        for w in 0..s.ty.words().max(if s.ty == Ty::Rows { s.words } else { 1 }) {
            let reg = s.reg + w;
            match s.kind {
                Kind::Vector => {
                    let bad = mask & !cx.w.init[reg as usize];
                    if bad != 0 {
                        let lane = Some(bad.trailing_zeros());
                        return fault(Cause { lane, what: What::Register { vector: true, reg } });
                    }
                }
                Kind::Scalar if !cx.w.sknown(reg, 1) => {
                    return fault(Cause { lane: None, what: What::Register { vector: false, reg } });
                }
                _ => {}
            }
        }
    }
    fault(Cause { lane: None, what: What::Register { vector: true, reg: i.dst.reg } })
}

/// Writes a result; `hi` is there if it has two words.
#[inline(always)]
pub(crate) fn finish(
    cx: &mut Cpu<'_>,
    i: &Inst,
    ty: Ty,
    lo: &mut Lanes,
    hi: Option<&mut Lanes>,
    known: [u64; 2],
) -> Step {
    if let Some(hi) = hi {
        if i.changes_result {
            special::result(cx, i, ty, lo, hi);
        }
        cx.w.put(i.dst.reg as usize, lo, known[0]);
        cx.w.put(i.dst.reg as usize + 1, hi, known[1]);
    } else {
        if i.changes_result {
            special::result(cx, i, ty, lo, &mut { Lanes::ZERO });
        }
        cx.w.put(i.dst.reg as usize, lo, known[0]);
    }
    Ok(())
}

/// A mask of bytes that are 0 or 1.
#[inline(always)]
pub(crate) fn gather(bits: &[u8; 64]) -> u64 {
    let (eights, _) = bits.as_chunks::<8>();
    // The product has bit 0 of byte n in bit 56 + n.
    let eight = |b: &[u8; 8]| u64::from_le_bytes(*b).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    eights.iter().enumerate().fold(0, |m, (n, b)| m | eight(b) << (8 * n))
}

macro_rules! lanes_of {
    ($cx:ident, $i:ident, $k:expr, $t:ty) => {{
        let slot = $i.slot[$k];
        let lo = &$cx.w.regs[slot[0] as usize].0;
        let hi = if wide(<$t as Lane>::TY) { &$cx.w.regs[slot[1] as usize].0 } else { lo };
        (lo, hi)
    }};
}

/// `D = f(A)` in each lane.
#[inline(always)]
pub(crate) fn op1<A: Lane, D: Lane>(cx: &mut Cpu<'_>, i: &Inst, strict: bool, f: impl Fn(A) -> D) -> Step {
    let known = prepare(cx, i, strict)?;
    let (mut lo, mut hi) = (Lanes::ZERO, Lanes::ZERO);
    {
        let a = lanes_of!(cx, i, 0, A);
        for l in 0..64 {
            let (x, y) = f(A::get(a.0[l], a.1[l])).put();
            lo.0[l] = x;
            if wide(D::TY) {
                hi.0[l] = y;
            }
        }
    }
    finish(cx, i, D::TY, &mut lo, wide(D::TY).then_some(&mut hi), known)
}

/// `D = f(A, B)` in each lane.
#[inline(always)]
pub(crate) fn op2<A: Lane, B: Lane, D: Lane>(cx: &mut Cpu<'_>, i: &Inst, strict: bool, f: impl Fn(A, B) -> D) -> Step {
    let known = prepare(cx, i, strict)?;
    let (mut lo, mut hi) = (Lanes::ZERO, Lanes::ZERO);
    {
        let (a, b) = (lanes_of!(cx, i, 0, A), lanes_of!(cx, i, 1, B));
        for l in 0..64 {
            let (x, y) = f(A::get(a.0[l], a.1[l]), B::get(b.0[l], b.1[l])).put();
            lo.0[l] = x;
            if wide(D::TY) {
                hi.0[l] = y;
            }
        }
    }
    finish(cx, i, D::TY, &mut lo, wide(D::TY).then_some(&mut hi), known)
}

/// `D = f(A, B, C)` in each lane.
#[inline(always)]
pub(crate) fn op3<A: Lane, B: Lane, C: Lane, D: Lane>(
    cx: &mut Cpu<'_>,
    i: &Inst,
    strict: bool,
    f: impl Fn(A, B, C) -> D,
) -> Step {
    let known = prepare(cx, i, strict)?;
    let (mut lo, mut hi) = (Lanes::ZERO, Lanes::ZERO);
    {
        let (a, b, c) = (lanes_of!(cx, i, 0, A), lanes_of!(cx, i, 1, B), lanes_of!(cx, i, 2, C));
        for l in 0..64 {
            let (x, y) = f(A::get(a.0[l], a.1[l]), B::get(b.0[l], b.1[l]), C::get(c.0[l], c.1[l])).put();
            lo.0[l] = x;
            if wide(D::TY) {
                hi.0[l] = y;
            }
        }
    }
    finish(cx, i, D::TY, &mut lo, wide(D::TY).then_some(&mut hi), known)
}

/// Builds a row of the opcode table whose function applies a closure to each lane. `int` rows carry "holds no value" on,
/// `float` rows insist on values. With `acc` the last argument is the destination's old value.
macro_rules! op {
    (int $n:literal, $($rest:tt)*) => { $crate::lanes::op!(@ false, Valu, false, $n, $($rest)*) };
    (float $n:literal, $($rest:tt)*) => { $crate::lanes::op!(@ true, Valu, false, $n, $($rest)*) };
    (acc $n:literal, $($rest:tt)*) => { $crate::lanes::op!(@ true, Valu, true, $n, $($rest)*) };
    (intacc $n:literal, $($rest:tt)*) => { $crate::lanes::op!(@ false, Valu, true, $n, $($rest)*) };
    (dot $n:literal, $($rest:tt)*) => { $crate::lanes::op!(@ true, Dot, false, $n, $($rest)*) };
    (dotacc $n:literal, $($rest:tt)*) => { $crate::lanes::op!(@ true, Dot, true, $n, $($rest)*) };
    (@ $strict:literal, $class:ident, $acc:literal, $n:literal, |$a:ident: $A:ty| -> $D:ty $b:block) => {
        $crate::inst::Row {
            name: $n, class: $crate::inst::Class::$class, reads_dst: $acc,
            roles: &[$crate::inst::Role::Dst(<$D as $crate::lanes::Lane>::TY),
                $crate::inst::Role::Src(<$A as $crate::lanes::Lane>::TY)],
            exec: $crate::inst::exec!(|cx, i| $crate::lanes::op1(cx, i, $strict, |$a: $A| -> $D { $b })),
        }
    };
    (@ $strict:literal, $class:ident, $acc:literal, $n:literal, |$a:ident: $A:ty, $c:ident: $B:ty| -> $D:ty $b:block) => {
        $crate::inst::Row {
            name: $n, class: $crate::inst::Class::$class, reads_dst: $acc,
            roles: &[$crate::inst::Role::Dst(<$D as $crate::lanes::Lane>::TY),
                $crate::inst::Role::Src(<$A as $crate::lanes::Lane>::TY),
                $crate::inst::Role::Src(<$B as $crate::lanes::Lane>::TY)],
            exec: $crate::inst::exec!(|cx, i| $crate::lanes::op2(cx, i, $strict, |$a: $A, $c: $B| -> $D { $b })),
        }
    };
    (@ $strict:literal, $class:ident, $acc:literal, $n:literal,
        |$a:ident: $A:ty, $c:ident: $B:ty, $d:ident: $C:ty| -> $D:ty $b:block) => {
        $crate::inst::Row {
            name: $n, class: $crate::inst::Class::$class, reads_dst: $acc,
            roles: &[$crate::inst::Role::Dst(<$D as $crate::lanes::Lane>::TY),
                $crate::inst::Role::Src(<$A as $crate::lanes::Lane>::TY),
                $crate::inst::Role::Src(<$B as $crate::lanes::Lane>::TY),
                $crate::inst::Role::Src(<$C as $crate::lanes::Lane>::TY)],
            exec: $crate::inst::exec!(|cx, i| {
                $crate::lanes::op3(cx, i, $strict, |$a: $A, $c: $B, $d: $C| -> $D { $b })
            }),
        }
    };
}
pub(crate) use op;
