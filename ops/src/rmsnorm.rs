//! Root-mean-square normalisation.

use crate::case::normal;
use crate::spec::{arity, attrs, one};
use crate::{Bindings, Bound, Case, DType, Descs, HostTensor, InferError, OpSpec, Precision, TensorDesc};
use serde::{Deserialize, Serialize};
use std::fmt;

/// `out[t, i] = x[t, i] / √(mean_j x[t, j]² + eps) · weight[i]` (Zhang and Sennrich 2019, arXiv 1910.07467).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RmsNorm {
    /// Added to the mean square.
    pub eps: f32,
}

impl fmt::Display for RmsNorm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        attrs(f, "rmsnorm", &[("eps", &self.eps)])
    }
}

impl OpSpec for RmsNorm {
    fn name(&self) -> &'static str {
        "rmsnorm"
    }

    fn operands(&self) -> &'static [&'static str] {
        &["x", "weight"]
    }

    fn infer(&self, ins: &[&TensorDesc]) -> Result<Descs, InferError> {
        arity(self, ins, "2", 2, 2)?;
        if !(self.eps.is_finite() && self.eps >= 0.0) {
            return Err(InferError::Attribute(format!("eps is {}, expected a finite number ≥ 0", self.eps)));
        }
        if ins[0].dtype != DType::F32 || ins[0].dims.len() != 2 {
            return Err(InferError::operand("x", "an F32 matrix", ins[0]));
        }
        let want = TensorDesc::vector(DType::F32, ins[0].cols());
        if *ins[1] != want {
            return Err(InferError::operand("weight", want.to_string(), ins[1]));
        }
        Ok(one(ins[0].clone()))
    }

    fn reference(&self, ins: &[&HostTensor]) -> Vec<HostTensor> {
        let (x, w) = (ins[0], ins[1].row(0));
        let mut out = Vec::with_capacity(x.reals().len());
        for t in 0..x.rows() {
            let row = x.row(t);
            let mean = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
            let inv = 1.0 / (mean + f64::from(self.eps)).sqrt();
            out.extend(row.iter().zip(w.iter()).map(|(v, w)| v * inv * w));
        }
        vec![HostTensor::real(&x.shape, out)]
    }

    fn error_bound(&self, ins: &[&HostTensor], outs: &[HostTensor], p: Precision) -> Vec<Bound> {
        // Half the relative error of the sum of squares (the root halves it), then root, division and two products.
        let rel = p.dot(ins[0].cols()) / 2.0 + 5.0 * p.unit();
        vec![outs[0].reals().iter().map(|y| y.abs() * rel).collect()]
    }

    fn flops(&self, ins: &[&TensorDesc], _: &[TensorDesc], at: &Bindings) -> u64 {
        // Square and sum, two products; a row's mean, epsilon, root and division are few beside them.
        4 * ins[0].elements(at) as u64
    }

    fn cases() -> Vec<Case> {
        let op = |eps| RmsNorm { eps };
        let mut cases: Vec<_> = [(1, 576, 1e-5), (4, 256, 1e-6), (3, 47, 1e-5), (2, 4096, 1e-5)]
            .map(|(t, n, eps)| {
                Case::new(format!("{t}x{n}_eps{eps:e}"), op(eps), vec![normal(5, &[t, n]), normal(6, &[n])])
            })
            .into();
        let tiny = HostTensor::real(&[1, 64], vec![1e-12; 64]);
        cases.push(Case::new("eps_decides", op(1e-5), vec![tiny, normal(7, &[64])]));
        cases.push(Case::new("zeros", op(1e-5), vec![HostTensor::real(&[2, 64], vec![0.0; 128]), normal(8, &[64])]));
        cases
    }
}
