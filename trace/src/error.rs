//! What can go wrong when a run is made, read, compared or judged.

use greta_backend::BackendError;
use greta_graph::BuildError;
use greta_models::ModelError;
use std::path::PathBuf;

/// An error of this room.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The model can't be used.
    #[error(transparent)]
    Model(ModelError),
    /// The backend could not run a step.
    #[error(transparent)]
    Backend(BackendError),
    /// A graph can't be built or tapped.
    #[error(transparent)]
    Graph(#[from] BuildError),
    /// A prompt that can't be made.
    #[error("prompt: {0}")]
    Prompt(String),
    /// A name that no built-in prompt has.
    #[error("no built-in prompt is named `{id}`; there are {known}")]
    UnknownPrompt {
        /// As given.
        id: String,
        /// What there is.
        known: String,
    },
    /// A prompt that does not fit the context.
    #[error("prompt `{id}` has {tokens} tokens and {steps} decode steps; the context holds {context}")]
    TooLong {
        /// The prompt.
        id: String,
        /// Its tokens.
        tokens: usize,
        /// Decode steps asked for.
        steps: usize,
        /// The limit.
        context: usize,
    },
    /// A file that can't be read or written.
    #[error("{path}: {doing}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file whose contents make no sense.
    #[error("{path}: {what}")]
    Format {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
    /// An environment variable that makes no sense.
    #[error("{name}={given}: expected {wanted}")]
    Flag {
        /// The variable.
        name: String,
        /// Its value.
        given: String,
        /// What it may be.
        wanted: String,
    },
    /// Runs or records of unlike things.
    #[error("TRACE_MISMATCH: {0}")]
    Mismatch(String),
    /// What is needed to judge is not recorded.
    #[error("{0}")]
    NotJudged(String),
    /// A further run that was to be like the judged one came to no end.
    #[error("run {run} of {runs}: {why}")]
    Repeat {
        /// Its number; the judged run is the first.
        run: u32,
        /// How many there were to be.
        runs: u32,
        /// How it ended, and what it said.
        why: String,
    },
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
}

/// Being stopped is one thing, wherever the work was.
impl From<BackendError> for TraceError {
    fn from(e: BackendError) -> Self {
        if matches!(e, BackendError::Interrupted) { TraceError::Interrupted } else { TraceError::Backend(e) }
    }
}

impl From<ModelError> for TraceError {
    fn from(e: ModelError) -> Self {
        if e.is_interrupted() { TraceError::Interrupted } else { TraceError::Model(e) }
    }
}

/// Wraps an I/O error with the path and what was being done.
pub(crate) fn io(path: impl Into<PathBuf>, doing: &'static str) -> impl FnOnce(std::io::Error) -> TraceError {
    let path = path.into();
    move |source| TraceError::Io { path, doing, source }
}
