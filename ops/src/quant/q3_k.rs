//! Q3_K, 110 bytes for 256 values: 32 bytes of third bits, 64 bytes of low bits, 12 bytes of 6-bit scales, `d` (f16).
//! value = d · (scale − 32) · (code − 4).

use super::draw::{CodeTable, put_signed_scale, rms_of_range};
use super::{Format, Parts, Rng, get_f16, pack, sized, sized_mut};
use crate::DType;

/// Q3_K's description.
pub(super) const FORMAT: Format =
    Format { dtype: DType::Q3_K, bits: 3, sub: 16, offset: 4, has_min: false, f16_at: &[108], read, random };

fn read(block: &[u8], p: &mut Parts) {
    let block: &[u8; 110] = sized(block);
    *p = Parts::zero(get_f16(block, 108), 0.0);
    // Eight bytes hold the scales' low nibbles, four bytes their upper two bits.
    let mut scales = [0; 16];
    pack::nibbles(&block[96..104], &mut scales);
    pack::planes(&block[104..108], 2, 4, &mut scales);
    p.scales = scales.map(|s| s as i8 - 32);
    for (bytes, codes) in block[32..96].chunks_exact(32).zip(p.codes.chunks_exact_mut(128)) {
        pack::planes(bytes, 2, 0, codes);
    }
    pack::planes(&block[..32], 1, 2, &mut p.codes);
}

fn random(rng: &mut Rng, std: f32, block: &mut [u8]) {
    static CODES: CodeTable = CodeTable::new(0, 7, 4.0, 1.85);
    let block: &mut [u8; 110] = sized_mut(block);
    // Any twelve bytes are sixteen valid scales, each from −32 to 31 with the same chance.
    for four in block[96..108].as_chunks_mut::<4>().0 {
        *four = ((rng.next_u64() >> 32) as u32).to_le_bytes();
    }
    put_signed_scale(rng, block, 108, std, rms_of_range(-32, 31) * CODES.rms());
    let mut codes = [0; 256];
    CODES.draw(rng, &mut codes);
    for (codes, bytes) in codes.chunks_exact(128).zip(block[32..96].chunks_exact_mut(32)) {
        pack::put_planes(codes, 2, 0, bytes);
    }
    pack::put_planes(&codes, 1, 2, &mut block[..32]);
}
