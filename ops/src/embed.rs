//! Row gather: token embeddings, and the rows whose logits are wanted.

use crate::case::{normal, weight_types, weights};
use crate::spec::{arity, one};
use crate::{Bindings, Bound, Case, Cost, DType, Descs, HostTensor, InferError, OpSpec, Precision, TensorDesc};
use serde::{Deserialize, Serialize};
use std::fmt;

/// `out[i, :] = table[ids[i], :]` as f32; a packed table's rows are dequantised.
///
/// An id outside the table gives a row of NaN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Embed {}

impl fmt::Display for Embed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("embed")
    }
}

impl OpSpec for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn operands(&self) -> &'static [&'static str] {
        &["table", "ids"]
    }

    fn infer(&self, ins: &[&TensorDesc]) -> Result<Descs, InferError> {
        arity(self, ins, "2", 2, 2)?;
        if !ins[0].dtype.is_real() || ins[0].dims.len() != 2 {
            return Err(InferError::operand("table", "a matrix of reals", ins[0]));
        }
        if ins[1].dtype != DType::I32 || ins[1].dims.len() != 1 {
            return Err(InferError::operand("ids", "a list of I32", ins[1]));
        }
        Ok(one(TensorDesc::matrix(DType::F32, ins[1].dims[0], ins[0].cols())))
    }

    fn reference(&self, ins: &[&HostTensor]) -> Vec<HostTensor> {
        let (table, ids) = (ins[0], ins[1].ints());
        let mut out = Vec::with_capacity(ids.len() * table.cols());
        for &id in ids {
            match usize::try_from(id).ok().filter(|&i| i < table.rows()) {
                Some(i) => out.extend_from_slice(&table.row(i)),
                None => out.resize(out.len() + table.cols(), f64::NAN),
            }
        }
        vec![HostTensor::real(&[ids.len(), table.cols()], out)]
    }

    fn error_bound(&self, _: &[&HostTensor], outs: &[HostTensor], _: Precision) -> Vec<Bound> {
        vec![vec![0.0; outs[0].reals().len()]]
    }

    fn cost(&self, ins: &[&TensorDesc], outs: &[TensorDesc], at: &Bindings) -> Cost {
        // The table is not read whole: rows as it packs them.
        let row = ins[0].dtype.row_bytes(ins[0].cols().at(at)).unwrap_or(0);
        let bytes = outs[0].rows().at(at) * row + ins[1].bytes(at) + outs[0].bytes(at);
        Cost { flops: 0, bytes: bytes as u64 }
    }

    fn cases() -> Vec<Case> {
        let ids = || HostTensor::int(&[5], vec![3, 0, 16, 3, 7]);
        let mut cases: Vec<_> = weight_types()
            .map(|t| {
                Case::new(format!("{}_17x512", t.name().to_lowercase()), Embed {}, vec![weights(9, t, 17, 512), ids()])
            })
            .collect();
        cases.push(Case::new("rows_of_activations", Embed {}, vec![normal(10, &[17, 33]), ids()]));
        cases.push(Case::new(
            "id_outside",
            Embed {},
            vec![normal(10, &[4, 32]), HostTensor::int(&[3], vec![-1, 3, 4])],
        ));
        cases
    }
}
