//! Shapes and types as the graph knows them: symbolic where a step's size decides.

use crate::DType;
use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use std::fmt;

/// One dimension: a constant, or a size that a step or a session brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Dim {
    /// Fixed when the graph is built.
    Const(usize),
    /// Tokens in the step.
    Tokens,
    /// Rows whose logits the step wants.
    Rows,
    /// Slots of the KV cache (states only).
    Slots,
    /// Sequences a session can hold (the block table only).
    Seqs,
    /// Pages a sequence can hold (the block table only).
    Pages,
}

/// The sizes that stand behind the symbolic dimensions in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    /// Tokens in the step.
    pub tokens: usize,
    /// Rows wanted.
    pub rows: usize,
    /// Slots of the cache. Where work is counted: tokens of the sequence once the step is done.
    pub slots: usize,
    /// Sequences.
    pub seqs: usize,
    /// Pages per sequence.
    pub pages: usize,
}

impl Dim {
    /// The dimension's size under these bindings.
    pub fn at(self, b: &Bindings) -> usize {
        match self {
            Dim::Const(n) => n,
            Dim::Tokens => b.tokens,
            Dim::Rows => b.rows,
            Dim::Slots => b.slots,
            Dim::Seqs => b.seqs,
            Dim::Pages => b.pages,
        }
    }

    /// The size if it is fixed.
    pub fn constant(self) -> Option<usize> {
        match self {
            Dim::Const(n) => Some(n),
            _ => None,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Const(n) => write!(f, "{n}"),
            Dim::Tokens => f.write_str("T"),
            Dim::Rows => f.write_str("R"),
            Dim::Slots => f.write_str("slots"),
            Dim::Seqs => f.write_str("seqs"),
            Dim::Pages => f.write_str("pages"),
        }
    }
}

/// Type and shape of a value: `[cols]` or `[rows, cols]`, last dimension contiguous.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TensorDesc {
    /// How the values are stored.
    pub dtype: DType,
    /// Dimensions, slowest first.
    pub dims: SmallVec<[Dim; 2]>,
}

/// The outputs of an op; most have one.
pub type Descs = SmallVec<[TensorDesc; 2]>;

impl TensorDesc {
    /// A row vector or list of `n`.
    pub fn vector(dtype: DType, n: Dim) -> Self {
        TensorDesc { dtype, dims: smallvec![n] }
    }

    /// A matrix of `rows` rows of `cols` values.
    pub fn matrix(dtype: DType, rows: Dim, cols: Dim) -> Self {
        TensorDesc { dtype, dims: smallvec![rows, cols] }
    }

    /// The first dimension of a matrix; a vector is one row.
    pub fn rows(&self) -> Dim {
        if self.dims.len() < 2 { Dim::Const(1) } else { self.dims[0] }
    }

    /// Values in a row.
    pub fn cols(&self) -> Dim {
        self.dims.last().copied().unwrap_or(Dim::Const(0))
    }

    /// Values in all.
    pub fn elements(&self, b: &Bindings) -> usize {
        self.dims.iter().map(|d| d.at(b)).product()
    }

    /// Bytes in all. A quantised row that does not end on a block counts its whole blocks.
    pub fn bytes(&self, b: &Bindings) -> usize {
        self.elements(b) / self.dtype.block_len() * self.dtype.block_bytes()
    }
}

impl fmt::Display for TensorDesc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, d) in self.dims.iter().enumerate() {
            write!(f, "{}{d}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("]")
    }
}
