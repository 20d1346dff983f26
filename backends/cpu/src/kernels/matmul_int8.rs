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
use super::int8_tile::{Few, Flatten, Many, Out, Record, tile_rows};
use super::panel::{Codec, Panels, WithCodec, with_codec};
use super::scratch;
use super::unpack::{Facts, Kind};
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
