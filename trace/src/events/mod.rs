//! The old trace flags: `GRETA_TRACE_*` variables that make a run write JSONL events as it goes.
//!
//! | variable | what it does |
//! |---|---|
//! | `GRETA_TRACE_ATTN_L0_PIPE`, `_OUT` | one `attn_l0_pipe` event a phase: samples along layer 0's attention |
//! | `GRETA_TRACE_ATTN_L0_NORM` | the same, with the norm's sum of squares, 1/rms and epsilon |
//! | `GRETA_TRACE_STAGE`, `_OUT`, `_LAYERS`, `_POINTS`, `_PHASES` | a `stage_trace` event for each point, layer and phase |
//! | `GRETA_TRACE_STAGE_DEBUG_INPUT` | the first layer's `x_in` too, and the token's id |
//! | `GRETA_TRACE_RMSNORM`, `_OUT`, `_LAYERS`, `_SAMPLE`, `_PHASES` | an `rmsnorm_trace` event for each layer's first norm |
//! | `GRETA_TRACE_QKV_W_VERIFY`, `GRETA_TRACE_WO_W_VERIFY` | layer 0's weights tried in both layouts; beside the pipe's events |
//! | `GRETA_TRACE_PROMPT_ID` | the prompt's name in the events; `prompt` without it |
//!
//! A switch is on unless it is unset, empty or `0`. `_OUT` names the file; without it `attn_l0_pipe.jsonl`,
//! `stage_trace.jsonl` and `rmsnorm_trace.jsonl` in the current directory. Layers are `all` or numbers, points those of
//! [`crate::names::report_points`], phases `prefill_last`, `decode0` … (both by default). Lists have commas.
//! What they write is read back by `greta import`.

mod verify;
mod write;

use crate::{TraceError, names};
use greta_backend::Weights;
use greta_graph::{Detail, Graph, Kind, PhaseFilter, TapRequest, TapRows, TapSpec};
use greta_models::Model;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use write::{Lines, Seen};

/// Values of a row that events show where nothing else is asked for.
const SAMPLE: u32 = 64;

/// The points of `attn_l0_pipe`, layer 0's, with the node that gives each.
const PIPE: [(&str, &str); 9] = [
    ("attn_norm_in", "embd"),
    ("attn_norm_out", "blk.0.attn_norm"),
    ("q", "blk.0.q"),
    ("k", "blk.0.k"),
    ("v", "blk.0.v"),
    ("q_rope", "blk.0.q_rope"),
    ("k_rope", "blk.0.k_rope"),
    ("attn_out", "blk.0.attn"),
    ("wo_out", "blk.0.attn_out"),
];

/// Which layers events are made of; `None`: all.
type Layers = Option<Vec<u32>>;

struct Stage {
    out: Lines,
    layers: Layers,
    points: Vec<String>,
    phases: Vec<PhaseFilter>,
    debug_input: bool,
}

struct Norm {
    out: Lines,
    layers: Layers,
    sample: u32,
    phases: Vec<PhaseFilter>,
}

struct Pipe {
    out: Lines,
    pipe: bool,
    norm: bool,
    qkv: bool,
    wo: bool,
}

/// Writes the old events from the rows that taps record.
pub struct OldEvents {
    pipe: Option<Pipe>,
    stage: Option<Stage>,
    norm: Option<Norm>,
    /// Names of the prompts, by index; the last for all that follow.
    prompts: Vec<String>,
    weights: Arc<dyn Weights>,
    /// Rows of the step so far, by node.
    seen: HashMap<String, Seen>,
}

impl OldEvents {
    /// What the environment asks for; `None` if no flag is set. Files are created, or emptied, at once.
    pub fn from_env(model: &Model) -> Result<Option<OldEvents>, TraceError> {
        OldEvents::from_flags(model, |name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()))
    }

    /// The same with variables of one's own.
    pub fn from_flags(model: &Model, get: impl Fn(&str) -> Option<String>) -> Result<Option<OldEvents>, TraceError> {
        let text = |name: &str| get(&format!("GRETA_TRACE_{name}")).filter(|v| !v.is_empty());
        let on = |name: &str| text(name).is_some_and(|v| v != "0");
        let out = |name: &str, default: &str| {
            Lines::create(text(&format!("{name}_OUT")).map_or_else(|| PathBuf::from(default), PathBuf::from))
        };
        let list = |name: &str| -> Vec<String> {
            let text = text(name).unwrap_or_default();
            text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(String::from).collect()
        };
        let layers = |name: &str| -> Result<Layers, TraceError> {
            let list = list(name);
            if list.is_empty() || list.iter().any(|l| l == "all") {
                return Ok(None);
            }
            let numbers: Result<Vec<u32>, _> = list.iter().map(|l| l.parse()).collect();
            numbers.map(Some).map_err(|_| bad(name, &list, "`all` or numbers of layers, such as 0,1,29"))
        };
        let phases = |name: &str| -> Result<Vec<PhaseFilter>, TraceError> {
            let list = list(name);
            if list.is_empty() {
                return Ok(vec![PhaseFilter::PrefillLast, PhaseFilter::DecodeStep(0)]);
            }
            let parsed: Result<Vec<PhaseFilter>, String> = list.iter().map(|p| p.parse()).collect();
            parsed.map_err(|_| bad(name, &list, "phases such as prefill_last,decode0"))
        };
        let (pipe, norm) = (on("ATTN_L0_PIPE"), on("ATTN_L0_NORM"));
        let (qkv, wo) = (on("QKV_W_VERIFY"), on("WO_W_VERIFY"));
        let pipe = match pipe || norm || qkv || wo {
            true => Some(Pipe { out: out("ATTN_L0_PIPE", "attn_l0_pipe.jsonl")?, pipe: pipe || norm, norm, qkv, wo }),
            false => None,
        };
        let stage = match on("STAGE") {
            true => {
                let points = list("STAGE_POINTS");
                let known = names::report_points();
                if points.iter().any(|p| !known.contains(&p.as_str())) {
                    return Err(bad("STAGE_POINTS", &points, &known.join(", ")));
                }
                Some(Stage {
                    out: out("STAGE", "stage_trace.jsonl")?,
                    layers: layers("STAGE_LAYERS")?,
                    points,
                    phases: phases("STAGE_PHASES")?,
                    debug_input: on("STAGE_DEBUG_INPUT"),
                })
            }
            false => None,
        };
        let norm = match on("RMSNORM") {
            true => {
                let sample = text("RMSNORM_SAMPLE");
                let n = sample.as_ref().map_or(Ok(SAMPLE), |n| n.parse());
                Some(Norm {
                    out: out("RMSNORM", "rmsnorm_trace.jsonl")?,
                    layers: layers("RMSNORM_LAYERS")?,
                    sample: n
                        .map_err(|_| bad("RMSNORM_SAMPLE", &sample.into_iter().collect::<Vec<_>>(), "a number"))?,
                    phases: phases("RMSNORM_PHASES")?,
                })
            }
            false => None,
        };
        if pipe.is_none() && stage.is_none() && norm.is_none() {
            return Ok(None);
        }
        let prompts = vec![text("PROMPT_ID").unwrap_or_else(|| "prompt".into())];
        Ok(Some(OldEvents { pipe, stage, norm, prompts, weights: model.weights(), seen: HashMap::new() }))
    }

    /// Names the prompts of a run of several.
    pub fn with_prompts(mut self, ids: impl IntoIterator<Item = String>) -> OldEvents {
        let ids: Vec<String> = ids.into_iter().collect();
        self.prompts = if ids.is_empty() { self.prompts } else { ids };
        self
    }

    /// The taps that the events need, for the model's graph before its passes.
    pub fn requests(&self, graph: &Graph) -> Result<Vec<TapRequest>, TraceError> {
        let mut requests = Vec::new();
        for (_, node) in graph.nodes().filter(|(_, n)| matches!(n.kind, Kind::Op(_))) {
            let mut wants: Vec<(Detail, &[PhaseFilter])> = Vec::new();
            if let Some(p) = &self.pipe
                && PIPE.iter().any(|(_, n)| *n == node.name)
            {
                let whole = p.qkv || p.wo;
                let both = &[PhaseFilter::PrefillLast, PhaseFilter::DecodeStep(0)];
                wants.push((if whole { Detail::Full } else { Detail::Sample(SAMPLE) }, both));
            }
            if let Some(s) = &self.stage
                && names::to_report(&node.name).iter().any(|(p, l)| s.wants(p, *l))
            {
                wants.push((Detail::Sample(SAMPLE), &s.phases));
            }
            if let Some(n) = &self.norm
                && n.reads(graph, &node.name)
            {
                wants.push((Detail::Sample(n.sample), &n.phases));
            }
            if wants.is_empty() {
                continue;
            }
            let mut phases: Vec<PhaseFilter> = Vec::new();
            for p in wants.iter().flat_map(|w| w.1) {
                if !phases.contains(p) {
                    phases.push(*p);
                }
            }
            let size = |d: &Detail| match d {
                Detail::Stats => 0,
                Detail::Sample(n) => *n,
                Detail::Full => u32::MAX,
            };
            let detail = wants.iter().map(|w| w.0).max_by_key(size).unwrap_or(Detail::Stats);
            requests.push(TapRequest::new(&node.name, TapSpec { rows: TapRows::Last, phases, detail })?);
        }
        Ok(requests)
    }
}

fn bad(name: &str, given: &[String], wanted: &str) -> TraceError {
    TraceError::Flag { name: format!("GRETA_TRACE_{name}"), given: given.join(","), wanted: wanted.into() }
}

fn within(layers: &Layers, layer: Option<u32>) -> bool {
    match (layers, layer) {
        (Some(list), Some(l)) => list.contains(&l),
        _ => true,
    }
}

impl Stage {
    fn wants(&self, point: &str, layer: Option<u32>) -> bool {
        let input = self.debug_input && point == "x_in" && layer == Some(0);
        let point = self.points.is_empty() || self.points.iter().any(|p| p == point);
        input || (point && within(&self.layers, layer))
    }
}

impl Norm {
    fn takes(&self, layer: u32) -> bool {
        within(&self.layers, Some(layer))
    }

    /// Whether a node is the first norm of a layer wanted, or what that reads.
    fn reads(&self, graph: &Graph, node: &str) -> bool {
        names::to_report(node).iter().any(|(p, l)| {
            ["attn_norm_in", "attn_norm_out"].contains(p)
                && l.is_some_and(|l| self.takes(l) && graph.find(&format!("blk.{l}.attn_norm")).is_some())
        })
    }
}
