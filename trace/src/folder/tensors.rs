//! A safetensors file written as a stream: its header comes first, so room for it is kept.
//!
//! Format: eight bytes of header length, little-endian; the header, JSON padded with spaces; the tensors' bytes without
//! gaps (<https://huggingface.co/docs/safetensors>).

use super::kept_as;
use crate::{TraceError, error::io};
use greta_backend::RowData;
use greta_ops::DType;
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Readers refuse longer headers.
const LONGEST_HEADER: usize = 100_000_000;

/// Most bytes that a tensor's header entry takes besides its name.
const ENTRY: usize = 136;

/// Room for the entries of tensors with these names.
pub(super) fn room<'a>(names: impl Iterator<Item = (&'a str, usize)>) -> usize {
    let room: usize = 64 + names.map(|(name, times)| times * (escaped(name).len() + ENTRY)).sum::<usize>();
    (8 + room).next_multiple_of(64)
}

pub(super) struct Tensors {
    path: PathBuf,
    file: BufWriter<File>,
    /// Bytes before the first tensor.
    start: u64,
    at: u64,
    entries: Vec<Entry>,
    names: HashSet<String>,
}

struct Entry {
    name: String,
    dtype: DType,
    rows: usize,
    cols: usize,
    start: u64,
}

/// Where a row went.
pub(super) struct Put {
    pub row: usize,
    pub offset: u64,
    pub dtype: DType,
}

impl Tensors {
    /// A file with this much room for its header.
    pub fn create(path: &Path, room: usize) -> Result<Tensors, TraceError> {
        if room > LONGEST_HEADER {
            return Err(TraceError::Format {
                path: path.into(),
                what: "would hold more tensors than the format's header can name; tap fewer nodes or run fewer steps"
                    .into(),
            });
        }
        let file = File::create(path).map_err(io(path, "can't be created"))?;
        let start = room as u64;
        let (file, names) = (BufWriter::with_capacity(1 << 20, file), HashSet::new());
        let mut new = Tensors { path: path.into(), file, start, at: start, entries: Vec::new(), names };
        new.write_header()?;
        Ok(new)
    }

    /// Appends a row to the tensor of this name, which is the last one or new.
    pub fn push(&mut self, name: &str, dtype: Option<DType>, values: RowData<'_>) -> Result<Put, TraceError> {
        let dtype = kept_as(dtype, values.len());
        if !self.entries.last().is_some_and(|e| e.name == name && e.cols == values.len()) {
            if !self.names.insert(name.into()) {
                let what = format!("the rows of `{name}` do not come together");
                return Err(TraceError::Format { path: self.path.clone(), what });
            }
            self.entries.push(Entry { name: name.into(), dtype, rows: 0, cols: values.len(), start: self.at });
        }
        let put = Put { row: self.entries.last().map_or(0, |e| e.rows), offset: self.at, dtype };
        let written = match (values, dtype) {
            (RowData::Real(v), _) => put_all(&mut self.file, v.iter().map(|x| x.to_le_bytes())),
            (RowData::Int(v), DType::I8) => put_all(&mut self.file, v.iter().map(|&x| (x as i8).to_le_bytes())),
            (RowData::Int(v), _) => put_all(&mut self.file, v.iter().map(|x| x.to_le_bytes())),
        };
        self.at += written.map_err(io(&self.path, "values can't be written"))?;
        if let Some(e) = self.entries.last_mut() {
            e.rows += 1;
        }
        Ok(put)
    }

    pub fn flush(&mut self) -> Result<(), TraceError> {
        self.file.flush().map_err(io(&self.path, "values can't be written"))
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.at
    }

    /// Writes the header; the file is whole then.
    pub fn finish(&mut self) -> Result<(), TraceError> {
        self.flush()?;
        self.write_header()?;
        self.file.get_mut().sync_all().map_err(io(&self.path, "can't be written"))
    }

    fn write_header(&mut self) -> Result<(), TraceError> {
        let mut text = String::from("{\"__metadata__\":{\"format\":\"pt\"}");
        for (i, e) in self.entries.iter().enumerate() {
            let end = self.entries.get(i + 1).map_or(self.at, |next| next.start) - self.start;
            let (name, dtype, rows, cols, start) = (escaped(&e.name), e.dtype, e.rows, e.cols, e.start - self.start);
            text += &format!(
                ",{name}:{{\"dtype\":\"{dtype}\",\"shape\":[{rows},{cols}],\"data_offsets\":[{start},{end}]}}"
            );
        }
        text.push('}');
        let room = (self.start - 8) as usize;
        if text.len() > room {
            let what = format!("its header takes {} bytes, {room} were kept for it", text.len());
            return Err(TraceError::Format { path: self.path.clone(), what });
        }
        text.extend(std::iter::repeat_n(' ', room - text.len()));
        let mut write = || {
            let file = self.file.get_mut();
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&(room as u64).to_le_bytes())?;
            file.write_all(text.as_bytes())?;
            file.seek(SeekFrom::Start(self.at)).map(|_| ())
        };
        write().map_err(io(&self.path, "the header can't be written"))
    }
}

fn put_all<const N: usize>(file: &mut impl Write, values: impl Iterator<Item = [u8; N]>) -> std::io::Result<u64> {
    let bytes: Vec<u8> = values.flatten().collect();
    file.write_all(&bytes)?;
    Ok(bytes.len() as u64)
}

fn escaped(name: &str) -> String {
    serde_json::Value::from(name).to_string()
}
