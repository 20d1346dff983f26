//! What can be wrong with a GGUF file, in words that say what to do.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::words::{AGAIN, quote, type_advice, type_label};

/// A problem with a GGUF file, and the file where one is known.
///
/// It is one pointer wide, so that the parser's inner loops return it for free.
#[derive(Debug)]
pub struct GgufError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    path: Option<PathBuf>,
    kind: GgufErrorKind,
}

impl GgufError {
    /// What is wrong.
    pub fn kind(&self) -> &GgufErrorKind {
        &self.0.kind
    }

    /// The file it is about; `None` where bytes were parsed without a file.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The same problem, said of the file at `path`.
    pub(super) fn in_file(mut self, path: Option<&Path>) -> GgufError {
        self.0.path = path.map(Path::to_owned);
        self
    }

    /// An input or output error while `doing` something to the file.
    pub(super) fn io(doing: &'static str, error: io::Error) -> GgufError {
        match error.kind() {
            io::ErrorKind::NotFound => GgufErrorKind::NotFound.into(),
            _ => GgufErrorKind::Io { doing, error }.into(),
        }
    }
}

impl From<GgufErrorKind> for GgufError {
    #[cold]
    fn from(kind: GgufErrorKind) -> Self {
        GgufError(Box::new(Inner { path: None, kind }))
    }
}

impl std::fmt::Display for GgufError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0.path {
            Some(path) => write!(f, "{}: {}", path.display(), self.0.kind),
            None => self.0.kind.fmt(f),
        }
    }
}

impl std::error::Error for GgufError {}

/// What is wrong with a GGUF file, its metadata, or the way one is being written.
#[derive(Debug, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the blanks of the message above them")]
pub enum GgufErrorKind {
    /// There is no file at the path.
    #[error("no such file; check the path")]
    NotFound,
    /// The path is a directory or a device.
    #[error("this is {what}, not a file; give the path of a .gguf file")]
    NotAFile { what: &'static str },
    /// The operating system refused.
    #[error("cannot {doing} the file: {error}")]
    Io { doing: &'static str, error: io::Error },
    /// The file has no bytes.
    #[error("the file is empty; download or convert it again")]
    Empty,
    /// The file does not start with `GGUF`.
    #[error("not a GGUF file: it starts with {start}; {looks_like}")]
    WrongMagic { start: String, looks_like: &'static str },
    /// The file was written for a big-endian machine.
    #[error(
        "GGUF version {version} in big-endian byte order, and greta reads little-endian files; \
         convert the model again without a big-endian option"
    )]
    BigEndian { version: u32 },
    /// A version other than 2 and 3.
    #[error("GGUF version {version}, and greta reads versions 2 and 3; {advice}")]
    Version { version: u32, advice: &'static str },

    /// The header goes on past the end of the file.
    #[error("the file ends inside {place}: {need} bytes are needed at byte {offset} and {left} are left; {}", AGAIN)]
    Truncated { place: String, offset: u64, need: u64, left: u64 },
    /// A count that the rest of the file cannot hold.
    #[error(
        "{place} claims {count} {unit} at byte {offset}, and the {left} bytes after it hold at most \
         {most}; {}",
        AGAIN
    )]
    Count { place: String, offset: u64, count: u64, unit: &'static str, left: u64, most: u64 },
    /// A string that is not UTF-8.
    #[error(
        "{place} is not valid UTF-8 at byte {offset} (it reads {excerpt}); the file is damaged, or \
         its converter wrote raw bytes: convert the model again"
    )]
    Utf8 { place: String, offset: u64, excerpt: String },
    /// A metadata value type that GGUF does not define.
    #[error("{place} has type number {id} at byte {offset}, which GGUF does not define; {}", AGAIN)]
    ValueType { place: String, offset: u64, id: u32 },
    /// A boolean that is neither 0 nor 1.
    #[error("{place} is a boolean with value {byte} at byte {offset}; {}", AGAIN)]
    Bool { place: String, offset: u64, byte: u8 },
    /// Arrays inside arrays, deeper than any real file.
    #[error("{place} nests arrays more than {limit} deep at byte {offset}; {}", AGAIN)]
    Depth { place: String, offset: u64, limit: usize },

    /// Two metadata entries with one key.
    #[error("metadata key {} stands twice; convert the model again", quote(key))]
    DuplicateKey { key: String },
    /// Two tensors with one name.
    #[error("tensor {} stands twice; convert the model again", quote(tensor))]
    DuplicateTensor { tensor: String },
    /// `general.alignment` is not usable.
    #[error("general.alignment is {value}, and it must be a power of two from 8 to {most}; {}", AGAIN)]
    Alignment { value: u64, most: u64 },

    /// A tensor with no dimensions, or too many.
    #[error("tensor {} has {n_dims} dimensions at byte {offset}, not 1 to 4; {}", quote(tensor), AGAIN)]
    TensorRank { tensor: String, n_dims: u32, offset: u64 },
    /// A tensor with a dimension of 0.
    #[error("tensor {} has an empty dimension in {dims:?}; {}", quote(tensor), AGAIN)]
    TensorZeroDim { tensor: String, dims: Vec<u64> },
    /// A tensor whose size does not fit 64 bits.
    #[error("tensor {} is too large to address with dimensions {dims:?}; {}", quote(tensor), AGAIN)]
    TensorTooLarge { tensor: String, dims: Vec<u64> },
    /// A row that ends inside a quantisation block.
    #[error(
        "tensor {} has rows of {cols} values, which is no multiple of the {block} values of a {dtype} \
         block; requantise the model with a type whose blocks fit its rows",
        quote(tensor)
    )]
    TensorRow { tensor: String, cols: u64, dtype: &'static str, block: usize },
    /// A tensor type greta does not read.
    #[error("tensor {} has type {} at byte {offset}; {}", quote(tensor), type_label(*id, *name), type_advice(*name))]
    TensorType { tensor: String, id: u32, name: Option<&'static str>, offset: u64 },
    /// A tensor that does not start on the file's alignment.
    #[error(
        "tensor {} starts {relative} bytes into the data section, which is no multiple of the \
         alignment {alignment}; {}",
        quote(tensor),
        AGAIN
    )]
    TensorMisaligned { tensor: String, relative: u64, alignment: u64 },
    /// A tensor that ends past the end of the file.
    #[error(
        "tensor {} takes {bytes} bytes from {relative} bytes into the data section (which starts at \
         byte {data_offset}), and the file has {file_len} bytes; {}",
        quote(tensor),
        AGAIN
    )]
    TensorPastEnd { tensor: String, bytes: u64, relative: u64, data_offset: u64, file_len: u64 },
    /// Two tensors that share bytes.
    #[error("tensors {} and {} overlap at byte {offset}; {}", quote(first), quote(second), AGAIN)]
    TensorOverlap { first: String, second: String, offset: u64 },
    /// Bytes that are not zero between the header and the data.
    #[error("byte {offset}: something follows the header that its counts do not tell of; the file is damaged: {AGAIN}")]
    Padding { offset: u64 },

    /// A metadata value of another type than the one needed.
    #[error("metadata key {} holds {found}, and {want} is needed; convert the model again", quote(key))]
    MetadataType { key: String, want: &'static str, found: String },
    /// A metadata number outside the range needed.
    #[error("metadata key {} holds {found}, which does not fit {want}; convert the model again", quote(key))]
    MetadataRange { key: String, want: &'static str, found: String },
    /// A metadata key that the model needs is absent.
    #[error("metadata key {} is missing; convert the model again", quote(key))]
    MissingKey { key: String },

    /// A [`GgufWriter`](super::GgufWriter) was asked for something at the wrong time.
    #[error("cannot {call}: {why}")]
    WriteOrder { call: &'static str, why: String },
    /// A tensor was given more or fewer bytes than it was declared with.
    #[error("tensor {} was declared with {declared} bytes and given {given}", quote(tensor))]
    WriteLength { tensor: String, declared: u64, given: u64 },
}
