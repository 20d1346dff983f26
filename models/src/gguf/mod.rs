//! GGUF files: the header, the metadata, and tensor data mapped from disk.
//!
//! [`Gguf::open`] maps a file, parses its header and checks every tensor's place before anything is
//! read from it, so [`Gguf::bytes`] cannot fail later. [`parse_header`] is the same parser without the
//! file. [`GgufWriter`] writes files of any size as a stream.
//!
//! Versions 2 and 3 are read, little-endian. Nothing in a header is trusted: each count is held against
//! the bytes left before memory is asked for, and every problem is a [`GgufErrorKind`] that says where
//! it is and what to do.

mod check;
mod cursor;
mod error;
mod file;
mod metadata;
mod parse;
mod sniff;
mod tensor;
mod value;
mod words;
mod writer;

pub use error::{GgufError, GgufErrorKind};
pub use file::Gguf;
pub use metadata::Metadata;
pub use parse::{Header, parse_header};
pub use tensor::TensorInfo;
pub use value::{Array, Value};
pub use writer::GgufWriter;

/// The four bytes a GGUF file starts with.
const MAGIC: [u8; 4] = *b"GGUF";

/// The alignment of the data section where `general.alignment` is absent.
const DEFAULT_ALIGNMENT: u64 = 32;

/// The key that sets the alignment of the data section.
const ALIGNMENT_KEY: &str = "general.alignment";

/// The most dimensions a tensor may have.
const MAX_DIMS: usize = 4;
