//! Q2_K, 84 bytes for 256 values: 16 bytes of scale (low nibble) and minimum (high nibble) per 16 values, 64 bytes of
//! codes, `d`, `dmin` (f16). value = d · scale · code − dmin · min.

use super::draw::{CodeTable, put_scale, rms_of_range};
use super::{Format, Parts, Rng, get_f16, pack, put_f16, sized, sized_mut};
use crate::DType;

/// Q2_K's description.
pub(super) const FORMAT: Format =
    Format { dtype: DType::Q2_K, bits: 2, sub: 16, offset: 0, has_min: true, f16_at: &[80, 82], read, random };

fn read(block: &[u8], p: &mut Parts) {
    let block: &[u8; 84] = sized(block);
    *p = Parts::zero(get_f16(block, 80), get_f16(block, 82));
    for (j, byte) in block[..16].iter().enumerate() {
        p.scales[j] = (byte & 15) as i8;
        p.mins[j] = byte >> 4;
    }
    // 32 bytes hold 128 values: bits 0-1 of each byte the first 32, bits 2-3 the next 32, and so on.
    for (bytes, codes) in block[16..80].chunks_exact(32).zip(p.codes.chunks_exact_mut(128)) {
        pack::planes(bytes, 2, 0, codes);
    }
}

fn random(rng: &mut Rng, std: f32, block: &mut [u8]) {
    const CENTRE: f32 = 1.5;
    static CODES: CodeTable = CodeTable::new(0, 3, CENTRE as f64, 0.95);
    let block: &mut [u8; 84] = sized_mut(block);
    for byte in &mut block[..16] {
        let scale = 8 + rng.below(7) as u8;
        // One off the scale at most: the mean stays near zero, and scale and minimum can't be taken for each other.
        let min = scale - 1 + rng.below(3) as u8;
        *byte = scale | (min << 4);
    }
    let unit = (rms_of_range(8, 14) * CODES.rms()).hypot(CENTRE * rms_of_range(-1, 1));
    let d = put_scale(rng, block, 80, std, unit);
    put_f16(block, 82, d * CENTRE);
    let mut codes = [0; 256];
    CODES.draw(rng, &mut codes);
    for (codes, bytes) in codes.chunks_exact(128).zip(block[16..80].chunks_exact_mut(32)) {
        pack::put_planes(codes, 2, 0, bytes);
    }
}
