//! The verdict: walks a recorded run in the graph's order and names the first op whose local error is over its bound.
//!
//! Each op is judged by its f64 reference on the inputs **the graph gives it**: the recorded rows of its producers for the
//! same sequence and position; for attention, the recorded cache rows of every earlier position. What an op read from
//! anywhere else is its own error; an error that came in from upstream is not.

mod check;
mod gather;
mod inputs;
mod memo;
mod verdict;

pub use check::{NodeCheck, Outcome, RowError, worst_ratio};
pub use gather::{Missing, cached, stacked, weight};
pub use memo::Memo;
pub use verdict::{Class, Culprit, Explained, NotJudged, Residual, Verdict, VerdictKind, layer};

use crate::hypotheses::{self, Scene};
use crate::{At, Recording, TraceError};
use greta_backend::Weights;
use greta_graph::{Graph, Kind, NamePattern, NodeId};
use greta_ops::{Bound, HostTensor, Op, Precision};
use rayon::prelude::*;
use std::ops::ControlFlow;
use std::sync::Arc;

/// What to judge.
#[derive(Clone, Debug, Default)]
pub struct JudgeOptions {
    /// Nodes; `None`: all.
    pub nodes: Option<NamePattern>,
    /// Rows of a step judged at most; `None`: as many as the model's size allows within seconds.
    pub rows: Option<usize>,
}

/// Another engine's arithmetic, for the ops where it is not greta's.
pub trait Arithmetic: Sync {
    /// Reference and bound of an op on these operands; `None` where the op's own hold.
    fn judge(&self, op: &Op, ins: &[&HostTensor]) -> Option<(Vec<HostTensor>, Vec<Bound>)>;
}

/// A recorded run with what its verdict needs.
pub struct Judge<'a> {
    /// The run.
    pub recording: &'a Recording,
    /// The executed graph.
    pub graph: Arc<Graph>,
    /// The model's tensors.
    pub weights: &'a dyn Weights,
    /// The precision of sums.
    pub precision: Precision,
    /// The arithmetic of a run that another engine made.
    pub arithmetic: Option<&'a dyn Arithmetic>,
    options: JudgeOptions,
    memo: Option<&'a Memo>,
}

/// Told how many ops of how many are judged; answers whether to go on.
pub type Progress<'a> = &'a (dyn Fn(usize, usize) -> bool + Sync);

impl<'a> Judge<'a> {
    /// A judge of a run that brings its graph.
    pub fn new(recording: &'a Recording, weights: &'a dyn Weights, options: JudgeOptions) -> Result<Self, TraceError> {
        let graph = recording.graph.clone();
        let graph = graph.ok_or_else(|| TraceError::NotJudged("the run has no graph to be judged by".into()))?;
        Ok(Judge::of(recording, graph, weights, options))
    }

    /// A judge of a run by a graph that another engine is said to have followed.
    pub fn of(
        recording: &'a Recording,
        graph: Arc<Graph>,
        weights: &'a dyn Weights,
        options: JudgeOptions,
    ) -> Judge<'a> {
        Judge { recording, graph, weights, precision: Precision::F32, arithmetic: None, options, memo: None }
    }

    /// Remembers ops proven right, by the hashes of their operands and outputs: for many runs of one model.
    pub fn with_memo(mut self, memo: &'a Memo) -> Self {
        self.memo = Some(memo);
        self
    }

    /// Judges every step of every prompt, in order.
    pub fn run(&self, progress: Progress<'_>) -> Result<Verdict, TraceError> {
        let mut verdict = Verdict::new(self.recording);
        if let Some(culprit) = inputs::check(self.recording) {
            verdict.fault(culprit);
            return Ok(verdict);
        }
        self.sweep(progress, &mut |id, _, check| {
            match check {
                Err(Missing::NotRecorded) => {}
                Err(why) => verdict.not_judged(&self.graph.node(id).name, &why),
                Ok(c) if c.outcome == Outcome::Clean => verdict.clean(&c, &self.graph.node(id).name),
                Ok(c) => {
                    verdict.fault(self.culprit(&c));
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok(verdict)
    }

    /// Judges every op in every step, in the order of the run, and hands over what came of it with the step's prompt.
    pub fn sweep(
        &self,
        progress: Progress<'_>,
        take: &mut dyn FnMut(NodeId, u32, Result<NodeCheck, Missing>) -> ControlFlow<()>,
    ) -> Result<(), TraceError> {
        let (steps, ops) = (self.steps(), self.ops());
        let all = steps.len() * ops.len();
        for (s, &(prompt, order)) in steps.iter().enumerate() {
            // A few ops at a time: parallel, and nothing long after an end is judged.
            for (c, part) in ops.chunks(16).enumerate() {
                if !progress(s * ops.len() + c * 16, all) {
                    return Err(TraceError::Interrupted);
                }
                let checks: Vec<Result<NodeCheck, Missing>> =
                    part.par_iter().map(|&id| self.check(id, prompt, order)).collect();
                for (&id, check) in part.iter().zip(checks) {
                    if take(id, prompt, check).is_break() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Judges one node in one step.
    pub fn check(&self, id: NodeId, prompt: u32, order: u32) -> Result<NodeCheck, Missing> {
        let rows = self.targets(id, prompt, order);
        if rows.is_empty() {
            return Err(Missing::NotRecorded);
        }
        let key = self.memo.map(|m| (m, memo::key(self, id, &rows)));
        if let Some((memo, Some(key))) = &key
            && let Some(worst) = memo.get(*key)
        {
            return Ok(NodeCheck::remembered(id, rows, worst));
        }
        let operands = gather::gather(self, id, &rows)?;
        let check = check::check(self, id, rows, operands)?;
        if let (Some((memo, Some(key))), Outcome::Clean) = (key, check.outcome) {
            memo.put(key, check.worst());
        }
        Ok(check)
    }

    /// The rows of a node that are judged in a step.
    pub fn targets(&self, id: NodeId, prompt: u32, order: u32) -> Vec<At> {
        let Some(series) = self.recording.get(&self.graph.node(id).name) else { return Vec::new() };
        let i = series.rows.partition_point(|r| (r.at.prompt, r.at.order) < (prompt, order));
        let rows: Vec<At> =
            series.rows[i..].iter().map(|r| r.at).take_while(|a| (a.prompt, a.order) == (prompt, order)).collect();
        let most = self.options.rows.unwrap_or_else(|| self.affordable());
        pick(rows.len(), most).into_iter().map(|i| rows[i]).collect()
    }

    /// The operands the graph gives a node, stacked over rows of one step.
    pub fn operands(&self, id: NodeId, rows: &[At]) -> Result<Vec<HostTensor>, Missing> {
        gather::gather(self, id, rows)
    }

    /// Names class and hypothesis of a failed check.
    pub fn culprit(&self, check: &NodeCheck) -> Culprit {
        let scene = Scene::new(self, check);
        let control = Scene::control(self, check);
        let explained = hypotheses::explain(&scene, control.as_ref());
        Culprit::new(self, check, explained)
    }

    /// The steps recorded: prompt and order.
    pub fn steps(&self) -> Vec<(u32, u32)> {
        let mut steps: Vec<(u32, u32)> =
            self.recording.series.iter().flat_map(|s| s.rows.iter().map(|r| (r.at.prompt, r.at.order))).collect();
        steps.sort_unstable();
        steps.dedup();
        steps
    }

    /// The ops to judge, in the graph's order.
    pub fn ops(&self) -> Vec<NodeId> {
        let wanted = |name: &str| self.options.nodes.as_ref().is_none_or(|p| p.matches(name));
        let ops = self.graph.nodes().filter(|(_, n)| matches!(n.kind, Kind::Op(_)) && wanted(&n.name));
        ops.map(|(id, _)| id).collect()
    }

    fn affordable(&self) -> usize {
        affordable_rows(&self.graph)
    }
}

/// Rows of a step that can be judged within seconds: a row costs a multiply-add for each weight.
pub fn affordable_rows(g: &Graph) -> usize {
    let weights: usize = g
        .nodes()
        .filter(|(_, n)| matches!(n.kind, Kind::Weight { .. }))
        .map(|(_, n)| n.outs[0].elements(&Default::default()))
        .sum();
    (2_000_000_000 / weights.max(1)).clamp(4, 512)
}

/// Indexes of at most `most` of `n` rows: the last, the first two, both sides of the borders that tiles and pages have,
/// then evenly spread ones. Ascending.
pub fn pick(n: usize, most: usize) -> Vec<usize> {
    if n <= most {
        return (0..n).collect();
    }
    let borders = [0, 1, 15, 16, 31, 32, 33, 63, 64, 127, 128, 255, 256];
    let mut list = vec![n - 1];
    let spread = (1..n).map(|i| i * n / most.max(2)).take_while(|&i| i < n);
    for i in [0, 1, n / 2, 32, 31, 33, 16, 15, n.saturating_sub(2)].into_iter().chain(borders).chain(spread) {
        if list.len() >= most {
            break;
        }
        if i < n && !list.contains(&i) {
            list.push(i);
        }
    }
    list.sort_unstable();
    list
}
