//! Every recorded op against its reference: not the first fault alone, but how each node stands, row by row.

use super::data::{Judged, Left, Suspect, Worst};
use super::nodes::{BINS, Detail, NodeAt, Num, RowAt, RowStats, bin};
use super::{Options, Progress};
use crate::judge::{Culprit, Judge, JudgeOptions, Missing, NodeCheck, Outcome};
use crate::{At, Recording, Row, Series, TraceError, foreign};
use greta_graph::{Graph, NamePattern, NodeId, Value};
use greta_models::Model;
use greta_ops::{DType, HostTensor};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// What a sweep found: nodes by id and prompt.
#[derive(Default)]
pub(super) struct Sweep {
    pub judged: Judged,
    pub cells: HashMap<(NodeId, u32), NodeAt>,
    /// The graph it was judged by: the run's, or of a foreign run the model's.
    pub graph: Option<Arc<Graph>>,
}

/// Judges every step of every prompt. Values kept of a row: `few` where it is within its bound.
pub(super) fn sweep(
    rec: &Recording,
    model: &Model,
    o: &Options,
    few: usize,
    progress: Progress<'_>,
) -> Result<Sweep, TraceError> {
    let weights = model.weights();
    let options = JudgeOptions { nodes: o.nodes.clone(), rows: o.rows };
    // Inputs are judged by the judge's own run; a pattern that fits no node keeps it from judging ops twice.
    let none = JudgeOptions { nodes: Some("(inputs alone)".parse::<NamePattern>()?), rows: o.rows };
    let foreign = foreign::ForeignOptions::default();
    let (judge, inputs) = match rec.info.is_greta() {
        true => {
            let inputs = Judge::new(rec, &*weights, none)?.run(&|_, _| true)?;
            (Judge::new(rec, &*weights, options)?, inputs)
        }
        false => {
            let inputs = foreign::judge(
                rec,
                model,
                &foreign::ForeignOptions { judge: none, ..foreign::ForeignOptions::default() },
                &|_, _| true,
            )?;
            let mut judge = Judge::of(rec, Arc::new(foreign::graph(model)?), &*weights, options);
            judge.arithmetic = Some(match foreign::arithmetic(rec, &foreign)? {
                foreign::ForeignArith::F32 => &foreign::llama::Plain,
                foreign::ForeignArith::LlamaQ8 => &foreign::llama::Llama,
            });
            (judge, inputs)
        }
    };
    let mut sweep = Sweep { graph: Some(judge.graph.clone()), ..Sweep::default() };
    sweep.judged.culprit = inputs.culprit.as_ref().map(|c| suspect(rec, c));
    let phases = super::phases(rec);
    judge.sweep(progress, &mut |id, prompt, check| {
        match check {
            Err(Missing::NotRecorded) => {}
            Err(why) => sweep.not_judged(&judge, id, prompt, &why.to_string()),
            Ok(check) => sweep.take(&judge, &check, prompt, &phases, few),
        }
        ControlFlow::Continue(())
    })?;
    sweep.judged.wrong.sort_by_key(|n| judge.graph.find(n));
    sweep.sides(&judge, &phases);
    Ok(sweep)
}

impl Sweep {
    fn not_judged(&mut self, judge: &Judge<'_>, id: NodeId, prompt: u32, why: &str) {
        let name = &judge.graph.node(id).name;
        self.cells.entry((id, prompt)).or_default().why_not.get_or_insert_with(|| why.into());
        if !self.judged.not_judged.iter().any(|n| n.0 == *name) {
            self.judged.not_judged.push((name.clone(), why.into()));
        }
    }

    fn take(&mut self, judge: &Judge<'_>, check: &NodeCheck, prompt: u32, phases: &[String], few: usize) {
        let name = &judge.graph.node(check.node).name;
        self.judged.checks += 1;
        self.judged.rows += check.rows.len();
        if check.outcome == Outcome::Clean {
            let worst = check.worst();
            if self.judged.worst_clean.is_none_or(|w| worst > w.0) {
                self.judged.worst_clean = Some(Num::short(worst));
                self.judged.worst_clean_node = name.clone();
            }
        } else {
            if !self.judged.wrong.contains(name) {
                self.judged.wrong.push(name.clone());
            }
            if self.judged.culprit.is_none() {
                self.judged.culprit = Some(suspect(judge.recording, &judge.culprit(check)));
            }
        }
        let cell = self.cells.entry((check.node, prompt)).or_default();
        if check.outcome != Outcome::Clean {
            cell.outcome.get_or_insert(check.outcome);
        }
        for e in &check.errors {
            let phase = phases.iter().position(|p| *p == e.at.phase_name()).unwrap_or(0);
            cell.rows.push(RowAt(phase, e.at.position, Num::short(e.ratio), e.over));
        }
        // Of equals the last row: it is the one that prefill and decode share.
        let Some(worst) =
            (0..check.errors.len()).max_by(|&a, &b| check.errors[a].ratio.total_cmp(&check.errors[b].ratio))
        else {
            return;
        };
        let ratio = check.errors[worst].ratio;
        if cell.worst.is_none_or(|w| ratio > w.0) {
            cell.worst = Some(Num::short(ratio));
            cell.detail = detail(judge, check, worst, if ratio > 1.0 { super::MANY } else { few });
        }
    }

    /// In which phases the culprit's node is over its bound, in the culprit's prompt.
    fn sides(&mut self, judge: &Judge<'_>, phases: &[String]) {
        let Some(c) = &mut self.judged.culprit else { return };
        let prompt = judge.recording.info.prompts.iter().position(|p| p.id == c.prompt).map(|p| p as u32);
        let (Some(id), Some(prompt)) = (judge.graph.find(&c.node), prompt) else { return };
        let Some(cell) = self.cells.get(&(id, prompt)) else { return };
        for (i, phase) in phases.iter().enumerate() {
            let mut rows = cell.rows.iter().filter(|r| r.0 == i).peekable();
            match (rows.peek().is_some(), rows.any(|r| r.2.0 > 1.0 || r.2.0.is_nan())) {
                (true, true) => c.phases_wrong.push(phase.clone()),
                (true, false) => c.phases_right.push(phase.clone()),
                _ => {}
            }
        }
    }
}

fn suspect(rec: &Recording, c: &Culprit) -> Suspect {
    let steps =
        rec.info.steps.iter().filter(|s| {
            s.phase == c.phase && rec.info.prompts.get(s.prompt as usize).is_some_and(|p| p.id == c.prompt)
        });
    Suspect {
        node: c.node.clone(),
        op: c.op.clone(),
        prompt: c.prompt.clone(),
        phase: c.phase.clone(),
        step_tokens: steps.map(|s| s.tokens).max().unwrap_or(0),
        route: c.route.clone(),
        outcome: c.outcome,
        class: c.class,
        hypothesis: c.hypothesis.clone(),
        detail: c.detail.clone(),
        worst: c.worst.as_ref().map(|w| Worst {
            position: w.at.position,
            token: w.at.token,
            element: w.element,
            got: Num(w.got),
            want: Num(w.want),
            bound: Num::short(w.bound),
            ratio: Num::short(w.ratio),
            over: w.over,
        }),
        rows: c.rows,
        rows_over: c.rows_over,
        residuals: c
            .residuals
            .iter()
            .map(|r| Left { hypothesis: r.hypothesis.clone(), class: r.class, residual: Num::short(r.residual) })
            .collect(),
        bundle: c.bundle.clone(),
        phases_wrong: Vec::new(),
        phases_right: Vec::new(),
    }
}

/// The values around a judged row's worst element.
fn detail(judge: &Judge<'_>, check: &NodeCheck, row: usize, values: usize) -> Option<Detail> {
    let error = &check.errors[row];
    let (mut element, mut out) = (error.element, 0);
    while out + 1 < check.outs.len() && element >= check.outs[out].cols() {
        element -= check.outs[out].cols();
        out += 1;
    }
    let name = judge.graph.value_name(Value { node: check.node, out: out as u8 });
    let series = judge.recording.get(&name)?;
    let recorded = series.find(error.at.prompt, error.at.order, error.at.seq, error.at.position)?;
    let (got, want) = (check.outs[out].row(row), check.want[out].row(row));
    let stored = stored(&want, judge.graph.node(check.node).outs[out].dtype);
    let bound = &check.bounds[out][row * want.len()..][..want.len()];
    let start = element.saturating_sub(values / 2).min(got.len().saturating_sub(values));
    let shown = start..(start + values).min(got.len());
    let mut histogram = vec![0; BINS];
    for i in 0..got.len() {
        let abs = (got[i] - want[i]).abs();
        // A stored value that is the reference, rounded, is exactly right; so is a NaN where one belongs.
        let same = got[i] == stored[i] || (got[i].is_nan() && stored[i].is_nan());
        let ratio = if same { 0.0 } else { abs / bound[i].max(f64::MIN_POSITIVE) };
        histogram[bin(ratio)] += 1;
    }
    let mut d = plain(series, recorded, out, shown.clone());
    d.want = want[shown.clone()].iter().map(|&v| Num(v)).collect();
    d.bound = bound[shown].iter().map(|&v| Num::short(v)).collect();
    d.histogram = histogram;
    Some(d)
}

/// A reference rounded to the type that its value is stored as.
fn stored(want: &[f64], dtype: DType) -> Vec<f64> {
    let exact = HostTensor::real(&[1, want.len()], want.to_vec());
    match dtype {
        DType::I8 | DType::I32 => want.to_vec(),
        _ => HostTensor::from_bytes(&[1, want.len()], dtype, &exact.to_bytes(dtype)).row(0).into_owned(),
    }
}

/// A recorded row, without reference.
pub(super) fn plain(series: &Series, row: &Row, out: usize, shown: std::ops::Range<usize>) -> Detail {
    let values = series.values(row);
    let shown = shown.start.min(values.len())..shown.end.min(values.len());
    let At { position, token, .. } = row.at;
    Detail {
        phase: row.at.phase_name(),
        position,
        token,
        route: row.route.to_string(),
        buffer: row.buffer.to_string(),
        offset: row.offset,
        stats: RowStats::from(&row.stats),
        out,
        start: shown.start,
        got: values[shown].iter().map(|&v| Num(v)).collect(),
        want: Vec::new(),
        bound: Vec::new(),
        other: Vec::new(),
        other_side: String::new(),
        histogram: Vec::new(),
        facts: row.facts.as_ref().map(|f| crate::facts::Facts { weight: None, ..(**f).clone() }),
    }
}
