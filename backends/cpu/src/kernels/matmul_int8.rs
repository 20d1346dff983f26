//! Quantised weights times quantised activations: exact integer dots a block, f32 sums of blocks.
//!
//! With `x` the activation codes of a block of 32 (`xs` its scale), and a lane for each output row:
//!
//! ```text
//! one scale a block (32 values):
//!     dot  = Σ (code − offset) · x                     exact, i32
//!     s    = d · float(sub-scale)                      rounded; d alone where there are no sub-scales
//!     acc  = fma(float(dot), s · xs, acc)              s · xs rounded
//!     acc  = fma(−m, u, acc)                           with minima: m = dmin · float(sub-minimum), rounded, or dmin
//!                                                      alone; u = xs · float(Σ x), rounded
//! two scales a block (16 values each):
//!     dot  = sub₀ · dot₀ + sub₁ · dot₁                 exact, i32
//!     acc  = fma(float(dot), d · xs, acc)              d · xs rounded
//!     v    = float(min₀ · Σ₀x + min₁ · Σ₁x) · dmin     with minima: integer part exact, then rounded twice
//!     acc  = fma(−v, xs, acc)
//! ```
//!
//! Blocks follow in ascending order from acc = 0. A NaN scale makes its whole output row NaN.

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::panel::{Codec, Panels, WithCodec, with_codec};
use super::unpack::{self, Facts, Kind, Operands};
use super::{scratch, unroll};
use crate::simd::{Kernel, Level, Simd};
use std::marker::PhantomData;
use std::ops::Range;

/// Quantised activations `[t, k]`: value = code · scale of its block of 32.
#[derive(Clone, Copy, Debug)]
pub struct Acts<'a> {
    /// Signed codes, row after row.
    pub codes: &'a [i8],
    /// One scale per 32 codes of a row.
    pub scales: &'a [f32],
    /// Values in a row, a multiple of 32.
    pub k: usize,
}

/// Bytes by which a panel's lines are asked for ahead of their use when one row passes over it.
const AHEAD: usize = 4096;

/// From this many rows on, a panel is unpacked once and kept for all of them.
const FLATTEN_FROM: usize = 4;

/// Computes `out[t · ldo + j] = Σₖ weights[j, k] · acts[t, k]` for the token rows `rows` and the output columns of the
/// panels `panels`. Nothing else of `out` is touched. The activations are brought into the tile's form at each call:
/// give a call at least eight panels if there are.
///
/// # Panics
/// If the weights are not quantised or a length does not fit.
///
/// # Safety
/// `out` is writable at every index named, and nobody else uses those elements during the call.
pub unsafe fn matmul_int8(
    level: Level,
    weights: &Panels,
    panels: Range<usize>,
    acts: &Acts,
    rows: Range<usize>,
    out: *mut f32,
    ldo: usize,
) {
    assert_eq!(acts.k, weights.k(), "values in a row");
    assert!(acts.codes.len() >= rows.end * acts.k, "activation codes");
    assert!(acts.scales.len() >= rows.end * (acts.k / 32), "activation scales");
    assert!(panels.end <= weights.count(), "panels");
    if rows.is_empty() || panels.is_empty() {
        return;
    }
    let job = Job { level, weights: *weights, panels, acts: *acts, rows, out, ldo };
    assert!(with_codec(weights.dtype(), job).is_some(), "{} weights are not quantised", weights.dtype());
}

struct Job<'a> {
    level: Level,
    weights: Panels<'a>,
    panels: Range<usize>,
    acts: Acts<'a>,
    rows: Range<usize>,
    out: *mut f32,
    ldo: usize,
}

impl WithCodec for Job<'_> {
    type Out = ();

    fn with<C: Codec>(self) {
        match (C::SUB16, C::MIN, C::LO == 8) {
            (false, false, false) => self.with_kind::<C, Facts<false, false, false>>(),
            (false, false, true) => self.with_kind::<C, Facts<false, false, true>>(),
            (false, true, _) => self.with_kind::<C, Facts<false, true, false>>(),
            (true, false, _) => self.with_kind::<C, Facts<true, false, false>>(),
            (true, true, _) => self.with_kind::<C, Facts<true, true, false>>(),
        }
    }
}

impl Job<'_> {
    fn with_kind<C: Codec, K: Kind>(self) {
        let Job { level, weights, panels, acts, rows, out, ldo } = self;
        let (blocks, count) = (acts.k / 32, rows.len());
        let few = count < FLATTEN_FROM;
        let flat = if few { 0 } else { blocks * K::FLAT };
        scratch::with(flat + count * blocks * size_of::<Record>(), |buffer| {
            // SAFETY: the offset lies in the buffer, at a multiple of 64.
            let x: *mut Record = unsafe { buffer.add(flat).cast() };
            level.run(Pack { acts, rows: rows.clone(), offset: (C::OFFSET, C::SUB16), few, to: x });
            #[cfg(target_arch = "x86_64")]
            // SAFETY: such a level is made only where tiles can be used; nothing else in this crate uses them.
            let tiles =
                (level.has_tiles() && !K::SUB16 && count >= amx::ROWS).then(|| unsafe { amx::Configured::new() });
            for i in panels {
                let (panel, columns) = (weights.panel(i).as_ptr(), weights.rows(i));
                // SAFETY: the caller vouches for `out`.
                let out = unsafe { out.add(rows.start * ldo + columns.start) };
                let out = Out { out, ldo, n: columns.len() };
                if few {
                    level.run(Few::<C, K> { panel, k: acts.k, x, rows: count, out, kind: PhantomData });
                    continue;
                }
                level.run(Flatten::<C, K> { panel, k: acts.k, to: buffer, kind: PhantomData });
                // The rows that fill no tile go first: tiles make the codes signed.
                let whole = 0;
                #[cfg(target_arch = "x86_64")]
                let whole = if tiles.is_some() { count / amx::ROWS * amx::ROWS } else { whole };
                if whole < count {
                    // SAFETY: rows from `whole` on have their records and their output.
                    let (x, out) = unsafe { (x.add(whole * blocks), Out { out: out.out.add(whole * ldo), ..out }) };
                    level.run(Many::<K> { flat: buffer, blocks, x, rows: count - whole, out, kind: PhantomData });
                }
                #[cfg(target_arch = "x86_64")]
                if let Some(tiles) = &tiles {
                    let offset = C::OFFSET;
                    level.run(amx::Tiles::<K> {
                        _tiles: tiles,
                        flat: buffer,
                        blocks,
                        offset,
                        x,
                        rows: whole,
                        out,
                        kind: PhantomData,
                    });
                }
            }
        });
    }
}

/// One activation row's block of 32, as a tile reads it.
#[repr(C)]
pub(super) struct Record {
    codes: [i8; 32],
    scale: f32,
    /// With minima, the halves' code sums; else what their dots start from, −offset times those sums. Where one scale
    /// covers 32 values, the first is that of the whole block.
    sums: [i32; 2],
    /// scale · float(sum of all codes)
    weighted: f32,
}

/// Where sums go: row `t` at `out + t · ldo`.
#[derive(Clone, Copy)]
pub(super) struct Out {
    pub out: *mut f32,
    pub ldo: usize,
    /// Valid lanes.
    pub n: usize,
}

/// Writes the records of all rows: tile after tile, in a tile block after block, in a block row after row.
struct Pack<'a> {
    acts: Acts<'a>,
    rows: Range<usize>,
    /// The codec's offset, and whether it needs the halves' sums.
    offset: (i32, bool),
    /// Whether tiles are single rows.
    few: bool,
    to: *mut Record,
}

impl Kernel for Pack<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let blocks = self.acts.k / 32;
        let (mut at, count) = (0, self.rows.len());
        while at < count {
            let m = tile_rows(if self.few { 1 } else { S::TILE }, count - at);
            for t in 0..m {
                let row = self.rows.start + at + t;
                let codes = &self.acts.codes[row * self.acts.k..][..self.acts.k];
                let scales = &self.acts.scales[row * blocks..][..blocks];
                // SAFETY: there is room for a record per row and block; this row's are m apart.
                unsafe { pack(codes, scales, self.offset, self.to.add(at * blocks + t), m) };
            }
            at += m;
        }
    }
}

/// A few rows against a packed panel.
struct Few<C, K> {
    panel: *const u8,
    k: usize,
    x: *const Record,
    rows: usize,
    out: Out,
    kind: PhantomData<(C, K)>,
}

impl<C: Codec, K: Kind> Kernel for Few<C, K> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for t in 0..self.rows {
            // SAFETY: the panel's rows are of `k` values, and each row of activations has its records.
            unsafe {
                let to = Out { out: self.out.out.add(t * self.out.ldo), ..self.out };
                row::<S, C, K>(s, self.panel, self.k, self.x.add(t * (self.k / 32)), to);
            }
        }
    }
}

/// Unpacks a panel.
struct Flatten<C, K> {
    panel: *const u8,
    k: usize,
    to: *mut u8,
    kind: PhantomData<(C, K)>,
}

impl<C: Codec, K: Kind> Kernel for Flatten<C, K> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: the panel's rows are of `k` values, and `to` has room for their flat blocks.
        unsafe { unpack::flatten::<S, C, K>(s, self.panel, self.k, self.to) }
    }
}

/// Many rows against a flat panel.
struct Many<K> {
    flat: *const u8,
    blocks: usize,
    x: *const Record,
    rows: usize,
    out: Out,
    kind: PhantomData<K>,
}

impl<K: Kind> Kernel for Many<K> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Many { flat, blocks, x, rows, out, .. } = self;
        let mut at = 0;
        while at < rows {
            let m = tile_rows(S::TILE, rows - at);
            // SAFETY: the records were written for these tiles.
            unsafe {
                let to = Out { out: out.out.add(at * out.ldo), ..out };
                let x = x.add(at * blocks);
                match m {
                    16 if const { S::TILE >= 16 } => tile::<S, K, 16>(s, flat, blocks, x, to),
                    8 if const { S::TILE >= 8 } => tile::<S, K, 8>(s, flat, blocks, x, to),
                    4 if const { S::TILE >= 4 } => tile::<S, K, 4>(s, flat, blocks, x, to),
                    2 if const { S::TILE >= 2 } => tile::<S, K, 2>(s, flat, blocks, x, to),
                    _ => tile::<S, K, 1>(s, flat, blocks, x, to),
                }
            }
            at += m;
        }
    }
}

/// Rows of the next tile: the largest power of two that fits.
#[inline(always)]
fn tile_rows(largest: usize, left: usize) -> usize {
    largest.min(1 << left.ilog2())
}

/// Writes a row's records, `step` apart.
///
/// # Safety
/// `to` has room for them.
#[inline(always)]
unsafe fn pack(codes: &[i8], scales: &[f32], (offset, sub16): (i32, bool), to: *mut Record, step: usize) {
    for (b, (codes, &scale)) in codes.as_chunks::<32>().0.iter().zip(scales).enumerate() {
        let mut halves = [0i32; 2];
        for i in 0..16 {
            halves[0] += i32::from(codes[i]);
            halves[1] += i32::from(codes[16 + i]);
        }
        let all = halves[0] + halves[1];
        let from = if sub16 { halves } else { [all, 0] };
        let sums = if offset == 0 { from } else { [-offset * from[0], -offset * from[1]] };
        // SAFETY: the caller's.
        unsafe { to.add(b * step).write(Record { codes: *codes, scale, sums, weighted: scale * all as f32 }) };
    }
}

/// One row, straight from the packed panel: what decoding runs.
///
/// # Safety
/// `panel` is a panel of rows of `k` values, `x` a row's records, `to` writable.
#[inline(always)]
unsafe fn row<S: Simd, C: Codec, K: Kind>(s: S, panel: *const u8, k: usize, x: *const Record, to: Out) {
    let (mut p, mut x, mut acc) = (panel, x, s.splat(0.0));
    // SAFETY: the loops walk exactly the panel and the records.
    unsafe {
        for _ in 0..k / (32 * C::BLOCKS) {
            let h = unpack::head::<S, C>(s, p);
            p = p.add(C::HEAD);
            for _ in 0..C::BLOCKS {
                unroll!(16: L < C::BLOCK.div_ceil(64) => { s.prefetch(p.wrapping_add(AHEAD + 64 * L)); });
                acc = step::<S, K>(s, &unpack::block::<S, C>(s, h, p), x, acc);
                p = p.add(C::BLOCK);
                x = x.add(1);
            }
        }
        s.store_n(to.out, to.n, acc);
    }
}

/// `M` rows against a flat panel.
///
/// # Safety
/// `panel` holds `blocks` flat blocks, `x` the records of a tile of `M` rows; `to` is writable for them.
#[inline(always)]
unsafe fn tile<S: Simd, K: Kind, const M: usize>(s: S, panel: *const u8, blocks: usize, x: *const Record, to: Out) {
    let mut acc = [s.splat(0.0); M];
    // SAFETY: the caller's.
    unsafe {
        for b in 0..blocks {
            let o = unpack::flat::<S, K>(s, panel.add(b * K::FLAT));
            let x = x.add(b * M);
            unroll!(16: T < M => { acc[T] = step::<S, K>(s, &o, x.add(T), acc[T]); });
        }
        unroll!(16: T < M => { s.store_n(to.out.add(T * to.ldo), to.n, acc[T]); });
    }
}

/// Adds one block's product to one row's sums.
///
/// # Safety
/// `x` is a record.
#[inline(always)]
unsafe fn step<S: Simd, K: Kind>(s: S, o: &Operands<S>, x: *const Record, acc: S::F) -> S::F {
    // SAFETY: the caller's; eight groups of four codes are 32.
    unsafe {
        let codes = (*x).codes.as_ptr().cast::<i32>();
        let start = if K::MIN { [0; 2] } else { (*x).sums };
        let mut dots = [s.isplat(start[0]), s.isplat(if K::SUB16 { start[1] } else { 0 })];
        if K::SUB16 {
            unroll!(4: G < 4 => {
                dots[0] = s.dot::<false>(dots[0], o.w[G], codes.add(G).read_unaligned());
                dots[1] = s.dot::<false>(dots[1], o.w[G + 4], codes.add(G + 4).read_unaligned());
            });
        } else if K::WIDE {
            unroll!(8: G < 8 => { dots[0] = s.dot::<true>(dots[0], o.w[G], codes.add(G).read_unaligned()); });
        } else {
            unroll!(8: G < 8 => { dots[0] = s.dot::<false>(dots[0], o.w[G], codes.add(G).read_unaligned()); });
        }
        finish::<S, K>(s, o, dots, x, acc)
    }
}

/// From a block's dots (of its halves, where a scale covers 16 values) to sums: the f32 operations at the head of this
/// file.
///
/// # Safety
/// `x` is a record.
#[inline(always)]
pub(super) unsafe fn finish<S: Simd, K: Kind>(
    s: S,
    o: &Operands<S>,
    dots: [S::I; 2],
    x: *const Record,
    acc: S::F,
) -> S::F {
    // SAFETY: the caller's.
    let (xs, sums, weighted) = unsafe { (s.splat((*x).scale), (*x).sums, (*x).weighted) };
    let mut dot = dots[0];
    if K::SUB16 {
        dot = s.iadd(s.imul(o.sub[0], dot), s.imul(o.sub[1], dots[1]));
    }
    let acc = s.fma(s.float(dot), s.mul(o.scale, xs), acc);
    if K::MIN && K::SUB16 {
        let both = s.iadd(s.imul(o.submin[0], s.isplat(sums[0])), s.imul(o.submin[1], s.isplat(sums[1])));
        s.fnma(s.mul(s.float(both), o.min), xs, acc)
    } else if K::MIN {
        s.fnma(o.min, s.splat(weighted), acc)
    } else {
        acc
    }
}
