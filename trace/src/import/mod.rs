//! Runs that other engines made, read into a [`Recording`].
//!
//! | source | what it is |
//! |---|---|
//! | `points` | a folder of `.npy` or `.safetensors` files, one a point |
//! | `eval-callback` | the text that llama.cpp's `llama-eval-callback` prints |
//! | `events` | JSONL files of `attn_l0_pipe`, `rmsnorm_trace` and `stage_trace` events |
//! | `ops-json` | a JSON list of llama.cpp's ops with their rows in `.rows.f32` beside it |
//!
//! Names are mapped to greta's nodes by [`crate::names`]; a point that no node stands for keeps its own name and is
//! counted in the [`Summary`].

mod collect;
mod eval;
mod events;
mod layout;
mod npy;
mod ops_json;
mod points;

pub use layout::{Heads, Layout};

use crate::error::io;
use crate::{Recording, TraceError, names};
use serde::Serialize;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The position of rows whose source does not tell it.
const NO_POSITION: u32 = u32::MAX;

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A folder of `.npy` or `.safetensors` files.
    Points,
    /// llama.cpp's eval-callback text.
    EvalCallback,
    /// JSONL events.
    Events,
    /// A JSON list of ops with rows beside it.
    OpsJson,
}

/// How to read a source.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// What it is; `None`: found out.
    pub format: Option<Format>,
    /// The prompt's name, where the source has none or another.
    pub prompt_id: Option<String>,
    /// In which order q and k of a folder of points hold a head's values; `None`: as its `meta.json` says, else GGUF's.
    pub layout: Option<Layout>,
    /// Numbers of heads, for Hugging Face's order.
    pub heads: Option<Heads>,
    /// The engine, where the source does not name it.
    pub engine: Option<String>,
    /// The arithmetic, where the source does not name it or names another.
    pub arith: Option<String>,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Points whose node is known.
    pub mapped: usize,
    /// Points that keep their own name.
    pub not_mapped: Vec<String>,
    /// Rows in all.
    pub rows: usize,
}

/// Counts the points of a recording.
pub fn summary(recording: &Recording) -> Summary {
    let (mapped, not): (Vec<_>, Vec<_>) = recording.series.iter().partition(|s| names::is_node(&s.name));
    Summary {
        mapped: mapped.len(),
        not_mapped: not.into_iter().map(|s| s.name.clone()).collect(),
        rows: recording.rows(),
    }
}

/// Reads a foreign run. Several sources make one run where they are files of events.
pub fn read(sources: &[PathBuf], options: &ImportOptions) -> Result<Recording, TraceError> {
    let Some(first) = sources.first() else {
        return Err(format_error(Path::new("import"), "no source was given"));
    };
    let format = match options.format {
        Some(f) => f,
        None => detect(first)?,
    };
    if sources.len() > 1 && format != Format::Events {
        return Err(format_error(&sources[1], "several sources make one run only where they are files of events"));
    }
    let mut recording = match format {
        Format::Points => points::read(first, options),
        Format::EvalCallback => eval::read(first, options),
        Format::OpsJson => ops_json::read(first, options),
        Format::Events => events::read(&event_files(sources)?, options),
    }?;
    let info = &mut recording.info;
    info.arith = options.arith.clone().unwrap_or_else(|| std::mem::take(&mut info.arith));
    info.engine = options.engine.clone().unwrap_or_else(|| std::mem::take(&mut info.engine));
    Ok(recording)
}

/// Files of events: as given, and those in folders.
fn event_files(sources: &[PathBuf]) -> Result<Vec<PathBuf>, TraceError> {
    let mut files = Vec::new();
    for source in sources {
        if !source.is_dir() {
            files.push(source.clone());
            continue;
        }
        let mut within = in_folder(source)?;
        within.retain(|p| ending(p) == "jsonl");
        files.extend(within);
    }
    Ok(files)
}

fn in_folder(folder: &Path) -> Result<Vec<PathBuf>, TraceError> {
    let entries = std::fs::read_dir(folder).map_err(io(folder, "listing"))?;
    let mut files =
        entries.map(|e| e.map(|e| e.path()).map_err(io(folder, "listing"))).collect::<Result<Vec<_>, _>>()?;
    files.sort();
    Ok(files)
}

fn ending(path: &Path) -> String {
    path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// How much of a file is looked at to tell what it is: llama.cpp logs a good deal before the first op.
const LOOK: u64 = 1 << 20;

fn detect(source: &Path) -> Result<Format, TraceError> {
    if source.is_dir() {
        let files = in_folder(source)?;
        let has = |kinds: &[&str]| files.iter().any(|f| kinds.contains(&ending(f).as_str()));
        return match (has(&["npy", "safetensors"]), has(&["jsonl"])) {
            (true, _) => Ok(Format::Points),
            (false, true) => Ok(Format::Events),
            _ => Err(format_error(source, "the folder holds no .npy, .safetensors or .jsonl file")),
        };
    }
    let mut start = Vec::new();
    let file = std::fs::File::open(source).map_err(io(source, "opening"))?;
    file.take(LOOK).read_to_end(&mut start).map_err(io(source, "reading"))?;
    let text = String::from_utf8_lossy(&start);
    let first = text.trim_start();
    if eval::PREFIXES.iter().any(|p| text.contains(p)) {
        Ok(Format::EvalCallback)
    } else if first.starts_with('{') && text.contains("\"row_offset\"") {
        Ok(Format::OpsJson)
    } else if first.starts_with('{') && text.lines().next().is_some_and(|l| l.contains("\"event\"")) {
        Ok(Format::Events)
    } else if ["npy", "safetensors"].contains(&ending(source).as_str()) {
        Err(format_error(source, "one array is no run; give the folder it lies in"))
    } else {
        let what = "is none of: a folder of .npy or .safetensors files, eval-callback text, JSONL events, a JSON list of \
                    ops with rows; `--format` says which is meant";
        Err(format_error(source, what))
    }
}

pub(super) fn format_error(path: &Path, what: impl Into<String>) -> TraceError {
    TraceError::Format { path: path.into(), what: what.into() }
}
