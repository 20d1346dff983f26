//! What can go wrong between a file and a running model.

use crate::gguf::GgufError;
use crate::sampling::{SampleError, SamplerConfigError};
use crate::tokenizer::TokenizerError;
use greta_backend::{BackendError, KvError};
use greta_graph::BuildError;
use std::path::PathBuf;

/// An error of loading or running a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file is no readable GGUF.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A model greta has no builder for.
    #[error("{}: unsupported architecture `{found}`; known: {known}", path.display())]
    Architecture {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What there is.
        known: String,
    },
    /// Metadata that is missing or makes no sense.
    #[error("{}: `{key}` {why}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// A tensor that is missing, has another shape, or that no op uses.
    #[error("{}: tensor `{tensor}` {why}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        why: String,
    },
    /// The vocabulary can't be used.
    #[error("{}: {source}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TokenizerError,
    },
    /// The file's sizes make no graph.
    #[error("{}: the metadata and tensors do not make a model: {source}", path.display())]
    Graph {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: Box<BuildError>,
    },
    /// A pass or a change to the graph failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The backend refused or failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A prompt with no tokens.
    #[error("the prompt is empty: there is no token to continue from")]
    EmptyPrompt,
    /// A prompt that can't fit.
    #[error(
        "the prompt has {tokens} tokens, but the context holds {context}; shorten it or raise -c (the model allows {limit})"
    )]
    PromptTooLong {
        /// Its tokens.
        tokens: usize,
        /// The session's context.
        context: usize,
        /// The model's.
        limit: usize,
    },
    /// A token id outside the vocabulary.
    #[error("token id {id} is not in the vocabulary of {vocab}")]
    TokenId {
        /// The id.
        id: u32,
        /// The vocabulary's size.
        vocab: usize,
    },
    /// Text too short to score.
    #[error("the text has {tokens} tokens; a window of {window} needs at least {needed}")]
    TextTooShort {
        /// Its tokens.
        tokens: usize,
        /// The window.
        window: usize,
        /// How many there must be.
        needed: usize,
    },
    /// Logits that are no numbers.
    #[error(
        "window {window}, position {position}: the logits are NaN or infinite; `greta inspect --check` looks for such weights"
    )]
    NotFinite {
        /// The window, from 0.
        window: usize,
        /// The position in it.
        position: usize,
    },
    /// Options that contradict each other or the model.
    #[error("{0}")]
    Options(String),
    /// A sampling flag out of range.
    #[error(transparent)]
    Sampler(#[from] SamplerConfigError),
    /// Logits no token can be drawn from.
    #[error(transparent)]
    Sample(#[from] SampleError),
}

impl ModelError {
    /// Whether it is no fault: the caller's [`greta_backend::Interrupt`] stopped a step.
    pub fn is_interrupted(&self) -> bool {
        matches!(self, ModelError::Backend(BackendError::Interrupted))
    }
}

impl From<KvError> for ModelError {
    fn from(e: KvError) -> Self {
        ModelError::Backend(e.into())
    }
}
