//! Tiles of the integer matmul: the arithmetic whose order [`super::matmul_int8`] states.

use super::panel::Codec;
use super::unpack::{self, Kind, Operands};
use super::unroll;
use crate::simd::{Kernel, Simd};
use std::marker::PhantomData;

/// Bytes by which a panel's lines are asked for ahead of their use when one row passes over it.
const AHEAD: usize = 4096;

/// One activation row's block of 32, as a tile reads it.
#[repr(C)]
pub struct Record {
    pub codes: [i8; 32],
    pub scale: f32,
    /// With minima, the halves' code sums; else what their dots start from, −offset times those sums. Where one scale
    /// covers 32 values, the first is that of the whole block.
    pub sums: [i32; 2],
    /// scale · float(sum of all codes)
    pub weighted: f32,
}

/// Where sums go: row `t` at `out + t · ldo`.
#[derive(Clone, Copy)]
pub struct Out {
    pub out: *mut f32,
    pub ldo: usize,
    /// Valid lanes.
    pub n: usize,
}

/// A few rows against a packed panel.
pub struct Few<C, K> {
    pub panel: *const u8,
    pub k: usize,
    pub x: *const Record,
    pub rows: usize,
    pub out: Out,
    pub kind: PhantomData<(C, K)>,
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
pub struct Flatten<C, K> {
    pub panel: *const u8,
    pub k: usize,
    pub to: *mut u8,
    pub kind: PhantomData<(C, K)>,
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
pub struct Many<K> {
    pub flat: *const u8,
    pub blocks: usize,
    pub x: *const Record,
    pub rows: usize,
    pub out: Out,
    pub kind: PhantomData<K>,
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
pub fn tile_rows(largest: usize, left: usize) -> usize {
    largest.min(1 << left.ilog2())
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
pub unsafe fn finish<S: Simd, K: Kind>(s: S, o: &Operands<S>, dots: [S::I; 2], x: *const Record, acc: S::F) -> S::F {
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
