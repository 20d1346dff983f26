//! Runs recorded through taps, compared and judged: which operation's numbers are wrong first, and why.
//!
//! A [`Recording`] is what taps recorded, in memory; it comes from [`tracer::run`], from a run folder, or from another
//! engine's files. Nothing here computes with a device: it asks a session.

pub mod bundle;
pub mod checkup;
pub mod diff;
mod error;
pub mod events;
pub mod facts;
pub mod faults;
pub mod folder;
pub mod foreign;
pub mod gate;
pub mod hypotheses;
pub mod import;
mod info;
pub mod judge;
pub mod names;
pub mod probe;
pub mod prompts;
pub mod recording;
pub mod repeats;
pub mod replay;
pub mod report;
pub mod tracer;
pub mod verify;

pub use error::TraceError;
pub use folder::{Folder, FolderWriter};
pub use info::{ModelInfo, PromptInfo, RunInfo, SCHEMA, Status, StepInfo, TapInfo, fingerprint, sha256};
pub use recording::{At, Recording, Row, RowSink, Series};
pub use tracer::TracePlan;

/// Whether a figure is over its limit; one that is no number is.
pub(crate) fn over(figure: f64, limit: f64) -> bool {
    figure > limit || figure.is_nan() || limit.is_nan()
}
