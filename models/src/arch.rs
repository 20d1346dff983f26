//! Which builder an architecture has.

use crate::gguf::Gguf;
use crate::{ModelError, llama};
use greta_graph::Graph;
use greta_ops::DType;

/// Sizes every architecture has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Entries of the vocabulary.
    pub vocab: usize,
    /// Tokens the model was trained to attend to.
    pub context: usize,
}

/// One architecture.
pub(crate) struct Architecture {
    /// `general.architecture`.
    pub name: &'static str,
    /// Reads what it needs of the metadata.
    pub limits: fn(&Gguf) -> Result<Limits, ModelError>,
    /// Builds the graph with a KV cache of this type.
    pub build: fn(&Gguf, DType) -> Result<Graph, ModelError>,
}

const TABLE: &[Architecture] = &[Architecture { name: "llama", limits: llama::limits, build: llama::from_gguf }];

/// Names of the architectures greta builds.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|a| a.name)
}

/// The builder for a file.
pub(crate) fn of(gguf: &Gguf) -> Result<&'static Architecture, ModelError> {
    let key = "general.architecture";
    let found = gguf.metadata().str(key)?.ok_or_else(|| ModelError::Config {
        path: gguf.path().into(),
        key: key.into(),
        why: "is missing: the file does not say what model it holds".into(),
    })?;
    TABLE.iter().find(|a| a.name == found).ok_or_else(|| ModelError::Architecture {
        path: gguf.path().into(),
        found: found.into(),
        known: architectures().collect::<Vec<_>>().join(", "),
    })
}
