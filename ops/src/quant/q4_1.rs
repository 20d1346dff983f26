//! Q4_1, 20 bytes for 32 values: `d`, `m` (f16), then 16 bytes of nibbles, low ones first. value = d · code + m.

use super::draw::{CodeTable, put_scale};
use super::{Format, Parts, Rng, get_f16, pack, put_f16, sized, sized_mut};
use crate::DType;

/// Q4_1's description.
pub(super) const FORMAT: Format =
    Format { dtype: DType::Q4_1, bits: 4, sub: 32, offset: 0, has_min: true, f16_at: &[0, 2], read, random };

fn read(block: &[u8], p: &mut Parts) {
    let block: &[u8; 20] = sized(block);
    // The block stores what is added; adding m and subtracting −m are the same operation, to the bit.
    p.one_scale_and_min(get_f16(block, 0), -get_f16(block, 2));
    pack::nibbles(&block[4..], &mut p.codes[..32]);
}

fn random(rng: &mut Rng, std: f32, block: &mut [u8]) {
    const CENTRE: f32 = 7.5;
    static CODES: CodeTable = CodeTable::new(0, 15, CENTRE as f64, 3.5);
    let block: &mut [u8; 20] = sized_mut(block);
    let d = put_scale(rng, block, 0, std, CODES.rms());
    // Around the middle code, but not at it: a minimum that follows from the scale would hide a mistake in reading it.
    put_f16(block, 2, -d * CENTRE * (0.95 + 0.1 * rng.uniform()));
    let mut codes = [0; 32];
    CODES.draw(rng, &mut codes);
    pack::put_nibbles(&codes, &mut block[4..]);
}
