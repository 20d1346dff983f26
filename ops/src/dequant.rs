//! Packed weights to f32.

use crate::case::{weight_types, weights};
use crate::spec::{arity, one};
use crate::{Bound, Case, DType, Descs, HostTensor, InferError, OpSpec, Precision, TensorDesc};
use serde::{Deserialize, Serialize};
use std::fmt;

/// `out[n, k]` = the value of `weight[n, k]`, bit for bit as [`crate::quant`] defines it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dequant {}

impl fmt::Display for Dequant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dequant")
    }
}

impl OpSpec for Dequant {
    fn name(&self) -> &'static str {
        "dequant"
    }

    fn operands(&self) -> &'static [&'static str] {
        &["weight"]
    }

    fn infer(&self, ins: &[&TensorDesc]) -> Result<Descs, InferError> {
        arity(self, ins, "1", 1, 1)?;
        let whole = ins[0].cols().constant().is_some_and(|k| ins[0].dtype.row_bytes(k).is_some());
        if !ins[0].dtype.is_real() || ins[0].dims.len() != 2 || !whole {
            return Err(InferError::operand("weight", "a matrix of reals whose rows end on a block", ins[0]));
        }
        Ok(one(TensorDesc { dtype: DType::F32, dims: ins[0].dims.clone() }))
    }

    fn reference(&self, ins: &[&HostTensor]) -> Vec<HostTensor> {
        let w = ins[0];
        let out = (0..w.rows()).flat_map(|i| w.row(i).into_owned()).collect();
        vec![HostTensor::real(&w.shape, out)]
    }

    fn error_bound(&self, _: &[&HostTensor], outs: &[HostTensor], _: Precision) -> Vec<Bound> {
        vec![vec![0.0; outs[0].reals().len()]]
    }

    fn cases() -> Vec<Case> {
        weight_types()
            .map(|t| Case::new(format!("{}_5x512", t.name().to_lowercase()), Dequant {}, vec![weights(11, t, 5, 512)]))
            .collect()
    }
}
