//! What all probes do with a run: find rows, compare phases, judge ops.

use super::table::Text;
use super::{Probe, Row};
use crate::diff::metrics;
use crate::judge::{Class, Culprit, Judge, JudgeOptions, Missing, NodeCheck, NotJudged, Outcome, VerdictKind};
use crate::recording::phase_name;
use crate::{PromptInfo, Recording, Series, TraceError};
use greta_backend::{Phase, Weights};
use greta_graph::{Kind, NodeId};
use greta_ops::Op;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Rows of a step that are judged: the last, the first two, the middle and both sides of a tile's border.
const ROWS: usize = 8;

/// Relative distance of two phases that no choice of kernel explains: see the rules of [`crate::diff`].
const APART: f64 = 0.001;
const APART_INT8: f64 = 0.03;

/// A run, and the layer that is asked about.
pub(super) struct Look<'a> {
    pub judge: Judge<'a>,
    pub layer: u32,
    /// Steps by prompt and order.
    steps: BTreeMap<(u32, u32), (Phase, u32)>,
}

/// How far the two phases' rows of a value are apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Apart {
    pub mae: f64,
    pub rel_l2: f64,
}

impl<'a> Look<'a> {
    pub fn new(rec: &'a Recording, weights: &'a dyn Weights, layer: u32) -> Result<Look<'a>, TraceError> {
        let judge = Judge::new(rec, weights, JudgeOptions { nodes: None, rows: Some(ROWS) })?;
        let rows = rec.series.iter().flat_map(|s| &s.rows);
        let steps = rows.map(|r| ((r.at.prompt, r.at.order), (r.at.phase, r.at.step))).collect();
        let look = Look { judge, layer, steps };
        if look.judge.graph.nodes().all(|(_, n)| crate::judge::layer(&n.name) != Some(layer)) {
            let last = look.judge.graph.nodes().filter_map(|(_, n)| crate::judge::layer(&n.name)).max();
            let last = last.map_or("none".into(), |l| format!("0 to {l}"));
            return Err(TraceError::NotJudged(format!("there is no layer {layer}; layers: {last}")));
        }
        Ok(look)
    }

    pub fn recording(&self) -> &'a Recording {
        self.judge.recording
    }

    /// The layer's value of this point.
    pub fn name(&self, point: &str) -> String {
        format!("blk.{}.{point}", self.layer)
    }

    /// A node of the executed graph.
    pub fn find(&self, name: &str) -> Result<NodeId, TraceError> {
        let missing = || {
            TraceError::NotJudged(format!(
                "the executed graph has no `{name}`; a run as executed has fused it: record it in semantic mode"
            ))
        };
        self.judge.graph.find(name).ok_or_else(missing)
    }

    /// The prompts that something was recorded of.
    pub fn prompts(&self) -> Vec<(u32, &'a PromptInfo)> {
        let all = self.recording().info.prompts.iter().enumerate().map(|(i, p)| (i as u32, p));
        all.filter(|(i, _)| self.steps.range((*i, 0)..=(*i, u32::MAX)).next().is_some()).collect()
    }

    /// The steps of a prompt, in order.
    pub fn orders(&self, prompt: u32) -> Vec<(u32, Phase)> {
        self.steps.range((prompt, 0)..=(prompt, u32::MAX)).map(|(k, v)| (k.1, v.0)).collect()
    }

    /// `prefill_last` and `decode0` of a value.
    pub fn pair(&self, name: &str, prompt: u32) -> Option<(&'a Series, &'a crate::Row, &'a crate::Row)> {
        let series = self.recording().get(name)?;
        let mut decodes = series.rows.iter().filter(|r| r.at.prompt == prompt && r.at.phase == Phase::Decode);
        let decode = decodes.find(|r| r.at.step == 0)?;
        let same = |r: &&crate::Row| r.at.prompt == prompt && r.at.phase == Phase::Prefill;
        let prefill = series.rows.iter().filter(same).rfind(|r| r.at.position == decode.at.position)?;
        Some((series, prefill, decode))
    }

    /// How far a value's phases are apart; `None` if a row of either was not kept.
    pub fn apart(&self, name: &str, prompt: u32) -> Option<Apart> {
        let (series, a, b) = self.pair(name, prompt)?;
        let m = metrics((series, a), (series, b)).filter(|_| series.is_whole(a) && series.is_whole(b))?;
        Some(Apart { mae: m.mae, rel_l2: m.rel_l2 })
    }

    /// Whether phases are further apart than kernels of one arithmetic may be.
    pub fn is_far(&self, apart: Option<Apart>) -> bool {
        let limit = if self.recording().info.arith == "int8" { APART_INT8 } else { APART };
        apart.is_some_and(|a| crate::over(a.rel_l2, limit))
    }

    /// A node's check in a phase of a prompt: of several prefill steps the worst. `None`: it was not recorded there.
    pub fn check(&self, id: NodeId, prompt: u32, phase: Phase) -> Result<Option<NodeCheck>, Missing> {
        let mut worst: Option<NodeCheck> = None;
        for (order, _) in self.orders(prompt).into_iter().filter(|(_, p)| *p == phase) {
            match self.judge.check(id, prompt, order) {
                Err(Missing::NotRecorded) => {}
                Err(other) => return Err(other),
                Ok(c) => {
                    if worst.as_ref().is_none_or(|w| c.outcome != Outcome::Clean && crate::over(c.worst(), w.worst())) {
                        worst = Some(c);
                    }
                }
            }
            if phase == Phase::Decode {
                break;
            }
        }
        Ok(worst)
    }

    /// The first op of a list that is wrong in any step of a prompt, in the order of time and then of the graph.
    pub fn first_wrong(&self, ops: &[NodeId], prompt: u32) -> Result<Option<Culprit>, TraceError> {
        for (order, _) in self.orders(prompt) {
            // A few at a time: parallel, and little after the first fault is judged.
            for part in ops.chunks(8) {
                let checks: Vec<_> = part.par_iter().map(|&id| self.judge.check(id, prompt, order).ok()).collect();
                if let Some(c) = checks.into_iter().flatten().find(|c| c.outcome != Outcome::Clean) {
                    return Ok(Some(self.judge.culprit(&c)));
                }
            }
        }
        Ok(None)
    }

    /// An op and every op it depends on, in the graph's order.
    pub fn upstream(&self, id: NodeId) -> Vec<NodeId> {
        let g = &self.judge.graph;
        let mut seen = vec![id];
        let mut at = 0;
        while at < seen.len() {
            for v in g.operands(seen[at]) {
                let op = matches!(&g.node(v.node).kind, Kind::Op(op) if !matches!(op, Op::Dequant(_)));
                if op && !seen.contains(&v.node) {
                    seen.push(v.node);
                }
            }
            at += 1;
        }
        seen.sort_unstable();
        seen
    }

    /// The first graph input that is not what the prompts say.
    pub fn inputs(&self) -> Result<Option<Culprit>, TraceError> {
        // Inputs are judged before any op; a pattern that matches inputs alone leaves no op to judge.
        let nodes = Some("tokens".parse()?);
        let options = JudgeOptions { nodes, rows: Some(1) };
        Ok(Judge::new(self.recording(), self.judge.weights, options)?.run(&|_, _| true)?.culprit)
    }
}

/// Judges a list of nodes in both phases of every prompt.
#[derive(Default)]
pub(super) struct Judged {
    pub findings: Vec<Culprit>,
    pub missing: Vec<NotJudged>,
    /// Checks made.
    pub made: usize,
}

pub(super) const PHASES: [Phase; 2] = [Phase::Prefill, Phase::Decode];

impl Judged {
    /// The check of a node in a phase, noted: what is wrong with it, or why it was not judged.
    pub fn check(&mut self, look: &Look<'_>, id: NodeId, prompt: u32, phase: Phase) -> Option<NodeCheck> {
        let name = &look.judge.graph.node(id).name;
        let place = phase_name(phase, 0);
        match look.check(id, prompt, phase) {
            Ok(Some(check)) => {
                self.made += 1;
                if check.outcome != Outcome::Clean {
                    self.findings.push(look.judge.culprit(&check));
                }
                Some(check)
            }
            Ok(None) => {
                self.lacks(name, format!("it was not recorded in {place}"));
                None
            }
            Err(why) => {
                self.lacks(name, format!("{place}: {why}"));
                None
            }
        }
    }

    /// Notes what could not be judged, each once.
    pub fn lacks(&mut self, node: &str, why: String) {
        if !self.missing.iter().any(|m| m.node == node && m.why == why) {
            self.missing.push(NotJudged { node: node.into(), why });
        }
    }

    /// The answer. `wrong`: something is, though no op was found to blame.
    pub fn answer(
        self,
        look: &Look<'_>,
        probe: &'static str,
        rows: Vec<Row>,
        wrong: bool,
        interpretation: Text,
    ) -> Result<Probe, TraceError> {
        let Judged { mut findings, missing, made } = self;
        let mut interpretation = interpretation;
        if let Some(input) = look.inputs()? {
            interpretation = Text::new(
                format!("The run was not fed what its record says: {}.", input.detail),
                format!("La ejecución no recibió lo que dice su registro: {}.", input.detail),
            );
            findings.insert(0, input);
        }
        let verdict = match (findings.is_empty() && !wrong, missing.is_empty() && made > 0) {
            (false, _) => VerdictKind::Fault,
            (true, false) => VerdictKind::Incomplete,
            (true, true) => VerdictKind::Clean,
        };
        if verdict == VerdictKind::Incomplete {
            interpretation = interpretation.and(&Text::new(
                "Not everything that was asked for is recorded, so nothing is passed.",
                "No está registrado todo lo pedido, así que nada se da por bueno.",
            ));
        }
        let layer = Some(look.layer).filter(|_| probe != "embedding");
        let lang = Default::default();
        Ok(Probe { probe, layer, rows, findings, not_judged: missing, verdict, interpretation, lang })
    }
}

/// What is known of an op found wrong, in words.
pub(super) fn said(c: &Culprit) -> Text {
    let h = c.hypothesis.as_deref();
    let (en, es) = match h {
        Some(h) => (format!("{}: {h}", c.class), format!("{}: {h}", c.class)),
        None if c.class == Class::Unknown => {
            ("no hypothesis fits it".to_string(), "ninguna hipótesis lo explica".to_string())
        }
        None => (c.class.to_string(), c.class.to_string()),
    };
    Text::new(en, es)
}
