//! Q6_K, 210 bytes for 256 values: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed scales per 16
//! values, `d` (f16). value = d · scale · (code − 32).

use super::draw::{CodeTable, put_signed_scale, rms_of_range};
use super::{Format, Parts, Rng, get_f16, pack, sized, sized_mut};
use crate::DType;

/// Q6_K's description.
pub(super) const FORMAT: Format =
    Format { dtype: DType::Q6_K, bits: 6, sub: 16, offset: 32, has_min: false, f16_at: &[208], read, random };

fn read(block: &[u8], p: &mut Parts) {
    let block: &[u8; 210] = sized(block);
    *p = Parts::zero(get_f16(block, 208), 0.0);
    for (scale, &byte) in p.scales.iter_mut().zip(&block[192..208]) {
        *scale = byte as i8;
    }
    // Each half of the block (128 values) has 64 bytes of nibbles, low ones first, and 32 bytes of four bit pairs.
    let halves = block[..128].chunks_exact(64).zip(block[128..192].chunks_exact(32));
    for ((low, high), codes) in halves.zip(p.codes.chunks_exact_mut(128)) {
        pack::nibbles(low, codes);
        pack::planes(high, 2, 4, codes);
    }
}

fn random(rng: &mut Rng, std: f32, block: &mut [u8]) {
    static CODES: CodeTable = CodeTable::new(0, 63, 32.0, 14.0);
    let block: &mut [u8; 210] = sized_mut(block);
    for scale in &mut block[192..208] {
        // From 64 to 127, of either sign.
        let draw = rng.below(128);
        let size = 64 + (draw & 63) as i8;
        *scale = if draw < 64 { size } else { -size } as u8;
    }
    put_signed_scale(rng, block, 208, std, rms_of_range(64, 127) * CODES.rms());
    let mut codes = [0; 256];
    CODES.draw(rng, &mut codes);
    let (low, rest) = block.split_at_mut(128);
    let halves = low.chunks_exact_mut(64).zip(rest.chunks_exact_mut(32));
    for ((low, high), codes) in halves.zip(codes.chunks_exact(128)) {
        pack::put_nibbles(codes, low);
        pack::put_planes(codes, 2, 4, high);
    }
}
