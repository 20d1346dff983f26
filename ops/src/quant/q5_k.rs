//! Q5_K, 176 bytes for 256 values: as Q4_K, with 32 bytes of fifth bits before the 128 bytes of nibbles.
//! value = d · scale · code − dmin · min.

use super::draw::CodeTable;
use super::q4_k::{header, random_header};
use super::{Format, Parts, Rng, pack, sized, sized_mut};
use crate::DType;

/// Q5_K's description.
pub(super) const FORMAT: Format =
    Format { dtype: DType::Q5_K, bits: 5, sub: 32, offset: 0, has_min: true, f16_at: &[0, 2], read, random };

fn read(block: &[u8], p: &mut Parts) {
    let block: &[u8; 176] = sized(block);
    *p = header(block);
    for (bytes, codes) in block[48..].chunks_exact(32).zip(p.codes.chunks_exact_mut(64)) {
        pack::nibbles(bytes, codes);
    }
    // Bit k of byte j belongs to value 32·k + j.
    pack::planes(&block[16..48], 1, 4, &mut p.codes);
}

fn random(rng: &mut Rng, std: f32, block: &mut [u8]) {
    const CENTRE: f32 = 15.5;
    static CODES: CodeTable = CodeTable::new(0, 31, CENTRE as f64, 7.3);
    let block: &mut [u8; 176] = sized_mut(block);
    random_header(rng, std, block, CENTRE, CODES.rms());
    let mut codes = [0; 256];
    CODES.draw(rng, &mut codes);
    for (codes, bytes) in codes.chunks_exact(64).zip(block[48..].chunks_exact_mut(32)) {
        pack::put_nibbles(codes, bytes);
    }
    pack::put_planes(&codes, 1, 4, &mut block[16..48]);
}
