//! Reading a run folder.

use super::{DataAt, GRAPH, Record, TAPS, TENSORS, info};
use crate::recording::{At, Origin};
use crate::{Recording, RunInfo, Series, Status, TraceError, error::io, fingerprint};
use greta_backend::RowData;
use greta_graph::{Graph, NodeId};
use greta_ops::{DType, Stats};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Recording {
    /// Reads a run folder: see [`read`].
    pub fn open(dir: &Path) -> Result<Recording, TraceError> {
        read(dir)
    }
}

/// Reads a run folder, and holds values against the hashes and statistics that were recorded with them.
///
/// Of a run that did not end, every whole line is taken, with its values as far as they were written.
pub fn read(dir: &Path) -> Result<Recording, TraceError> {
    let info = info(dir)?;
    let complete = info.status == Status::Complete;
    let graph = graph(dir, &info)?;
    let path = dir.join(TAPS);
    let mut reader = Reader {
        prompts: info.prompts.iter().enumerate().map(|(i, p)| (p.id.clone(), i as u32)).collect(),
        complete,
        lines: path.clone(),
        data: Data::open(&dir.join(TENSORS), complete)?,
        series: Vec::new(),
        by_name: HashMap::new(),
        checked: info.is_greta(),
    };
    let file = match File::open(&path) {
        Err(_) if !complete => return Ok(Recording::of(info, graph, Vec::new())),
        file => file.map_err(io(&path, "can't be read"))?,
    };
    let (mut file, mut line, mut number) = (BufReader::new(file), Vec::new(), 0);
    loop {
        line.clear();
        number += 1;
        if file.read_until(b'\n', &mut line).map_err(io(&path, "can't be read"))? == 0 {
            break;
        }
        match line.ends_with(b"\n") {
            true => reader.line(&line, number)?,
            false if complete => return Err(reader.bad(number, "it is cut off: the file is not whole")),
            false => break,
        }
    }
    let mut series = reader.series;
    if let Some(g) = &graph {
        // Taps of later steps alone come later in the file than their place in the graph.
        series.sort_by_key(|s| (g.find(&s.node).unwrap_or(NodeId(u32::MAX)), s.out));
    }
    Ok(Recording::of(info, graph, series))
}

fn graph(dir: &Path, info: &RunInfo) -> Result<Option<Arc<Graph>>, TraceError> {
    let path = dir.join(GRAPH);
    let bad = |what: String| TraceError::Format { path: path.clone(), what };
    if info.plan.is_empty() || (info.status != Status::Complete && !path.exists()) {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).map_err(io(&path, "can't be read"))?;
    let graph = Graph::from_json(&text).map_err(|e| bad(e.to_string()))?;
    let found = fingerprint(&graph.to_string());
    if found != info.plan {
        let short = |f: &str| f.chars().take(16).collect::<String>();
        return Err(bad(format!(
            "is not the graph that was run: its fingerprint is {}…, run.json says {}…",
            short(&found),
            short(&info.plan)
        )));
    }
    Ok(Some(Arc::new(graph)))
}

struct Reader {
    prompts: HashMap<String, u32>,
    complete: bool,
    lines: PathBuf,
    data: Data,
    series: Vec<Series>,
    by_name: HashMap<(String, u8), usize>,
    /// Whether hashes are greta's own.
    checked: bool,
}

impl Reader {
    fn bad(&self, line: usize, what: impl std::fmt::Display) -> TraceError {
        TraceError::Format { path: self.lines.clone(), what: format!("line {line}: {what}") }
    }

    fn line(&mut self, text: &[u8], number: usize) -> Result<(), TraceError> {
        let r: Record = serde_json::from_slice(text).map_err(|e| self.bad(number, format!("is no record: {e}")))?;
        let Some(&prompt) = self.prompts.get(&r.prompt) else {
            return Err(self.bad(number, format!("the prompt `{}` is not in run.json", r.prompt)));
        };
        let cols = r.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let cols = cols.ok_or_else(|| self.bad(number, "its shape is larger than any memory"))?;
        let i = match self.by_name.get(&(r.node.clone(), r.out)) {
            Some(&i) => i,
            None => {
                self.series.push(described(&r, cols));
                self.by_name.insert((r.node.clone(), r.out), self.series.len() - 1);
                self.series.len() - 1
            }
        };
        if (self.series[i].cols, self.series[i].dtype) != (cols, r.dtype) {
            return Err(self.bad(number, format!("`{}` has another shape or type than before", self.series[i].name)));
        }
        let stats = r.stats.stats;
        if stats.count as usize != cols {
            let what = format!("statistics of {} values for a row of {cols}", stats.count);
            return Err(self.bad(number, what));
        }
        let kept = match &r.data {
            Some(at) => self.values(at, &r, cols, number)?,
            None => Kept::default(),
        };
        let at = At {
            prompt,
            order: r.order,
            phase: r.phase,
            step: r.step,
            seq: r.seq,
            position: r.position,
            token: r.token,
        };
        let series = &mut self.series[i];
        let share =
            |old: Option<&Arc<str>>, new: &str| old.filter(|o| &***o == new).cloned().unwrap_or_else(|| new.into());
        let last = series.rows.last();
        let origin = Origin {
            route: share(last.map(|r| &r.route), &r.route),
            buffer: share(last.map(|r| &r.buffer), &r.buffer),
            offset: r.offset,
        };
        let values = match series.is_int() {
            true => RowData::Int(&kept.ints),
            false => RowData::Real(&kept.reals),
        };
        series.push(at, r.row, origin, stats, values);
        if let Some(row) = series.rows.last_mut() {
            row.facts = r.facts;
        }
        Ok(())
    }

    /// The kept values of a row, checked.
    fn values(&mut self, at: &DataAt, r: &Record, cols: usize, number: usize) -> Result<Kept, TraceError> {
        if at.values > cols || !matches!(at.dtype, DType::F32 | DType::I32 | DType::I8) {
            return Err(self.bad(number, format!("{} values of {} for a row of {cols}", at.values, at.dtype)));
        }
        let Some(bytes) = self.data.read(at)? else {
            if self.complete {
                let end = at.offset.saturating_add((at.values * at.dtype.block_bytes()) as u64);
                return Err(self.bad(
                    number,
                    format!("its values end at byte {end} of {TENSORS}, which has {} bytes", self.data.len),
                ));
            }
            return Ok(Kept::default());
        };
        let kept = Kept::decode(at.dtype, bytes);
        if self.checked {
            let wide: Vec<f32> = match at.dtype {
                DType::F32 => kept.reals.clone(),
                _ => kept.ints.iter().map(|&v| v as f32).collect(),
            };
            let found = Stats::of(&wide);
            let same = match &at.hash {
                Some(hash) => *hash == format!("{:016x}", found.hash),
                None => found.hash == r.stats.stats.hash,
            };
            let place = format!("{}{}, position {}", r.phase.name(), r.step, r.position);
            if !same && self.complete {
                let what = format!("the values of `{}` ({place}) are not those recorded: their hash differs", r.node);
                return Err(self.bad(number, what));
            }
            if !same {
                return Ok(Kept::default());
            }
            if at.values == cols && found != r.stats.stats {
                let what = format!("the statistics of `{}` ({place}) are not those of its values", r.node);
                return Err(self.bad(number, what));
            }
        }
        Ok(kept)
    }
}

fn described(r: &Record, cols: usize) -> Series {
    let name = if r.out == 0 { r.node.clone() } else { format!("{}.{}", r.node, r.out) };
    Series { name, node: r.node.clone(), out: r.out, op: r.op.clone(), dtype: r.dtype, cols, ..Series::default() }
}

#[derive(Default)]
struct Kept {
    reals: Vec<f32>,
    ints: Vec<i32>,
}

impl Kept {
    fn decode(dtype: DType, bytes: &[u8]) -> Kept {
        let words = || bytes.chunks_exact(4).map(|c| [c[0], c[1], c[2], c[3]]);
        match dtype {
            DType::F32 => Kept { reals: words().map(f32::from_le_bytes).collect(), ints: Vec::new() },
            DType::I8 => Kept { reals: Vec::new(), ints: bytes.iter().map(|&b| i32::from(b as i8)).collect() },
            _ => Kept { reals: Vec::new(), ints: words().map(i32::from_le_bytes).collect() },
        }
    }
}

/// The file of values, read in the order of the records, which is its own.
struct Data {
    path: PathBuf,
    file: Option<BufReader<File>>,
    at: u64,
    len: u64,
    bytes: Vec<u8>,
}

impl Data {
    fn open(path: &Path, complete: bool) -> Result<Data, TraceError> {
        let file = match File::open(path) {
            Err(_) if !complete => None,
            file => Some(file.map_err(io(path, "can't be read"))?),
        };
        let len = match &file {
            Some(f) => f.metadata().map_err(io(path, "can't be read"))?.len(),
            None => 0,
        };
        let file = file.map(|f| BufReader::with_capacity(1 << 20, f));
        Ok(Data { path: path.into(), file, at: 0, len, bytes: Vec::new() })
    }

    /// The bytes of a row; `None` if the file ends before them.
    fn read(&mut self, at: &DataAt) -> Result<Option<&[u8]>, TraceError> {
        let size = at.values * at.dtype.block_bytes();
        let inside = at.offset.checked_add(size as u64).is_some_and(|end| end <= self.len);
        let (true, Some(file)) = (inside, &mut self.file) else { return Ok(None) };
        let failed = io(&self.path, "can't be read");
        self.bytes.resize(size, 0);
        let mut read = || {
            if self.at != at.offset {
                file.seek(SeekFrom::Start(at.offset))?;
            }
            file.read_exact(&mut self.bytes)
        };
        read().map_err(failed)?;
        self.at = at.offset + size as u64;
        Ok(Some(&self.bytes))
    }
}
