//! Q5_1, 24 bytes for 32 values: `d`, `m` (f16), 32 fifth bits, then 16 bytes of nibbles, low ones first.
//! value = d · code + m.

use super::draw::{CodeTable, put_scale};
use super::q5_0::{codes, put_codes};
use super::{Format, Parts, Rng, get_f16, put_f16, sized, sized_mut};
use crate::DType;

/// Q5_1's description.
pub(super) const FORMAT: Format =
    Format { dtype: DType::Q5_1, bits: 5, sub: 32, offset: 0, has_min: true, f16_at: &[0, 2], read, random };

fn read(block: &[u8], p: &mut Parts) {
    let block: &[u8; 24] = sized(block);
    // The block stores what is added; adding m and subtracting −m are the same operation, to the bit.
    p.one_scale_and_min(get_f16(block, 0), -get_f16(block, 2));
    codes(&block[4..], &mut p.codes[..32]);
}

fn random(rng: &mut Rng, std: f32, block: &mut [u8]) {
    const CENTRE: f32 = 15.5;
    static CODES: CodeTable = CodeTable::new(0, 31, CENTRE as f64, 7.2);
    let block: &mut [u8; 24] = sized_mut(block);
    let d = put_scale(rng, block, 0, std, CODES.rms());
    // Around the middle code, but not at it: a minimum that follows from the scale would hide a mistake in reading it.
    put_f16(block, 2, -d * CENTRE * (0.95 + 0.1 * rng.uniform()));
    let mut codes = [0; 32];
    CODES.draw(rng, &mut codes);
    put_codes(&codes, &mut block[4..]);
}
