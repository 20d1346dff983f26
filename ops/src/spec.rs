//! The contract of an op.

use crate::{Bindings, Case, Descs, HostTensor, TensorDesc};
use smallvec::SmallVec;
use std::fmt;

/// What every op states about itself. Backends compute; this says what the right answer is.
pub trait OpSpec: fmt::Display {
    /// The op's name in text forms, such as `rmsnorm`.
    fn name(&self) -> &'static str;

    /// Names of the operands, in order. Trailing operands may be optional: see [`OpSpec::infer`].
    fn operands(&self) -> &'static [&'static str];

    /// Types and shapes of the outputs, or why the operands do not fit.
    fn infer(&self, ins: &[&TensorDesc]) -> Result<Descs, InferError>;

    /// The plainest loop in f64. Outputs are unrounded reals, or integers.
    ///
    /// The operands must have passed [`OpSpec::infer`]; the integer arithmetic of quantised operands is exact, so the
    /// reference of a quantised product differs from a right kernel by f32 rounding alone.
    fn reference(&self, ins: &[&HostTensor]) -> Vec<HostTensor>;

    /// How far each element of each output of a right kernel may lie from `outs`, which
    /// [`OpSpec::reference`] gave for the same operands.
    fn error_bound(&self, ins: &[&HostTensor], outs: &[HostTensor], p: Precision) -> Vec<Bound>;

    /// Operations of the definition at these sizes: of arithmetic alone, none for moving, storing or unpacking values.
    fn flops(&self, _ins: &[&TensorDesc], _outs: &[TensorDesc], _at: &Bindings) -> u64 {
        0
    }

    /// Operations done and bytes moved at these sizes.
    fn cost(&self, ins: &[&TensorDesc], outs: &[TensorDesc], at: &Bindings) -> Cost {
        Cost { flops: self.flops(ins, outs, at), bytes: moved(ins, outs, at) }
    }

    /// The cases that tests judge and benches time.
    fn cases() -> Vec<Case>
    where
        Self: Sized;
}

/// Bytes of all operands and outputs, each once.
pub(crate) fn moved(ins: &[&TensorDesc], outs: &[TensorDesc], at: &Bindings) -> u64 {
    ins.iter().copied().chain(outs).map(|d| d.bytes(at) as u64).sum()
}

/// The precision sums are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// IEEE single: products and sums in f32.
    F32,
}

impl Precision {
    /// The unit roundoff u.
    pub fn unit(self) -> f64 {
        match self {
            Precision::F32 => 2f64.powi(-24),
        }
    }

    /// Relative error of a sum of `n` terms in any fixed order, each term rounded a few times: 4·√n·u, capped by n·u.
    ///
    /// √n is the probabilistic bound of Higham and Mary (2019); 4 of its λ leave one false alarm in some 10⁴ models.
    pub fn dot(self, n: usize) -> f64 {
        let n = n.max(1) as f64;
        (4.0 * n.sqrt()).min(n) * self.unit()
    }
}

/// The largest right distance from the reference, element by element; 0 means equal to the bit once rounded.
pub type Bound = Vec<f64>;

/// Work of one op in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point or integer operations; a multiply-add is two, a division, root or exponential one.
    pub flops: u64,
    /// Bytes read and written, each operand once.
    pub bytes: u64,
}

/// Why operands do not fit an op.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// Too few or too many operands.
    #[error("takes {expected} operands ({names}), got {got}")]
    Count {
        /// How many it takes, in words.
        expected: &'static str,
        /// Their names.
        names: String,
        /// How many there were.
        got: usize,
    },
    /// An operand of the wrong type or shape.
    #[error("operand `{operand}` is {found}, expected {expected}")]
    Operand {
        /// Which.
        operand: &'static str,
        /// What is needed.
        expected: String,
        /// What came.
        found: String,
    },
    /// An attribute that makes no sense.
    #[error("{0}")]
    Attribute(String),
}

impl InferError {
    /// An operand mismatch.
    pub fn operand(operand: &'static str, expected: impl Into<String>, found: &TensorDesc) -> Self {
        InferError::Operand { operand, expected: expected.into(), found: found.to_string() }
    }
}

/// Checks the number of operands.
pub(crate) fn arity(
    op: &dyn OpSpec,
    ins: &[&TensorDesc],
    expected: &'static str,
    min: usize,
    max: usize,
) -> Result<(), InferError> {
    if ins.len() < min || ins.len() > max {
        return Err(InferError::Count { expected, names: op.operands().join(", "), got: ins.len() });
    }
    Ok(())
}

/// Names paired with values, for an op's text form: `rope(theta=10000, dims=64)`.
pub(crate) fn attrs(f: &mut fmt::Formatter<'_>, name: &str, list: &[(&str, &dyn fmt::Display)]) -> fmt::Result {
    f.write_str(name)?;
    for (i, (k, v)) in list.iter().enumerate() {
        write!(f, "{}{k}={v}", if i == 0 { "(" } else { ", " })?;
    }
    if !list.is_empty() {
        f.write_str(")")?;
    }
    Ok(())
}

/// One output.
pub(crate) fn one(d: TensorDesc) -> Descs {
    SmallVec::from_iter([d])
}
