//! Reports: what a run's records, their comparison and their verdict come to, as data, Markdown and a page.
//!
//! A report of one run compares its phases (`prefill_last` with `decode0`); a report of two compares the runs. Every
//! sentence follows from numbers in [`Report`]; the wording of all of them is in one table, in English and Spanish.

mod build;
mod data;
mod findings;
mod format;
mod html;
mod markdown;
mod nodes;
mod norms;
mod sentences;
mod sweep;
pub mod texts;
mod words;

pub use data::{FileHash, Finding, Judged, Left, NotFinite, Prompt, Report, Run, SCHEMA, Section, Suspect, Worst};
pub use html::html;
pub use markdown::markdown;
pub use nodes::{
    BINS, Compared, Detail, Node, NodeAt, NodeCompared, NormRow, Num, PromptCompared, RowAt, RowStats, bin,
};
pub use texts::{Lang, Languages};

use crate::diff::{self, DiffOptions, Selector};
use crate::{Recording, TraceError};
use greta_graph::NamePattern;
use greta_models::Model;
use std::path::{Path, PathBuf};

/// What a report shows.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The layer of the main table; `None`: that of the first mismatch, else of the culprit, else 0.
    pub layer: Option<u32>,
    /// Nodes to compare and judge; `None`: all.
    pub nodes: Option<NamePattern>,
    /// Rows of a step judged at most; `None`: as many as the model's size allows within seconds.
    pub rows: Option<usize>,
}

/// A run to report on.
pub struct Subject<'a> {
    /// What was recorded.
    pub recording: &'a Recording,
    /// Its folder, for names and hashes; `None` for a run that was kept in memory.
    pub folder: Option<PathBuf>,
    /// The model to judge it with, or why it is not judged.
    pub model: Result<&'a Model, String>,
}

/// Told how many checks of how many are made; answers whether to go on.
pub type Progress<'a> = &'a (dyn Fn(usize, usize) -> bool + Sync);

/// Values shown of a row that is over its bound.
pub(crate) const MANY: usize = 64;

/// Reports on one run, or on two.
pub fn report(
    first: &Subject<'_>,
    second: Option<&Subject<'_>>,
    options: &Options,
    progress: Progress<'_>,
) -> Result<Report, TraceError> {
    let (of_a, of_b) = match second {
        None => (Selector::PrefillLast, Selector::DecodeStep(0)),
        Some(_) => (Selector::All, Selector::All),
    };
    let b = second.unwrap_or(first);
    let weights = first.model.as_ref().ok().map(|m| m.weights());
    let o = DiffOptions { nodes: options.nodes.clone(), weights: weights.as_deref(), ..DiffOptions::default() };
    let diff = diff::diff(first.recording, of_a, b.recording, of_b, &o)?;
    build::report(first, second, &diff, options, progress)
}

/// Names of a run's phases, in the order of the run.
fn phases(rec: &Recording) -> Vec<String> {
    let mut list: Vec<_> = rec.series.iter().flat_map(|s| s.rows.iter().map(|r| (r.at.phase, r.at.step))).collect();
    list.sort_unstable();
    let mut names: Vec<String> = list.into_iter().map(|(p, s)| crate::recording::phase_name(p, s)).collect();
    names.dedup();
    names
}

/// The last part of a path.
fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}
