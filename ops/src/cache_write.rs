//! Rows into the KV cache.

use crate::case::normal;
use crate::spec::{arity, one};
use crate::{
    Bindings, Bound, Case, CaseInput, Cost, DType, Descs, HostTensor, InferError, OpSpec, Precision, TensorDesc,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// `cache[slots[t], :] = rows[t, :]`, rounded to the cache's type (nearest even); gives the cache as it is afterwards.
///
/// The cache is a new value, so that a reader's order after the write is an edge of the graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheWrite {}

impl fmt::Display for CacheWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cache_write")
    }
}

impl OpSpec for CacheWrite {
    fn name(&self) -> &'static str {
        "cache_write"
    }

    fn operands(&self) -> &'static [&'static str] {
        &["cache", "rows", "slots"]
    }

    fn infer(&self, ins: &[&TensorDesc]) -> Result<Descs, InferError> {
        arity(self, ins, "3", 3, 3)?;
        let (cache, rows) = (ins[0], ins[1]);
        if !matches!(cache.dtype, DType::F32 | DType::F16) || cache.dims.len() != 2 {
            return Err(InferError::operand("cache", "an F32 or F16 matrix", cache));
        }
        let want = TensorDesc::matrix(DType::F32, rows.rows(), cache.cols());
        if *rows != want {
            return Err(InferError::operand("rows", want.to_string(), rows));
        }
        let want = TensorDesc::vector(DType::I32, rows.rows());
        if *ins[2] != want {
            return Err(InferError::operand("slots", want.to_string(), ins[2]));
        }
        Ok(one(cache.clone()))
    }

    fn reference(&self, ins: &[&HostTensor]) -> Vec<HostTensor> {
        let mut out = ins[0].reals().to_vec();
        let n = ins[0].cols();
        for (t, &slot) in ins[2].ints().iter().enumerate() {
            if let Some(row) = usize::try_from(slot).ok().and_then(|s| out.get_mut(s * n..(s + 1) * n)) {
                row.copy_from_slice(&ins[1].row(t));
            }
        }
        vec![HostTensor::real(&ins[0].shape, out)]
    }

    fn error_bound(&self, _: &[&HostTensor], outs: &[HostTensor], _: Precision) -> Vec<Bound> {
        vec![vec![0.0; outs[0].reals().len()]]
    }

    fn cost(&self, ins: &[&TensorDesc], _: &[TensorDesc], at: &Bindings) -> Cost {
        let (cache, rows) = (ins[0], ins[1]);
        let written = rows.elements(at) * cache.dtype.block_bytes();
        Cost { flops: 0, bytes: (rows.bytes(at) + written) as u64 }
    }

    fn cases() -> Vec<Case> {
        let case = |name: &str, cache: DType, width: usize, slots: Vec<i32>| {
            let t = slots.len();
            let value = |x, d| CaseInput::Value(x, d);
            Case {
                name: name.into(),
                op: CacheWrite {}.into(),
                ins: vec![
                    CaseInput::Cache(normal(19, &[70, width]), cache),
                    value(normal(20, &[t, width]), DType::F32),
                    value(HostTensor::int(&[t], slots), DType::I32),
                ],
            }
        };
        vec![
            case("f32_one", DType::F32, 64, vec![0]),
            case("f32_scattered", DType::F32, 128, vec![69, 3, 32, 31, 33]),
            case("f16_scattered", DType::F16, 128, vec![69, 3, 32, 31, 33]),
        ]
    }
}
