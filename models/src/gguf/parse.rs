//! The header: from bytes to checked metadata and tensor descriptions.

use std::path::Path;

use greta_ops::DType;

use super::cursor::{Cursor, Place};
use super::error::{GgufError, GgufErrorKind};
use super::metadata::Metadata;
use super::tensor::{TensorInfo, data_bytes, foreign_type, rank};
use super::value::Value;
use super::{MAGIC, check, sniff};

/// The least bytes a metadata entry takes: a key's length, a type number, a value.
const LEAST_ENTRY: usize = 8 + 4 + 1;

/// The least bytes a tensor description takes: a name's length, a rank, a dimension, a type, an offset.
const LEAST_TENSOR: usize = 8 + 4 + 8 + 4 + 8;

/// A parsed and checked GGUF header.
#[derive(Clone, Debug)]
pub struct Header {
    version: u32,
    alignment: u64,
    data_offset: u64,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    /// Tensor numbers in the order of their names, for look-up.
    by_name: Vec<usize>,
}

impl Header {
    /// The GGUF version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The alignment of the data section and of each tensor in it.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Where the data section starts, in bytes from the start of the file.
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors in the order of the header.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let named = |&i: &usize| self.tensors[i].name.as_str().cmp(name);
        let i = self.by_name.binary_search_by(named).ok()?;
        Some(&self.tensors[self.by_name[i]])
    }

    /// Names the file in every later message about the metadata.
    pub(super) fn set_path(&mut self, path: &Path) {
        self.metadata.set_path(path);
    }
}

/// Parses the header at the start of `bytes`, the first part or all of a file of `file_len` bytes.
///
/// Every tensor of the result lies inside the file, aligned and apart from the others. Memory asked for
/// is bounded by a small multiple of `bytes`, whatever the header claims.
pub fn parse_header(bytes: &[u8], file_len: u64) -> Result<Header, GgufError> {
    if bytes.is_empty() {
        return Err(GgufErrorKind::Empty.into());
    }
    if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) {
        return Err(sniff::wrong_magic(bytes));
    }
    let mut cur = Cursor::new(bytes);
    cur.take(MAGIC.len())?;
    let version = version(&mut cur)?;

    cur.place = Place::Fixed("the tensor count");
    let n_tensors = cur.count("tensors", LEAST_TENSOR)?;
    cur.place = Place::Fixed("the metadata count");
    let n_entries = cur.count("metadata entries", LEAST_ENTRY)?;

    let mut entries = Vec::with_capacity(n_entries);
    for i in 0..n_entries {
        cur.place = Place::Key(i);
        let key = cur.string()?;
        cur.place = Place::Value(key);
        let code = cur.u32()?;
        entries.push((key.to_owned(), Value::read(&mut cur, code)?));
    }
    let metadata = Metadata::new(entries)?;

    let mut tensors = Vec::with_capacity(n_tensors);
    for i in 0..n_tensors {
        tensors.push(tensor(&mut cur, i)?);
    }
    let by_name = check::sorted_unique(&tensors, |t| &t.name)
        .map_err(|t| GgufErrorKind::DuplicateTensor { tensor: t.name.clone() })?;

    let alignment = check::alignment(&metadata)?;
    let data_offset = cur.offset().next_multiple_of(alignment);
    check::padding(bytes, cur.offset(), data_offset)?;
    check::place(&mut tensors, data_offset, alignment, file_len)?;
    Ok(Header { version, alignment, data_offset, metadata, tensors, by_name })
}

fn version(cur: &mut Cursor<'_>) -> Result<u32, GgufError> {
    cur.place = Place::Fixed("the version");
    let version = cur.u32()?;
    let advice = match version {
        2 | 3 => return Ok(version),
        1 => "convert the model again: version 1 was replaced in 2023",
        _ if matches!(version.swap_bytes(), 1..=3) => {
            return Err(GgufErrorKind::BigEndian { version: version.swap_bytes() }.into());
        }
        4..=99 => "use a newer greta, or convert the model to version 3",
        _ => "the file is damaged: download or convert it again",
    };
    Err(GgufErrorKind::Version { version, advice }.into())
}

/// Reads the description of tensor `i`; its offset still counts from the data section.
fn tensor(cur: &mut Cursor<'_>, i: usize) -> Result<TensorInfo, GgufError> {
    cur.place = Place::TensorName(i);
    let name = cur.string()?;
    cur.place = Place::Tensor(name);
    let at = cur.offset();
    let n_dims = rank(name, cur.u32()?, at)?;
    let mut dims = Vec::with_capacity(n_dims);
    for _ in 0..n_dims {
        dims.push(cur.u64()?);
    }
    let at = cur.offset();
    let id = cur.u32()?;
    let dtype = DType::from_ggml_id(id).ok_or_else(|| GgufErrorKind::TensorType {
        tensor: name.to_owned(),
        id,
        name: foreign_type(id),
        offset: at,
    })?;
    let offset = cur.u64()?;
    let bytes = data_bytes(name, &dims, dtype)?;
    Ok(TensorInfo { name: name.to_owned(), dims, dtype, offset, bytes })
}
