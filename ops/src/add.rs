//! Residual addition.

use crate::case::normal;
use crate::spec::{arity, one};
use crate::{Bindings, Bound, Case, DType, Descs, HostTensor, InferError, OpSpec, Precision, TensorDesc};
use serde::{Deserialize, Serialize};
use std::fmt;

/// `out[t, i] = a[t, i] + b[t, i]`, f32, shapes equal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Add {}

impl fmt::Display for Add {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("add")
    }
}

impl OpSpec for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn operands(&self) -> &'static [&'static str] {
        &["a", "b"]
    }

    fn infer(&self, ins: &[&TensorDesc]) -> Result<Descs, InferError> {
        arity(self, ins, "2", 2, 2)?;
        same_f32(ins[0], ins[1], ["a", "b"])
    }

    fn reference(&self, ins: &[&HostTensor]) -> Vec<HostTensor> {
        let out = ins[0].reals().iter().zip(ins[1].reals()).map(|(a, b)| a + b).collect();
        vec![HostTensor::real(&ins[0].shape, out)]
    }

    fn error_bound(&self, _: &[&HostTensor], outs: &[HostTensor], p: Precision) -> Vec<Bound> {
        vec![outs[0].reals().iter().map(|y| y.abs() * p.unit()).collect()]
    }

    fn flops(&self, ins: &[&TensorDesc], _: &[TensorDesc], at: &Bindings) -> u64 {
        ins[0].elements(at) as u64
    }

    fn cases() -> Vec<Case> {
        [(1, 1), (1, 576), (3, 33), (7, 4096)]
            .map(|(t, n)| Case::new(format!("{t}x{n}"), Add {}, vec![normal(1, &[t, n]), normal(2, &[t, n])]))
            .into()
    }
}

/// Two f32 matrices of one shape give a third.
pub(crate) fn same_f32(a: &TensorDesc, b: &TensorDesc, names: [&'static str; 2]) -> Result<Descs, InferError> {
    if a.dtype != DType::F32 || a.dims.len() != 2 {
        return Err(InferError::operand(names[0], "an F32 matrix", a));
    }
    if a != b {
        return Err(InferError::operand(names[1], a.to_string(), b));
    }
    Ok(one(a.clone()))
}
