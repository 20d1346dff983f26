//! Writing GGUF files as a stream: the header first, then tensor data in order, in chunks.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use greta_ops::DType;

use super::error::{GgufError, GgufErrorKind};
use super::metadata::Metadata;
use super::tensor::{TensorInfo, data_bytes, rank};
use super::value::{Value, write_str};
use super::{MAGIC, check};

/// Writes a GGUF file of version 3 without holding its tensors.
///
/// Metadata and tensors are declared, [`write_header`](Self::write_header) fixes them, and
/// [`write_data`](Self::write_data) takes each tensor's bytes in the order of declaration. What it
/// writes, [`Gguf::open`](super::Gguf::open) reads: the same checks apply here.
///
/// A file is complete when [`finish`](Self::finish) has returned; one abandoned before stays cut short.
pub struct GgufWriter<W: Write> {
    out: W,
    path: Option<PathBuf>,
    metadata: Metadata,
    tensors: Vec<Declared>,
    data: Option<Progress>,
}

/// A tensor, and its type's number in the header.
struct Declared {
    info: TensorInfo,
    id: u32,
}

/// How far the data section has come.
struct Progress {
    alignment: u64,
    /// The tensor being written, and how many of its bytes have been.
    tensor: usize,
    given: u64,
}

impl GgufWriter<BufWriter<File>> {
    /// Starts a file at `path`, replacing what is there.
    pub fn create(path: &Path) -> Result<Self, GgufError> {
        let file = File::create(path)
            .map_err(|error| GgufErrorKind::Io { doing: "create", error }.into())
            .map_err(|e: GgufError| e.in_file(Some(path)))?;
        let mut writer = Self::new(BufWriter::with_capacity(1 << 20, file));
        writer.path = Some(path.to_owned());
        writer.metadata.set_path(path);
        Ok(writer)
    }
}

impl<W: Write> GgufWriter<W> {
    /// Starts a file that goes to `out`.
    pub fn new(out: W) -> Self {
        GgufWriter { out, path: None, metadata: Metadata::default(), tensors: Vec::new(), data: None }
    }

    /// Adds a metadata entry. `general.alignment` takes effect on the file.
    pub fn add_metadata(&mut self, key: &str, value: impl Into<Value>) -> Result<(), GgufError> {
        self.declaring("add metadata")?;
        self.metadata.insert(key, value.into())
    }

    /// Declares a tensor, its dimensions with the one whose values lie next to each other first.
    pub fn add_tensor(&mut self, name: &str, dims: &[u64], dtype: DType) -> Result<(), GgufError> {
        self.declaring("add a tensor")?;
        if self.tensors.iter().any(|t| t.info.name == name) {
            return Err(self.error(GgufErrorKind::DuplicateTensor { tensor: name.to_owned() }));
        }
        let Some(id) = dtype.ggml_id() else {
            return Err(self.order("add a tensor", format!("GGUF has no type {dtype}")));
        };
        let n_dims = u32::try_from(dims.len()).unwrap_or(u32::MAX);
        let bytes = rank(name, n_dims, 0)
            .and_then(|_| data_bytes(name, dims, dtype))
            .map_err(|e| e.in_file(self.path.as_deref()))?;
        let (name, dims) = (name.to_owned(), dims.to_vec());
        let offset = 0;
        let info = TensorInfo { name, dims, dtype, offset, bytes };
        self.tensors.push(Declared { info, id });
        Ok(())
    }

    /// Writes the header; nothing can be declared after it.
    pub fn write_header(&mut self) -> Result<(), GgufError> {
        self.declaring("write the header")?;
        let header = self.header();
        let (alignment, bytes) = header.map_err(|e| e.in_file(self.path.as_deref()))?;
        self.put(&bytes)?;
        self.data = Some(Progress { alignment, tensor: 0, given: 0 });
        Ok(())
    }

    /// Writes the next bytes of a tensor, which must be the one begun or, where that is complete, the
    /// next one declared.
    pub fn write_data(&mut self, tensor: &str, chunk: &[u8]) -> Result<(), GgufError> {
        self.end_tensor_before(tensor)?;
        let Some(Progress { tensor: at, given, .. }) = self.data else {
            return Err(self.order("write tensor data", "the header is not written yet".into()));
        };
        let Some(info) = self.declared(at).filter(|t| t.name == tensor) else {
            let why = match self.declared(at) {
                Some(next) => format!("the data of {:?} comes next, not of {tensor:?}", next.name),
                None => format!("no tensor is left, and {tensor:?} was given"),
            };
            return Err(self.order("write tensor data", why));
        };
        let (declared, given) = (info.bytes, given + chunk.len() as u64);
        if given > declared {
            let tensor = tensor.to_owned();
            return Err(self.error(GgufErrorKind::WriteLength { tensor, declared, given }));
        }
        self.put(chunk)?;
        if let Some(data) = &mut self.data {
            data.given = given;
        }
        Ok(())
    }

    /// Checks that every declared byte has been written, and flushes.
    pub fn finish(mut self) -> Result<W, GgufError> {
        if self.data.is_none() {
            return Err(self.order("finish", "the header is not written yet".into()));
        }
        self.end_tensor()?;
        if let Some(next) = self.data.as_ref().and_then(|d| self.declared(d.tensor)) {
            let (tensor, declared) = (next.name.clone(), next.bytes);
            return Err(self.error(GgufErrorKind::WriteLength { tensor, declared, given: 0 }));
        }
        let flushed = self.out.flush();
        flushed.map_err(|error| self.error(GgufErrorKind::Io { doing: "write", error }))?;
        Ok(self.out)
    }

    /// The alignment, and the header with the padding that ends it.
    fn header(&self) -> Result<(u64, Vec<u8>), GgufError> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&3u32.to_le_bytes());
        out.extend_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        out.extend_from_slice(&(self.metadata.len() as u64).to_le_bytes());
        for (key, value) in self.metadata.iter() {
            write_str(key, &mut out);
            value.write(&mut out);
        }
        let alignment = check::alignment(&self.metadata)?;
        let mut offset = 0u64;
        for Declared { info: t, id } in &self.tensors {
            write_str(&t.name, &mut out);
            out.extend_from_slice(&(t.dims.len() as u32).to_le_bytes());
            t.dims.iter().for_each(|d| out.extend_from_slice(&d.to_le_bytes()));
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
            let end = offset.checked_add(t.bytes).and_then(|e| e.checked_next_multiple_of(alignment));
            let too_large = || (t.name.clone(), t.dims.clone());
            offset =
                end.ok_or_else(too_large).map_err(|(tensor, dims)| GgufErrorKind::TensorTooLarge { tensor, dims })?;
        }
        out.resize(out.len().next_multiple_of(alignment as usize), 0);
        Ok((alignment, out))
    }

    /// Ends the tensor begun if `next` is another one.
    fn end_tensor_before(&mut self, next: &str) -> Result<(), GgufError> {
        let current = self.data.as_ref().and_then(|d| self.declared(d.tensor));
        if current.is_some_and(|t| t.name != next) { self.end_tensor() } else { Ok(()) }
    }

    /// Ends the tensor begun, if any: checks its length and pads the file to the alignment.
    fn end_tensor(&mut self) -> Result<(), GgufError> {
        let Some(Progress { alignment, tensor: at, given }) = self.data else {
            return Ok(());
        };
        let Some(info) = self.declared(at).filter(|_| given > 0) else {
            return Ok(());
        };
        if given != info.bytes {
            let (tensor, declared) = (info.name.clone(), info.bytes);
            return Err(self.error(GgufErrorKind::WriteLength { tensor, declared, given }));
        }
        // The last tensor is padded as well: some readers ask for it.
        let padding = vec![0; (given.next_multiple_of(alignment) - given) as usize];
        self.put(&padding)?;
        self.data = Some(Progress { alignment, tensor: at + 1, given: 0 });
        Ok(())
    }

    fn declared(&self, at: usize) -> Option<&TensorInfo> {
        self.tensors.get(at).map(|t| &t.info)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), GgufError> {
        let written = self.out.write_all(bytes);
        written.map_err(|error| self.error(GgufErrorKind::Io { doing: "write", error }))
    }

    fn declaring(&self, call: &'static str) -> Result<(), GgufError> {
        match self.data {
            None => Ok(()),
            Some(_) => Err(self.order(call, "the header is already written".into())),
        }
    }

    fn order(&self, call: &'static str, why: String) -> GgufError {
        self.error(GgufErrorKind::WriteOrder { call, why })
    }

    fn error(&self, kind: GgufErrorKind) -> GgufError {
        GgufError::from(kind).in_file(self.path.as_deref())
    }
}
