//! llama.cpp's 8-bit activation blocks, and how far each may differ between its kernels.
//!
//! Written from the formats' definition (ggml `quantize_row_q8_0`, `_q8_1`, `_q8_K`), for each block of an f32 row:
//!
//! | format | block | scale | codes | used with |
//! |---|---|---|---|---|
//! | Q8_0 | 32 | `d = amax / 127`, kept as f16 | `round(x / d)` with the f32 `d` | Q4_0, Q5_0, Q8_0 |
//! | Q8_1 | 32 | as Q8_0 | as Q8_0; also `s = d · Σ codes`, kept as f16 | Q4_1, Q5_1 |
//! | Q8_K | 256 | `d = max / −127` in f32, `max` the value of largest magnitude with its sign | `min(127, round(x / d))` | K-quants |
//!
//! Kernels differ in what a right result may differ in: the portable code multiplies by `1 / d` and rounds halves away
//! from zero, vector code multiplies by `127 / amax` and rounds halves to even. Both are within `4u·|x / d|` of the real
//! quotient, so a code is certain unless the quotient lies that close to a half; there it may differ by one. The f16
//! scale is certain unless `amax / 127` lies within an ulp of f32 of the middle between two f16; so is `s`, but for
//! codes that are not certain.

use greta_ops::{DType, Precision};
use half::f16;

/// Which format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// 32 codes with an f16 scale.
    Q8_0,
    /// With the sum beside it.
    Q8_1,
    /// 256 codes with an f32 scale.
    Q8K,
}

impl Act {
    /// What goes with a weight type; `None` for types whose activations are not quantised.
    pub fn with(weight: DType) -> Option<Act> {
        match weight {
            DType::Q4_0 | DType::Q5_0 | DType::Q8_0 => Some(Act::Q8_0),
            DType::Q4_1 | DType::Q5_1 => Some(Act::Q8_1),
            DType::Q2_K | DType::Q3_K | DType::Q4_K | DType::Q5_K | DType::Q6_K => Some(Act::Q8K),
            _ => None,
        }
    }

    /// Values in a block.
    pub fn block(self) -> usize {
        if self == Act::Q8K { 256 } else { 32 }
    }
}

/// A quantised block with what is not certain about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The scale; NaN where a value of the block is no number.
    pub d: f64,
    /// How far the scale may be off.
    pub d_slack: f64,
    /// The codes.
    pub codes: Vec<f64>,
    /// 1 where a code may differ by one, else 0.
    pub unsure: Vec<f64>,
    /// Q8_1's `s`; for the others `d · Σ codes`.
    pub sum: f64,
    /// How far that may be off, scale and unsure codes included.
    pub sum_slack: f64,
}

/// Quantises a row of f32 values; its length must be a multiple of the block's.
pub fn quantize(act: Act, row: &[f64]) -> Vec<Block> {
    row.chunks_exact(act.block()).map(|x| block(act, x)).collect()
}

fn half(x: f64) -> f64 {
    f16::from_f32(x as f32).to_f64()
}

fn block(act: Act, x: &[f64]) -> Block {
    let u = Precision::F32.unit();
    // The first of the largest magnitude, with its sign.
    let max = x.iter().fold(0.0f64, |m, &v| if v.abs() > m.abs() { v } else { m });
    if x.iter().any(|v| !v.is_finite()) {
        let zeros = vec![0.0; x.len()];
        return Block { d: f64::NAN, d_slack: 0.0, codes: zeros.clone(), unsure: zeros, sum: f64::NAN, sum_slack: 0.0 };
    }
    let exact = if act == Act::Q8K { max / -127.0 } else { max.abs() / 127.0 };
    let quotient = |v: f64| if exact == 0.0 { 0.0 } else { v / exact };
    let (mut codes, mut unsure) = (Vec::with_capacity(x.len()), Vec::with_capacity(x.len()));
    for &v in x {
        let q = quotient(v);
        codes.push(q.round().min(127.0));
        let to_tie = (q.abs() - q.abs().floor() - 0.5).abs();
        unsure.push(if to_tie <= 4.0 * u * q.abs() { 1.0 } else { 0.0 });
    }
    let (total, open) = (codes.iter().sum::<f64>(), unsure.iter().sum::<f64>());
    // The largest distance of a function of the f32 scale from its value at the rounded one.
    let near = [exact * (1.0 - 3.0 * u), exact * (1.0 + 3.0 * u)];
    let d32 = f64::from(exact as f32);
    let furthest = |at: f64, values: &[f64]| values.iter().fold(0.0f64, |m, v| m.max((v - at).abs()));
    match act {
        Act::Q8K => Block {
            d: d32,
            d_slack: 3.0 * u * exact.abs(),
            sum: d32 * total,
            sum_slack: 3.0 * u * exact.abs() * total.abs() + exact.abs() * open,
            codes,
            unsure,
        },
        _ => {
            let d = half(d32);
            let d_slack = furthest(d, &near.map(half));
            let (sum, sum_slack) = match act {
                Act::Q8_1 => {
                    let s = half(d32 * total);
                    let ends = near.map(|d| [half(d * (total - open)), half(d * (total + open))]);
                    (s, furthest(s, &[ends[0][0], ends[0][1], ends[1][0], ends[1][1]]))
                }
                _ => (d * total, d_slack * total.abs() + d * open),
            };
            Block { d, d_slack, codes, unsure, sum, sum_slack }
        }
    }
}
