//! One fault in one layer on one prompt.

use super::corpus::{Entry, Pair, Param};
use super::score::{FaultReport, Row};
use super::{Bench, LayerChoice, Subject, plan};
use crate::judge::{Class, Culprit, Judge, JudgeOptions};
use crate::recording::Recording;
use crate::verify::{VerifyOptions, verify};
use crate::{TraceError, TracePlan};
use greta_backend::{BackendError, Fault, Injection};
use greta_graph::{Kind, NodeId, Value};
use greta_models::{EngineOptions, ModelError};
use greta_ops::{HostTensor, Op};

/// Identical runs compared where a fault is not there every time.
const REPEATS: u32 = 8;

/// Recorded rows of a cell take this much memory at most: a few hundred cells are run one after the other.
const MEMORY: usize = 128 << 20;

/// Every cell of a fault.
pub(super) fn entry(b: &Bench<'_>, s: &Subject, e: &Entry, report: &mut FaultReport) -> Result<(), TraceError> {
    let mut layers: Vec<Option<u32>> = match e.global {
        true => vec![None],
        false => {
            let wanted = |l: &LayerChoice| b.options.layers.is_empty() || b.options.layers.contains(l);
            LayerChoice::ALL.iter().filter(|l| wanted(l)).map(|l| Some(l.of(s.layers))).collect()
        }
    };
    layers.dedup();
    for layer in layers {
        for p in 0..s.prompts.len() {
            let Some(node) = node(s, e, layer) else { continue };
            report.rows.push(cell(b, s, e, layer, &node, p)?);
        }
    }
    Ok(())
}

/// The node of a cell: the entry's point, or the first of the layer's matmuls whose weight has the type needed.
fn node(s: &Subject, e: &Entry, layer: Option<u32>) -> Option<String> {
    let Some(layer) = layer else { return Some(e.point.into()) };
    if e.point != "*" {
        return Some(format!("blk.{layer}.{}", e.point));
    }
    let graph = s.clean.first()?.0.graph.clone()?;
    let fits = |id: NodeId| {
        let of_type = |v: &Value| Some(graph.desc(*v).dtype) == e.needs;
        matches!(graph.node(id).kind, Kind::Op(Op::MatMul(_))) && graph.operands(id).first().is_some_and(of_type)
    };
    let prefix = format!("blk.{layer}.");
    let found = graph.nodes().find(|(id, n)| n.name.starts_with(&prefix) && fits(*id));
    found.map(|(_, n)| n.name.clone())
}

fn cell(b: &Bench<'_>, s: &Subject, e: &Entry, layer: Option<u32>, node: &str, p: usize) -> Result<Row, TraceError> {
    let param = match e.param {
        Param::Default => None,
        Param::Is(n) => Some(n),
        Param::NextToken => Some(s.clean[p].1),
    };
    let injection = Injection { fault: e.fault, node: node.into(), phase: e.phase, param };
    let (faults, plan) = match e.fault {
        Fault::BosMissing => (vec![], TracePlan { drop_first: 1, ..plan() }),
        _ => (vec![injection], plan()),
    };
    let kind = if e.class == Class::Unknown { "unhypothesised" } else { "corpus" };
    let mut row = Row {
        fault: e.fault.name().into(),
        node: node.into(),
        layer,
        prompt: s.prompts[p].id.clone(),
        model: s.name.clone(),
        ratio: 0.0,
        eligible: false,
        class: e.class,
        said_node: None,
        said_class: Class::None,
        said_hypothesis: None,
        detected: false,
        located: false,
        classified: false,
        explained: false,
        kind,
    };
    let repeat = if e.fault == Fault::AsyncCopy { REPEATS } else { 1 };
    let (said, recording) = match said(b, s, &faults, &plan, repeat, p) {
        Ok(found) => found,
        // A fault that the node can't have, such as another layer's cache in the first layer. Any other error, such as a
        // kernel that can't be compiled, is no cell without effect.
        Err(TraceError::Model(ModelError::Backend(BackendError::Fault { .. }))) => return Ok(row),
        Err(other) => return Err(other),
    };
    row.ratio = match e.fault {
        // Found by what was fed, or by repeating: there is no output on clean inputs to compare.
        Fault::BosMissing | Fault::AsyncCopy => {
            if s.prompts[p].tokens.len() > 1 {
                f64::INFINITY
            } else {
                0.0
            }
        }
        _ => moved(s, &recording, node, p)?.ratio,
    };
    row.eligible = row.ratio > 2.0;
    let names = |c: &Culprit, h: &str| {
        c.hypothesis.as_deref().is_some_and(|said| said == h || said.starts_with(&format!("{h} (")))
    };
    if let Some(c) = &said {
        row.detected = true;
        row.located = c.node == node;
        row.classified = row.located && c.class == e.class;
        row.explained = row.classified
            && match e.hypotheses {
                [] => c.hypothesis.is_none(),
                list => list.iter().any(|h| names(c, h)),
            };
        (row.said_node, row.said_class, row.said_hypothesis) = (Some(c.node.clone()), c.class, c.hypothesis.clone());
    }
    Ok(row)
}

/// Two faults at once, on every prompt.
pub(super) fn pair(b: &Bench<'_>, s: &Subject, pair: &Pair, report: &mut FaultReport) -> Result<(), TraceError> {
    let inject = |(fault, node): (Fault, &str)| Injection { fault, node: node.into(), phase: None, param: None };
    for p in 0..s.prompts.len() {
        let (said, recording) = said(b, s, &[inject(pair.first), inject(pair.second)], &plan(), 1, p)?;
        // Which comes first is decided by the steps: a rotation at position 0 is right whatever its pairing.
        let (first, second) = (moved(s, &recording, pair.first.1, p)?, moved(s, &recording, pair.second.1, p)?);
        let (node, Moved { ratio, .. }) = match second.order < first.order {
            true => (pair.second.1, second),
            false => (pair.first.1, first),
        };
        let located = said.as_ref().is_some_and(|c| c.node == node);
        report.rows.push(Row {
            fault: pair.name(),
            node: node.into(),
            layer: crate::judge::layer(node),
            prompt: s.prompts[p].id.clone(),
            model: s.name.clone(),
            ratio,
            eligible: ratio > 2.0,
            class: said.as_ref().map_or(Class::None, |c| c.class),
            said_node: said.as_ref().map(|c| c.node.clone()),
            said_class: said.as_ref().map_or(Class::None, |c| c.class),
            said_hypothesis: said.as_ref().and_then(|c| c.hypothesis.clone()),
            detected: said.is_some(),
            located,
            // A pair asks which op is named first; what is said of it is counted with the single faults.
            classified: located,
            explained: located,
            kind: "pair",
        });
    }
    Ok(())
}

/// The runs without a fault.
pub(super) fn clean(b: &Bench<'_>, s: &Subject, report: &mut FaultReport) -> Result<(), TraceError> {
    for p in 0..s.prompts.len() {
        let (said, _) = said(b, s, &[], &plan(), 1, p)?;
        report.rows.push(Row {
            fault: "none".into(),
            node: String::new(),
            layer: None,
            prompt: s.prompts[p].id.clone(),
            model: s.name.clone(),
            ratio: 0.0,
            eligible: false,
            class: Class::None,
            said_node: said.as_ref().map(|c| c.node.clone()),
            said_class: said.as_ref().map_or(Class::None, |c| c.class),
            said_hypothesis: said.as_ref().and_then(|c| c.hypothesis.clone()),
            detected: said.is_some(),
            located: false,
            classified: false,
            explained: false,
            kind: "clean",
        });
    }
    Ok(())
}

fn said(
    b: &Bench<'_>,
    s: &Subject,
    faults: &[Injection],
    plan: &TracePlan,
    repeat: u32,
    p: usize,
) -> Result<(Option<Culprit>, Recording), TraceError> {
    let engine = EngineOptions { faults: faults.to_vec(), ..b.engine.clone() };
    let options = VerifyOptions {
        repeat,
        plan: plan.clone(),
        plain_run: false,
        memory: Some(MEMORY),
        ..VerifyOptions::default()
    };
    let one = std::slice::from_ref(&s.prompts[p]);
    let asked = b.asked();
    let found = verify(&s.model, b.backend, &engine, one, &options, Some(&s.memo), &|_, _, _| asked())?;
    Ok((found.verified.verdict.culprit, found.recording))
}

/// How far a node's output moves on clean inputs.
#[derive(Clone, Copy)]
struct Moved {
    /// The worst element, over its bound.
    ratio: f64,
    /// The step.
    order: u32,
}

/// How far a node's output moves in the first step where it does. The operands there are those of the clean run, unless
/// another fault came before.
fn moved(s: &Subject, faulty: &Recording, node: &str, p: usize) -> Result<Moved, TraceError> {
    let clean: &Recording = &s.clean[p].0;
    let weights = s.model.weights();
    let judge = Judge::new(clean, &*weights, JudgeOptions::default())?;
    let mut found = Moved { ratio: 0.0, order: u32::MAX };
    let Some(id) = judge.graph.find(node) else { return Ok(found) };
    for (prompt, order) in judge.steps() {
        let rows = judge.targets(id, prompt, order);
        if rows.is_empty() {
            continue;
        }
        let check = judge.check(id, prompt, order)?;
        for (o, want) in check.outs.iter().enumerate() {
            let name = judge.graph.value_name(Value { node: id, out: o as u8 });
            let Some(series) = faulty.get(&name) else { continue };
            for (r, at) in check.rows.iter().enumerate() {
                let Some(row) = series.find(at.prompt, at.order, at.seq, at.position) else { continue };
                found.ratio = found.ratio.max(over(&series.values(row), want, r, &check.bounds[o]));
            }
        }
        // Later steps read caches that the fault may have changed.
        if found.ratio > 1.0 {
            found.order = order;
            break;
        }
    }
    Ok(found)
}

fn over(got: &[f64], want: &HostTensor, r: usize, bound: &[f64]) -> f64 {
    let want = want.row(r);
    let pairs = got.iter().zip(want.iter()).zip(&bound[r * want.len()..]);
    pairs.fold(0.0, |m, ((g, w), b)| {
        let e = (g - w).abs();
        if e == 0.0 {
            m
        } else if e.is_nan() {
            f64::INFINITY
        } else {
            f64::max(m, e / b.max(f64::MIN_POSITIVE))
        }
    })
}
