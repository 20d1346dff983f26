//! The run a probe needs: the nodes it asks about, what they read, and what lies before them where it may be blamed.

use super::Kind as Probed;
use crate::judge::pick;
use crate::verify::{globset_escape, whole, with_operands};
use crate::{PromptInfo, Recording, TraceError, TracePlan, tracer};
use greta_backend::Backend;
use greta_graph::{Graph, Kind, NamePattern, TapMode, TapRequest, TapRows, TapSpec};
use greta_models::{Engine, EngineOptions, Model};
use std::sync::Arc;

/// Recorded rows take this much memory at most; past it only some rows of what lies outside the layer are kept.
const MEMORY: usize = 2 << 30;

/// Rows of a step kept of what lies outside the layer where not all fit.
const SOME: usize = 8;

/// Runs prompts, prefill and one decode step, with the taps that a probe of a layer needs.
pub fn record(
    kind: Probed,
    model: &Arc<Model>,
    backend: &dyn Backend,
    options: &EngineOptions<'_>,
    prompts: &[PromptInfo],
    layer: u32,
    progress: tracer::Progress<'_>,
) -> Result<Recording, TraceError> {
    let plain = EngineOptions { taps: Vec::new(), tap_mode: TapMode::Semantic, ..options.clone() };
    let tapped = EngineOptions { taps: whole(&["all".into()])?, ..plain.clone() };
    let (plan, _) = Engine::plan(model, backend, &tapped)?;
    let graph = plan.graph().without_taps()?;
    let taps = taps(kind, &graph, prompts, layer)?;
    let options = EngineOptions { taps, ..plain };
    Ok(tracer::record(model, backend, &options, prompts, &TracePlan::default(), progress)?.0)
}

fn taps(kind: Probed, graph: &Graph, prompts: &[PromptInfo], layer: u32) -> Result<Vec<TapRequest>, TraceError> {
    let points: &[&str] = match kind {
        Probed::NormQkv => &["attn_norm", "q", "k", "v"],
        Probed::Weights => &["q", "k", "v", "attn_out", "ffn_gate", "ffn_up", "ffn_out"],
        Probed::RmsNorm(point) => &[point.name()],
        Probed::Rope => &["q_rope", "k_rope"],
        Probed::Cache => &["k_cache", "v_cache", "attn"],
        Probed::Embedding => &[],
    };
    let names: Vec<String> = match kind {
        Probed::Embedding => vec!["embd".into()],
        _ => points.iter().map(|p| format!("blk.{layer}.{p}")).collect(),
    };
    let mut list = inputs(graph);
    for name in &names {
        let pattern: NamePattern = globset_escape(name).parse()?;
        let found = with_operands(graph, &pattern);
        if found.is_empty() {
            // The error lists what there is.
            greta_graph::insert_taps(graph, &[TapRequest { pattern, spec: TapSpec::default() }])?;
        }
        add(&mut list, found);
    }
    if kind == Probed::Cache {
        // Other layers' caches say whose rows were read.
        add(&mut list, graph.nodes().map(|(_, n)| &n.name).filter(|n| n.ends_with("_cache")).cloned());
    }
    let mut outside = Vec::new();
    if let Probed::RmsNorm(_) = kind
        && let Some(target) = graph.find(&names[0])
    {
        let before = graph.nodes().filter(|(id, n)| *id <= target && matches!(n.kind, Kind::Op(_)));
        // A dequantised weight is no row of a step.
        let rows = before.filter(|(_, n)| !matches!(&n.kind, Kind::Op(greta_ops::Op::Dequant(_))));
        outside = rows.map(|(_, n)| n.name.clone()).filter(|n| !list.contains(n)).collect();
    }
    let mut out = whole(&list.iter().map(|n| globset_escape(n)).collect::<Vec<_>>())?;
    let tokens: usize = prompts.iter().map(|p| p.tokens.len() + 1).sum();
    let all = outside.iter().chain(&list).map(|n| bytes(graph, n)).sum::<usize>() * tokens <= MEMORY;
    for name in outside {
        let rows = match all || name.ends_with("_cache") || crate::judge::layer(&name) == Some(layer) {
            true => TapRows::All,
            false => TapRows::Positions(positions(prompts)),
        };
        out.push(TapRequest::new(&globset_escape(&name), TapSpec { rows, ..TapSpec::default() })?);
    }
    Ok(out)
}

fn add(list: &mut Vec<String>, more: impl IntoIterator<Item = String>) {
    for name in more {
        if !list.contains(&name) {
            list.push(name);
        }
    }
}

/// The inputs that a run is held to.
fn inputs(graph: &Graph) -> Vec<String> {
    let known = |n: &&String| matches!(n.as_str(), "tokens" | "positions" | "seqs" | "slots");
    graph.nodes().map(|(_, n)| &n.name).filter(known).cloned().collect()
}

fn bytes(graph: &Graph, name: &str) -> usize {
    let outs = graph.find(name).map_or(&[][..], |id| &graph.node(id).outs);
    outs.iter().map(|d| d.cols().constant().unwrap_or(1) * 4).sum()
}

fn positions(prompts: &[PromptInfo]) -> Vec<u32> {
    let mut list: Vec<u32> =
        prompts.iter().flat_map(|p| pick(p.tokens.len(), SOME).into_iter().map(|i| i as u32)).collect();
    list.sort_unstable();
    list.dedup();
    list
}
