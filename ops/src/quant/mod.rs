//! Quantised block formats, one file each.
//!
//! Every format is described the same way: a block taken apart into [`Parts`], the integers and scales it stores, so
//! that one line gives every value:
//!
//! ```text
//! value[i] = (d · scales[i / sub]) · (codes[i] − offset)  −  dmin · mins[i / sub]
//! ```
//!
//! All of it in f32; formats without minima subtract nothing. The values are those of ggml's own dequantisation to the
//! bit. Every product is exact (an f16 has 11 significant bits, the integers fill at most 12 more), so only the
//! subtraction rounds, and a backend that contracts it to a fused multiply-add gets the same bits.
//!
//! Dequantisation, the integer matmul's reference and a backend's repacking all read the same parts.

mod draw;
mod pack;
mod plain;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod rng;

use half::f16;

use crate::DType;
pub use rng::Rng;

/// The fixed facts of a block format.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// The type this describes.
    pub dtype: DType,
    /// Bits of a stored code (2, 3, 4, 5, 6 or 8).
    pub bits: u8,
    /// Values that share one scale: 16 or 32.
    pub sub: usize,
    /// Subtracted from a code before it is scaled.
    pub offset: i32,
    /// Whether a minimum is subtracted after scaling.
    pub has_min: bool,
    /// Where in a block its f16 scales begin: `d`, then that of the minima where the format has them.
    pub f16_at: &'static [usize],
    /// Takes a block apart into parts that are all zero or hold another block of this format.
    ///
    /// Any bytes are a valid block. Panics unless there are exactly `dtype.block_bytes()` of them.
    pub read: fn(block: &[u8], parts: &mut Parts),
    /// Fills a block with random codes and scales whose dequantised values have about this standard deviation and
    /// mean zero. Every byte is written; `d` is finite.
    ///
    /// Scales are f16, which limits how small and how large a `std` comes out as asked: from 2·10⁻⁴ to 10⁴ it does.
    /// Panics unless the block has exactly `dtype.block_bytes()` bytes.
    pub random: fn(rng: &mut Rng, std: f32, block: &mut [u8]),
}

/// A block taken apart: see the module's formula.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    /// The block's (or super-block's) scale.
    pub d: f32,
    /// The block's (or super-block's) scale of minima; 0 where the format has none.
    pub dmin: f32,
    /// One integer scale per `sub` values; 1 where the format has only `d`.
    pub scales: [i8; 16],
    /// One integer minimum per `sub` values; 1 where the format has only `dmin`, 0 where it has no minima.
    pub mins: [u8; 16],
    /// Unsigned codes in the order of the values, before `offset` is subtracted (Q8_0: the stored byte + 128).
    pub codes: [u8; 256],
}

impl Parts {
    /// Everything zero but the two scales.
    fn zero(d: f32, dmin: f32) -> Parts {
        Parts { d, dmin, scales: [0; 16], mins: [0; 16], codes: [0; 256] }
    }

    /// For formats whose blocks have one scale and no integer scales.
    fn one_scale(&mut self, d: f32) {
        self.d = d;
        self.scales[0] = 1;
    }

    /// For formats whose blocks have one scale, one minimum and no integer scales.
    fn one_scale_and_min(&mut self, d: f32, dmin: f32) {
        self.one_scale(d);
        self.dmin = dmin;
        self.mins[0] = 1;
    }
}

impl Format {
    /// A block taken apart. Entries past the block's length are zero.
    pub fn parts(&self, block: &[u8]) -> Parts {
        let mut p = Parts::zero(0.0, 0.0);
        (self.read)(block, &mut p);
        p
    }

    /// The `i`-th value of a block, by the module's formula.
    ///
    /// Panics if `i` is not below 256; a value past the block's length means nothing.
    pub fn value(&self, parts: &Parts, i: usize) -> f32 {
        let j = i / self.sub;
        let scaled = (parts.d * f32::from(parts.scales[j])) * self.level(parts.codes[i]);
        if self.has_min { scaled - parts.dmin * f32::from(parts.mins[j]) } else { scaled }
    }

    /// Writes all values of a block.
    ///
    /// Panics unless `block` is exactly one block and `out` has room for exactly its values.
    pub fn dequantize(&self, block: &[u8], out: &mut [f32]) {
        assert_eq!(out.len(), self.dtype.block_len(), "values of a {} block", self.dtype);
        let parts = self.parts(block);
        let subs = parts.codes.chunks_exact(self.sub).zip(out.chunks_exact_mut(self.sub));
        for (j, (codes, out)) in subs.enumerate() {
            let scale = parts.d * f32::from(parts.scales[j]);
            let min = parts.dmin * f32::from(parts.mins[j]);
            for (out, &code) in out.iter_mut().zip(codes) {
                let scaled = scale * self.level(code);
                *out = if self.has_min { scaled - min } else { scaled };
            }
        }
    }

    /// Whether the scales of a block are finite. All its values then are: the largest is far below f32's limit.
    fn is_finite(&self, block: &[u8]) -> bool {
        self.f16_at.iter().all(|&at| get_f16(block, at).is_finite())
    }

    /// A code as the signed integer that is scaled.
    #[inline]
    fn level(&self, code: u8) -> f32 {
        (i32::from(code) - self.offset) as f32
    }
}

/// The description of a quantised type; `None` for plain types.
pub const fn format(dtype: DType) -> Option<&'static Format> {
    match dtype {
        DType::Q4_0 => Some(&q4_0::FORMAT),
        DType::Q4_1 => Some(&q4_1::FORMAT),
        DType::Q5_0 => Some(&q5_0::FORMAT),
        DType::Q5_1 => Some(&q5_1::FORMAT),
        DType::Q8_0 => Some(&q8_0::FORMAT),
        DType::Q2_K => Some(&q2_k::FORMAT),
        DType::Q3_K => Some(&q3_k::FORMAT),
        DType::Q4_K => Some(&q4_k::FORMAT),
        DType::Q5_K => Some(&q5_k::FORMAT),
        DType::Q6_K => Some(&q6_k::FORMAT),
        DType::F32 | DType::F16 | DType::BF16 | DType::I8 | DType::I32 => None,
    }
}

/// Decodes a row (or any number of whole blocks) of a real type to f32.
///
/// # Panics
///
/// If `bytes` is not exactly as long as `out.len()` values take, if those do not end on a block, or if `dtype` holds
/// integers. The lengths come from a tensor's shape, which a reader has checked against its file.
pub fn dequantize_row(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(dtype.row_bytes(out.len()), Some(bytes.len()), "bytes of {} values of {dtype}", out.len());
    match dtype {
        DType::F32 => plain::decode_f32(bytes, out),
        DType::F16 => plain::decode_f16(bytes, out),
        DType::BF16 => plain::decode_bf16(bytes, out),
        _ => {
            let format = real(dtype);
            let blocks = bytes.chunks_exact(dtype.block_bytes());
            for (block, out) in blocks.zip(out.chunks_exact_mut(dtype.block_len())) {
                format.dequantize(block, out);
            }
        }
    }
}

/// Fills a row (or any number of whole blocks) of a real type with finite random values of about this standard
/// deviation and mean zero.
///
/// For types with f16 values or scales, `std` must lie between 2·10⁻⁴ and 10⁴ to come out as asked.
///
/// # Panics
///
/// If `bytes` does not end on a block, or if `dtype` holds integers.
pub fn random_row(dtype: DType, rng: &mut Rng, std: f32, bytes: &mut [u8]) {
    assert_whole_blocks(dtype, bytes);
    match dtype {
        DType::F32 => plain::random_f32(rng, std, bytes),
        DType::F16 => plain::random_f16(rng, std, bytes),
        DType::BF16 => plain::random_bf16(rng, std, bytes),
        _ => {
            let format = real(dtype);
            for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
                (format.random)(rng, std, block);
            }
        }
    }
}

/// The index of the first block that holds an infinity or a NaN (of the first such value, for a plain type).
///
/// Of a quantised block only the f16 scales are read: where they are finite, every value is.
///
/// # Panics
///
/// If `bytes` does not end on a block, or if `dtype` holds integers.
pub fn first_non_finite(dtype: DType, bytes: &[u8]) -> Option<usize> {
    assert_whole_blocks(dtype, bytes);
    match dtype {
        DType::F32 => plain::first_non_finite::<4>(bytes, 0x7f80),
        DType::F16 => plain::first_non_finite::<2>(bytes, 0x7c00),
        DType::BF16 => plain::first_non_finite::<2>(bytes, 0x7f80),
        _ => {
            let format = real(dtype);
            bytes.chunks_exact(dtype.block_bytes()).position(|block| !format.is_finite(block))
        }
    }
}

/// The format of a type that is known not to be plain and real: integers are the caller's mistake.
fn real(dtype: DType) -> &'static Format {
    match format(dtype) {
        Some(format) => format,
        None => panic!("{dtype} holds integers, not real numbers"),
    }
}

fn assert_whole_blocks(dtype: DType, bytes: &[u8]) {
    let each = dtype.block_bytes();
    assert!(bytes.len().is_multiple_of(each), "{} bytes are not whole {dtype} blocks of {each}", bytes.len());
}

/// A slice as the block it must be, so that the indexing that follows needs no checks.
#[inline]
fn sized<const N: usize>(block: &[u8]) -> &[u8; N] {
    match block.try_into() {
        Ok(block) => block,
        Err(_) => panic!("a block of {N} bytes was expected, not of {}", block.len()),
    }
}

/// As [`sized`], to be written.
#[inline]
fn sized_mut<const N: usize>(block: &mut [u8]) -> &mut [u8; N] {
    let len = block.len();
    match block.try_into() {
        Ok(block) => block,
        Err(_) => panic!("a block of {N} bytes was expected, not of {len}"),
    }
}

/// The half-precision number at `block[at..]`.
#[inline]
fn get_f16(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Writes a half-precision number at `block[at..]`, held to the largest finite one; returns it as stored.
#[inline]
fn put_f16(block: &mut [u8], at: usize, value: f32) -> f32 {
    let max = f16::MAX.to_f32();
    let stored = f16::from_f32(value.clamp(-max, max));
    block[at..at + 2].copy_from_slice(&stored.to_le_bytes());
    stored.to_f32()
}
