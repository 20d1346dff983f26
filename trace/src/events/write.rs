//! The events' fields and files.

use super::{Norm, OldEvents, PIPE, Pipe, Stage, verify};
use crate::error::io;
use crate::recording::RowSink;
use crate::{At, TraceError, names};
use greta_backend::{Phase, RowData, TapRow, TapSink, Weights};
use greta_graph::{Graph, Kind, PhaseFilter};
use greta_ops::{HostTensor, Op, Stats};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// A JSONL file.
pub(super) struct Lines {
    path: PathBuf,
    file: File,
}

impl Lines {
    pub fn create(path: PathBuf) -> Result<Lines, TraceError> {
        let file = File::create(&path).map_err(io(&path, "can't be created"))?;
        Ok(Lines { path, file })
    }

    /// A line is written whole, so that a run that is stopped leaves whole events.
    fn put(&mut self, event: Map<String, Value>) -> Result<(), TraceError> {
        let line = format!("{}\n", Value::Object(event));
        self.file.write_all(line.as_bytes()).map_err(io(&self.path, "can't be written"))
    }
}

/// A row that was recorded in the step at hand.
pub(super) struct Seen {
    pub at: At,
    pub values: Vec<f32>,
    pub stats: Stats,
    pub buffer: String,
    pub offset: u64,
}

/// Fields of a JSON object, kept in order.
fn object(fields: Value) -> Map<String, Value> {
    match fields {
        Value::Object(m) => m,
        _ => Map::new(),
    }
}

/// `prefill_last`, `decode0` …: only the last token's row of a prompt is ever written.
pub(super) fn phase(at: At) -> String {
    match at.phase {
        Phase::Prefill => "prefill_last".into(),
        Phase::Decode => at.phase_name(),
    }
}

fn passes(filters: &[PhaseFilter], at: At) -> bool {
    filters.iter().any(|f| match f {
        PhaseFilter::Every => true,
        PhaseFilter::Prefill | PhaseFilter::PrefillLast => at.phase == Phase::Prefill,
        PhaseFilter::Decode => at.phase == Phase::Decode,
        PhaseFilter::DecodeStep(n) => at.phase == Phase::Decode && at.step == *n,
    })
}

fn some(values: &[f32], n: u32) -> &[f32] {
    &values[..values.len().min(n as usize)]
}

impl RowSink for OldEvents {
    fn row(&mut self, graph: &Graph, at: At, row: &TapRow<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        // The last token of a chunk that is not the prompt's last is no `prefill_last`.
        let RowData::Real(values) = row.values else { return Ok(()) };
        if row.value.out > 0 || (at.phase == Phase::Prefill && !row.at.ends_prompt) {
            return Ok(());
        }
        let node = graph.node(row.value.node).name.clone();
        let prompt = self.prompts.get(at.prompt as usize).or(self.prompts.last()).cloned().unwrap_or_default();
        if let Some(stage) = &mut self.stage {
            stage.write(&node, &prompt, at, row, values)?;
        }
        let seen = Seen { at, values: values.into(), stats: *row.stats, buffer: row.buffer.into(), offset: row.offset };
        self.seen.insert(node.clone(), seen);
        if let Some(norm) = &mut self.norm
            && let Some((layer, "attn_norm")) = names::split(&node)
            && norm.takes(layer)
            && passes(&norm.phases, at)
        {
            let read = names::report("x_in", Some(layer)).and_then(|n| self.seen.get(&n)).filter(|s| s.at == at);
            if let (Some(read), Some(wrote)) = (read, self.seen.get(&node)) {
                norm.write(graph, &*self.weights, &prompt, layer, read, wrote)?;
            }
        }
        if let Some(pipe) = &mut self.pipe
            && node == PIPE[PIPE.len() - 1].1
        {
            let row = |n: &str| self.seen.get(n).filter(|s| s.at == at);
            pipe.write(graph, &*self.weights, &prompt, at, row)?;
        }
        Ok(())
    }
}

impl Stage {
    fn write(&mut self, node: &str, prompt: &str, at: At, row: &TapRow<'_>, values: &[f32]) -> Result<(), TraceError> {
        if !passes(&self.phases, at) {
            return Ok(());
        }
        for (point, layer) in names::to_report(node) {
            if !self.wants(point, layer) {
                continue;
            }
            let s = row.stats;
            let sample = some(values, super::SAMPLE);
            let mut event = object(json!({
                "event": "stage_trace",
                "prompt_id": prompt,
                "phase": phase(at),
                "point": point,
                "layer": layer.map_or(-1, i64::from),
                "step": at.step,
                "pos_id": at.position,
                "seq_len": at.position + 1,
                "tokens_total": at.position + 1,
                "token_index": row.token_index,
                "stride_elems": row.cols,
                "sample_n": sample.len(),
                "ptr": row.buffer,
                "offset_bytes": row.offset,
                "hash": format!("{:016x}", s.hash),
                "min": s.min,
                "max": s.max,
                "mean": s.mean(),
                "abs_sum": s.abs_sum,
                "nan": s.nan,
                "inf": s.inf,
                "nz_count": s.count - s.zeros,
                "sample": sample,
            }));
            if self.debug_input {
                event.insert("token_id".into(), at.token.into());
            }
            self.out.put(event)?;
        }
        Ok(())
    }
}

/// Epsilon of a norm, and its weight's tensor.
fn norm_facts(graph: &Graph, weights: &dyn Weights, layer: u32) -> Option<(f32, Vec<f32>)> {
    let id = graph.find(&format!("blk.{layer}.attn_norm"))?;
    let Kind::Op(Op::RmsNorm(op)) = &graph.node(id).kind else { return None };
    let view = weights.tensor(&format!("blk.{layer}.attn_norm.weight")).ok()?;
    let shape: Vec<usize> = view.desc.dims.iter().filter_map(|d| d.constant()).collect();
    let weight = HostTensor::from_bytes(&shape, view.desc.dtype, view.bytes);
    Some((op.eps, weight.row(0).iter().map(|&v| v as f32).collect()))
}

fn inv_rms(sumsq: f64, n: u32, eps: f32) -> f64 {
    1.0 / (sumsq / f64::from(n.max(1)) + f64::from(eps)).sqrt()
}

impl Norm {
    fn write(
        &mut self,
        graph: &Graph,
        weights: &dyn Weights,
        prompt: &str,
        layer: u32,
        read: &Seen,
        wrote: &Seen,
    ) -> Result<(), TraceError> {
        let Some((eps, weight)) = norm_facts(graph, weights, layer) else { return Ok(()) };
        let n = read.stats.count;
        self.out.put(object(json!({
            "event": "rmsnorm_trace",
            "prompt_id": prompt,
            "phase": phase(wrote.at),
            "layer": layer,
            "pos_id": wrote.at.position,
            "input_sample": some(&read.values, self.sample),
            "weight_sample": some(&weight, self.sample),
            "output_sample": some(&wrote.values, self.sample),
            "eps": eps,
            "sumsq": read.stats.sum_sq,
            "inv_rms": inv_rms(read.stats.sum_sq, n, eps),
            "input_ptr": read.buffer,
            "input_offset_bytes": read.offset,
            "weight_hash": format!("{:016x}", Stats::hash_of(&weight)),
        })))
    }
}

impl Pipe {
    fn write<'s>(
        &mut self,
        graph: &Graph,
        weights: &dyn Weights,
        prompt: &str,
        at: At,
        row: impl Fn(&str) -> Option<&'s Seen>,
    ) -> Result<(), TraceError> {
        let head = |event: &str| {
            object(json!({
                "event": event,
                "prompt_id": prompt,
                "phase": phase(at),
                "layer": 0,
                "pos_id": at.position,
                "token_id": at.token,
            }))
        };
        if self.pipe {
            let mut event = head("attn_l0_pipe");
            for (point, node) in PIPE {
                if let Some(s) = row(node) {
                    event.insert(point.into(), json!(some(&s.values, super::SAMPLE)));
                }
            }
            if let (true, Some(read), Some((eps, _))) = (self.norm, row("embd"), norm_facts(graph, weights, 0)) {
                event.insert("norm_sumsq".into(), json!(read.stats.sum_sq));
                event.insert("norm_inv_rms".into(), json!(inv_rms(read.stats.sum_sq, read.stats.count, eps)));
                event.insert("norm_eps".into(), json!(eps));
            }
            self.out.put(event)?;
        }
        let checks = [
            (self.qkv, "qkv_w_verify", "q", "blk.0.attn_q.weight", "blk.0.attn_norm", "blk.0.q"),
            (self.qkv, "qkv_w_verify", "k", "blk.0.attn_k.weight", "blk.0.attn_norm", "blk.0.k"),
            (self.qkv, "qkv_w_verify", "v", "blk.0.attn_v.weight", "blk.0.attn_norm", "blk.0.v"),
            (self.wo, "wo_w_verify", "wo", "blk.0.attn_output.weight", "blk.0.attn", "blk.0.attn_out"),
        ];
        for (_, event, name, tensor, x, y) in checks.iter().filter(|c| c.0) {
            if let (Some(x), Some(y)) = (row(x), row(y)) {
                let found = verify::layouts(weights, tensor, &x.values, &y.values)?;
                let mut event = head(event);
                event.insert("weight".into(), json!(name));
                event.extend(object(found));
                self.out.put(event)?;
            }
        }
        Ok(())
    }
}

/// The events of one prompt, run by a session of one's own rather than by the tracer.
pub struct OnePrompt {
    events: OldEvents,
    graph: Arc<Graph>,
}

impl OldEvents {
    /// A sink for a session's taps; `graph` is the plan's.
    pub fn for_one_prompt(self, graph: Arc<Graph>) -> OnePrompt {
        OnePrompt { events: self, graph }
    }
}

impl TapSink for OnePrompt {
    fn row(&mut self, row: &TapRow<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let at = At {
            prompt: 0,
            order: if row.at.phase == Phase::Prefill { row.at.step } else { u32::MAX / 2 + row.at.step },
            phase: row.at.phase,
            step: row.at.step,
            seq: row.seq,
            position: row.position,
            token: row.token,
        };
        let graph = self.graph.clone();
        self.events.row(&graph, at, row)
    }
}
