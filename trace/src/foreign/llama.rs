//! Reference and bound of ops as llama.cpp's CPU backend computes them.
//!
//! **Products with quantised weights.** With a weight block's parts (`d_w`, integer scales `a`, codes `c` less their offset,
//! minimum `m`) and the activation's [`Block`] (`d`, codes `q`, sum `s`), ggml's dot products are
//! `Σ_blocks d_w·d·Σ a·c·q − m·s` (K-quants: `m = dmin·mins`, and `d·Σq` in the place of `s`): the inner sums are of
//! integers and exact. The reference is that, in f64. Its bound adds up
//! - what is not certain about the activation's block: `|d_w·d·a·c|` for each unsure code, `|d_w·Σ a·c·q|·δd` for the
//!   scale, `|m|·δs` for the sum;
//! - f32 sums of the blocks' terms in an order nobody states, split over up to 16 lanes, each with a part of a block's
//!   integer dot: `(4·√n·u, at most n·u)·Σ |d_w·d·a·c·q| + |m·s|` with `n` terms a lane and the fold of the lanes, and
//!   `4u` for the roundings within a term;
//! - half an ulp of the result.
//!
//! **Half-precision weights.** Activations are rounded to the weight's type, products and sums are f32.
//!
//! **RoPE.** Angles come from repeated f32 multiplication, `θ_{i+1} = θ_i · base^(−2/dims)`: each step adds its own rounding
//! and that of the factor (within an ulp), so pair `i`'s angle is off by up to `(3i + 2)·u` of itself. Engines that call
//! `pow` for each pair stay within that too.
//!
//! Everything else is the op's own reference and bound: llama.cpp sums squares in f64 and its vector `exp` is within 2 ulp.
//!
//! On llama.cpp 0c1e57098's own run of SmolLM2-135M (the last token of 40, 423 ops) the worst error over its bound is, for
//! Q4_1 weights and for F32 ones: products 0.06 and 0.03, norms 0.08 and 0.06, RoPE 0.55 and 0.65, SwiGLU 0.60 and 0.57;
//! embeddings and sums agree to the bit.

use super::blocks::{Act, Block, quantize};
use crate::judge::Arithmetic;
use greta_ops::{Bound, DType, Data, HostTensor, MatMul, Op, OpSpec, Precision, Rope, quant};
use half::{bf16, f16};
use rayon::prelude::*;

/// Reference outputs and their bounds.
type Judged = (Vec<HostTensor>, Vec<Bound>);

/// f32 products and sums.
pub struct Plain;

/// llama.cpp's CPU backend.
pub struct Llama;

impl Arithmetic for Plain {
    fn judge(&self, op: &Op, ins: &[&HostTensor]) -> Option<Judged> {
        match op {
            Op::Rope(r) => Some(rope(r, ins)),
            _ => None,
        }
    }
}

impl Arithmetic for Llama {
    fn judge(&self, op: &Op, ins: &[&HostTensor]) -> Option<Judged> {
        match (op, ins) {
            (Op::MatMul(m), [w, x]) => match &w.data {
                Data::Packed(t, _) if Act::with(*t).is_some_and(|a| x.cols().is_multiple_of(a.block())) => {
                    Some(quantized(w, x))
                }
                Data::Packed(t @ (DType::F16 | DType::BF16), _) => Some(half_precision(m, w, x, *t)),
                _ => None,
            },
            (Op::Rope(r), _) => Some(rope(r, ins)),
            _ => None,
        }
    }
}

fn rope(op: &Rope, ins: &[&HostTensor]) -> Judged {
    let want = op.reference(ins);
    let (x, u) = (ins[0], Precision::F32.unit());
    let factors = ins.get(2).map(|t| t.row(0));
    let mut bound = op.error_bound(ins, &want, Precision::F32).swap_remove(0);
    for (t, &position) in ins[1].ints().iter().enumerate() {
        for head in 0..x.cols() / op.head_dim {
            let base = t * x.cols() + head * op.head_dim;
            for i in 0..op.dims / 2 {
                let angle = f64::from(position) * op.frequency(i, factors.as_ref().map_or(1.0, |f| f[i]));
                let (a, b) = op.pair(i);
                let size = x.reals()[base + a].abs() + x.reals()[base + b].abs();
                let more = size * u * 3.0 * i as f64 * angle.abs();
                bound[base + a] += more;
                bound[base + b] += more;
            }
        }
    }
    (want, vec![bound])
}

fn half_precision(op: &MatMul, w: &HostTensor, x: &HostTensor, t: DType) -> Judged {
    let round = |v: &f64| match t {
        DType::F16 => f16::from_f32(*v as f32).to_f64(),
        _ => bf16::from_f32(*v as f32).to_f64(),
    };
    let x = HostTensor::real(&x.shape, x.reals().iter().map(round).collect());
    let want = op.reference(&[w, &x]);
    let bound = op.error_bound(&[w, &x], &want, Precision::F32);
    (want, bound)
}

/// Lanes that a kernel may split a block's integer dot over.
const LANES: usize = 16;

fn quantized(w: &HostTensor, x: &HostTensor) -> Judged {
    let (rows, n) = (x.rows(), w.rows());
    let Data::Packed(dtype, bytes) = &w.data else { return Default::default() };
    let (Some(act), Some(format)) = (Act::with(*dtype), quant::format(*dtype)) else { return Default::default() };
    let acts: Vec<Vec<Block>> = (0..rows).map(|t| quantize(act, &x.row(t))).collect();
    let p = Precision::F32;
    let done: Vec<Vec<(f64, f64)>> = (0..n)
        .into_par_iter()
        .map(|r| {
            let packed = w.packed_row(*dtype, bytes, r);
            let mut sums = vec![Sums::default(); rows];
            for (b, block) in packed.chunks_exact(dtype.block_bytes()).enumerate() {
                let parts = format.parts(block);
                let len = dtype.block_len();
                let level = |i: usize| {
                    f64::from(parts.scales[i / format.sub]) * f64::from(i32::from(parts.codes[i]) - format.offset)
                };
                let levels: Vec<f64> = (0..len).map(level).collect();
                let mins: Vec<f64> = (0..len).map(|i| f64::from(parts.mins[i / format.sub])).collect();
                for (s, blocks) in sums.iter_mut().zip(&acts) {
                    s.add(act, f64::from(parts.d), f64::from(parts.dmin), &levels, &mins, &blocks[b]);
                }
            }
            let terms = packed.len() / dtype.block_bytes() * (1 + usize::from(format.has_min)) + LANES;
            sums.iter().map(|s| s.finish(terms, p)).collect()
        })
        .collect();
    let each = |t: usize| done.iter().map(move |row| row[t]);
    let out = (0..rows).flat_map(|t| each(t).map(|v| v.0)).collect();
    let bound = (0..rows).flat_map(|t| each(t).map(|v| v.1)).collect();
    (vec![HostTensor::real(&[rows, n], out)], vec![bound])
}

/// A dot product on its way.
#[derive(Clone, Copy, Default)]
struct Sums {
    total: f64,
    size: f64,
    slack: f64,
}

impl Sums {
    fn add(&mut self, act: Act, d: f64, dmin: f64, levels: &[f64], mins: &[f64], b: &Block) {
        let (mut dot, mut size, mut open) = (0.0, 0.0, 0.0);
        let (mut low, mut low_open) = (0.0, 0.0);
        for i in 0..levels.len() {
            let term = levels[i] * b.codes[i];
            dot += term;
            size += term.abs();
            open += (levels[i] * b.unsure[i]).abs();
            low += mins[i] * b.codes[i];
            low_open += mins[i] * b.unsure[i];
        }
        self.total += d * b.d * dot;
        self.size += (d * b.d).abs() * size;
        self.slack += (d * b.d).abs() * open + (d * dot).abs() * b.d_slack;
        let (minimum, slack) = match act {
            Act::Q8_0 => (0.0, 0.0),
            Act::Q8_1 => (dmin * mins[0] * b.sum, (dmin * mins[0]).abs() * b.sum_slack),
            Act::Q8K => (dmin * b.d * low, (dmin * b.d).abs() * low_open + (dmin * low).abs() * b.d_slack),
        };
        self.total -= minimum;
        self.size += minimum.abs();
        self.slack += slack;
    }

    fn finish(&self, terms: usize, p: Precision) -> (f64, f64) {
        let rounding = (p.dot(terms) + 4.0 * p.unit()) * self.size;
        (self.total, rounding + self.slack + p.unit() * self.total.abs())
    }
}
