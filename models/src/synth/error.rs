//! Why a synthetic model could not be made.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::gguf::GgufError;

/// Why a synthetic model could not be made: a spec that describes no model, or a file that could not be written.
#[derive(Debug, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the blanks of the message above them")]
pub enum SynthError {
    /// A size of 0.
    #[error("{field} is 0, and a model needs at least 1")]
    Zero { field: &'static str },
    /// A size past what is believed.
    #[error("{field} is {value}, and the most that can be written is {most}")]
    TooLarge { field: &'static str, value: u64, most: u64 },
    /// Rows that the smallest quantisation block does not divide.
    #[error("{field} is {value}, and it must be a multiple of {of}: quantised rows are made of blocks of {of} values")]
    NotMultiple { field: &'static str, value: u64, of: u64 },
    /// Query heads that cannot be shared out among the key heads.
    #[error("{heads} heads cannot share {kv_heads} key/value heads evenly; make heads a multiple of kv_heads")]
    KvHeads { heads: u32, kv_heads: u32 },
    /// An embedding that the heads do not divide, and no head size given.
    #[error("dim {dim} does not divide evenly among {heads} heads; change one of them, or give head_dim")]
    HeadDim { dim: u32, heads: u32 },
    /// A head whose values cannot be rotated in pairs.
    #[error("head_dim is {head_dim}, and it must be even: positions rotate values in pairs")]
    OddHeadDim { head_dim: u32 },
    /// A vocabulary without room for the tokens it cannot do without.
    #[error("vocab is {vocab}, and this tokenizer needs at least {least}: 256 bytes and the control tokens")]
    Vocab { vocab: u32, least: u32 },
    /// A number out of range.
    #[error("{field} is {value}, and it must be {want}")]
    Number { field: &'static str, value: f32, want: &'static str },

    /// A path that cannot name a file.
    #[error("cannot write a model to {}: {why}", path.display())]
    Target { path: PathBuf, why: &'static str },
    /// The operating system refused.
    #[error("{}: cannot {doing}: {source}", path.display())]
    Io { path: PathBuf, doing: &'static str, source: io::Error },
    /// The GGUF writer refused.
    #[error("{}: {source}", path.display())]
    Gguf { path: PathBuf, source: GgufError },
    /// The caller's progress function asked to stop. Nothing was left behind.
    #[error("cancelled; no file was written")]
    Cancelled,
}
