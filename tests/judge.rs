//! The judge: clean runs have no verdict, and prefill equals decode at every node.

use crate::support::{Outcome, all, cpu, smollm2, synth_tiny, trial};
use greta_graph::{TapMode, TapRequest, TapRows, TapSpec};
use greta_models::{Arithmetic, EngineOptions, Model};
use greta_trace::judge::{Judge, JudgeOptions, VerdictKind};
use greta_trace::{PromptInfo, Recording, TracePlan, prompts, tracer};
use libtest_mimic::Trial;
use std::path::Path;
use std::sync::Arc;

const MIXES: [&str; 13] =
    ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K"];

pub fn trials() -> Vec<Trial> {
    let mut list = Vec::new();
    for mix in MIXES {
        for arith in [Arithmetic::Exact, Arithmetic::Int8] {
            list.push(trial(format!("judge/clean/{mix}/{arith}"), move || clean(&synth_tiny(mix)?, arith)));
        }
    }
    for quant in ["Q4_1", "Q4_K_M"] {
        list.push(trial(format!("judge/clean/smollm2-{quant}"), move || clean(&smollm2(quant)?, Arithmetic::Int8)));
    }
    list
}

/// Every value at every token, whatever is asked for.
pub fn everything() -> Result<Vec<TapRequest>, Outcome> {
    Ok(vec![TapRequest::new("all", TapSpec { rows: TapRows::All, ..TapSpec::default() })?])
}

fn clean(path: &Path, arith: Arithmetic) -> Result<(), Outcome> {
    let model = Arc::new(Model::open(path)?);
    let prompts = prompts::built_in(&model, &[], model.context().min(1024))?;
    let mut failures = Vec::new();
    let cases = [(TapMode::Semantic, None, &prompts[..]), (TapMode::AsExecuted, Some(7), &prompts[..2])];
    for (mode, chunk, prompts) in cases {
        let options = EngineOptions { arith, taps: everything()?, tap_mode: mode, ..EngineOptions::default() };
        let plan = TracePlan { decode_steps: 3, chunk, ..TracePlan::default() };
        let (rec, _) = tracer::record(&model, &cpu(2)?, &options, prompts, &plan, &mut |_, _, _| true)?;
        let weights = model.weights();
        let options = JudgeOptions { rows: Some(16), ..JudgeOptions::default() };
        let verdict = Judge::new(&rec, &*weights, options)?.run(&|_, _| true)?;
        let place = format!("{mode:?}, chunk {chunk:?}");
        if let Some(c) = &verdict.culprit {
            failures.push(format!("{place}: {} {}: {:?}", c.node, c.class, c.worst));
        }
        if verdict.verdict != VerdictKind::Clean || !verdict.not_judged.is_empty() {
            failures.push(format!("{place}: {:?}, not judged: {:?}", verdict.verdict, verdict.not_judged));
        }
        for (p, prompt) in prompts.iter().enumerate() {
            failures.extend(unequal(&rec, p as u32, prompt).map(|name| format!("{place}: {name} differs in decode0")));
        }
    }
    all(failures)
}

/// A value whose last prompt row is not the same, to the bit, in decode0.
fn unequal(rec: &Recording, prompt: u32, info: &PromptInfo) -> Option<String> {
    let last = info.tokens.len() as u32 - 1;
    let rows = rec.series.iter().filter(|s| !matches!(s.name.as_str(), "slots" | "rows_wanted"));
    rows.filter_map(|s| {
        let mut rows = s.rows.iter().filter(|r| r.at.prompt == prompt && r.at.position == last);
        let (a, b) = (rows.next()?, rows.next()?);
        let bits = |r: &greta_trace::Row| match s.is_int() {
            true => s.ints[r.data.clone()].iter().map(|&v| v as u32).collect::<Vec<_>>(),
            false => s.reals[r.data.clone()].iter().map(|v| v.to_bits()).collect(),
        };
        (bits(a) != bits(b) || a.stats.hash != b.stats.hash).then(|| s.name.clone())
    })
    .next()
}
