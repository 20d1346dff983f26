//! Blocks taken apart wrongly: the ways a decoder of super-blocks mixes up scales, nibbles and bit pairs.

use super::flaw::Flaw;
use greta_backend::Fault;
use greta_ops::DType;
use greta_ops::quant::{Format, Parts};
use half::f16;

/// Whether a decoder of this type can have the fault; if not, which can.
pub(super) fn fits(flaw: Flaw, dtype: DType) -> Result<(), String> {
    let want = match flaw.fault() {
        Some(Fault::Q4kScales | Fault::Q4kNibbles) if dtype != DType::Q4_K => "Q4_K",
        Some(Fault::Q6kOrder) if dtype != DType::Q6_K => "Q6_K",
        Some(Fault::OneScale) if !dtype.is_quantized() => "quantised",
        _ => return Ok(()),
    };
    Err(format!("it fits weights that are {want}; this node's is {dtype}"))
}

/// Whether the fault sits in how a block is taken apart.
pub(super) fn in_blocks(flaw: Flaw) -> bool {
    use Fault::*;
    matches!(flaw.fault(), Some(Q4kScales | Q4kNibbles | Q6kOrder | OneScale))
}

/// Takes a block apart. `chosen`: it is the one block whose scale [`Fault::OneScale`] changes.
pub(super) fn parts(flaw: Flaw, format: &Format, block: &[u8], chosen: bool) -> Parts {
    match flaw.fault() {
        Some(Fault::Q4kScales) => q4k(block, true, false),
        Some(Fault::Q4kNibbles) => q4k(block, false, true),
        Some(Fault::Q6kOrder) => q6k(block),
        Some(Fault::OneScale) if chosen => one_scale(format, block),
        _ => format.parts(block),
    }
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Q4_K: `d`, `dmin`, 12 bytes of packed scales and minima, 128 bytes of nibbles, 64 values to 32 bytes.
fn q4k(block: &[u8], simple_scales: bool, high_first: bool) -> Parts {
    let mut p = Parts { d: half(block, 0), dmin: half(block, 2), scales: [0; 16], mins: [0; 16], codes: [0; 256] };
    let s = &block[4..16];
    for j in 0..8 {
        // Scales 4 to 7 have their bits in two places; the simple formula takes them for whole bytes like 0 to 3.
        let (scale, min) = match j < 4 || simple_scales {
            true => (s[j] & 63, s[j + 4] & 63),
            false => ((s[j + 4] & 15) | (s[j - 4] >> 6) << 4, (s[j + 4] >> 4) | (s[j] >> 6) << 4),
        };
        (p.scales[j], p.mins[j]) = (scale as i8, min);
    }
    for i in 0..256 {
        let byte = block[16 + i / 64 * 32 + i % 32];
        let high = (i % 64 >= 32) != high_first;
        p.codes[i] = if high { byte >> 4 } else { byte & 15 };
    }
    p
}

/// Q6_K with its four bit pairs a byte taken from the top down: 128 bytes of low nibbles, 64 of upper pairs, 16 scales,
/// `d`.
fn q6k(block: &[u8]) -> Parts {
    let mut p = Parts { d: half(block, 208), dmin: 0.0, scales: [0; 16], mins: [0; 16], codes: [0; 256] };
    p.scales.iter_mut().zip(&block[192..208]).for_each(|(s, &b)| *s = b as i8);
    for i in 0..256 {
        let (part, at) = (i / 128, i % 128);
        let low = block[64 * part + at % 64] >> (at / 64 * 4) & 15;
        let pair = block[128 + 32 * part + at % 32] >> (6 - at / 32 * 2) & 3;
        p.codes[i] = low | pair << 4;
    }
    p
}

/// The block's largest scale, half as large again: `d` itself where the format has no other.
fn one_scale(format: &Format, block: &[u8]) -> Parts {
    let mut p = format.parts(block);
    let subs = format.dtype.block_len() / format.sub;
    match p.scales[..subs].iter_mut().max_by_key(|s| s.unsigned_abs()) {
        Some(scale) if subs > 1 => {
            let more = i32::from(*scale) * 3 / 2;
            // A scale too large to grow shrinks.
            *scale = i8::try_from(more).unwrap_or(*scale / 2);
        }
        _ => p.d *= 1.5,
    }
    p
}
