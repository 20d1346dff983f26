//! The integer matmul's dots on AMX tiles: sixteen token rows × sixteen output rows at once.
//!
//! The dots are the same integers that the vector instructions give, and the f32 work is the same code
//! ([`super::matmul_int8`]), so the results are too. The intrinsics are not stable in Rust; five instructions of
//! inline assembly are all it takes. Formats with 16 values a scale stay with vectors: their dots of half a tile's depth
//! cost as much as whole ones, which eats the gain.

use super::int8_tile::{Out, Record, finish};
use super::unpack::{self, Kind};
use super::unroll;
use crate::simd::{Kernel, Simd};
use std::arch::asm;
use std::marker::PhantomData;

/// Token rows of a tile.
pub const ROWS: usize = 16;
/// Blocks whose dots are on their way while an earlier block's are used.
const AHEAD: usize = 3;

/// Tile registers configured on this thread. Released when dropped.
pub struct Configured(());

/// The operand of `ldtilecfg`.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    column_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Configured {
    /// Tiles 0–1 and 2–3 hold activations and weights of a dot, tiles 4–7 dots.
    ///
    /// # Safety
    /// The CPU has AMX and the system lets this process use it. The thread has no other configuration.
    pub unsafe fn new() -> Configured {
        let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], column_bytes: [0; 16], rows: [0; 16] };
        for tile in 0..8 {
            let (rows, bytes) = match tile {
                0 | 1 => (ROWS, 32),
                2 | 3 => (8, 64),
                _ => (ROWS, 64),
            };
            config.rows[tile] = rows as u8;
            config.column_bytes[tile] = bytes as u16;
        }
        // SAFETY: the caller's; the configuration is valid for palette 1.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, preserves_flags, readonly)) };
        Configured(())
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: the thread has a configuration.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}

/// Whole tiles of rows against a flat panel of a kind with one scale a block. Its codes become signed on the way.
pub struct Tiles<'a, K> {
    /// The tiles are this thread's.
    pub _tiles: &'a Configured,
    /// A flat panel.
    pub flat: *mut u8,
    /// Its blocks.
    pub blocks: usize,
    /// Subtracted from the codes.
    pub offset: i32,
    /// Records of tiles of sixteen rows.
    pub x: *const Record,
    /// Rows, a multiple of sixteen.
    pub rows: usize,
    /// Where sums go.
    pub out: Out,
    /// What the panel holds.
    pub kind: PhantomData<K>,
}

impl<K: Kind> Kernel for Tiles<'_, K> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Tiles { flat, blocks, x, rows, out, .. } = self;
        // SAFETY: the panel has `blocks` flat blocks, each row its records, and the caller vouches for `out`.
        unsafe {
            if self.offset != 0 {
                for b in 0..blocks {
                    for code in std::slice::from_raw_parts_mut(flat.add(b * K::FLAT), 512) {
                        *code = code.wrapping_sub(self.offset as u8);
                    }
                }
            }
            for at in (0..rows).step_by(ROWS) {
                let to = Out { out: out.out.add(at * out.ldo), ..out };
                tile::<S, K>(s, flat, blocks, x.add(at * blocks), to);
            }
        }
    }
}

/// A block's dots, `[row][lane]`.
#[repr(C, align(64))]
struct Dots([[i32; 16]; ROWS]);

/// One tile of rows.
///
/// # Safety
/// As for [`Tiles`], for one tile.
#[inline(always)]
unsafe fn tile<S: Simd, K: Kind>(s: S, flat: *const u8, blocks: usize, x: *const Record, to: Out) {
    let mut acc = [s.splat(0.0); ROWS];
    // Dots take long to arrive, so they are asked for some blocks ahead of their use.
    let mut ring = [const { std::mem::MaybeUninit::<Dots>::uninit() }; AHEAD + 1];
    let ring = ring.as_mut_ptr().cast::<Dots>();
    // SAFETY: the caller's. Dots are written before they are read.
    unsafe {
        for b in 0..AHEAD.min(blocks) {
            ask::<K>(b, flat, x, ring);
        }
        for b in 0..blocks {
            if b + AHEAD < blocks {
                ask::<K>(b + AHEAD, flat, x, ring);
            }
            let o = unpack::flat::<S, K>(s, flat.add(b * K::FLAT));
            let x = x.add(b * ROWS);
            let dots = ring.add(b % (AHEAD + 1)).cast::<i32>();
            unroll!(16: T < ROWS => {
                let dots = [s.iload(dots.add(16 * T)), s.isplat(0)];
                acc[T] = finish::<S, K>(s, &o, dots, x.add(T), acc[T]);
            });
        }
        unroll!(16: T < ROWS => { s.store_n(to.out.add(T * to.ldo), to.n, acc[T]); });
    }
}

/// Starts the dots of block `b`.
///
/// # Safety
/// As for [`Tiles`]; `ring` has room for `AHEAD + 1` blocks.
#[inline(always)]
unsafe fn ask<K: Kind>(b: usize, flat: *const u8, x: *const Record, ring: *mut Dots) {
    // SAFETY: the caller's.
    unsafe {
        let (x, w) = (x.add(b * ROWS).cast::<u8>(), flat.add(b * K::FLAT));
        let dots = ring.add(b % (AHEAD + 1)).cast::<u8>();
        if b.is_multiple_of(2) {
            dot::<0>(x, w, dots);
        } else {
            dot::<1>(x, w, dots);
        }
    }
}

/// The dots of sixteen rows of activations, a record apart, with a block's codes. `SET` says which tiles to use.
///
/// # Safety
/// The tiles are configured; the operands are readable and `dots` is writable for as much as they say.
#[inline(always)]
unsafe fn dot<const SET: usize>(x: *const u8, w: *const u8, dots: *mut u8) {
    macro_rules! dot {
        ($a:tt, $b:tt, $c:tt) => {
            asm!(
                concat!("tileloadd ", $a, ", [{x} + {apart}]"),
                concat!("tileloadd ", $b, ", [{w} + {line}]"),
                concat!("tilezero ", $c),
                concat!("tdpbssd ", $c, ", ", $a, ", ", $b),
                concat!("tilestored [{dots} + {line}], ", $c),
                x = in(reg) x,
                apart = in(reg) size_of::<Record>(),
                w = in(reg) w,
                line = in(reg) 64usize,
                dots = in(reg) dots,
                out($a) _,
                out($b) _,
                out($c) _,
                options(nostack, preserves_flags)
            )
        };
    }
    // SAFETY: the caller's.
    unsafe {
        match SET {
            0 => dot!("tmm0", "tmm2", "tmm4"),
            _ => dot!("tmm1", "tmm3", "tmm5"),
        }
    }
}
