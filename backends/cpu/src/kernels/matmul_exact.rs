//! Weights as they dequantise, times f32 activations.
//!
//! A weight is `(d · sub-scale) · (code − offset) − dmin · sub-minimum`, every product rounded on its own: the bits of
//! the format's own dequantisation. Each output has four sums, of the values with k ≡ 0, 1, 2, 3 (mod 4), each
//! `sum = fma(weight, x, sum)` in ascending k from 0; the output is `(s₀ + s₁) + (s₂ + s₃)`.

use super::panel::{Codec, Panels, ROWS, WithCodec, with_codec};
use super::{scratch, unpack, unroll};
use crate::simd::{Kernel, Level, Simd};
use greta_ops::DType;
use std::marker::PhantomData;
use std::ops::Range;

/// Values of K that are dequantised, then used by every row while they are near; a multiple of every block.
const PIECE: usize = 256;

/// Computes `out[t · ldo + j] = Σₖ weights[j, k] · x[t · k + k]` for the token rows `rows` and the output columns of
/// the panels `panels`. Nothing else of `out` is touched.
///
/// # Panics
/// If a length does not fit.
///
/// # Safety
/// `out` is writable at every index named, and nobody else uses those elements during the call.
pub unsafe fn matmul_exact(
    level: Level,
    weights: &Panels,
    panels: Range<usize>,
    x: &[f32],
    rows: Range<usize>,
    out: *mut f32,
    ldo: usize,
) {
    assert!(x.len() >= rows.end * weights.k(), "activations");
    assert!(panels.end <= weights.count() && weights.k() > 0, "panels");
    if rows.is_empty() || panels.is_empty() {
        return;
    }
    let job = Job { level, weights: *weights, panels, x, rows, out, ldo };
    match weights.dtype() {
        DType::F32 => job.with_source::<F32>(),
        DType::F16 => job.with_source::<F16>(),
        DType::BF16 => job.with_source::<BF16>(),
        dtype => assert!(with_codec(dtype, job).is_some(), "{dtype} weights"),
    }
}

/// Panels that can be turned to f32, `[k][16]`.
trait Source: 'static {
    /// Values of K that are dequantised together.
    const LEN: usize;
    /// Bytes that hold them.
    const BYTES: usize;
    /// Dequantises [`Source::LEN`] values of sixteen rows.
    ///
    /// # Safety
    /// `p` is readable for [`Source::BYTES`], `out` writable for 16 · [`Source::LEN`] values.
    unsafe fn dequantize<S: Simd>(s: S, p: *const u8, out: *mut f32);
}

macro_rules! plain {
    ($($id:ident, $bytes:literal, $load:ident;)*) => {$(
        struct $id;
        impl Source for $id {
            const LEN: usize = 1;
            const BYTES: usize = $bytes * ROWS;
            #[inline(always)]
            unsafe fn dequantize<S: Simd>(s: S, p: *const u8, out: *mut f32) {
                // SAFETY: the caller's.
                unsafe { s.store(out, s.$load(p.cast())) }
            }
        }
    )*};
}

plain! {
    F32, 4, load;
    F16, 2, load_f16;
    BF16, 2, load_bf16;
}

/// A quantised source.
struct Coded<C>(PhantomData<C>);

impl<C: Codec> Source for Coded<C> {
    const LEN: usize = 32 * C::BLOCKS;
    const BYTES: usize = C::HEAD + C::BLOCKS * C::BLOCK;

    #[inline(always)]
    unsafe fn dequantize<S: Simd>(s: S, p: *const u8, out: *mut f32) {
        let (mut p, mut out) = (p, out);
        // SAFETY: the caller's; the loops walk exactly one (super-)block.
        unsafe {
            let h = unpack::head::<S, C>(s, p);
            p = p.add(C::HEAD);
            for _ in 0..C::BLOCKS {
                let o = unpack::block::<S, C>(s, h, p);
                unroll!(8: G < 8 => {
                    let (mut scale, mut min) = (o.scale, o.min);
                    if C::SUB16 {
                        scale = s.mul(scale, s.float(o.sub[G / 4]));
                        if C::MIN {
                            min = s.mul(min, s.float(o.submin[G / 4]));
                        }
                    }
                    unroll!(4: J < 4 => {
                        let level = s.isub(s.byte(o.w[G], J), s.isplat(C::OFFSET));
                        let mut v = s.mul(scale, s.float(level));
                        if C::MIN {
                            v = s.sub(v, min);
                        }
                        s.store(out.add((4 * G + J) * ROWS), v);
                    });
                });
                p = p.add(C::BLOCK);
                out = out.add(32 * ROWS);
            }
        }
    }
}

struct Job<'a> {
    level: Level,
    weights: Panels<'a>,
    panels: Range<usize>,
    x: &'a [f32],
    rows: Range<usize>,
    out: *mut f32,
    ldo: usize,
}

impl WithCodec for Job<'_> {
    type Out = ();

    fn with<C: Codec>(self) {
        self.with_source::<Coded<C>>();
    }
}

impl Job<'_> {
    fn with_source<W: Source>(self) {
        let Job { level, weights, panels, x, rows, out, ldo } = self;
        let k = weights.k();
        scratch::with(4 * ROWS * (PIECE + 4 * rows.len()), |buffer| {
            let flat = buffer.cast::<f32>();
            // SAFETY: the offset lies in the buffer.
            let sums = unsafe { flat.add(ROWS * PIECE) };
            for i in panels {
                let (panel, columns) = (weights.panel(i), weights.rows(i));
                for from in (0..k).step_by(PIECE) {
                    let len = PIECE.min(k - from);
                    let from_bytes = &panel[from / W::LEN * W::BYTES..][..len / W::LEN * W::BYTES];
                    level.run(Dequantize::<W> { from: from_bytes, to: flat, source: PhantomData });
                    // SAFETY: `x` was checked to hold all rows; the caller vouches for `out`.
                    let (x, out) =
                        unsafe { (x.as_ptr().add(rows.start * k + from), out.add(rows.start * ldo + columns.start)) };
                    let ends = (from == 0, from + len == k);
                    level.run(Piece { flat, len, x, k, sums, rows: rows.len(), ends, out, ldo, n: columns.len() });
                }
            }
        });
    }
}

/// Dequantises a piece of a panel.
struct Dequantize<'a, W> {
    /// Whole blocks.
    from: &'a [u8],
    /// Room for their values.
    to: *mut f32,
    source: PhantomData<W>,
}

impl<W: Source> Kernel for Dequantize<'_, W> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (b, block) in self.from.chunks_exact(W::BYTES).enumerate() {
            // SAFETY: a block, and room for its values.
            unsafe { W::dequantize(s, block.as_ptr(), self.to.add(b * W::LEN * ROWS)) };
        }
    }
}

/// Multiplies a dequantised piece by every row.
struct Piece {
    /// `[len][16]` weights.
    flat: *const f32,
    len: usize,
    /// The first row's activations from the piece's first value on; rows lie `k` apart.
    x: *const f32,
    k: usize,
    /// Four vectors a row, kept from piece to piece.
    sums: *mut f32,
    rows: usize,
    /// Whether the piece is the first, the last of its panel.
    ends: (bool, bool),
    out: *mut f32,
    ldo: usize,
    /// Valid lanes.
    n: usize,
}

impl Kernel for Piece {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut row = 0;
        while row < self.rows {
            // SAFETY: at least as many rows remain as the tile has.
            row += unsafe {
                match self.rows - row {
                    6.. if const { S::TILE >= 16 } => tile::<S, 6>(s, &self, row),
                    3.. if const { S::TILE >= 16 } => tile::<S, 3>(s, &self, row),
                    2.. if const { S::TILE == 4 } => tile::<S, 2>(s, &self, row),
                    _ => tile::<S, 1>(s, &self, row),
                }
            };
        }
    }
}

/// The rows from `row` on, `M` of them; returns `M`.
///
/// # Safety
/// The piece's pointers are as described, for rows up to `row + M`.
#[inline(always)]
unsafe fn tile<S: Simd, const M: usize>(s: S, p: &Piece, row: usize) -> usize {
    let mut acc = [[s.splat(0.0); 4]; M];
    // SAFETY: the caller's. All pieces but the last are a multiple of four long, so that i mod 4 is k mod 4.
    unsafe {
        let sums = p.sums.add(row * 4 * ROWS);
        let x = p.x.add(row * p.k);
        if !p.ends.0 {
            unroll!(8: T < M => { unroll!(4: C < 4 => { acc[T][C] = s.load(sums.add((4 * T + C) * ROWS)); }); });
        }
        for i in 0..p.len / 4 {
            unroll!(4: C < 4 => {
                let w = s.load(p.flat.add((4 * i + C) * ROWS));
                unroll!(8: T < M => { acc[T][C] = s.fma(w, s.splat(*x.add(T * p.k + 4 * i + C)), acc[T][C]); });
            });
        }
        unroll!(4: C < 3 => {
            let i = p.len / 4 * 4 + C;
            if i < p.len {
                let w = s.load(p.flat.add(i * ROWS));
                unroll!(8: T < M => { acc[T][C] = s.fma(w, s.splat(*x.add(T * p.k + i)), acc[T][C]); });
            }
        });
        if p.ends.1 {
            unroll!(8: T < M => {
                let [a, b, c, d] = acc[T];
                s.store_n(p.out.add((row + T) * p.ldo), p.n, s.add(s.add(a, b), s.add(c, d)));
            });
        } else {
            unroll!(8: T < M => { unroll!(4: C < 4 => { s.store(sums.add((4 * T + C) * ROWS), acc[T][C]); }); });
        }
    }
    M
}
