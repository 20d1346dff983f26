//! One command's worth of work: run, record, judge, and ask again where the first answer leaves something open.

use crate::judge::{Class, Culprit, Judge, JudgeOptions, Memo, Verdict, VerdictKind, affordable_rows, pick};
use crate::repeats::{Hashes, Repeats, differs};
use crate::replay::Bundle;
use crate::{PromptInfo, Recording, TraceError, TracePlan, tracer};
use greta_backend::Backend;
use greta_graph::{Graph, Kind, NamePattern, TapMode, TapRequest, TapRows, TapSpec};
use greta_models::{Engine, EngineOptions, Model};
use serde::Serialize;
use std::sync::Arc;

/// Makes the judged run once more, somewhere else: the values it is to have, and its number from 2.
pub type Again<'a> = &'a dyn Fn(TapMode, u32) -> Result<Hashes, TraceError>;

/// What to verify.
#[derive(Clone)]
pub struct VerifyOptions<'a> {
    /// Nodes; `None`: all.
    pub nodes: Option<NamePattern>,
    /// Rows of a step judged at most.
    pub rows: Option<usize>,
    /// Identical runs whose values are compared, the judged one among them; 0 and 1: none.
    pub repeat: u32,
    /// Makes the further runs, all of which are then made, so that those that differ can be counted. `None`: they are made
    /// here, up to the first that differs.
    pub again: Option<Again<'a>>,
    /// What is run for each prompt.
    pub plan: TracePlan,
    /// Memory that recorded rows may take; past it only the rows that are judged are kept.
    pub memory: Option<usize>,
    /// Run the prompts without taps first, to prove that looking changes nothing.
    pub plain_run: bool,
}

impl Default for VerifyOptions<'_> {
    fn default() -> Self {
        let plan = TracePlan::default();
        VerifyOptions { nodes: None, rows: None, repeat: 0, again: None, plan, memory: None, plain_run: true }
    }
}

/// What a verification found.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// The verdict.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Whether logits with taps were those without, to the bit.
    pub taps_change_nothing: bool,
    /// Identical runs made with the judged one's taps, that one among them.
    pub repeats: u32,
    /// Those whose values are not the judged one's.
    pub differing: u32,
    /// Which values the judged run had: `semantic`, or `as-executed` where the fused plan had to be judged.
    pub mode: TapMode,
}

/// A verification's result with what it was found on.
pub struct Outcome {
    /// What was found.
    pub verified: Verified,
    /// The culprit's operands and outputs, where it is an op judged by its elements.
    pub bundle: Option<Bundle>,
    /// The judged run.
    pub recording: Recording,
}

/// What is being done, how much of how much; answers whether to go on.
pub type Progress<'a> = &'a (dyn Fn(&str, usize, usize) -> bool + Sync);

/// Recorded rows take this much memory at most, unless told otherwise.
const MEMORY: usize = 2 << 30;

/// Runs prompts on a backend and names the first op that is wrong.
///
/// The judged run has every value of the unfused graph. If its logits are not those of a plain run, to the bit, the
/// fused plan is judged as well, so that a wrong fused kernel is named too.
pub fn verify(
    model: &Arc<Model>,
    backend: &dyn Backend,
    engine: &EngineOptions<'_>,
    prompts: &[PromptInfo],
    options: &VerifyOptions<'_>,
    memo: Option<&Memo>,
    progress: Progress<'_>,
) -> Result<Outcome, TraceError> {
    let run = Run { model, backend, engine, prompts, options, memo, progress };
    let plain = if options.plain_run { Some(run.logits()?) } else { None };
    let (mut recording, logits) = run.record(TapMode::Semantic, None)?;
    let same = plain.as_ref().is_none_or(|p| same_bits(p, &logits));
    let mut verdict = run.judge(&recording)?;
    let mut mode = TapMode::Semantic;
    if verdict.verdict == VerdictKind::Clean && !same {
        let (fused, fused_logits) = run.record(TapMode::AsExecuted, None)?;
        verdict = run.judge(&fused)?;
        (recording, mode) = (fused, TapMode::AsExecuted);
        if verdict.verdict == VerdictKind::Clean && plain.as_ref().is_some_and(|p| !same_bits(p, &fused_logits)) {
            let text = "logits differ from run to run, or when values are looked at, and every op judged is right";
            verdict.fault(Culprit::whole("logits", Class::GStaleData, "differs between runs", text.into()));
        }
    }
    let (mut repeats, mut differing) = (1, 0);
    if verdict.verdict != VerdictKind::Fault && options.repeat > 1 {
        let found = run.repeat(mode, &recording)?;
        (repeats, differing) = (found.runs(), found.differing());
        if let Some(culprit) = found.culprit() {
            verdict.fault(culprit);
        }
    }
    if let Some(c) = verdict.culprit.take() {
        verdict.fault(run.look_again(c, mode, &mut recording)?);
    }
    // What no hypothesis explains may not even be there every time.
    if verdict.culprit.as_ref().is_some_and(|c| c.class == Class::Unknown) {
        for _ in 0..options.repeat.max(2) {
            repeats += 1;
            if let Some(unsteady) = differs(&recording, &run.record_like(mode, &recording)?) {
                differing += 1;
                verdict.fault(unsteady);
                break;
            }
        }
    }
    let verified = Verified { verdict, taps_change_nothing: same, repeats, differing, mode };
    let bundle = match &verified.verdict.culprit {
        Some(c) => run.bundle(&recording, c)?,
        None => None,
    };
    Ok(Outcome { verified, bundle, recording })
}

/// Makes the judged run of [`verify`] once more, with the same taps: for a process that compares it with its own.
pub fn again(
    model: &Arc<Model>,
    backend: &dyn Backend,
    engine: &EngineOptions<'_>,
    prompts: &[PromptInfo],
    options: &VerifyOptions<'_>,
    mode: TapMode,
    progress: Progress<'_>,
) -> Result<Hashes, TraceError> {
    let run = Run { model, backend, engine, prompts, options, memo: None, progress };
    Ok(Hashes::of(&run.record(mode, None)?.0))
}

struct Run<'a> {
    model: &'a Arc<Model>,
    backend: &'a dyn Backend,
    engine: &'a EngineOptions<'a>,
    prompts: &'a [PromptInfo],
    options: &'a VerifyOptions<'a>,
    memo: Option<&'a Memo>,
    progress: Progress<'a>,
}

impl Run<'_> {
    fn told(&self, what: &'static str) -> impl FnMut(&str, usize, usize) -> bool {
        move |prompt, done, all| (self.progress)(&format!("{what} {prompt}"), done, all)
    }

    fn logits(&self) -> Result<tracer::Logits, TraceError> {
        let options = EngineOptions { taps: Vec::new(), ..self.engine.clone() };
        Ok(tracer::record(
            self.model,
            self.backend,
            &options,
            self.prompts,
            &self.options.plan,
            &mut self.told("running"),
        )?
        .1)
    }

    fn record(&self, mode: TapMode, only: Option<&[String]>) -> Result<(Recording, tracer::Logits), TraceError> {
        let plain = EngineOptions { taps: Vec::new(), tap_mode: mode, ..self.engine.clone() };
        let taps = match only {
            Some(names) => whole(names)?,
            None => self.taps(&plain)?,
        };
        let options = EngineOptions { taps, ..plain };
        tracer::record(
            self.model,
            self.backend,
            &options,
            self.prompts,
            &self.options.plan,
            &mut self.told("recording"),
        )
    }

    /// The further runs, held against the judged one.
    fn repeat<'r>(&self, mode: TapMode, judged: &'r Recording) -> Result<Repeats<'r>, TraceError> {
        let (mut found, runs) = (Repeats::new(judged), self.options.repeat);
        for n in 1..runs {
            if !(self.progress)("repeating", n as usize, runs as usize) {
                return Err(TraceError::Interrupted);
            }
            let hashes = match self.options.again {
                Some(again) => again(mode, n + 1)?,
                None => Hashes::of(&self.record(mode, None)?.0),
            };
            // Who asks for several runs elsewhere wants to know how many differ; here the first is answer enough.
            if found.add(&hashes)? && self.options.again.is_none() {
                break;
            }
        }
        Ok(found)
    }

    /// The same run again, with the values that a recording has.
    fn record_like(&self, mode: TapMode, recording: &Recording) -> Result<Recording, TraceError> {
        let all =
            recording.graph.as_ref().map_or(0, |g| g.nodes().filter(|(_, n)| matches!(n.kind, Kind::Op(_))).count());
        // Few values: it was recorded to look at one op again.
        let few = recording.series.len() < all / 2;
        let names: Vec<String> = recording.series.iter().map(|s| globset_escape(&s.node)).collect();
        Ok(self.record(mode, few.then_some(&names[..]))?.0)
    }

    /// Taps on the nodes to judge and on what they read: every row while memory lasts, else the rows that are judged
    /// and every row of the caches.
    fn taps(&self, options: &EngineOptions<'_>) -> Result<Vec<TapRequest>, TraceError> {
        let tapped = EngineOptions { taps: whole(&["all".into()])?, ..options.clone() };
        let (plan, _) = Engine::plan(self.model, self.backend, &tapped)?;
        let graph = plan.graph();
        let names = match &self.options.nodes {
            None => vec!["all".to_string()],
            Some(pattern) => {
                let names = with_operands(graph, pattern);
                if names.is_empty() {
                    // The error lists what there is.
                    greta_graph::insert_taps(
                        &graph.without_taps()?,
                        &[TapRequest { pattern: pattern.clone(), spec: TapSpec::default() }],
                    )?;
                }
                names
            }
        };
        let wanted = |n: &str| names.iter().any(|x| x == n || x == "all");
        let row: usize = graph
            .nodes()
            .filter(|(_, n)| matches!(n.kind, Kind::Op(_)) && wanted(&n.name))
            .flat_map(|(_, n)| n.outs.iter())
            .map(|d| d.cols().constant().unwrap_or(1) * 4)
            .sum();
        let tokens: usize = self.prompts.iter().map(|p| p.tokens.len() + self.options.plan.decode_steps as usize).sum();
        if row * tokens <= self.options.memory.unwrap_or(MEMORY) {
            return whole(&names);
        }
        let longest = self.prompts.iter().map(|p| p.tokens.len()).max().unwrap_or(1);
        let most = self.options.rows.unwrap_or_else(|| affordable_rows(graph));
        let mut positions: Vec<u32> = self.prompts.iter().map(|p| p.tokens.len() as u32 - 1).collect();
        positions.extend(pick(longest, most).into_iter().map(|i| i as u32));
        // Decoded tokens follow the prompts' ends.
        let ends: Vec<u32> = self.prompts.iter().map(|p| p.tokens.len() as u32).collect();
        positions.extend(ends.iter().flat_map(|&n| n..n + self.options.plan.decode_steps.saturating_sub(1)));
        let mut list = Vec::new();
        for name in names {
            if name == "all" {
                list.extend(whole(&[
                    "*_cache".into(),
                    "tokens".into(),
                    "positions".into(),
                    "seqs".into(),
                    "slots".into(),
                ])?);
            }
            let rows = if name.ends_with("_cache") { TapRows::All } else { TapRows::Positions(positions.clone()) };
            list.push(TapRequest::new(&name, TapSpec { rows, ..TapSpec::default() })?);
        }
        Ok(list)
    }

    fn judge(&self, recording: &Recording) -> Result<Verdict, TraceError> {
        let weights = self.model.weights();
        let options = JudgeOptions { nodes: self.options.nodes.clone(), rows: self.options.rows };
        let judge = Judge::new(recording, &*weights, options)?;
        let judge = match self.memo {
            Some(memo) => judge.with_memo(memo),
            None => judge,
        };
        judge.run(&|done, all| (self.progress)("judging", done, all))
    }

    /// What the culprit read and gave, to be run alone.
    fn bundle(&self, recording: &Recording, culprit: &Culprit) -> Result<Option<Bundle>, TraceError> {
        let weights = self.model.weights();
        let options = JudgeOptions { nodes: None, rows: self.options.rows };
        Bundle::of(&Judge::new(recording, &*weights, options)?, culprit)
    }

    /// Some hypotheses need rows that were not kept: records the culprit and its operands whole and asks again.
    fn look_again(&self, culprit: Culprit, mode: TapMode, recording: &mut Recording) -> Result<Culprit, TraceError> {
        let Some(graph) = recording.graph.clone() else { return Ok(culprit) };
        let Some(id) = graph.find(&culprit.node) else { return Ok(culprit) };
        let partial = recording.get(&culprit.node).is_some_and(|s| {
            let most = self.prompts.iter().map(|p| p.tokens.len()).max().unwrap_or(0);
            s.rows.len() < most && !matches!(graph.node(id).outs[0].rows(), greta_ops::Dim::Rows)
        });
        if !partial || culprit.class != Class::Unknown {
            return Ok(culprit);
        }
        let pattern: NamePattern = globset_escape(&culprit.node).parse()?;
        let (whole, _) = self.record(mode, Some(&with_operands(&graph, &pattern)))?;
        let weights = self.model.weights();
        let options = JudgeOptions { nodes: Some(pattern), rows: self.options.rows };
        let again = Judge::new(&whole, &*weights, options)?.run(&|_, _| (self.progress)("judging", 0, 1))?;
        Ok(match again.culprit {
            Some(better) => {
                *recording = whole;
                better
            }
            None => culprit,
        })
    }
}

/// A name as a pattern that matches it alone.
pub fn globset_escape(name: &str) -> String {
    name.chars().flat_map(|c| if "*?[]{}".contains(c) { vec!['[', c, ']'] } else { vec![c] }).collect()
}

pub(crate) fn whole(names: &[String]) -> Result<Vec<TapRequest>, TraceError> {
    let spec = TapSpec { rows: TapRows::All, ..TapSpec::default() };
    names.iter().map(|n| Ok(TapRequest::new(n, spec.clone())?)).collect()
}

/// The ops a pattern matches and the nodes whose values they read.
pub(crate) fn with_operands(g: &Graph, pattern: &NamePattern) -> Vec<String> {
    let mut names = Vec::new();
    for (id, node) in g.nodes().filter(|(_, n)| matches!(n.kind, Kind::Op(_)) && pattern.matches(&n.name)) {
        let read = g.operands(id).into_iter().map(|v| g.node(v.node));
        let read = read.filter(|n| match &n.kind {
            Kind::Op(op) => !matches!(op, greta_ops::Op::Dequant(_)),
            Kind::Input { input } => *input != greta_graph::Input::BlockTable,
            _ => false,
        });
        for name in read.map(|n| &n.name).chain([&node.name]) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    names
}

fn same_bits(a: &tracer::Logits, b: &tracer::Logits) -> bool {
    let bits = |l: &tracer::Logits| -> Vec<u32> { l.iter().flatten().flatten().map(|x| x.to_bits()).collect() };
    bits(a) == bits(b)
}
