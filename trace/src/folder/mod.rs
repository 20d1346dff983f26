//! A run on disk: a folder that says what was run, by which graph, and what its taps recorded.
//!
//! | file | what is in it |
//! |---|---|
//! | `run.json` | [`RunInfo`]; `status` is `incomplete` until the last step is over |
//! | `graph.json` | the executed graph without taps; a foreign run has none |
//! | `taps.jsonl` | a [`Record`] a line, step by step, within a step in the graph's order |
//! | `tensors.safetensors` | the kept values: one tensor per prompt, step and value, of shape `[rows, values]` |
//!
//! Everything is written as it comes. A run that was killed leaves whole lines, and values up to some byte; a record says
//! by itself where in the file its values lie, so that they can be read though the file's header is still blank.

mod read;
mod tensors;
mod write;

pub use read::read;
pub use write::{Folder, FolderWriter, NotFinite, empty, may_write, save};

use crate::facts::Facts;
use crate::{RunInfo, SCHEMA, TraceError, error::io};
use greta_backend::Phase;
use greta_ops::{DType, Stats};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What was run.
pub const RUN: &str = "run.json";
/// By which graph.
pub const GRAPH: &str = "graph.json";
/// What was recorded.
pub const TAPS: &str = "taps.jsonl";
/// The kept values.
pub const TENSORS: &str = "tensors.safetensors";

/// A line of `taps.jsonl`: one row of one value, and where it came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The node.
    pub node: String,
    /// Its layer, for nodes of one.
    #[serde(default)]
    pub layer: Option<u32>,
    /// The op's name, or `input`.
    pub op: String,
    /// Which output of the node.
    pub out: u8,
    /// The prompt's name.
    pub prompt: String,
    /// The run's label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The sequence.
    pub seq: u32,
    /// Logical position in it; 2³² − 1 where a foreign run does not tell.
    pub position: u32,
    /// The token there; negative where a foreign run does not tell.
    pub token: i32,
    /// What the step does.
    pub phase: Phase,
    /// Its number within the phase.
    pub step: u32,
    /// Its number over the whole prompt.
    pub order: u32,
    /// Row of the value within the step.
    pub row: u32,
    /// The backend.
    pub backend: String,
    /// The arithmetic.
    pub arith: String,
    /// The kernel that made the value.
    pub route: String,
    /// The buffer it lay in.
    pub buffer: String,
    /// Byte offset in the buffer.
    pub offset: u64,
    /// Shape of the row.
    pub shape: Vec<usize>,
    /// How the value is stored; null where a foreign run does not tell.
    pub dtype: Option<DType>,
    /// Statistics of the whole row.
    pub stats: RecordStats,
    /// What the op adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Arc<Facts>>,
    /// Where the kept values lie, if any were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataAt>,
}

/// [`Stats`], with the two that follow from them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordStats {
    /// The mean of the finite values.
    pub mean: f64,
    /// The root of their mean square.
    pub rms: f64,
    /// The rest.
    #[serde(flatten)]
    pub stats: Stats,
}

impl From<Stats> for RecordStats {
    fn from(stats: Stats) -> Self {
        RecordStats { mean: stats.mean(), rms: stats.rms(), stats }
    }
}

/// Where a row's kept values lie in `tensors.safetensors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataAt {
    /// The tensor's name, such as `p4_sys/decode0/blk.0.q`.
    pub tensor: String,
    /// Row of the tensor.
    pub row: usize,
    /// Byte offset in the file.
    pub offset: u64,
    /// How many values.
    pub values: usize,
    /// How they are stored: F32, I32 or I8.
    pub dtype: DType,
    /// Of values that are not the whole row: [`Stats::hash_of`] them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// How integers and reals are kept. A row of bytes that is no multiple of four would put the next tensor at an odd place,
/// where readers that map the file can't take it.
fn kept_as(dtype: Option<DType>, values: usize) -> DType {
    match dtype {
        Some(DType::I8) if values.is_multiple_of(4) => DType::I8,
        Some(DType::I8 | DType::I32) => DType::I32,
        _ => DType::F32,
    }
}

/// Reads `run.json` alone.
pub fn info(dir: &Path) -> Result<RunInfo, TraceError> {
    let path = dir.join(RUN);
    let bad = |what: String| TraceError::Format { path: path.clone(), what };
    if !dir.is_dir() {
        let what = if dir.exists() { "is a file, not a run folder" } else { "there is no such folder" };
        return Err(TraceError::Format { path: dir.into(), what: what.into() });
    }
    if !path.exists() {
        return Err(TraceError::Format { path: dir.into(), what: format!("is no run folder: it has no {RUN}") });
    }
    let text = std::fs::read_to_string(&path).map_err(io(&path, "can't be read"))?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| bad(format!("is no JSON: {e}")))?;
    match value["schema"].as_u64() {
        Some(n) if n == u64::from(SCHEMA) => {}
        Some(n) => return Err(bad(format!("is of schema {n}; this greta reads schema {SCHEMA}"))),
        None => return Err(bad(format!("names no schema; this greta reads schema {SCHEMA}"))),
    }
    serde_json::from_value(value).map_err(|e| bad(format!("does not describe a run: {e}")))
}

/// The run folder of this label: the folder itself, or the one run folder in it that bears the label.
pub fn find(dir: &Path, label: &str) -> Result<PathBuf, TraceError> {
    let bad = |what: String| TraceError::Format { path: dir.into(), what };
    if dir.join(RUN).exists() {
        return match info(dir)?.label {
            Some(l) if l == label => Ok(dir.into()),
            Some(l) => Err(bad(format!("its label is `{l}`, not `{label}`"))),
            None => Err(bad(format!("it has no label, so it is not the run `{label}`"))),
        };
    }
    let mut runs: Vec<(String, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io(dir, "can't be read"))?.flatten() {
        if entry.path().join(RUN).exists() {
            runs.extend(info(&entry.path())?.label.map(|l| (l, entry.path())));
        }
    }
    runs.sort();
    let names = || runs.iter().map(|r| r.0.as_str()).collect::<Vec<_>>().join(", ");
    let mut found = runs.iter().filter(|r| r.0 == label);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.1.clone()),
        (Some(a), Some(b)) => {
            Err(bad(format!("two runs in it are labelled `{label}`: {} and {}", a.1.display(), b.1.display())))
        }
        (None, _) if runs.is_empty() => Err(bad("no run folder with a label lies in it".into())),
        (None, _) => Err(bad(format!("no run in it is labelled `{label}`; there are {}", names()))),
    }
}
