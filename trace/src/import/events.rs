//! The JSONL events `attn_l0_pipe`, `rmsnorm_trace` and `stage_trace`: samples of rows, one event a line.
//!
//! Values are samples: only `stage_trace` says how wide its rows are (`stride_elems`). Phases are `prefill_last` and
//! `decode0` (`decode1` …). Fields that are not known are ignored; a required one that is missing is an error with its
//! line: `event`, `prompt_id`, `phase`; `q`, `k`, `v` of `attn_l0_pipe`; `layer`, `input_sample`, `output_sample` of
//! `rmsnorm_trace`; `point`, `sample` of `stage_trace`.
//!
//! Events without `pos_id` belong to the position that others of the same prompt and phase name, else to none. What an op read, such
//! as `attn_norm_in`, keeps a name of its own, `blk.0.attn_norm_in`: it need not be what the graph gives the op.

use super::collect::{Collector, Given};
use super::{ImportOptions, NO_POSITION, format_error};
use crate::error::io;
use crate::{At, PromptInfo, Recording, RunInfo, SCHEMA, Status, TraceError, names};
use greta_backend::Phase;
use greta_ops::Stats;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::PathBuf;

/// The events known.
pub(super) const EVENTS: [&str; 3] = ["attn_l0_pipe", "rmsnorm_trace", "stage_trace"];

/// Arrays of `attn_l0_pipe` that are always there.
const PIPE: [&str; 3] = ["q", "k", "v"];

struct Event {
    file: usize,
    line: usize,
    map: Map<String, Value>,
}

/// A row of an event, before its place in the run is known.
struct Sample {
    name: String,
    point: String,
    prompt: String,
    phase: String,
    position: Option<u32>,
    cols: Option<usize>,
    offset: u64,
    values: Vec<f32>,
    stats: Stats,
    from: (usize, usize),
}

impl Event {
    fn text(&self, key: &str) -> Result<&str, String> {
        let v = self.map.get(key).ok_or_else(|| format!("has no `{key}`"))?;
        v.as_str().ok_or_else(|| format!("has a `{key}` that is no text: {v}"))
    }

    fn whole(&self, key: &str) -> Result<Option<u64>, String> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            // Points outside layers have layer -1.
            Some(v) if v.as_i64() == Some(-1) => Ok(None),
            Some(v) => v.as_u64().map(Some).ok_or_else(|| format!("has a `{key}` that is no whole number: {v}")),
        }
    }

    fn real(&self, key: &str) -> Option<f64> {
        self.map.get(key).and_then(Value::as_f64)
    }

    fn list(&self, key: &str) -> Result<Vec<f32>, String> {
        let v = self.map.get(key).ok_or_else(|| format!("has no `{key}`"))?;
        let list = v.as_array().ok_or_else(|| format!("has a `{key}` that is no list"))?;
        let values: Option<Vec<f32>> = list
            .iter()
            .map(|v| match v {
                // JSON has no NaN; writers put null.
                Value::Null => Some(f32::NAN),
                v => v.as_f64().map(|v| v as f32),
            })
            .collect();
        let values = values.ok_or_else(|| format!("has a `{key}` with something else than numbers"))?;
        if values.is_empty() { Err(format!("has an empty `{key}`")) } else { Ok(values) }
    }
}

pub(super) fn read(files: &[PathBuf], options: &ImportOptions) -> Result<Recording, TraceError> {
    let mut samples = Vec::new();
    for (file, path) in files.iter().enumerate() {
        let text = std::fs::read_to_string(path).map_err(io(path, "reading"))?;
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let bad = |what: String| format_error(path, format!("line {}: {what}", i + 1));
            let map = serde_json::from_str(line).map_err(|e| bad(format!("is no JSON object: {e}")))?;
            let event = Event { file, line: i + 1, map };
            samples.extend(rows(&event).map_err(|what| bad(format!("the event {what}")))?);
        }
    }
    let at_file = |from: (usize, usize)| files.get(from.0).cloned().unwrap_or_default();
    if samples.is_empty() {
        return Err(format_error(&at_file((0, 0)), "holds no event"));
    }
    place(samples, options).map_err(|(from, what)| format_error(&at_file(from), format!("line {}: {what}", from.1)))
}

/// The rows of an event.
fn rows(e: &Event) -> Result<Vec<Sample>, String> {
    let kind = e.text("event")?;
    let layer = e.whole("layer")?.and_then(|l| u32::try_from(l).ok());
    let base = Base {
        prompt: e.text("prompt_id")?.into(),
        phase: e.text("phase")?.into(),
        position: e.whole("pos_id")?.and_then(|p| u32::try_from(p).ok()),
        from: (e.file, e.line),
    };
    let mut all = Vec::new();
    match kind {
        "attn_l0_pipe" => {
            for key in PIPE {
                e.list(key)?;
            }
            for (key, _) in e.map.iter().filter(|(_, v)| v.is_array()) {
                all.push(base.sample(key, Some(0), e.list(key)?));
            }
        }
        "rmsnorm_trace" => {
            let layer = layer.ok_or("has no `layer`")?;
            let mut read = base.sample("attn_norm_in", Some(layer), e.list("input_sample")?);
            read.stats.sum_sq = e.real("sumsq").unwrap_or(read.stats.sum_sq);
            read.offset = e.whole("input_offset_bytes")?.unwrap_or(0);
            all.push(read);
            all.push(base.sample("attn_norm_out", Some(layer), e.list("output_sample")?));
            let mut own = |name: &str, values: Vec<f32>| {
                all.push(Sample { name: format!("blk.{layer}.attn_norm.{name}"), ..base.sample(name, None, values) });
            };
            if e.map.contains_key("weight_sample") {
                own("weight_sample", e.list("weight_sample")?);
            }
            for key in ["eps", "inv_rms", "sumsq"] {
                if let Some(v) = e.real(key) {
                    own(key, vec![v as f32]);
                }
            }
        }
        "stage_trace" => {
            let mut s = base.sample(e.text("point")?, layer, e.list("sample")?);
            s.cols = e.whole("stride_elems")?.and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
            s.offset = e.whole("offset_bytes")?.unwrap_or(0);
            s.stats = stats(e, s.stats, s.cols)?;
            all.push(s);
        }
        // What greta writes beside the pipe's events holds no rows.
        "qkv_w_verify" | "wo_w_verify" => {}
        other => return Err(format!("`{other}` is not known; known: {}", EVENTS.join(", "))),
    }
    Ok(all)
}

struct Base {
    prompt: String,
    phase: String,
    position: Option<u32>,
    from: (usize, usize),
}

impl Base {
    fn sample(&self, point: &str, layer: Option<u32>, values: Vec<f32>) -> Sample {
        let own = || layer.map_or_else(|| point.to_string(), |i| format!("blk.{i}.{point}"));
        Sample {
            name: names::report(point, layer).unwrap_or_else(own),
            point: point.into(),
            prompt: self.prompt.clone(),
            phase: self.phase.clone(),
            position: self.position,
            cols: None,
            offset: 0,
            stats: Stats::of(&values),
            values,
            from: self.from,
        }
    }
}

/// The whole row's statistics, where the event states them. Its hash is of another definition and is left out.
fn stats(e: &Event, sample: Stats, cols: Option<usize>) -> Result<Stats, String> {
    let Some(n) = cols.and_then(|n| u32::try_from(n).ok()) else { return Ok(sample) };
    let count = |key: &str| Ok::<u32, String>(e.whole(key)?.and_then(|v| u32::try_from(v).ok()).unwrap_or(0));
    let (Some(min), Some(max), Some(mean)) = (e.real("min"), e.real("max"), e.real("mean")) else { return Ok(sample) };
    Ok(Stats {
        count: n,
        min: min as f32,
        max: max as f32,
        sum: mean * f64::from(n),
        abs_sum: e.real("abs_sum").unwrap_or(0.0),
        sum_sq: 0.0,
        nan: count("nan")?,
        inf: count("inf")?,
        zeros: e.whole("nz_count")?.map_or(0, |nz| n.saturating_sub(nz as u32)),
        hash: 0,
    })
}

/// Step number within the run, phase and step of a phase's name.
fn phase(name: &str) -> Option<(u32, Phase, u32)> {
    match name {
        "prefill" | "prefill_last" => Some((0, Phase::Prefill, 0)),
        _ => {
            let n = name.strip_prefix("decode")?.parse().ok()?;
            Some((1 + n, Phase::Decode, n))
        }
    }
}

fn place(samples: Vec<Sample>, options: &ImportOptions) -> Result<Recording, ((usize, usize), String)> {
    let mut prompts: Vec<String> = Vec::new();
    let mut known: HashMap<(String, String), u32> = HashMap::new();
    for s in &samples {
        if !prompts.contains(&s.prompt) {
            prompts.push(s.prompt.clone());
        }
        if let Some(p) = s.position {
            known.entry((s.prompt.clone(), s.phase.clone())).or_insert(p);
        }
    }
    let mut placed = Vec::with_capacity(samples.len());
    for s in samples {
        let prompt = prompts.iter().position(|p| *p == s.prompt).unwrap_or(0) as u32;
        let unknown = || format!("phase `{}` is not known; known: prefill_last, decode0, decode1 …", s.phase);
        let (order, phase, step) = phase(&s.phase).ok_or_else(|| (s.from, unknown()))?;
        let named = || known.get(&(s.prompt.clone(), s.phase.clone())).copied();
        let position = s.position.or_else(named).unwrap_or(NO_POSITION);
        let at = At { prompt, order, phase, step, seq: 0, position, token: -1 };
        placed.push((at, s));
    }
    placed.sort_by_key(|(at, s)| (names::order(&s.name), at.prompt, at.order));
    let named = |id: String| options.prompt_id.clone().filter(|_| prompts.len() == 1).unwrap_or(id);
    let info = RunInfo {
        schema: SCHEMA,
        engine: "gretacore events".into(),
        status: Status::Complete,
        arith: "unknown".into(),
        prompts: prompts.iter().map(|id| PromptInfo { id: named(id.clone()), ..PromptInfo::default() }).collect(),
        ..RunInfo::default()
    };
    let mut c = Collector::new(info);
    for (at, s) in placed {
        // The pipe and the stage events sample one row at different lengths; the longer says more.
        let longer = c.rec.get(&s.name).and_then(|t| t.find(at.prompt, at.order, at.seq, at.position)).is_some();
        let given = Given {
            name: s.name,
            op: "",
            from: &s.point,
            offset: s.offset,
            cols: s.cols,
            at,
            row: 0,
            values: &s.values,
            stats: Some(s.stats),
        };
        let added = if longer { c.merge(given) } else { c.add(given) };
        added.map_err(|what| (s.from, what))?;
    }
    Ok(c.rec)
}
