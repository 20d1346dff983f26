//! Q8_0, 34 bytes for 32 values: `d` (f16), then 32 signed bytes. value = d · byte.

use super::draw::{CodeTable, put_scale};
use super::{Format, Parts, Rng, get_f16, sized, sized_mut};
use crate::DType;

/// Q8_0's description. A code is the stored byte + 128, so that codes are unsigned here too.
pub(super) const FORMAT: Format =
    Format { dtype: DType::Q8_0, bits: 8, sub: 32, offset: 128, has_min: false, f16_at: &[0], read, random };

fn read(block: &[u8], p: &mut Parts) {
    let block: &[u8; 34] = sized(block);
    p.one_scale(get_f16(block, 0));
    for (code, byte) in p.codes.iter_mut().zip(&block[2..]) {
        *code = byte ^ 0x80;
    }
}

fn random(rng: &mut Rng, std: f32, block: &mut [u8]) {
    // Never −128: quantisers scale by amax / 127 and don't write it.
    static CODES: CodeTable = CodeTable::new(1, 255, 128.0, 50.0);
    let block: &mut [u8; 34] = sized_mut(block);
    put_scale(rng, block, 0, std, CODES.rms());
    let bytes = &mut block[2..];
    CODES.draw(rng, bytes);
    for byte in bytes {
        *byte ^= 0x80;
    }
}
