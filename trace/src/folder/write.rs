//! Writing a run folder as a stream.

use super::tensors::{Tensors, room};
use super::{DataAt, GRAPH, RUN, Record, TAPS, TENSORS};
use crate::facts::{FactMaker, Facts};
use crate::recording::{At, Origin, RowSink, Series, StepBegin, describe};
use crate::{PromptInfo, Recording, RunInfo, Status, TraceError, TracePlan, error::io, judge};
use greta_backend::taps::kept;
use greta_backend::{Phase, RowData, TapRow, Weights};
use greta_graph::{Graph, PhaseFilter, TapSpec, Value};
use greta_ops::Stats;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A run folder being written.
pub struct FolderWriter {
    out: Output,
    facts: FactMaker,
    series: HashMap<Value, Series>,
    folder: Folder,
}

/// What a run folder holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// Records.
    pub rows: usize,
    /// Values recorded: nodes and further outputs.
    pub values: usize,
    /// Bytes of records and kept values.
    pub bytes: u64,
    /// Rows with a NaN.
    pub nan_rows: usize,
    /// Rows with an infinity.
    pub inf_rows: usize,
    /// The first row with either, in the order of the run.
    pub first_not_finite: Option<NotFinite>,
}

/// A row that holds a NaN or an infinity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotFinite {
    /// The value.
    pub node: String,
    /// The prompt's name.
    pub prompt: String,
    /// `prefill` or `decode0` …
    pub phase: String,
    /// Logical position.
    pub position: u32,
    /// NaNs in the row.
    pub nan: u32,
    /// Infinities in it.
    pub inf: u32,
}

impl NotFinite {
    pub(crate) fn new(node: String, prompt: String, at: &At, stats: &Stats) -> NotFinite {
        NotFinite { node, prompt, phase: at.phase_name(), position: at.position, nan: stats.nan, inf: stats.inf }
    }
}

impl FolderWriter {
    /// Begins a folder for a run of `graph`, which has its taps, by `plan`.
    ///
    /// A folder that holds anything is refused, unless it is a run folder and `force` says to replace that.
    pub fn create(
        dir: &Path,
        info: &RunInfo,
        graph: &Graph,
        plan: &TracePlan,
        weights: Arc<dyn Weights>,
        force: bool,
    ) -> Result<FolderWriter, TraceError> {
        let room = room(expected(info, graph, plan).iter().map(|(name, times)| (name.as_str(), *times)));
        let mut out = Output::create(dir, info, room, force)?;
        out.graph(&graph.without_taps()?)?;
        let folder = Folder { path: dir.into(), ..Folder::default() };
        Ok(FolderWriter { out, facts: FactMaker::new(weights), series: HashMap::new(), folder })
    }

    /// Ends the folder. `info` is the run's as it ended; its status says how.
    pub fn finish(mut self, info: &RunInfo) -> Result<Folder, TraceError> {
        self.out.finish(info)?;
        Ok(Folder { bytes: self.out.bytes(), values: self.series.len(), ..self.folder })
    }

    /// Ends the folder of a run that was cut short: what can still be written is, what can't is left as it is.
    pub fn abandon(mut self, info: &RunInfo) -> Folder {
        let _ = self.out.finish(info).is_ok() || self.out.run(info).is_ok();
        Folder { bytes: self.out.bytes(), values: self.series.len(), ..self.folder }
    }
}

impl RowSink for FolderWriter {
    fn begin(&mut self, step: &StepBegin<'_>) -> Result<(), TraceError> {
        self.facts.begin(step.pages);
        Ok(())
    }

    fn row(&mut self, graph: &Graph, at: At, row: &TapRow<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let facts = self.facts.of(graph, row).map(Arc::new);
        let series = self.series.entry(row.value).or_insert_with(|| describe(graph, row.value));
        let origin = Origin { route: row.route.into(), buffer: row.buffer.into(), offset: row.offset };
        self.out.record(series, at, row.row as u32, &origin, row.stats, row.values, facts)?;
        let (folder, stats) = (&mut self.folder, row.stats);
        folder.rows += 1;
        folder.nan_rows += usize::from(stats.nan > 0);
        folder.inf_rows += usize::from(stats.inf > 0);
        if stats.nan + stats.inf > 0 && folder.first_not_finite.is_none() {
            let prompt = self.out.prompt(at.prompt);
            folder.first_not_finite = Some(NotFinite::new(series.name.clone(), prompt, &at, stats));
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), TraceError> {
        self.out.flush()
    }
}

/// Writes a recording as a run folder: an imported run, or one that was kept in memory.
pub fn save(rec: &Recording, dir: &Path, force: bool) -> Result<(), TraceError> {
    let prompt = |p: u32| rec.info.prompts.get(p as usize).map_or("", |p| &*p.id);
    let mut rows: Vec<(&Series, &crate::Row)> =
        rec.series.iter().flat_map(|s| s.rows.iter().map(move |r| (s, r))).collect();
    // Stable: within a step the values keep their order.
    rows.sort_by_key(|(_, r)| (r.at.prompt, r.at.order));
    let mut names: Vec<String> = rows.iter().map(|(s, r)| tensor_name(prompt(r.at.prompt), &r.at, &s.name)).collect();
    names.dedup();
    let mut out = Output::create(dir, &rec.info, room(names.iter().map(|n| (n.as_str(), 1))), force)?;
    if let Some(graph) = &rec.graph {
        out.graph(graph)?;
    }
    for (s, r) in rows {
        let values = match s.is_int() {
            true => RowData::Int(&s.ints[r.data.clone()]),
            false => RowData::Real(&s.reals[r.data.clone()]),
        };
        let origin = Origin { route: r.route.clone(), buffer: r.buffer.clone(), offset: r.offset };
        out.record(s, r.at, r.row, &origin, &r.stats, values, r.facts.clone())?;
    }
    out.finish(&rec.info)
}

/// The files.
struct Output {
    dir: PathBuf,
    prompts: Vec<String>,
    label: Option<String>,
    backend: String,
    arith: String,
    lines: BufWriter<File>,
    written: u64,
    tensors: Tensors,
}

impl Output {
    fn create(dir: &Path, info: &RunInfo, room: usize, force: bool) -> Result<Output, TraceError> {
        unlike(dir, &info.prompts)?;
        empty(dir, force)?;
        fs::create_dir_all(dir).map_err(io(dir, "the folder can't be made"))?;
        write_run(dir, info, Status::Incomplete)?;
        let path = dir.join(TAPS);
        let lines = BufWriter::new(File::create(&path).map_err(io(&path, "can't be created"))?);
        Ok(Output {
            dir: dir.into(),
            prompts: info.prompts.iter().map(|p| p.id.clone()).collect(),
            label: info.label.clone(),
            backend: info.backend.clone(),
            arith: info.arith.clone(),
            lines,
            written: 0,
            tensors: Tensors::create(&dir.join(TENSORS), room)?,
        })
    }

    fn graph(&mut self, graph: &Graph) -> Result<(), TraceError> {
        let path = self.dir.join(GRAPH);
        fs::write(&path, graph.to_json() + "\n").map_err(io(&path, "can't be written"))
    }

    fn prompt(&self, index: u32) -> String {
        self.prompts.get(index as usize).cloned().unwrap_or_default()
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of a record")]
    fn record(
        &mut self,
        series: &Series,
        at: At,
        row: u32,
        origin: &Origin,
        stats: &Stats,
        values: RowData<'_>,
        facts: Option<Arc<Facts>>,
    ) -> Result<(), TraceError> {
        let prompt = self.prompt(at.prompt);
        let data = match values.is_empty() {
            true => None,
            false => {
                let tensor = tensor_name(&prompt, &at, &series.name);
                let put = self.tensors.push(&tensor, series.dtype, values)?;
                let hash = (values.len() != series.cols).then(|| format!("{:016x}", hash_of(values)));
                Some(DataAt { tensor, row: put.row, offset: put.offset, values: values.len(), dtype: put.dtype, hash })
            }
        };
        let record = Record {
            node: series.node.clone(),
            layer: judge::layer(&series.node),
            op: series.op.clone(),
            out: series.out,
            prompt,
            label: self.label.clone(),
            seq: at.seq,
            position: at.position,
            token: at.token,
            phase: at.phase,
            step: at.step,
            order: at.order,
            row,
            backend: self.backend.clone(),
            arith: self.arith.clone(),
            route: origin.route.to_string(),
            buffer: origin.buffer.to_string(),
            offset: origin.offset,
            shape: vec![series.cols],
            dtype: series.dtype,
            stats: (*stats).into(),
            facts,
            data,
        };
        let path = self.dir.join(TAPS);
        let mut line = serde_json::to_vec(&record)
            .map_err(|e| TraceError::Format { path: path.clone(), what: format!("a record can't be written: {e}") })?;
        line.push(b'\n');
        self.written += line.len() as u64;
        self.lines.write_all(&line).map_err(io(path, "records can't be written"))
    }

    /// Values first, so that a line that is there has its values.
    fn flush(&mut self) -> Result<(), TraceError> {
        self.tensors.flush()?;
        self.lines.flush().map_err(io(self.dir.join(TAPS), "records can't be written"))
    }

    fn finish(&mut self, info: &RunInfo) -> Result<(), TraceError> {
        self.flush()?;
        self.tensors.finish()?;
        self.run(info)
    }

    fn run(&mut self, info: &RunInfo) -> Result<(), TraceError> {
        write_run(&self.dir, info, info.status.clone())
    }

    fn bytes(&self) -> u64 {
        self.written + self.tensors.bytes()
    }
}

/// `run.json`, replaced at once or not at all.
fn write_run(dir: &Path, info: &RunInfo, status: Status) -> Result<(), TraceError> {
    let (path, new) = (dir.join(RUN), dir.join("run.json.new"));
    let info = RunInfo { status, ..info.clone() };
    let text = serde_json::to_string_pretty(&info)
        .map_err(|e| TraceError::Format { path: path.clone(), what: format!("can't be written: {e}") })?;
    let done = fs::write(&new, text + "\n").and_then(|()| fs::rename(&new, &path));
    if done.is_err() {
        // What is left of it would only puzzle.
        let _ = fs::remove_file(&new);
    }
    done.map_err(io(path, "can't be written"))
}

/// Prompts are told apart by name.
fn unlike(dir: &Path, prompts: &[PromptInfo]) -> Result<(), TraceError> {
    let mut seen = HashSet::new();
    match prompts.iter().find(|p| !seen.insert(&p.id)) {
        Some(p) => Err(TraceError::Format { path: dir.into(), what: format!("two prompts are named `{}`", p.id) }),
        None => Ok(()),
    }
}

/// Refuses to write a run into a folder that holds anything else, or a run that `force` does not give up. Gives whether
/// there is a run to be replaced.
pub fn may_write(dir: &Path, force: bool) -> Result<bool, TraceError> {
    let bad = |what: &str| Err(TraceError::Format { path: dir.into(), what: what.into() });
    if !dir.exists() {
        return Ok(false);
    }
    if !dir.is_dir() {
        return bad("is a file; a run takes a folder");
    }
    let mut entries = fs::read_dir(dir).map_err(io(dir, "can't be read"))?;
    match (entries.next().is_none(), dir.join(RUN).exists(), force) {
        (true, ..) => Ok(false),
        (_, true, false) => bad("holds a run already; --force replaces it"),
        (_, false, _) => bad("is neither empty nor a run folder"),
        _ => Ok(true),
    }
}

/// Makes sure that nothing is lost in a folder that will be written.
pub fn empty(dir: &Path, force: bool) -> Result<(), TraceError> {
    if !may_write(dir, force)? {
        return Ok(());
    }
    // The description last: without it, what is left of a folder would be refused.
    for name in [TENSORS, TAPS, GRAPH, RUN] {
        let path = dir.join(name);
        if path.exists() {
            fs::remove_file(&path).map_err(io(&path, "can't be removed"))?;
        }
    }
    Ok(())
}

/// `prompt/phase and step/value`.
fn tensor_name(prompt: &str, at: &At, value: &str) -> String {
    format!("{prompt}/{}{}/{value}", at.phase.name(), at.step)
}

fn hash_of(values: RowData<'_>) -> u64 {
    match values {
        RowData::Real(v) => Stats::hash_of(v),
        RowData::Int(v) => Stats::hash_of(&v.iter().map(|&x| x as f32).collect::<Vec<_>>()),
    }
}

/// The longest name of each value's tensors in each prompt, and in how many steps there will be one.
fn expected(info: &RunInfo, graph: &Graph, plan: &TracePlan) -> Vec<(String, usize)> {
    let mut list = Vec::new();
    let taps: Vec<(Value, &TapSpec)> = graph.nodes().filter_map(|(id, _)| graph.tapped(id)).collect();
    for p in &info.prompts {
        let chunks = p.tokens.len().div_ceil(plan.chunk.unwrap_or(info.chunk).clamp(1, info.chunk.max(1))) as u32;
        for (v, spec) in &taps {
            if kept(spec.detail, greta_backend::taps::row_cols(graph, *v)) == 0 {
                continue;
            }
            let steps = |phase, n: u32| (0..n).filter(|&i| passes(spec, phase, i, i + 1 == n)).count();
            let times = steps(Phase::Prefill, chunks) + steps(Phase::Decode, plan.decode_steps);
            let name = format!("{}/prefill{}/{}", p.id, u32::MAX, graph.value_name(*v));
            list.push((name, times));
        }
    }
    list
}

fn passes(spec: &TapSpec, phase: Phase, step: u32, last: bool) -> bool {
    spec.phases.iter().any(|p| match p {
        PhaseFilter::Every => true,
        PhaseFilter::Prefill => phase == Phase::Prefill,
        PhaseFilter::PrefillLast => phase == Phase::Prefill && last,
        PhaseFilter::Decode => phase == Phase::Decode,
        PhaseFilter::DecodeStep(n) => phase == Phase::Decode && step == *n,
    })
}
