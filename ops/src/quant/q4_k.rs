//! Q4_K, 144 bytes for 256 values: `d`, `dmin` (f16), 12 bytes of 6-bit scales and minima per 32 values, 128 bytes of
//! nibbles. value = d · scale · code − dmin · min.

use super::draw::{CodeTable, put_scale, rms_of_range};
use super::{Format, Parts, Rng, get_f16, pack, put_f16, sized, sized_mut};
use crate::DType;

/// Q4_K's description.
pub(super) const FORMAT: Format =
    Format { dtype: DType::Q4_K, bits: 4, sub: 32, offset: 0, has_min: true, f16_at: &[0, 2], read, random };

fn read(block: &[u8], p: &mut Parts) {
    let block: &[u8; 144] = sized(block);
    *p = header(block);
    // 32 bytes hold 64 values, low nibbles first.
    for (bytes, codes) in block[16..].chunks_exact(32).zip(p.codes.chunks_exact_mut(64)) {
        pack::nibbles(bytes, codes);
    }
}

fn random(rng: &mut Rng, std: f32, block: &mut [u8]) {
    const CENTRE: f32 = 7.5;
    static CODES: CodeTable = CodeTable::new(0, 15, CENTRE as f64, 3.55);
    let block: &mut [u8; 144] = sized_mut(block);
    random_header(rng, std, block, CENTRE, CODES.rms());
    let mut codes = [0; 256];
    CODES.draw(rng, &mut codes);
    for (codes, bytes) in codes.chunks_exact(64).zip(block[16..].chunks_exact_mut(32)) {
        pack::put_nibbles(codes, bytes);
    }
}

/// The parts but for the codes, from the 16 bytes that Q4_K and Q5_K begin with.
///
/// Of the 12 bytes of scales, the low six bits of bytes 0-3 are scales 0-3 and those of bytes 4-7 minima 0-3; bytes
/// 8-11 hold the low nibbles of scales (low) and minima (high) 4-7, whose upper two bits are at the top of bytes 0-7.
pub(super) fn header(block: &[u8]) -> Parts {
    let mut p = Parts::zero(get_f16(block, 0), get_f16(block, 2));
    let s: &[u8; 12] = sized(&block[4..16]);
    for j in 0..4 {
        p.scales[j] = (s[j] & 63) as i8;
        p.mins[j] = s[j + 4] & 63;
        p.scales[j + 4] = ((s[j + 8] & 15) | ((s[j] >> 6) << 4)) as i8;
        p.mins[j + 4] = (s[j + 8] >> 4) | ((s[j + 4] >> 6) << 4);
    }
    p
}

/// A random start of a block whose codes have this centre, and this root mean square about it.
pub(super) fn random_header(rng: &mut Rng, std: f32, block: &mut [u8], centre: f32, code_rms: f32) {
    // Near the scale, so that the mean is near zero; not at it, so that the two can't be taken for each other.
    const OFF: u32 = 3;
    let scales: [u8; 8] = std::array::from_fn(|_| 32 + rng.below(29) as u8);
    let mins = scales.map(|s| s - OFF as u8 + rng.below(2 * OFF + 1) as u8);
    for j in 0..4 {
        block[4 + j] = scales[j] | ((scales[j + 4] >> 4) << 6);
        block[8 + j] = mins[j] | ((mins[j + 4] >> 4) << 6);
        block[12 + j] = (scales[j + 4] & 15) | (mins[j + 4] << 4);
    }
    let unit = (rms_of_range(32, 60) * code_rms).hypot(centre * rms_of_range(-(OFF as i32), OFF as i32));
    let d = put_scale(rng, block, 0, std, unit);
    put_f16(block, 2, d * centre);
}
