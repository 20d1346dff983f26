//! Values on the host, as references and cases see them: real numbers in f64, integers, or packed weights.

use crate::{DType, Dim, TensorDesc, quant};
use half::{bf16, f16};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::sync::Arc;

/// The values of a [`HostTensor`].
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Real numbers.
    Real(Vec<f64>),
    /// Ids, positions, slots, and the codes of quantised activations.
    Int(Vec<i32>),
    /// Weights as a file stores them, row after row.
    Packed(DType, Arc<[u8]>),
}

/// A tensor on the host: `[cols]` or `[rows, cols]`.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Sizes, slowest first.
    pub shape: SmallVec<[usize; 2]>,
    /// The values, row after row.
    pub data: Data,
}

impl HostTensor {
    /// Real numbers of this shape. The length must be the shape's product.
    pub fn real(shape: &[usize], values: Vec<f64>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "shape {shape:?} of {} values", values.len());
        HostTensor { shape: shape.into(), data: Data::Real(values) }
    }

    /// Integers of this shape. The length must be the shape's product.
    pub fn int(shape: &[usize], values: Vec<i32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "shape {shape:?} of {} values", values.len());
        HostTensor { shape: shape.into(), data: Data::Int(values) }
    }

    /// Packed weights of this shape. The bytes must be as many as the shape's rows take.
    pub fn packed(shape: &[usize], dtype: DType, bytes: Arc<[u8]>) -> Self {
        let cols = shape.last().copied().unwrap_or(0);
        let rows = shape.iter().product::<usize>().checked_div(cols).unwrap_or(0);
        assert_eq!(dtype.row_bytes(cols).map(|r| r * rows), Some(bytes.len()), "{dtype} {shape:?}");
        HostTensor { shape: shape.into(), data: Data::Packed(dtype, bytes) }
    }

    /// Decodes bytes that a device holds under `dtype`; quantised types stay packed.
    pub fn from_bytes(shape: &[usize], dtype: DType, bytes: &[u8]) -> Self {
        match dtype {
            DType::I32 => {
                Self::int(shape, bytes.chunks_exact(4).map(|c| i32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect())
            }
            DType::I8 => Self::int(shape, bytes.iter().map(|&b| b as i8 as i32).collect()),
            DType::F32 | DType::F16 | DType::BF16 => {
                let mut out = vec![0f32; bytes.len() / dtype.block_bytes()];
                quant::dequantize_row(dtype, bytes, &mut out);
                Self::real(shape, out.into_iter().map(f64::from).collect())
            }
            _ => Self::packed(shape, dtype, bytes.into()),
        }
    }

    /// Encodes the values as `dtype`, rounding reals to nearest even.
    pub fn to_bytes(&self, dtype: DType) -> Vec<u8> {
        match (&self.data, dtype) {
            (Data::Packed(t, bytes), _) if *t == dtype => bytes.to_vec(),
            (Data::Int(v), DType::I32) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            (Data::Int(v), DType::I8) => v.iter().map(|&x| x as i8 as u8).collect(),
            (Data::Real(v), DType::F32) => v.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
            (Data::Real(v), DType::F16) => v.iter().flat_map(|&x| f16::from_f64(x).to_le_bytes()).collect(),
            (Data::Real(v), DType::BF16) => v.iter().flat_map(|&x| bf16::from_f64(x).to_le_bytes()).collect(),
            (data, _) => panic!("cannot encode {} as {dtype}", kind(data)),
        }
    }

    /// Rows (1 for a vector).
    pub fn rows(&self) -> usize {
        if self.shape.len() < 2 { 1 } else { self.shape[0] }
    }

    /// Values in a row.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(0)
    }

    /// Row `i` as real numbers; packed rows are dequantised, integers converted.
    pub fn row(&self, i: usize) -> Cow<'_, [f64]> {
        let (cols, start) = (self.cols(), i * self.cols());
        match &self.data {
            Data::Real(v) => Cow::Borrowed(&v[start..start + cols]),
            Data::Int(v) => v[start..start + cols].iter().map(|&x| f64::from(x)).collect(),
            Data::Packed(t, bytes) => {
                let mut out = vec![0f32; cols];
                quant::dequantize_row(*t, self.packed_row(*t, bytes, i), &mut out);
                out.into_iter().map(f64::from).collect()
            }
        }
    }

    /// Row `i` of packed weights as stored.
    pub fn packed_row<'a>(&self, dtype: DType, bytes: &'a [u8], i: usize) -> &'a [u8] {
        let n = self.cols() / dtype.block_len() * dtype.block_bytes();
        &bytes[i * n..][..n]
    }

    /// The integers of an integer tensor.
    pub fn ints(&self) -> &[i32] {
        match &self.data {
            Data::Int(v) => v,
            other => panic!("integers expected, found {}", kind(other)),
        }
    }

    /// The reals of a real tensor.
    pub fn reals(&self) -> &[f64] {
        match &self.data {
            Data::Real(v) => v,
            other => panic!("real numbers expected, found {}", kind(other)),
        }
    }

    /// The tensor's type and shape with constant dimensions; reals are taken to be f32.
    pub fn desc(&self) -> TensorDesc {
        let dtype = match &self.data {
            Data::Real(_) => DType::F32,
            Data::Int(_) => DType::I32,
            Data::Packed(t, _) => *t,
        };
        TensorDesc { dtype, dims: self.shape.iter().map(|&n| Dim::Const(n)).collect() }
    }
}

fn kind(data: &Data) -> &'static str {
    match data {
        Data::Real(_) => "real numbers",
        Data::Int(_) => "integers",
        Data::Packed(t, _) => t.name(),
    }
}
