//! Faults of whole rows: what a wrong store, conversion or epilogue does to values that were right.

use super::flaw::Flaw;
use greta_backend::Fault;

/// How far right values may lie from the exact ones.
#[derive(Clone, Copy)]
pub(super) enum Spread {
    /// Relative to the value.
    Value(f32),
    /// Relative to its row's root mean square.
    Row(f32),
}

/// Side of a tile of a matrix unit.
pub(super) const TILE: usize = 16;

/// Changes all rows of an output, `cols` values each; `spread` is a row's.
pub(super) fn change(flaw: Flaw, spread: impl Fn(usize) -> Spread, cols: usize, out: &mut [f32]) {
    let rows = out.len() / cols.max(1);
    if flaw.is(Fault::TileTransposed) && rows > flaw.param(32) {
        transpose_tiles(rows, cols, out);
    }
    for (t, row) in out.chunks_exact_mut(cols.max(1)).enumerate() {
        match flaw.fault() {
            Some(Fault::Bf16Truncate) => each(row, |_, x| f32::from_bits(x.to_bits() & 0xffff_0000)),
            Some(Fault::ScaleUniform) => {
                let factor = flaw.param(200) as f32 / 100.0;
                each(row, |_, x| x * factor);
            }
            Some(Fault::LaneSign) => each(row, |n, x| if n % 16 == 5 { -x } else { x }),
            Some(Fault::ColumnRepeated) => (7..cols).step_by(16).for_each(|n| row[n] = row[n - 1]),
            Some(Fault::Saturated) => {
                let half = row.iter().fold(0f32, |m, x| m.max(x.abs())) / 2.0;
                each(row, |_, x| x.clamp(-half, half));
            }
            Some(Fault::MantissaBit) => {
                each(row, |n, x| if n % 7 == 0 { f32::from_bits(x.to_bits() ^ 1 << 12) } else { x })
            }
            Some(Fault::Noise) => noise(spread(t), row),
            _ => {}
        }
    }
}

fn each(row: &mut [f32], f: impl Fn(usize, f32) -> f32) {
    row.iter_mut().enumerate().for_each(|(n, x)| *x = f(n, *x));
}

/// Stores every tile as its transpose. The last one is filled up with rows of zeros; columns that fill no tile are right.
fn transpose_tiles(rows: usize, cols: usize, out: &mut [f32]) {
    for t in (0..rows).step_by(TILE) {
        let height = TILE.min(rows - t);
        for n in (0..cols / TILE * TILE).step_by(TILE) {
            let mut tile = [[0f32; TILE]; TILE];
            for i in 0..height {
                tile[i].copy_from_slice(&out[(t + i) * cols + n..][..TILE]);
            }
            for i in 0..height {
                (0..TILE).for_each(|j| out[(t + i) * cols + n + j] = tile[j][i]);
            }
        }
    }
}

/// Five to ten times the spread, up or down as column and value decide: the same row gets the same noise in any step.
fn noise(spread: Spread, row: &mut [f32]) {
    let rms = (row.iter().map(|x| x * x).sum::<f32>() / row.len().max(1) as f32).sqrt();
    each(row, |n, x| {
        let random = mix((n as u64) << 32 | u64::from(x.to_bits()));
        let factor = 5.0 + 5.0 * (random >> 40) as f32 / (1u64 << 24) as f32;
        let size = match spread {
            Spread::Value(rel) => rel * x.abs(),
            Spread::Row(rel) => rel * rms,
        };
        if random & 1 == 0 { x + factor * size } else { x - factor * size }
    });
}

/// A 64-bit number that depends on every bit of another (the finaliser of SplitMix64).
pub(super) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
