//! From a file's rows to panels, and back for tests and taps.

use super::panel::{Codec, ROWS, WithCodec, panel_bytes, panel_count, with_codec};
use greta_ops::DType;
use greta_ops::quant::{self, Format, Parts};
use half::f16;
use std::ops::Range;

/// Repacks the panels `panels` of a matrix `[n, k]` whose rows lie one after the other in `rows`, into `out`, which
/// holds just those panels. Calls for different panels may run at once.
///
/// # Panics
/// If the type is no weight type, rows do not end on a block, or a length does not fit the shape.
pub fn repack(dtype: DType, rows: &[u8], n: usize, k: usize, panels: Range<usize>, out: &mut [u8]) {
    let each = panel_bytes(dtype, k).expect("a weight type and whole blocks");
    let row_bytes = dtype.row_bytes(k).expect("whole blocks");
    assert_eq!(rows.len(), n * row_bytes, "bytes of the matrix");
    assert!(panels.end <= panel_count(n), "panels of the matrix");
    assert_eq!(out.len(), panels.len() * each, "bytes of the panels");
    if each == 0 {
        return;
    }
    for (panel, out) in panels.zip(out.chunks_exact_mut(each)) {
        let from = panel * ROWS;
        let rows = &rows[from * row_bytes..n.min(from + ROWS) * row_bytes];
        match dtype {
            DType::F32 => plain::<4>(rows, row_bytes, out),
            DType::F16 | DType::BF16 => plain::<2>(rows, row_bytes, out),
            _ => {
                let format = quant::format(dtype).expect("a quantised type");
                with_codec(dtype, Quantised { format, rows, row_bytes, out });
            }
        }
    }
}

/// Transposes up to sixteen rows of values of `B` bytes to `[k][16]`.
fn plain<const B: usize>(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    if rows.len() < ROWS * row_bytes {
        out.fill(0);
    }
    // By pieces of K, so that what is written stays near while the rows pass.
    const PIECE: usize = 64;
    for (piece, out) in out.chunks_mut(PIECE * ROWS * B).enumerate() {
        for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
            let row = row[piece * PIECE * B..].as_chunks::<B>().0;
            for (value, to) in row.iter().zip(out.as_chunks_mut::<B>().0.chunks_exact_mut(ROWS)) {
                to[r] = *value;
            }
        }
    }
}

struct Quantised<'a> {
    format: &'static Format,
    rows: &'a [u8],
    row_bytes: usize,
    out: &'a mut [u8],
}

impl WithCodec for Quantised<'_> {
    type Out = ();

    fn with<C: Codec>(self) {
        let bytes = C::DTYPE.block_bytes();
        // Rows past the last one stay as they are here: all zero.
        let zero = Parts { d: 0.0, dmin: 0.0, scales: [0; 16], mins: [0; 16], codes: [0; 256] };
        let mut parts: [Parts; ROWS] = std::array::from_fn(|_| zero.clone());
        let supers = self.out.chunks_exact_mut(C::HEAD + C::BLOCKS * C::BLOCK);
        for (i, out) in supers.enumerate() {
            for (row, parts) in self.rows.chunks_exact(self.row_bytes).zip(&mut parts) {
                (self.format.read)(&row[i * bytes..][..bytes], parts);
            }
            let (head, blocks) = out.split_at_mut(C::HEAD);
            for (to, parts) in head[..32].as_chunks_mut().0.iter_mut().zip(&parts) {
                *to = f16::from_f32(parts.d).to_le_bytes();
            }
            if C::MIN {
                for (to, parts) in head[32..].as_chunks_mut().0.iter_mut().zip(&parts) {
                    *to = f16::from_f32(parts.dmin).to_le_bytes();
                }
            }
            for (b, block) in blocks.chunks_exact_mut(C::BLOCK).enumerate() {
                let (scales, codes) = block.split_at_mut(C::SCALES);
                pack_scales::<C>(&parts, b, scales);
                pack_codes::<C>(&parts, b, codes);
            }
        }
    }
}

fn pack_scales<C: Codec>(parts: &[Parts; ROWS], b: usize, out: &mut [u8]) {
    let subs = C::SUBS / ROWS;
    for (i, out) in out.chunks_exact_mut(ROWS).enumerate() {
        for (to, parts) in out.iter_mut().zip(parts) {
            *to = if i < subs { parts.scales[b * subs + i] as u8 } else { parts.mins[b * subs + i - subs] };
        }
    }
}

fn pack_codes<C: Codec>(parts: &[Parts; ROWS], b: usize, out: &mut [u8]) {
    let mut groups = [[0u32; ROWS]; 8];
    for (r, parts) in parts.iter().enumerate() {
        let codes: &[u8; 32] = parts.codes[32 * b..].first_chunk().expect("32 codes");
        for g in 0..8 {
            groups[g][r] = u32::from_le_bytes([codes[4 * g], codes[4 * g + 1], codes[4 * g + 2], codes[4 * g + 3]]);
        }
    }
    let (low, high) = out.split_at_mut(64 * C::LO);
    pack_plane(&groups, 0, C::LO, low);
    if C::HI > 0 {
        pack_plane(&groups, C::LO, C::HI, high);
    }
}

/// Packs `bits` bits of every code, from bit `from` on.
#[inline(always)]
fn pack_plane(groups: &[[u32; ROWS]; 8], from: usize, bits: usize, out: &mut [u8]) {
    let mask = 0x0101_0101 * (((1u32 << bits) - 1) & 0xff);
    for (i, plane) in out.chunks_exact_mut(64).enumerate() {
        let mut words = [0u32; ROWS];
        for j in 0..8 / bits {
            let group = &groups[group_of(bits, i, j)];
            for (word, codes) in words.iter_mut().zip(group) {
                *word |= ((codes >> from) & mask) << (j * bits);
            }
        }
        for (to, word) in plane.as_chunks_mut().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
    }
}

/// The group in position `j` of plane `i`: see [`super::panel`].
const fn group_of(bits: usize, i: usize, j: usize) -> usize {
    match bits {
        4 => i + 4 * j,
        2 => 4 * i + j,
        1 => j,
        _ => i,
    }
}

/// Takes block `i` of lane `row` of a panel apart again. `None` for a type that is not quantised.
///
/// # Panics
/// If the block or the row lies outside the panel.
pub fn panel_parts(dtype: DType, panel: &[u8], row: usize, i: usize) -> Option<Parts> {
    with_codec(dtype, Apart { panel, row, i })
}

struct Apart<'a> {
    panel: &'a [u8],
    row: usize,
    i: usize,
}

impl WithCodec for Apart<'_> {
    type Out = Parts;

    fn with<C: Codec>(self) -> Parts {
        let len = C::HEAD + C::BLOCKS * C::BLOCK;
        let (head, blocks) = self.panel[self.i * len..][..len].split_at(C::HEAD);
        let half = |at: usize| f16::from_le_bytes([head[at], head[at + 1]]).to_f32();
        let row = self.row;
        let mut parts = Parts { d: half(2 * row), dmin: 0.0, scales: [0; 16], mins: [0; 16], codes: [0; 256] };
        if C::MIN {
            parts.dmin = half(32 + 2 * row);
        }
        if C::BLOCKS == 1 {
            parts.scales[0] = 1;
            parts.mins[0] = C::MIN as u8;
        }
        let subs = C::SUBS / ROWS;
        for (b, block) in blocks.chunks_exact(C::BLOCK).enumerate() {
            for s in 0..subs {
                parts.scales[b * subs + s] = block[s * ROWS + row] as i8;
                if C::MIN {
                    parts.mins[b * subs + s] = block[(subs + s) * ROWS + row];
                }
            }
            let (low, high) = block[C::SCALES..].split_at(64 * C::LO);
            for (plane, from, bits) in [(low, 0, C::LO), (high, C::LO, C::HI)] {
                if bits == 0 {
                    continue;
                }
                for (i, plane) in plane.chunks_exact(64).enumerate() {
                    for j in 0..8 / bits {
                        let at = 32 * b + 4 * group_of(bits, i, j);
                        for (x, byte) in plane[4 * row..][..4].iter().enumerate() {
                            parts.codes[at + x] |= ((byte >> (j * bits)) & ((1u16 << bits) - 1) as u8) << from;
                        }
                    }
                }
            }
        }
        parts
    }
}
