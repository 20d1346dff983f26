//! How weights lie in memory for the matmuls: panels of sixteen output rows, one to a lane.
//!
//! Sums of different rows never cross lanes, so the order of a reduction is that of the loop. A panel of a quantised
//! type holds, for each (super-)block of K in ascending order:
//!
//! ```text
//! head    d: 16 × f16 (one a row), then dmin: 16 × f16 where the format has minima
//! block   for each 32 values of K: sub-scales 16 × i8 (twice for formats with 16 values a scale: first those of the
//!         first half), minima 16 × u8 likewise — both only in super-block formats — then the code planes
//! ```
//!
//! The codes of 32 values × 16 rows are 8 groups of 64 bytes; byte 4·row + j of group g is the code of value 4g + j.
//! That is the operand of the four-way byte dot product. Groups are packed into planes by bits, so that a panel is about
//! as large as the file's blocks:
//!
//! ```text
//! 8 bits  8 × 64 bytes, group g as it is
//! 4 bits  4 × 64 bytes, group i in the low nibble of plane i, group i + 4 in the high one
//! 2 bits  2 × 64 bytes, group 4i + j at bit 2j of plane i
//! 1 bit   1 × 64 bytes, group g at bit g
//! ```
//!
//! 5-bit codes are a 4-bit plane and a 1-bit plane of the top bit; 6-bit ones 4 + 2, 3-bit ones 2 + 1. Plain types are
//! `[K][16 rows]` of their own type. Rows past N are zero.

use greta_ops::DType;
use std::ops::Range;

/// Output rows in a panel.
pub const ROWS: usize = 16;

/// The fixed facts of a quantised panel format.
pub trait Codec: 'static {
    /// The type it stores.
    const DTYPE: DType;
    /// Bits of the low plane: 8, 4 or 2.
    const LO: usize;
    /// Bits of the high plane: 0, 1 or 2.
    const HI: usize;
    /// Subtracted from a code before it is scaled.
    const OFFSET: i32;
    /// Whether a minimum is subtracted.
    const MIN: bool;
    /// Whether a scale covers 16 values instead of 32.
    const SUB16: bool;
    /// Blocks of 32 values under one head: 8 in a super-block, else 1.
    const BLOCKS: usize;
    /// Bytes of a head.
    const HEAD: usize = 2 * ROWS * (1 + Self::MIN as usize);
    /// Bytes of a block's sub-scales, and of its minima if there are any.
    const SUBS: usize = if Self::BLOCKS == 1 { 0 } else { ROWS * (1 + Self::SUB16 as usize) };
    /// Bytes of a block before its codes.
    const SCALES: usize = Self::SUBS * (1 + Self::MIN as usize);
    /// Bytes of a block.
    const BLOCK: usize = Self::SCALES + 64 * (Self::LO + Self::HI);
}

/// Work that is compiled for each codec.
pub trait WithCodec {
    /// What the work returns.
    type Out;
    /// Does the work.
    fn with<C: Codec>(self) -> Self::Out;
}

macro_rules! codecs {
    ($($id:ident: $lo:literal + $hi:literal bits, offset $off:literal, min $min:literal, sub16 $sub:literal, blocks $n:literal;)*) => {
        mod codec {
            $(#[allow(non_camel_case_types, reason = "the field's names")] pub struct $id;)*
        }
        $(impl Codec for codec::$id {
            const DTYPE: DType = DType::$id;
            const LO: usize = $lo;
            const HI: usize = $hi;
            const OFFSET: i32 = $off;
            const MIN: bool = $min;
            const SUB16: bool = $sub;
            const BLOCKS: usize = $n;
        })*

        /// Runs the work for a type's codec; `None` for a type that is not quantised.
        pub fn with_codec<W: WithCodec>(dtype: DType, work: W) -> Option<W::Out> {
            match dtype {
                $(DType::$id => Some(work.with::<codec::$id>()),)*
                _ => None,
            }
        }
    };
}

codecs! {
    Q4_0: 4 + 0 bits, offset 8, min false, sub16 false, blocks 1;
    Q4_1: 4 + 0 bits, offset 0, min true, sub16 false, blocks 1;
    Q5_0: 4 + 1 bits, offset 16, min false, sub16 false, blocks 1;
    Q5_1: 4 + 1 bits, offset 0, min true, sub16 false, blocks 1;
    Q8_0: 8 + 0 bits, offset 128, min false, sub16 false, blocks 1;
    Q2_K: 2 + 0 bits, offset 0, min true, sub16 true, blocks 8;
    Q3_K: 2 + 1 bits, offset 4, min false, sub16 true, blocks 8;
    Q4_K: 4 + 0 bits, offset 0, min true, sub16 false, blocks 8;
    Q5_K: 4 + 1 bits, offset 0, min true, sub16 false, blocks 8;
    Q6_K: 4 + 2 bits, offset 32, min false, sub16 true, blocks 8;
}

/// Panels of a matrix of `n` output rows.
pub const fn panel_count(n: usize) -> usize {
    n.div_ceil(ROWS)
}

/// Bytes of one panel of rows of `k` values; `None` if rows do not end on a block, if the size overflows, or for types
/// that are no weights.
pub fn panel_bytes(dtype: DType, k: usize) -> Option<usize> {
    struct Size(usize);
    impl WithCodec for Size {
        type Out = Option<usize>;
        fn with<C: Codec>(self) -> Option<usize> {
            let len = 32 * C::BLOCKS;
            if !self.0.is_multiple_of(len) {
                return None;
            }
            (self.0 / len).checked_mul(C::HEAD + C::BLOCKS * C::BLOCK)
        }
    }
    match dtype {
        DType::F32 => k.checked_mul(4 * ROWS),
        DType::F16 | DType::BF16 => k.checked_mul(2 * ROWS),
        _ => with_codec(dtype, Size(k))?,
    }
}

/// A weight matrix `[n, k]` in panels.
#[derive(Clone, Copy, Debug)]
pub struct Panels<'a> {
    dtype: DType,
    n: usize,
    k: usize,
    each: usize,
    bytes: &'a [u8],
}

impl<'a> Panels<'a> {
    /// Views repacked bytes. `None` unless there are exactly as many as `n` rows of `k` values take.
    pub fn new(dtype: DType, n: usize, k: usize, bytes: &'a [u8]) -> Option<Panels<'a>> {
        let each = panel_bytes(dtype, k)?;
        (panel_count(n).checked_mul(each)? == bytes.len()).then_some(Panels { dtype, n, k, each, bytes })
    }

    /// The type stored.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Output rows.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Values in a row.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of panels.
    pub fn count(&self) -> usize {
        panel_count(self.n)
    }

    /// The bytes of panel `i`.
    pub fn panel(&self, i: usize) -> &'a [u8] {
        &self.bytes[i * self.each..][..self.each]
    }

    /// The output rows of panel `i`.
    pub fn rows(&self, i: usize) -> Range<usize> {
        i * ROWS..((i + 1) * ROWS).min(self.n)
    }
}
