//! Identical runs: what differs is named and counted.

use crate::judge::everything;
use crate::support::{Outcome, all, cpu, synth_tiny, trial};
use greta_backend::{Fault, Injection};
use greta_graph::{TapMode, TapRequest, TapRows, TapSpec};
use greta_models::{EngineOptions, Model};
use greta_trace::judge::{Class, VerdictKind};
use greta_trace::repeats::{Hashes, Repeats};
use greta_trace::verify::{self, Outcome as Found, VerifyOptions};
use greta_trace::{PromptInfo, Recording, TraceError, TracePlan, prompts, tracer};
use libtest_mimic::Trial;
use std::cell::RefCell;
use std::sync::Arc;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("repeats/earliest_node_of_all_runs", earliest),
        trial("repeats/unlike_runs", unlike),
        trial("repeats/fault_in_some_runs", in_some_runs),
        trial("repeats/run_that_fails", fails),
        trial("repeats/here", here),
    ]
}

fn model() -> Result<(Arc<Model>, Vec<PromptInfo>), Outcome> {
    let model = Arc::new(Model::open(&synth_tiny("Q4_K_M")?)?);
    let prompts = prompts::built_in(&model, &["p0_short".into(), "p4_sys".into()], 256)?;
    Ok((model, prompts))
}

fn recorded(taps: Vec<TapRequest>) -> Result<Recording, Outcome> {
    let (model, prompts) = model()?;
    let options = EngineOptions { taps, ..EngineOptions::default() };
    Ok(tracer::record(&model, &cpu(1)?, &options, &prompts, &TracePlan::default(), &mut |_, _, _| true)?.0)
}

/// The run with another last bit in a row: the node's, of the prompt and step.
fn changed(run: &Recording, node: &str, prompt: u32, order: u32) -> Result<Hashes, Outcome> {
    let mut hashes = Hashes::of(run);
    let rows = hashes.values.iter_mut().find(|v| v.name == node).map(|v| &mut v.rows);
    let row = rows.and_then(|rows| rows.iter_mut().find(|r| (r.0, r.1) == (prompt, order)));
    row.ok_or_else(|| Outcome::Failed(format!("no row of {node} in {order} of {prompt}")))?.5 ^= 1;
    Ok(hashes)
}

/// Every run counts, and the earliest node over all of them is named, whichever run it was in and however late its step.
fn earliest() -> Result<(), Outcome> {
    let run = recorded(everything()?)?;
    let mut failures = Vec::new();
    let mut found = Repeats::new(&run);
    let mut add = |hashes: &Hashes, differs: bool, node: Option<&str>| -> Result<(), Outcome> {
        let said = found.add(hashes)?;
        let culprit = found.culprit();
        if said != differs || culprit.as_ref().map(|c| &*c.node) != node {
            failures.push(format!("said {said}, {culprit:?}; expected {node:?}"));
        }
        Ok(())
    };
    // As another process hands it over.
    let text = serde_json::to_string(&Hashes::of(&run))?;
    add(&serde_json::from_str(&text)?, false, None)?;
    add(&changed(&run, "blk.1.attn", 0, 0)?, true, Some("blk.1.attn"))?;
    add(&changed(&run, "logits", 0, 0)?, true, Some("blk.1.attn"))?;
    // Of one run the step that was computed first.
    let mut both = changed(&run, "blk.0.q", 1, 1)?;
    let later = changed(&run, "blk.1.ffn_norm", 1, 0)?;
    both.values.iter_mut().zip(later.values).filter(|(v, _)| v.name == "blk.1.ffn_norm").for_each(|(v, l)| *v = l);
    add(&both, true, Some("blk.1.attn"))?;
    add(&changed(&run, "blk.0.k", 1, 1)?, true, Some("blk.0.k"))?;
    let c = found.culprit().ok_or_else(|| Outcome::Failed("no culprit".into()))?;
    let held = (found.runs(), found.differing()) == (6, 4)
        && c.class == Class::GStaleData
        && (&*c.prompt, &*c.phase) == ("p4_sys", "decode0")
        && c.detail.contains("differs in 4 of 6 runs");
    if !held {
        failures.push(format!("{} of {}: {c:?}", found.differing(), found.runs()));
    }
    all(failures)
}

/// What is no repetition is refused, not compared.
fn unlike() -> Result<(), Outcome> {
    let run = recorded(everything()?)?;
    let last = TapSpec { rows: TapRows::Last, ..TapSpec::default() };
    let fewer = Hashes::of(&recorded(vec![TapRequest::new("all", last)?])?);
    let other = Hashes { plan: "another".into(), ..Hashes::of(&run) };
    let mut failures = Vec::new();
    for (hashes, word) in [(fewer, "other values"), (other, "another plan")] {
        match Repeats::new(&run).add(&hashes) {
            Err(TraceError::Mismatch(text)) if text.contains(word) && text.contains("run 2") => {}
            other => failures.push(format!("expected {word}: {other:?}")),
        }
    }
    all(failures)
}

fn verified(repeat: u32, again: Option<verify::Again<'_>>) -> Result<Result<Found, TraceError>, Outcome> {
    let (model, prompts) = model()?;
    let options = VerifyOptions { repeat, again, ..VerifyOptions::default() };
    Ok(verify::verify(&model, &cpu(1)?, &EngineOptions::default(), &prompts, &options, None, &|_, _, _| true))
}

/// Runs made elsewhere, of which the third and the fifth have a fault in their kernels.
fn in_some_runs() -> Result<(), Outcome> {
    let (model, prompts) = model()?;
    let backend = cpu(1)?;
    let made = RefCell::new(Vec::new());
    let again = |mode: TapMode, number: u32| {
        made.borrow_mut().push(number);
        let fault = Injection { fault: Fault::MantissaBit, node: "blk.1.k".into(), phase: None, param: None };
        let faults = if number % 2 == 1 { vec![fault] } else { Vec::new() };
        let engine = EngineOptions { faults, ..EngineOptions::default() };
        let options = VerifyOptions::default();
        verify::again(&model, &backend, &engine, &prompts, &options, mode, &|_, _, _| true)
    };
    let found = verified(5, Some(&again))??.verified;
    let culprit = found.verdict.culprit.as_ref();
    let held = found.verdict.verdict == VerdictKind::Fault
        && found.verdict.class == Class::GStaleData
        && culprit.is_some_and(|c| c.node == "blk.1.k" && c.detail.contains("differs in 2 of 5 runs"))
        && (found.repeats, found.differing) == (5, 2);
    let made = made.into_inner();
    match held && made == [2, 3, 4, 5] {
        true => Ok(()),
        false => Err(Outcome::Failed(format!("runs {made:?}: {found:?}"))),
    }
}

/// A run that comes to no end is the error, whatever the others gave.
fn fails() -> Result<(), Outcome> {
    let again = |_: TapMode, run: u32| Err(TraceError::Repeat { run, runs: 3, why: "signal: 9".into() });
    match verified(3, Some(&again))? {
        Err(e) if e.to_string() == "run 2 of 3: signal: 9" => Ok(()),
        other => Err(Outcome::Failed(format!("{:?}", other.map(|f| f.verified)))),
    }
}

/// Runs made in this process are counted too.
fn here() -> Result<(), Outcome> {
    let found = verified(3, None)??.verified;
    match found.verdict.verdict == VerdictKind::Clean && (found.repeats, found.differing) == (3, 0) {
        true => Ok(()),
        false => Err(Outcome::Failed(format!("{found:?}"))),
    }
}
