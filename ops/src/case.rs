//! Cases: operands for one op, from which tests and benches make what they need.

use crate::quant::{self, Rng};
use crate::{DType, HostTensor, Op};

/// One set of operands for one op.
#[derive(Clone, Debug)]
pub struct Case {
    /// Short and unique within its op, such as `q4_k_17x512x3`.
    pub name: String,
    /// The op with its attributes.
    pub op: Op,
    /// The operands.
    pub ins: Vec<CaseInput>,
}

/// An operand of a [`Case`].
#[derive(Clone, Debug)]
pub enum CaseInput {
    /// A tensor stored as `dtype`.
    Value(HostTensor, DType),
    /// A KV cache of this type whose slot `i` holds row `i`; as many slots as rows.
    Cache(HostTensor, DType),
}

impl CaseInput {
    /// The tensor, as the reference takes it.
    pub fn tensor(&self) -> &HostTensor {
        match self {
            CaseInput::Value(t, _) | CaseInput::Cache(t, _) => t,
        }
    }
}

impl Case {
    /// A case whose operands are plain values: reals as f32, integers as i32, packed weights as they are.
    pub(crate) fn new(name: impl Into<String>, op: impl Into<Op>, ins: Vec<HostTensor>) -> Case {
        let ins = ins
            .into_iter()
            .map(|t| {
                let d = t.desc().dtype;
                CaseInput::Value(t, d)
            })
            .collect();
        Case { name: name.into(), op: op.into(), ins }
    }

    /// The operands as a device holds them: rounded to their stored types. References judge by these.
    pub fn stored(&self) -> Vec<HostTensor> {
        let stored = |i: &CaseInput| match i {
            CaseInput::Value(t, d) | CaseInput::Cache(t, d) => HostTensor::from_bytes(&t.shape, *d, &t.to_bytes(*d)),
        };
        self.ins.iter().map(stored).collect()
    }

    /// `<op>/<name>`.
    pub fn title(&self) -> String {
        format!("{}/{}", self.op.spec().name(), self.name)
    }
}

/// Normal reals, rounded to f32 so that a device can hold them.
pub(crate) fn normal(seed: u64, shape: &[usize]) -> HostTensor {
    let mut rng = Rng::new(seed);
    HostTensor::real(shape, (0..shape.iter().product()).map(|_| f64::from(rng.normal())).collect())
}

/// Random weights of any type with a standard deviation of about 0.05.
pub(crate) fn weights(seed: u64, dtype: DType, rows: usize, cols: usize) -> HostTensor {
    let row = dtype.row_bytes(cols).expect("cases use whole blocks");
    let mut bytes = vec![0u8; rows * row];
    quant::random_row(dtype, &mut Rng::new(seed), 0.05, &mut bytes);
    HostTensor::packed(&[rows, cols], dtype, bytes.into())
}

/// The types a weight matrix can have.
pub(crate) fn weight_types() -> impl Iterator<Item = DType> {
    DType::ALL.iter().copied().filter(|t| t.is_real())
}
