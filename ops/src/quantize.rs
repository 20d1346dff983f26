//! Activations to 8-bit codes: the first half of the `int8` arithmetic.

use crate::case::normal;
use crate::spec::{arity, attrs};
use crate::{ACT_BLOCK, Bindings, Bound, Case, DType, Descs, HostTensor, InferError, OpSpec, Precision, TensorDesc};
use serde::{Deserialize, Serialize};
use smallvec::smallvec;
use std::fmt;

/// Symmetric 8-bit quantisation of each block of [`ACT_BLOCK`] values of a row.
///
/// `scale = amax / 127`, `code = round_half_even(x · 127 / amax)`. A block of zeros has scale 0. A block that holds a
/// NaN or an infinity has a NaN scale and codes 0, so that the fault reaches every product made with it.
///
/// Outputs: codes `I8[rows, cols]`, scales `F32[rows, cols / block]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantize {}

impl fmt::Display for Quantize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        attrs(f, "quantize", &[("block", &ACT_BLOCK)])
    }
}

/// Reals that codes stand for: amax, and `x · 127 / amax` before rounding. `None` for a block with NaN or infinity.
fn block(x: &[f64]) -> Option<(f64, impl Iterator<Item = f64>)> {
    let amax = x.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    if x.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let id = if amax > 0.0 { 127.0 / amax } else { 0.0 };
    Some((amax, x.iter().map(move |v| v * id)))
}

impl OpSpec for Quantize {
    fn name(&self) -> &'static str {
        "quantize"
    }

    fn operands(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, ins: &[&TensorDesc]) -> Result<Descs, InferError> {
        arity(self, ins, "1", 1, 1)?;
        let x = ins[0];
        match x.cols().constant() {
            Some(k) if x.dtype == DType::F32 && x.dims.len() == 2 && k % ACT_BLOCK == 0 => Ok(smallvec![
                TensorDesc::matrix(DType::I8, x.rows(), x.cols()),
                TensorDesc::matrix(DType::F32, x.rows(), crate::Dim::Const(k / ACT_BLOCK)),
            ]),
            _ => Err(InferError::operand("x", format!("an F32 matrix with rows a multiple of {ACT_BLOCK}"), x)),
        }
    }

    fn reference(&self, ins: &[&HostTensor]) -> Vec<HostTensor> {
        let x = ins[0];
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for b in x.reals().chunks_exact(ACT_BLOCK) {
            match block(b) {
                Some((amax, q)) => {
                    scales.push(amax / 127.0);
                    codes.extend(q.map(|v| v.round_ties_even() as i32));
                }
                None => {
                    scales.push(f64::NAN);
                    codes.extend([0; ACT_BLOCK]);
                }
            }
        }
        vec![HostTensor::int(&x.shape, codes), HostTensor::real(&[x.rows(), x.cols() / ACT_BLOCK], scales)]
    }

    fn error_bound(&self, ins: &[&HostTensor], outs: &[HostTensor], p: Precision) -> Vec<Bound> {
        self.carried(ins, &vec![0.0; ins[0].reals().len()], outs, p)
    }

    fn flops(&self, ins: &[&TensorDesc], _: &[TensorDesc], at: &Bindings) -> u64 {
        // Magnitude and maximum, product and rounding.
        4 * ins[0].elements(at) as u64
    }

    fn cases() -> Vec<Case> {
        let mut cases: Vec<_> = [(1, 32), (3, 576), (2, 4096)]
            .map(|(t, n)| Case::new(format!("{t}x{n}"), Quantize {}, vec![normal(12, &[t, n])]))
            .into();
        let mut odd = vec![0.0; 5 * ACT_BLOCK];
        for i in 0..ACT_BLOCK {
            odd[ACT_BLOCK + i] = i as f64 + 0.5; // ties: amax 127 is put below
            odd[2 * ACT_BLOCK + i] = 1e-30 * i as f64;
        }
        odd[ACT_BLOCK] = -127.0;
        odd[3 * ACT_BLOCK + 4] = f64::NAN;
        odd[4 * ACT_BLOCK + 7] = f64::INFINITY;
        cases.push(Case::new("zero_ties_small_nan_inf", Quantize {}, vec![HostTensor::real(&[1, odd.len()], odd)]));
        cases
    }
}

impl Quantize {
    /// Bounds when the operand itself may be off by `err`: a code may move by one where the value lies that close to
    /// a tie, and nowhere else.
    pub(crate) fn carried(&self, ins: &[&HostTensor], err: &[f64], outs: &[HostTensor], p: Precision) -> Vec<Bound> {
        let x = ins[0].reals();
        let mut codes = Vec::with_capacity(x.len());
        for (b, e) in x.chunks_exact(ACT_BLOCK).zip(err.chunks_exact(ACT_BLOCK)) {
            let worst = e.iter().fold(0.0f64, |m, v| m.max(*v));
            match block(b) {
                Some((amax, q)) if amax > 0.0 => codes.extend(q.zip(e).map(|(v, e)| {
                    // Two roundings of 127/amax and the product, and the operand's error on both.
                    let slack = v.abs() * (3.0 * p.unit() + worst / amax) + e * 127.0 / amax;
                    let to_tie = ((v - v.floor()) - 0.5).abs();
                    if to_tie <= slack { 1.0 } else { 0.0 }
                })),
                _ => codes.extend([0.0; ACT_BLOCK]),
            }
        }
        let worst = err.chunks_exact(ACT_BLOCK).map(|e| e.iter().fold(0.0f64, |m, v| m.max(*v)));
        let scales = outs[1].reals().iter().zip(worst).map(|(s, e)| 2.0 * p.unit() * s.abs() + e / 127.0).collect();
        vec![codes, scales]
    }
}
