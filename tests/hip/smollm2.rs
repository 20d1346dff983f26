//! A real model on a HIP device and on the CPU, in the same arithmetic: logits and greedy text.

use crate::golden::{Prompt, prompts, spread};
use crate::support::{Outcome, all, cpu, engine, golden, json, smollm2, within};
use greta_backend::{Backend, RowsWanted};
use greta_hip::Hip;
use greta_models::{Arithmetic, EngineOptions};
use greta_ops::DType;

/// A prompt's logits, and the text after it: each token, and how far its logit was above the next one's.
struct Ran {
    logits: Vec<f32>,
    text: Vec<(u32, f32)>,
}

/// The emulator takes a second a token: there one prompt and a few tokens are what a test can spend.
pub fn as_on_the_cpu(label: &str, hip: &Hip, arith: Arithmetic) -> Result<(), Outcome> {
    let reference = prompts(&json(&golden("smollm2/Q4_1.f32.json")?)?);
    let (mut chosen, tokens): (Vec<&Prompt>, usize) =
        (reference.iter().collect(), if label == "hip-sim" { 6 } else { 32 });
    if label == "hip-sim" {
        chosen.sort_by_key(|p| p.tokens.len());
        chosen.truncate(1);
    }
    // Text departs where the two largest logits are nearer than what the order of sums makes of them: rounding in `exact`; in
    // `int8` also the codes of activations that lie on a tie.
    let (distance, margin) = if arith == Arithmetic::Exact { (1e-5, 2e-3) } else { (0.05, 0.5) };
    let (mut failures, mut top) = (Vec::new(), Vec::new());
    let (want, got) = (run(&cpu(2)?, &chosen, arith, tokens)?, run(hip, &chosen, arith, tokens)?);
    for ((p, want), got) in chosen.iter().zip(&want).zip(&got) {
        let off = |(a, b): (&f32, &f32)| f64::from((a - b).abs());
        let worst = want.logits.iter().zip(&got.logits).map(off).fold(0.0, f64::max);
        let squares = |list: &mut dyn Iterator<Item = f64>| list.map(|x| x * x).sum::<f64>().sqrt();
        let apart = squares(&mut want.logits.iter().zip(&got.logits).map(off));
        let relative = apart / squares(&mut want.logits.iter().map(|x| f64::from(*x)));
        if got.logits.iter().any(|x| !x.is_finite()) || !within(relative, distance) {
            failures.push(format!("{}: relative L2 distance {relative:.2e}, the bound is {distance:.0e}", p.name));
        }
        let close = want.text.iter().position(|(_, above)| *above < margin).unwrap_or(tokens);
        let apart = (0..tokens).find(|&i| want.text[i].0 != got.text[i].0);
        if apart.is_some_and(|i| i < close) {
            failures
                .push(format!("{}: the text departs at token {apart:?}, the CPU's first close one is {close}", p.name));
        }
        eprintln!(
            "smollm2 {label} {arith} {}: relative L2 distance {relative:.2e}, largest difference {worst:.2e}, text departs at {apart:?}",
            p.name
        );
        let errors = |&(id, _): &(u32, f64)| (f64::from(want.logits[id as usize]), f64::from(got.logits[id as usize]));
        let (want, got): (Vec<f64>, Vec<f64>) = p.top.iter().map(errors).unzip();
        top.push((p.top.iter().zip(want).map(|((id, _), w)| (*id, w)).collect(), got));
    }
    let spread = spread(&top);
    eprintln!("smollm2 {label} {arith}: spread of top-20 logits {spread:.2e}");
    // The same bound as for the CPU's `int8` against the exact weights, which is the larger difference.
    if !within(spread, if arith == Arithmetic::Exact { 1e-4 } else { 0.124 * 1.15 }) {
        failures.push(format!("spread of top-20 logits {spread:.4}"));
    }
    all(failures)
}

fn run(backend: &dyn Backend, prompts: &[&Prompt], arith: Arithmetic, tokens: usize) -> Result<Vec<Ran>, Outcome> {
    // What is stored as f16 may round the other way.
    let kv = if arith == Arithmetic::Exact { DType::F32 } else { DType::F16 };
    let engine = engine(&smollm2("Q4_1")?, backend, &EngineOptions { arith, kv, ..EngineOptions::default() })?;
    let one = |p: &&Prompt| {
        let mut context = engine.context()?;
        let logits = context.prefill(&p.tokens, &mut |_, _| true)?.unwrap_or_default();
        let (mut text, mut row) = (Vec::new(), logits.clone());
        for _ in 0..tokens {
            let id = greta_models::sampling::argmax(&row)?;
            let best = row[id as usize];
            let next = row.iter().enumerate().filter(|(i, _)| *i != id as usize).map(|(_, v)| *v);
            text.push((id, best - next.fold(f32::NEG_INFINITY, f32::max)));
            row = context.step(&[id], RowsWanted::Last)?.logits;
        }
        Ok(Ran { logits, text })
    };
    prompts.iter().map(one).collect()
}
