//! Runs of other engines: what is read, what is refused, and the verdict on llama.cpp's own rows.

use crate::support::{Outcome, all, golden, smollm2, trial};
use greta_models::Model;
use greta_trace::foreign::{self, ForeignOptions};
use greta_trace::import::{self, ImportOptions};
use greta_trace::judge::{Judge, VerdictKind};
use greta_trace::{Recording, names};
use libtest_mimic::Trial;
use std::collections::BTreeMap;
use std::sync::Arc;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("import/golden/llama-q8", || clean("Q4_1", "llama-q8")),
        trial("import/golden/f32", || clean("F32", "f32")),
        trial("import/golden/a_wrong_row_is_named", wrong_rows),
    ]
}

fn recorded(file: &str) -> Result<Recording, Outcome> {
    Ok(import::read(&[golden(&format!("smollm2/trace.p4_sys.{file}.json"))?], &ImportOptions::default())?)
}

/// No op of llama.cpp's own run is over its bound, and all but attention are judged.
fn clean(file: &str, arith: &str) -> Result<(), Outcome> {
    let recording = recorded(file)?;
    let model = Model::open(&smollm2("Q4_1")?)?;
    let mut failures = Vec::new();
    if recording.info.arith != arith {
        failures.push(format!("arithmetic is {}, expected {arith}", recording.info.arith));
    }
    let verdict = foreign::judge(&recording, &model, &ForeignOptions::default(), &|_, _| true)?;
    if verdict.verdict != VerdictKind::Clean {
        failures.push(format!("{:?}: {:?}", verdict.verdict, verdict.culprit));
    }
    // Fifteen ops a layer are recorded, of which attention reads a cache that is not; and embd, output_norm, logits.
    if verdict.judged != 30 * 14 + 3 {
        failures.push(format!("{} ops were judged", verdict.judged));
    }
    let other = verdict.not_judged.iter().find(|n| !n.node.ends_with(".attn"));
    if let Some(n) = other {
        failures.push(format!("{} was not judged: {}", n.node, n.why));
    }
    if verdict.not_judged.len() != 30 {
        failures.push(format!("{} ops were not judged", verdict.not_judged.len()));
    }
    for (op, worst) in worst(&recording, &model, arith)? {
        println!("{file}: {op}: worst error over bound {worst:.3}");
    }
    all(failures)
}

/// The worst error over its bound for each kind of op.
fn worst(recording: &Recording, model: &Model, arith: &str) -> Result<BTreeMap<String, f64>, Outcome> {
    let graph = Arc::new(foreign::graph(model)?);
    let weights = model.weights();
    let mut judge = Judge::of(recording, graph.clone(), &*weights, Default::default());
    judge.arithmetic = Some(if arith == "f32" { &foreign::llama::Plain } else { &foreign::llama::Llama });
    let mut worst = BTreeMap::new();
    for id in judge.ops() {
        if let Ok(check) = judge.check(id, 0, 0) {
            let name = &graph.node(id).name;
            let kind = names::to_llama_cpp(name).map_or(name.clone(), |(n, op)| {
                format!("{} {op}", n.rsplit_once('-').map_or(n.as_str(), |(base, _)| base))
            });
            let w = worst.entry(kind).or_insert(0.0f64);
            *w = w.max(check.worst());
        }
    }
    Ok(worst)
}

/// A row with two values swapped or all of them scaled makes its op the culprit, and no other.
fn wrong_rows() -> Result<(), Outcome> {
    let model = Model::open(&smollm2("Q4_1")?)?;
    let mut failures = Vec::new();
    type Change = fn(&mut [f32]);
    let swap: Change = |v| v.swap(3, 17);
    let scale: Change = |v| v.iter_mut().for_each(|x| *x *= 1.01);
    for (node, change) in [
        ("embd", swap),
        ("blk.0.attn_norm", scale),
        ("blk.3.q", scale),
        ("blk.3.k", swap),
        ("blk.7.q_rope", scale),
        ("blk.11.attn_out", swap),
        ("blk.12.ffn_inp", scale),
        ("blk.19.ffn_act", swap),
        ("blk.29.ffn_out", scale),
        ("output_norm", scale),
        ("logits", scale),
    ] {
        let mut recording = recorded("Q4_1")?;
        let series = recording.series.iter_mut().find(|s| s.name == node);
        let Some(series) = series else {
            failures.push(format!("{node} is not in the recording"));
            continue;
        };
        change(&mut series.reals);
        let verdict = foreign::judge(&recording, &model, &ForeignOptions::default(), &|_, _| true)?;
        let named = verdict.culprit.map(|c| c.node);
        if named.as_deref() != Some(node) {
            failures.push(format!("{node} was changed, {named:?} was named"));
        }
    }
    all(failures)
}
