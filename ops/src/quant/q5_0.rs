//! Q5_0, 22 bytes for 32 values: `d` (f16), 32 fifth bits, then 16 bytes of nibbles, low ones first.
//! value = d · (code − 16).

use super::draw::{CodeTable, put_signed_scale};
use super::{Format, Parts, Rng, get_f16, pack, sized, sized_mut};
use crate::DType;

/// Q5_0's description.
pub(super) const FORMAT: Format =
    Format { dtype: DType::Q5_0, bits: 5, sub: 32, offset: 16, has_min: false, f16_at: &[0], read, random };

fn read(block: &[u8], p: &mut Parts) {
    let block: &[u8; 22] = sized(block);
    p.one_scale(get_f16(block, 0));
    codes(&block[2..], &mut p.codes[..32]);
}

fn random(rng: &mut Rng, std: f32, block: &mut [u8]) {
    static CODES: CodeTable = CodeTable::new(0, 31, 16.0, 7.2);
    let block: &mut [u8; 22] = sized_mut(block);
    put_signed_scale(rng, block, 0, std, CODES.rms());
    let mut codes = [0; 32];
    CODES.draw(rng, &mut codes);
    put_codes(&codes, &mut block[2..]);
}

/// 32 codes of 5 bits from 20 bytes, as Q5_0 and Q5_1 store them: bit `i` of the first 4 bytes is code `i`'s highest.
pub(super) fn codes(bytes: &[u8], codes: &mut [u8]) {
    let (high, low) = bytes.split_at(4);
    pack::nibbles(low, codes);
    for (eight, &high) in codes.chunks_exact_mut(8).zip(high) {
        for (i, code) in eight.iter_mut().enumerate() {
            *code |= ((high >> i) & 1) << 4;
        }
    }
}

/// The inverse of [`codes`].
pub(super) fn put_codes(codes: &[u8], bytes: &mut [u8]) {
    let (high, low) = bytes.split_at_mut(4);
    pack::put_nibbles(codes, low);
    for (eight, high) in codes.chunks_exact(8).zip(high) {
        *high = eight.iter().rev().fold(0, |byte, code| (byte << 1) | (code >> 4));
    }
}
