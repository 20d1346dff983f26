//! The equivalence gate: two ways to the same logits, compared token by token, with a fault that must be caught.

use crate::{PromptInfo, Recording, TraceError};
use greta_backend::{
    Backend, Batch, Fault, Injection, Phase, RowsWanted, SeqId, Session, StepAt, TapRow, TapSink, Want,
};
use greta_graph::{Detail, TapRequest, TapRows, TapSpec};
use greta_models::{Engine, EngineOptions, Model};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// When two sides count as equivalent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GateOptions {
    /// Tokens compared at most, over all prompts; `None`: all.
    pub tokens: Option<usize>,
    /// Largest absolute difference of a logit that passes.
    pub max_abs: f64,
    /// Largest 99th percentile of the differences that passes.
    pub p99_abs: f64,
    /// Smallest share of tokens with the same likeliest successor that passes.
    pub top1: f64,
}

impl Default for GateOptions {
    /// Equal to the bit: what prefill and decode of one backend owe each other.
    fn default() -> Self {
        GateOptions { tokens: None, max_abs: 0.0, p99_abs: 0.0, top1: 1.0 }
    }
}

/// What a gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum GateVerdict {
    /// The sides agree, and the fault was caught.
    #[serde(rename = "PASS_EQUIV")]
    Pass,
    /// They do not.
    #[serde(rename = "FAIL_EQUIV")]
    Fail,
    /// They differ as far as their arithmetics do.
    #[serde(rename = "EXPECTED_DRIFT")]
    Drift,
    /// The gate can't tell: a fault went uncaught, a side took another route than it claims, or nothing was compared.
    #[serde(rename = "INCOMPLETE")]
    Incomplete,
}

/// Numbers of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Compared {
    /// The largest absolute difference of a logit.
    pub max_abs_diff: f64,
    /// The 99th percentile of the differences.
    pub p99_abs_diff: f64,
    /// Share of tokens whose likeliest successor is the same.
    pub top1_agreement: f64,
    /// Tokens compared.
    pub tokens: usize,
}

/// A gate's report.
#[derive(Clone, Debug, Serialize)]
pub struct GateReport {
    /// What it says.
    pub verdict: GateVerdict,
    /// The numbers.
    #[serde(flatten)]
    pub compared: Compared,
    /// Whether a run with a fault built in was told from one without.
    pub fault_caught: bool,
    /// The fault, and the numbers it gave.
    pub fault: String,
    /// See `fault`.
    pub with_fault: Compared,
    /// The kernels that ran, by side: `prefill` and `decode`, or `run` and `saved`.
    pub routes: BTreeMap<String, Vec<String>>,
    /// Why it is incomplete.
    pub reasons: Vec<String>,
}

/// Told which side, tokens done of how many; answers whether to go on.
pub type Progress<'a> = &'a mut dyn FnMut(&str, usize, usize) -> bool;

/// Prefill against token-by-token decode, without a second run of the user's.
pub fn prefill_vs_decode(
    model: &Arc<Model>,
    backend: &dyn Backend,
    engine: &EngineOptions<'_>,
    prompts: &[PromptInfo],
    options: &GateOptions,
    progress: Progress<'_>,
) -> Result<GateReport, TraceError> {
    let prompts = cut(prompts, options.tokens);
    let sides = Sides::new(model, backend, engine, &prompts)?;
    let a = sides.run(&sides.engine(&[])?, &prompts, Phase::Prefill, progress)?;
    let b = sides.run(&sides.engine(&[])?, &prompts, Phase::Decode, progress)?;
    let mut reasons = Vec::new();
    reasons.extend(a.wrong_route.iter().chain(&b.wrong_route).cloned());
    let (fault, faulty) = sides.with_fault(&prompts, progress)?;
    let compared = compare(&a.logits, &b.logits);
    let with_fault = compare(&a.logits, &faulty.logits);
    let routes = BTreeMap::from([("prefill".to_string(), a.routes), ("decode".to_string(), b.routes)]);
    Ok(report(compared, with_fault, fault, routes, reasons, options, false))
}

/// A new run against the logits of a saved one, at the positions that it recorded.
pub fn against(
    model: &Arc<Model>,
    backend: &dyn Backend,
    engine: &EngineOptions<'_>,
    saved: &Recording,
    options: &GateOptions,
    progress: Progress<'_>,
) -> Result<GateReport, TraceError> {
    let prompts = saved.info.prompts.clone();
    let series = saved.get("logits").filter(|s| s.rows.iter().any(|r| s.is_whole(r)));
    let series = series.ok_or_else(|| TraceError::NotJudged("the saved run has no whole row of `logits`".into()))?;
    let sides = Sides::new(model, backend, engine, &prompts)?;
    let run = sides.run(&sides.engine(&[])?, &prompts, Phase::Prefill, progress)?;
    let (fault, faulty) = sides.with_fault(&prompts, progress)?;
    let (mut old, mut new, mut broken) = (Vec::new(), Vec::new(), Vec::new());
    for row in series.rows.iter().filter(|r| series.is_whole(r) && r.at.phase == Phase::Prefill) {
        if options.tokens.is_some_and(|n| old.len() >= n) {
            break;
        }
        let (p, t) = (row.at.prompt as usize, row.at.position as usize);
        let same = prompts.get(p).and_then(|i| i.token(t)).is_some_and(|id| id as i32 == row.at.token);
        if !same {
            return Err(TraceError::Mismatch(format!(
                "position {t} of prompt {p}: the saved run has token {}",
                row.at.token
            )));
        }
        let (Some(x), Some(y)) = (run.at(p, t), faulty.at(p, t)) else { continue };
        old.push(series.reals[row.data.clone()].to_vec());
        new.push(x.clone());
        broken.push(y.clone());
    }
    let drift = saved.info.arith != sides.arith || !saved.info.is_greta();
    let routes =
        BTreeMap::from([("run".to_string(), run.routes), ("saved".to_string(), vec![saved.info.engine.clone()])]);
    Ok(report(compare(&old, &new), compare(&old, &broken), fault, routes, run.wrong_route, options, drift))
}

fn report(
    compared: Compared,
    with_fault: Compared,
    fault: String,
    routes: BTreeMap<String, Vec<String>>,
    mut reasons: Vec<String>,
    o: &GateOptions,
    drift: bool,
) -> GateReport {
    let passes =
        |c: &Compared| c.max_abs_diff <= o.max_abs && c.p99_abs_diff <= o.p99_abs && c.top1_agreement >= o.top1;
    // Where arithmetics differ, a fault must stand out from the drift.
    let fault_caught = match drift {
        true => {
            with_fault.p99_abs_diff > 3.0 * compared.p99_abs_diff
                || with_fault.top1_agreement < compared.top1_agreement - 0.2
        }
        false => !passes(&with_fault),
    };
    if compared.tokens == 0 {
        reasons.push("no token was compared".into());
    }
    if !fault_caught {
        reasons.push(format!("the injected fault ({fault}) was not caught: this gate could not fail"));
    }
    let verdict = match (reasons.is_empty(), passes(&compared)) {
        (false, _) if compared.tokens == 0 => GateVerdict::Incomplete,
        (true, false) if drift => GateVerdict::Drift,
        (false, false) if drift => GateVerdict::Incomplete,
        (_, false) => GateVerdict::Fail,
        (false, true) => GateVerdict::Incomplete,
        (true, true) => GateVerdict::Pass,
    };
    GateReport { verdict, compared, fault_caught, fault, with_fault, routes, reasons }
}

/// The first prompts' tokens, so many in all.
fn cut(prompts: &[PromptInfo], tokens: Option<usize>) -> Vec<PromptInfo> {
    let mut left = tokens.unwrap_or(usize::MAX);
    let mut out = Vec::new();
    for p in prompts {
        let n = p.tokens.len().min(left);
        left -= n;
        if n > 0 {
            out.push(PromptInfo { tokens: p.tokens[..n].to_vec(), ..p.clone() });
        }
    }
    out
}

/// Compares rows of logits. A difference that is no number is infinite.
pub fn compare(a: &[Vec<f32>], b: &[Vec<f32>]) -> Compared {
    let mut diffs: Vec<f64> = Vec::new();
    let mut same = 0;
    for (x, y) in a.iter().zip(b) {
        let best = |row: &[f32]| (0..row.len()).max_by(|&i, &j| row[i].total_cmp(&row[j]).then(j.cmp(&i)));
        same += usize::from(best(x) == best(y) && x.len() == y.len());
        diffs.extend(x.iter().zip(y).map(|(x, y)| {
            let d = if x.to_bits() == y.to_bits() { 0.0 } else { (f64::from(*x) - f64::from(*y)).abs() };
            if d.is_nan() { f64::INFINITY } else { d }
        }));
    }
    let tokens = a.len().min(b.len());
    let max = diffs.iter().copied().fold(0.0, f64::max);
    let at = (diffs.len() * 99 / 100).min(diffs.len().saturating_sub(1));
    let p99 = if diffs.is_empty() { 0.0 } else { *diffs.select_nth_unstable_by(at, f64::total_cmp).1 };
    let top1 = if tokens == 0 { 0.0 } else { same as f64 / tokens as f64 };
    Compared { max_abs_diff: max, p99_abs_diff: p99, top1_agreement: top1, tokens }
}

struct Sides<'a> {
    model: &'a Arc<Model>,
    backend: &'a dyn Backend,
    options: EngineOptions<'a>,
    arith: String,
}

/// One side's logits, a row a token, prompt after prompt.
struct Side {
    logits: Vec<Vec<f32>>,
    starts: Vec<usize>,
    routes: Vec<String>,
    wrong_route: Vec<String>,
}

impl Side {
    fn at(&self, prompt: usize, position: usize) -> Option<&Vec<f32>> {
        let end = self.starts.get(prompt + 1).copied().unwrap_or(self.logits.len());
        self.logits.get(self.starts.get(prompt)? + position).filter(|_| self.starts[prompt] + position < end)
    }
}

/// Rows of logits that a prefill step gives: enough that tiles are filled, few enough for a large vocabulary.
const CHUNK: usize = 128;

impl<'a> Sides<'a> {
    fn new(
        model: &'a Arc<Model>,
        backend: &'a dyn Backend,
        engine: &EngineOptions<'a>,
        prompts: &[PromptInfo],
    ) -> Result<Sides<'a>, TraceError> {
        if prompts.iter().all(|p| p.tokens.is_empty()) {
            return Err(TraceError::Prompt("there is no token to compare".into()));
        }
        // Statistics of the last row say which kernels ran; they change no bit.
        let spec = TapSpec { rows: TapRows::Last, detail: Detail::Stats, ..TapSpec::default() };
        let taps = vec![TapRequest::new("all", spec)?];
        let options = EngineOptions {
            taps,
            tap_mode: greta_graph::TapMode::AsExecuted,
            max_tokens: CHUNK,
            max_rows: CHUNK,
            ..engine.clone()
        };
        let arith = Engine::new(model.clone(), backend, &options)?.arithmetic().to_string();
        Ok(Sides { model, backend, options, arith })
    }

    fn engine(&self, faults: &[Injection]) -> Result<Engine, TraceError> {
        let faults = [&self.options.faults[..], faults].concat();
        let options = EngineOptions { faults, ..self.options.clone() };
        Ok(Engine::new(self.model.clone(), self.backend, &options)?)
    }

    fn run(
        &self,
        engine: &Engine,
        prompts: &[PromptInfo],
        phase: Phase,
        progress: Progress<'_>,
    ) -> Result<Side, TraceError> {
        let mut side = Side { logits: Vec::new(), starts: Vec::new(), routes: Vec::new(), wrong_route: Vec::new() };
        let all = prompts.iter().map(|p| p.tokens.len()).sum();
        for p in prompts {
            side.starts.push(side.logits.len());
            let mut session = engine.session()?;
            let chunk = if phase == Phase::Prefill { session.limits().0 } else { 1 };
            for (i, part) in p.tokens.chunks(chunk).enumerate() {
                let at = StepAt { phase, step: i as u32, ends_prompt: false };
                step(engine, &mut *session, part, at, &mut side)?;
                if !progress(phase.name(), side.logits.len(), all) {
                    return Err(TraceError::Interrupted);
                }
            }
        }
        Ok(side)
    }

    /// The decode side with a fault: one built into a kernel, or, where a backend can't, a wrong token fed.
    fn with_fault(&self, prompts: &[PromptInfo], progress: Progress<'_>) -> Result<(String, Side), TraceError> {
        let layers = self.model.gguf().tensors().iter().filter_map(|t| crate::judge::layer(&t.name)).max().unwrap_or(0);
        let node = format!("blk.{}.q_rope", layers / 2);
        let fault = Injection { fault: Fault::RopePosPlus1, node, phase: Some(Phase::Decode), param: None };
        if let Ok(engine) = self.engine(std::slice::from_ref(&fault)) {
            return Ok((fault.to_string(), self.run(&engine, prompts, Phase::Decode, progress)?));
        }
        let vocab = self.model.vocab() as u32;
        let wrong = |p: &PromptInfo| {
            let mut p = p.clone();
            let middle = p.tokens.len() / 2;
            p.tokens[middle] = (p.tokens[middle] + 1) % vocab;
            p
        };
        let prompts: Vec<PromptInfo> = prompts.iter().map(wrong).collect();
        let text = "one token of each prompt replaced on the decode side".to_string();
        Ok((text, self.run(&self.engine(&[])?, &prompts, Phase::Decode, progress)?))
    }
}

fn step(
    engine: &Engine,
    session: &mut dyn Session,
    tokens: &[u32],
    at: StepAt,
    side: &mut Side,
) -> Result<(), TraceError> {
    let mut batch = Batch::default();
    batch.append(session.kv(), SeqId(0), tokens, RowsWanted::All)?;
    let mut seen = Routes(Vec::new());
    let out = session.run_tapped(&batch, Want::Logits, at, &mut seen)?;
    side.logits.extend(out.logits.chunks_exact(out.vocab.max(1)).map(<[f32]>::to_vec));
    let claimed = engine.executable().routes(tokens.len(), tokens.len());
    let graph = engine.executable().plan().graph();
    for (value, route) in seen.0 {
        let name = &graph.node(value).name;
        let claim = claimed.iter().find(|(n, _)| n == name);
        if let Some((_, claim)) = claim.filter(|(_, c)| *c != route) {
            let text = format!("`{name}` ran `{route}` in {}; the plan claims `{claim}`", at.phase.name());
            if side.wrong_route.len() < 8 && !side.wrong_route.contains(&text) {
                side.wrong_route.push(text);
            }
        }
        if route != "input" && !side.routes.contains(&route) {
            side.routes.push(route);
        }
    }
    Ok(())
}

/// Notes which kernel made each tapped value.
struct Routes(Vec<(greta_graph::NodeId, String)>);

impl TapSink for Routes {
    fn row(&mut self, row: &TapRow<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if self.0.last().is_none_or(|(n, _)| *n != row.value.node) {
            self.0.push((row.value.node, row.route.to_owned()));
        }
        Ok(())
    }
}
