//! From packed panels to operands: into registers for one row, into a flat buffer for many.

use super::panel::Codec;
use super::unroll;
use crate::simd::Simd;

/// What the integer matmul must know of a format. Several formats share one kind, and its compiled tiles.
pub trait Kind: 'static {
    /// Whether a scale covers 16 values instead of 32.
    const SUB16: bool;
    /// Whether a minimum is subtracted.
    const MIN: bool;
    /// Whether codes may reach 128.
    const WIDE: bool;
    /// Bytes of a flat block: eight groups of codes, then the vectors of [`Operands`] that the kind uses.
    const FLAT: usize =
        512 + 64 * (1 + Self::MIN as usize) + if Self::SUB16 { 128 * (1 + Self::MIN as usize) } else { 0 };
}

/// The kind with these facts.
pub struct Facts<const SUB16: bool, const MIN: bool, const WIDE: bool>;

impl<const SUB16: bool, const MIN: bool, const WIDE: bool> Kind for Facts<SUB16, MIN, WIDE> {
    const SUB16: bool = SUB16;
    const MIN: bool = MIN;
    const WIDE: bool = WIDE;
}

/// A block of 32 values × 16 rows, one row a lane.
pub struct Operands<S: Simd> {
    /// Code groups.
    pub w: [S::B; 8],
    /// The scale: d · sub-scale, or d alone where a scale covers 16 values.
    pub scale: S::F,
    /// The minimum: dmin · sub-minimum, or dmin alone where a scale covers 16 values.
    pub min: S::F,
    /// Sub-scales of the halves, where a scale covers 16 values.
    pub sub: [S::I; 2],
    /// Minima of the halves, likewise.
    pub submin: [S::I; 2],
}

/// Reads a head: d and dmin of sixteen rows.
///
/// # Safety
/// `p` is readable for a head.
#[inline(always)]
pub unsafe fn head<S: Simd, C: Codec>(s: S, p: *const u8) -> (S::F, S::F) {
    // SAFETY: the caller's; dmin follows d where the codec has it.
    unsafe {
        let d = s.load_f16(p.cast());
        let dmin = if C::MIN { s.load_f16(p.add(32).cast()) } else { s.splat(0.0) };
        (d, dmin)
    }
}

/// Reads a packed block under a head.
///
/// # Safety
/// `p` is readable for a block.
#[inline(always)]
pub unsafe fn block<S: Simd, C: Codec>(s: S, (d, dmin): (S::F, S::F), p: *const u8) -> Operands<S> {
    let zero = s.isplat(0);
    // SAFETY: the caller's; the offsets are those of the layout.
    unsafe {
        let w = codes::<S, C>(s, p.add(C::SCALES));
        let mut o = Operands { w, scale: d, min: dmin, sub: [zero; 2], submin: [zero; 2] };
        if C::SUB16 {
            o.sub = [s.load_i8(p.cast()), s.load_i8(p.add(16).cast())];
            if C::MIN {
                o.submin = [s.load_u8(p.add(32)), s.load_u8(p.add(48))];
            }
        } else if C::BLOCKS > 1 {
            o.scale = s.mul(d, s.float(s.load_i8(p.cast())));
            if C::MIN {
                o.min = s.mul(dmin, s.float(s.load_u8(p.add(16))));
            }
        }
        o
    }
}

/// Reads a block's code planes and puts the groups together.
///
/// # Safety
/// `p` is readable for a block's planes.
#[inline(always)]
pub unsafe fn codes<S: Simd, C: Codec>(s: S, p: *const u8) -> [S::B; 8] {
    let mut w = [s.bsplat(0); 8];
    // SAFETY: the caller's: a codec has LO + HI planes of 64 bytes.
    unsafe {
        match C::LO {
            8 => unroll!(8: G < 8 => { w[G] = s.bload(p.add(64 * G)); }),
            4 => unroll!(4: G < 4 => {
                let v = s.bload(p.add(64 * G));
                w[G] = s.band(v, s.bsplat(0x0f));
                w[G + 4] = s.band(s.bshr(v, 4), s.bsplat(0x0f));
            }),
            _ => unroll!(8: G < 8 => {
                w[G] = s.band(s.bshr(s.bload(p.add(64 * (G / 4))), 2 * (G % 4) as u32), s.bsplat(0x03));
            }),
        }
        let high = p.add(64 * C::LO);
        if C::HI > 0 {
            unroll!(8: G < 8 => {
                // Group G's bits stand at `from` of their plane and belong at bit LO of the code.
                let (plane, from) = if C::HI == 1 { (0, G) } else { (G / 4, 2 * (G % 4)) };
                let v = s.bload(high.add(64 * plane));
                let v = if from > C::LO { s.bshr(v, (from - C::LO) as u32) } else { s.bshl(v, (C::LO - from) as u32) };
                w[G] = s.bor(w[G], s.band(v, s.bsplat((((1 << C::HI) - 1) << C::LO) as u8)));
            });
        }
    }
    w
}

/// Unpacks a whole panel into flat blocks of the codec's kind, for [`flat`].
///
/// # Safety
/// `panel` is a panel of rows of `k` values; `out` is writable for `k / 32` flat blocks.
#[inline(always)]
pub unsafe fn flatten<S: Simd, C: Codec, K: Kind>(s: S, panel: *const u8, k: usize, out: *mut u8) {
    let (mut p, mut out) = (panel, out);
    for _ in 0..k / (32 * C::BLOCKS) {
        // SAFETY: the loops walk exactly the panel and its flat blocks.
        unsafe {
            let h = head::<S, C>(s, p);
            p = p.add(C::HEAD);
            for _ in 0..C::BLOCKS {
                let o = block::<S, C>(s, h, p);
                unroll!(8: G < 8 => { s.bstore(out.add(64 * G), o.w[G]); });
                s.store(out.add(512).cast(), o.scale);
                let mut at = 576;
                if K::MIN {
                    s.store(out.add(at).cast(), o.min);
                    at += 64;
                }
                if K::SUB16 {
                    s.istore(out.add(at).cast(), o.sub[0]);
                    s.istore(out.add(at + 64).cast(), o.sub[1]);
                    if K::MIN {
                        s.istore(out.add(at + 128).cast(), o.submin[0]);
                        s.istore(out.add(at + 192).cast(), o.submin[1]);
                    }
                }
                p = p.add(C::BLOCK);
                out = out.add(K::FLAT);
            }
        }
    }
}

/// Reads a flat block.
///
/// # Safety
/// `p` is readable for a flat block of the kind.
#[inline(always)]
pub unsafe fn flat<S: Simd, K: Kind>(s: S, p: *const u8) -> Operands<S> {
    let zero = s.isplat(0);
    // SAFETY: the caller's; the offsets are those of `flatten`.
    unsafe {
        let mut w = [s.bsplat(0); 8];
        unroll!(8: G < 8 => { w[G] = s.bload(p.add(64 * G)); });
        let scale = s.load(p.add(512).cast());
        let mut o = Operands { w, scale, min: s.splat(0.0), sub: [zero; 2], submin: [zero; 2] };
        let mut at = 576;
        if K::MIN {
            o.min = s.load(p.add(at).cast());
            at += 64;
        }
        if K::SUB16 {
            o.sub = [s.iload(p.add(at).cast()), s.iload(p.add(at + 64).cast())];
            if K::MIN {
                o.submin = [s.iload(p.add(at + 128).cast()), s.iload(p.add(at + 192).cast())];
            }
        }
        o
    }
}
