//! The gated activation of the feed-forward block.

use crate::add::same_f32;
use crate::case::normal;
use crate::spec::arity;
use crate::{Bindings, Bound, Case, Descs, HostTensor, InferError, OpSpec, Precision, TensorDesc};
use serde::{Deserialize, Serialize};
use std::fmt;

/// `out[t, i] = silu(gate[t, i]) · up[t, i]` with `silu(g) = g / (1 + e^−g)` (Shazeer 2020, arXiv 2002.05202).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Swiglu {}

impl fmt::Display for Swiglu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("swiglu")
    }
}

impl OpSpec for Swiglu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn operands(&self) -> &'static [&'static str] {
        &["gate", "up"]
    }

    fn infer(&self, ins: &[&TensorDesc]) -> Result<Descs, InferError> {
        arity(self, ins, "2", 2, 2)?;
        same_f32(ins[0], ins[1], ["gate", "up"])
    }

    fn reference(&self, ins: &[&HostTensor]) -> Vec<HostTensor> {
        let out = ins[0].reals().iter().zip(ins[1].reals()).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
        vec![HostTensor::real(&ins[0].shape, out)]
    }

    fn error_bound(&self, ins: &[&HostTensor], outs: &[HostTensor], p: Precision) -> Vec<Bound> {
        // e^−g within 3 ulp, then an addition, a division and a product; below the smallest normal f32 the result of
        // the division may be flushed, which the product carries on.
        let flush = f64::from(f32::MIN_POSITIVE);
        let up = ins[1].reals();
        vec![outs[0].reals().iter().zip(up).map(|(y, u)| 7.0 * p.unit() * y.abs() + flush * (1.0 + u.abs())).collect()]
    }

    fn flops(&self, ins: &[&TensorDesc], _: &[TensorDesc], at: &Bindings) -> u64 {
        // Sign, exponential, sum, division, product.
        5 * ins[0].elements(at) as u64
    }

    fn cases() -> Vec<Case> {
        let mut cases: Vec<_> = [(1, 1), (2, 1536), (5, 47)]
            .map(|(t, n)| Case::new(format!("{t}x{n}"), Swiglu {}, vec![normal(3, &[t, n]), normal(4, &[t, n])]))
            .into();
        let ends = [0.0, -0.0, 1e-30, -1e-30, 20.0, -20.0, 87.0, -87.0, 88.5, -88.5, 104.0, -104.0, 1e4, -1e4];
        let up = vec![1.5; ends.len()];
        let shape = [1, ends.len()];
        cases.push(Case::new(
            "range_ends",
            Swiglu {},
            vec![HostTensor::real(&shape, ends.into()), HostTensor::real(&shape, up)],
        ));
        cases
    }
}
