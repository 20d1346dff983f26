//! What a header says of a tensor, and the sizes and type names that follow from it.

use greta_ops::DType;

use super::MAX_DIMS;
use super::error::{GgufError, GgufErrorKind};

/// A tensor of a file: its name, its shape, its type, and where its bytes lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// The dimensions, the one whose values lie next to each other first.
    pub dims: Vec<u64>,
    /// How the values are stored.
    pub dtype: DType,
    /// Where the data starts, in bytes from the start of the file.
    pub offset: u64,
    /// How many bytes the data takes.
    pub bytes: u64,
}

impl TensorInfo {
    /// Values in a row.
    pub fn cols(&self) -> u64 {
        self.dims.first().copied().unwrap_or(1)
    }

    /// Rows: the product of every dimension but the first.
    pub fn rows(&self) -> u64 {
        self.dims.iter().skip(1).product()
    }
}

/// The bytes that a tensor of this shape takes, or what is wrong with the shape.
pub(super) fn data_bytes(name: &str, dims: &[u64], dtype: DType) -> Result<u64, GgufError> {
    let tensor = || name.to_owned();
    if dims.contains(&0) {
        return Err(GgufErrorKind::TensorZeroDim { tensor: tensor(), dims: dims.to_vec() }.into());
    }
    let too_large = || GgufErrorKind::TensorTooLarge { tensor: tensor(), dims: dims.to_vec() };
    let [cols, others @ ..] = dims else {
        return Err(GgufErrorKind::TensorRank { tensor: tensor(), n_dims: 0, offset: 0 }.into());
    };
    let block = dtype.block_len();
    if cols % block as u64 != 0 {
        let dtype = dtype.name();
        return Err(GgufErrorKind::TensorRow { tensor: tensor(), cols: *cols, dtype, block }.into());
    }
    // The count of values must fit as well as the count of bytes: blocks hold more values than bytes.
    let product = |first: u64| others.iter().try_fold(first, |n, &d| n.checked_mul(d));
    product(*cols).ok_or_else(too_large)?;
    let row = usize::try_from(*cols).ok().and_then(|cols| dtype.row_bytes(cols));
    Ok(row.and_then(|row| product(row as u64)).ok_or_else(too_large)?)
}

/// A count of dimensions that a tensor may have.
pub(super) fn rank(name: &str, n_dims: u32, offset: u64) -> Result<usize, GgufError> {
    match usize::try_from(n_dims) {
        Ok(n @ 1..=MAX_DIMS) => Ok(n),
        _ => Err(GgufErrorKind::TensorRank { tensor: name.to_owned(), n_dims, offset }.into()),
    }
}

/// The name of a ggml type that greta does not read.
pub(super) fn foreign_type(id: u32) -> Option<&'static str> {
    Some(match id {
        4 => "Q4_2",
        5 => "Q4_3",
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        25 => "I16",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        31 => "Q4_0_4_4",
        32 => "Q4_0_4_8",
        33 => "Q4_0_8_8",
        34 => "TQ1_0",
        35 => "TQ2_0",
        36 => "IQ4_NL_4_4",
        37 => "IQ4_NL_4_8",
        38 => "IQ4_NL_8_8",
        39 => "MXFP4",
        40 => "NVFP4",
        _ => return None,
    })
}
