//! Q4_0, 18 bytes for 32 values: `d` (f16), then 16 bytes of nibbles, low ones first. value = d · (code − 8).

use super::draw::{CodeTable, put_signed_scale};
use super::{Format, Parts, Rng, get_f16, pack, sized, sized_mut};
use crate::DType;

/// Q4_0's description.
pub(super) const FORMAT: Format =
    Format { dtype: DType::Q4_0, bits: 4, sub: 32, offset: 8, has_min: false, f16_at: &[0], read, random };

fn read(block: &[u8], p: &mut Parts) {
    let block: &[u8; 18] = sized(block);
    p.one_scale(get_f16(block, 0));
    pack::nibbles(&block[2..], &mut p.codes[..32]);
}

fn random(rng: &mut Rng, std: f32, block: &mut [u8]) {
    static CODES: CodeTable = CodeTable::new(0, 15, 8.0, 3.5);
    let block: &mut [u8; 18] = sized_mut(block);
    put_signed_scale(rng, block, 0, std, CODES.rms());
    let mut codes = [0; 32];
    CODES.draw(rng, &mut codes);
    pack::put_nibbles(&codes, &mut block[2..]);
}
