//! Reading a header front to back, never past its end and never trusting a length in it.

use super::error::{GgufError, GgufErrorKind};
use super::words::quote;

/// What the cursor is reading, kept as it goes so that an error can say it.
///
/// It is cheap to set and is put into words only when something is wrong.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    /// A part of the fixed fields.
    Fixed(&'static str),
    /// The key of the metadata entry with this number.
    Key(usize),
    /// The value of a metadata key.
    Value(&'a str),
    /// The name of the tensor with this number.
    TensorName(usize),
    /// The description of a tensor.
    Tensor(&'a str),
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Fixed(what) => f.write_str(what),
            Place::Key(i) => write!(f, "the key of metadata entry {i}"),
            Place::Value(key) => write!(f, "the value of metadata key {}", quote(key)),
            Place::TensorName(i) => write!(f, "the name of tensor {i}"),
            Place::Tensor(name) => write!(f, "the description of tensor {}", quote(name)),
        }
    }
}

/// A position in a header.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    len: usize,
    /// What is being read.
    pub(super) place: Place<'a>,
    /// The array element being read, where `place` is an array.
    pub(super) element: Option<usize>,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Cursor { rest: bytes, len: bytes.len(), place: Place::Fixed("the header"), element: None }
    }

    /// Bytes read so far: the offset in the file of the next one.
    pub(super) fn offset(&self) -> u64 {
        (self.len - self.rest.len()) as u64
    }

    /// The place in words.
    pub(super) fn place(&self) -> String {
        match self.element {
            Some(i) => format!("element {i} of {}", self.place),
            None => self.place.to_string(),
        }
    }

    /// The next `n` bytes.
    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], GgufError> {
        match self.rest.split_at_checked(n) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.truncated(n as u64)),
        }
    }

    /// The next `N` bytes, to be made a number.
    pub(super) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        match self.rest.split_first_chunk::<N>() {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(*taken)
            }
            None => Err(self.truncated(N as u64)),
        }
    }

    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        self.fixed().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        self.fixed().map(u64::from_le_bytes)
    }

    /// A count of things that take `least` bytes or more each, held against the bytes left.
    ///
    /// This is the check that stands before every allocation.
    pub(super) fn count(&mut self, unit: &'static str, least: usize) -> Result<usize, GgufError> {
        let offset = self.offset();
        let count = self.u64()?;
        let most = self.rest.len() / least;
        match usize::try_from(count) {
            Ok(n) if n <= most => Ok(n),
            _ => Err(GgufErrorKind::Count {
                place: self.place(),
                offset,
                count,
                unit,
                left: self.rest.len() as u64,
                most: most as u64,
            }
            .into()),
        }
    }

    /// A length and as many bytes of UTF-8.
    pub(super) fn string(&mut self) -> Result<&'a str, GgufError> {
        let len = self.count("bytes of text", 1)?;
        let offset = self.offset();
        let raw = self.take(len)?;
        std::str::from_utf8(raw).map_err(|e| {
            let bad = e.valid_up_to();
            let around = &raw[bad.saturating_sub(16)..raw.len().min(bad + 16)];
            GgufErrorKind::Utf8 {
                place: self.place(),
                offset: offset + bad as u64,
                excerpt: quote(&String::from_utf8_lossy(around)),
            }
            .into()
        })
    }

    #[cold]
    fn truncated(&self, need: u64) -> GgufError {
        GgufErrorKind::Truncated { place: self.place(), offset: self.offset(), need, left: self.rest.len() as u64 }
            .into()
    }
}
