//! Products with a weight matrix.

use crate::case::{normal, weight_types, weights};
use crate::spec::{arity, one};
use crate::{
    ACT_BLOCK, Bindings, Bound, Case, CaseInput, DType, Data, Descs, HostTensor, InferError, OpSpec, Precision,
    Quantize, TensorDesc, quant,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// `out[t, n] = Σ_k weight[n, k] · x[t, k]`.
///
/// Two forms, told apart by the operands:
/// - *exact*: `weight [N, K]` of any real type (f32 after [`crate::Dequant`], or packed once that is fused), `x F32[T, K]`;
///   products and sums are f32 over the dequantised values.
/// - *int8*: packed `weight [N, K]`, `codes I8[T, K]` and `scales F32[T, K/32]` of [`Quantize`]; dots of a block's
///   integers are exact, block sums are f32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatMul {}

impl fmt::Display for MatMul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("matmul")
    }
}

impl OpSpec for MatMul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn operands(&self) -> &'static [&'static str] {
        &["weight", "x", "scales"]
    }

    fn infer(&self, ins: &[&TensorDesc]) -> Result<Descs, InferError> {
        arity(self, ins, "2 or 3", 2, 3)?;
        let (w, x) = (ins[0], ins[1]);
        let k = w.cols().constant().filter(|&k| w.dtype.row_bytes(k).is_some());
        let (Some(k), true, true) = (k, w.dtype.is_real(), w.dims.len() == 2) else {
            return Err(InferError::operand("weight", "a matrix of reals whose rows end on a block", w));
        };
        let want = TensorDesc::matrix(if ins.len() == 3 { DType::I8 } else { DType::F32 }, x.rows(), w.cols());
        if *x != want {
            return Err(InferError::operand("x", want.to_string(), x));
        }
        if let Some(scales) = ins.get(2) {
            if !w.dtype.is_quantized() {
                return Err(InferError::operand("weight", "quantised, as the activations are", w));
            }
            let want = TensorDesc::matrix(DType::F32, x.rows(), crate::Dim::Const(k / ACT_BLOCK));
            if **scales != want {
                return Err(InferError::operand("scales", want.to_string(), scales));
            }
        }
        Ok(one(TensorDesc::matrix(DType::F32, x.rows(), w.rows())))
    }

    fn reference(&self, ins: &[&HostTensor]) -> Vec<HostTensor> {
        let (w, x) = (ins[0], ins[1]);
        let x = activations(x, ins.get(2).copied());
        let mut out = vec![0.0; x.len() * w.rows()];
        for n in 0..w.rows() {
            let row = match (&w.data, ins.len()) {
                (Data::Packed(dtype, bytes), 3) => unrounded(*dtype, w.packed_row(*dtype, bytes, n)),
                _ => w.row(n).into_owned(),
            };
            for (t, x) in x.iter().enumerate() {
                out[t * w.rows() + n] = dot(&row, x);
            }
        }
        vec![HostTensor::real(&[x.len(), w.rows()], out)]
    }

    fn error_bound(&self, ins: &[&HostTensor], outs: &[HostTensor], p: Precision) -> Vec<Bound> {
        let w = ins[0];
        let x = activations(ins[1], None);
        let scales: Vec<_> = ins.get(2).map_or(Vec::new(), |s| (0..s.rows()).map(|t| s.row(t)).collect());
        let mut bound = vec![0.0; x.len() * w.rows()];
        for n in 0..w.rows() {
            let (exact, int8) = match (&w.data, scales.is_empty()) {
                (Data::Packed(dtype, bytes), false) => {
                    (Vec::new(), IntRow::new(*dtype, w.packed_row(*dtype, bytes, n)))
                }
                _ => (w.row(n).iter().map(|v| v.abs()).collect::<Vec<f64>>(), None),
            };
            for (t, x) in x.iter().enumerate() {
                let i = t * w.rows() + n;
                let slack = match &int8 {
                    Some(row) => row.slack(x, &scales[t], p),
                    None => p.dot(x.len()) * dot_abs(&exact, x),
                };
                bound[i] = outs[0].reals()[i].abs() * p.unit() + slack;
            }
        }
        vec![bound]
    }

    fn flops(&self, ins: &[&TensorDesc], outs: &[TensorDesc], at: &Bindings) -> u64 {
        2 * (ins[0].cols().at(at) * outs[0].elements(at)) as u64
    }

    fn cases() -> Vec<Case> {
        let mut cases = Vec::new();
        for t in weight_types() {
            // Row counts that are no multiple of a panel; one shape of one super-block, one of several.
            for (n, k, m) in [(17, 256, 1), (40, 512, 3), (16, 1024, 9)] {
                if t.is_quantized() {
                    cases.push(MatMul::case(t, [n, k, m]));
                }
                let name = format!("{}_{n}x{k}x{m}", t.name().to_lowercase());
                cases.push(Case::new(name, MatMul {}, vec![weights(13, t, n, k), normal(14, &[m, k])]));
            }
        }
        let mut x = normal(15, &[2, 64]);
        if let Data::Real(v) = &mut x.data {
            v[3] = f64::NAN;
        }
        cases.push(int8_case("nan_reaches_every_output".into(), weights(16, DType::Q8_0, 20, 64), &x));
        cases
    }
}

impl MatMul {
    /// A case of `[rows of weights, values in a row, tokens]`: int8 where the weights are quantised.
    pub fn case(dtype: DType, [n, k, m]: [usize; 3]) -> Case {
        let (w, x) = (weights(13, dtype, n, k), normal(14, &[m, k]));
        let name = format!("{}_{n}x{k}x{m}", dtype.name().to_lowercase());
        if dtype.is_quantized() {
            int8_case(format!("{name}_int8"), w, &x)
        } else {
            Case::new(name, MatMul {}, vec![w, x])
        }
    }
}

fn int8_case(name: String, w: HostTensor, x: &HostTensor) -> Case {
    let q = Quantize {}.reference(&[x]);
    // A device holds the scales as f32.
    let scales = HostTensor::real(&q[1].shape, q[1].reals().iter().map(|&s| f64::from(s as f32)).collect());
    let mut case = Case::new(name, MatMul {}, vec![w, q[0].clone(), scales]);
    case.ins[1] = CaseInput::Value(q[0].clone(), DType::I8);
    case
}

/// A packed row's values with no rounding between scale, code and minimum: a quantised product never rounds one value.
fn unrounded(dtype: DType, row: &[u8]) -> Vec<f64> {
    let Some(f) = quant::format(dtype) else { return Vec::new() };
    let mut out = Vec::new();
    for block in row.chunks_exact(dtype.block_bytes()) {
        let parts = f.parts(block);
        out.extend((0..dtype.block_len()).map(|i| {
            let g = i / f.sub;
            let scaled =
                f64::from(parts.d) * f64::from(parts.scales[g]) * f64::from(i32::from(parts.codes[i]) - f.offset);
            scaled - f64::from(parts.dmin) * f64::from(parts.mins[g])
        }));
    }
    out
}

/// Rows of activations as reals: what codes stand for, if scales are given.
fn activations(x: &HostTensor, scales: Option<&HostTensor>) -> Vec<Vec<f64>> {
    let row = |t: usize| {
        let mut row = x.row(t).into_owned();
        if let Some(s) = scales {
            for (block, s) in row.chunks_exact_mut(ACT_BLOCK).zip(s.row(t).iter()) {
                block.iter_mut().for_each(|v| *v *= s);
            }
        }
        row
    };
    (0..x.rows()).map(row).collect()
}

/// Σ a·b in eight interleaved sums, which a compiler can keep in vectors.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a8.iter().zip(b8) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

/// Σ a·|b|, for an `a` that is not negative.
fn dot_abs(a: &[f64], b: &[f64]) -> f64 {
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a8.iter().zip(b8) {
        for i in 0..8 {
            sums[i] += a[i] * b[i].abs();
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b.abs()).sum::<f64>()
}

/// A packed row as an `int8` product sees it: integers times small scales, and the block scales apart.
struct IntRow {
    /// Scale times code without offset, and the minimum of its group, for every weight.
    codes: Vec<f64>,
    mins: Vec<f64>,
    /// Block scales for each block of activations.
    d: Vec<(f64, f64)>,
    has_min: bool,
}

impl IntRow {
    fn new(dtype: DType, row: &[u8]) -> Option<IntRow> {
        let f = quant::format(dtype)?;
        let (mut codes, mut mins, mut d) = (Vec::new(), Vec::new(), Vec::new());
        for block in row.chunks_exact(dtype.block_bytes()) {
            let parts = f.parts(block);
            for i in 0..dtype.block_len() {
                let g = i / f.sub;
                codes.push(f64::from(parts.scales[g]) * f64::from(i32::from(parts.codes[i]) - f.offset));
                if f.has_min {
                    mins.push(f64::from(parts.mins[g]));
                }
            }
            let blocks = dtype.block_len() / ACT_BLOCK;
            d.extend(std::iter::repeat_n((f64::from(parts.d).abs(), f64::from(parts.dmin).abs()), blocks));
        }
        Some(IntRow { codes, mins, d, has_min: f.has_min })
    }

    /// Rounding of the f32 block sums: the integer dots are exact, so only their sizes count, not the sizes of their
    /// terms.
    fn slack(&self, x: &[f64], scales: &[f64], p: Precision) -> f64 {
        let (mut total, mut terms) = (0.0, 0usize);
        for (b, (x, s)) in x.chunks_exact(ACT_BLOCK).zip(scales).enumerate() {
            let (d, dmin) = self.d[b];
            let at = b * ACT_BLOCK..(b + 1) * ACT_BLOCK;
            total += s.abs() * d * dot(&self.codes[at.clone()], x).abs();
            terms += 1;
            if self.has_min {
                total += s.abs() * dmin * dot(&self.mins[at], x).abs();
                terms += 1;
            }
        }
        // A term is rounded up to four times before it is added.
        (p.dot(terms) + 4.0 * p.unit()) * total
    }
}
