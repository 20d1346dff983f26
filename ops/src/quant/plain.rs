//! The plain types: F32, F16 and BF16, one little-endian value after the other.

use half::{bf16, f16, slice::HalfFloatSliceExt};

use super::Rng;

/// Decodes single-precision values; extra elements of either side are ignored.
pub(super) fn decode_f32(bytes: &[u8], out: &mut [f32]) {
    for (value, out) in bytes.as_chunks().0.iter().zip(out) {
        *out = f32::from_le_bytes(*value);
    }
}

/// Decodes half-precision values; extra elements of either side are ignored.
pub(super) fn decode_f16(bytes: &[u8], out: &mut [f32]) {
    // By the piece: the conversion asks which instructions the processor has once a slice, not once a value.
    const PIECE: usize = 64;
    let mut piece = [f16::ZERO; PIECE];
    for (bytes, out) in bytes.chunks(2 * PIECE).zip(out.chunks_mut(PIECE)) {
        for (value, half) in bytes.as_chunks().0.iter().zip(&mut piece) {
            *half = f16::from_le_bytes(*value);
        }
        piece[..out.len()].convert_to_f32_slice(out);
    }
}

/// Decodes bfloat16 values; extra elements of either side are ignored.
pub(super) fn decode_bf16(bytes: &[u8], out: &mut [f32]) {
    for (value, out) in bytes.as_chunks().0.iter().zip(out) {
        // A shift, not a conversion: a NaN keeps its bits.
        *out = f32::from_bits(u32::from(u16::from_le_bytes(*value)) << 16);
    }
}

/// Fills a row with normal single-precision values.
pub(super) fn random_f32(rng: &mut Rng, std: f32, bytes: &mut [u8]) {
    for value in bytes.as_chunks_mut().0 {
        *value = (rng.normal() * std).to_le_bytes();
    }
}

/// Fills a row with normal half-precision values, held to the largest finite one.
pub(super) fn random_f16(rng: &mut Rng, std: f32, bytes: &mut [u8]) {
    let max = f16::MAX.to_f32();
    for value in bytes.as_chunks_mut().0 {
        *value = f16::from_f32((rng.normal() * std).clamp(-max, max)).to_le_bytes();
    }
}

/// Fills a row with normal bfloat16 values.
pub(super) fn random_bf16(rng: &mut Rng, std: f32, bytes: &mut [u8]) {
    for value in bytes.as_chunks_mut().0 {
        *value = bf16::from_f32(rng.normal() * std).to_le_bytes();
    }
}

/// The index of the first value that is infinite or NaN, of values of `N` bytes whose exponent is all ones exactly
/// when `(last two bytes & mask) == mask`.
pub(super) fn first_non_finite<const N: usize>(bytes: &[u8], mask: u16) -> Option<usize> {
    // A piece is looked through to its end without branching, which is several times faster; then its values.
    const PIECE: usize = 1 << 12;
    let bad = |v: &[u8; N]| u16::from_le_bytes([v[N - 2], v[N - 1]]) & mask == mask;
    bytes.as_chunks().0.chunks(PIECE).enumerate().find_map(|(n, piece)| {
        let any = piece.iter().fold(false, |any, v| any | bad(v));
        if any { piece.iter().position(bad).map(|i| n * PIECE + i) } else { None }
    })
}
