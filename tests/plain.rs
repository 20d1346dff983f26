//! Plain kernels are right, and each fault built into one is not.

mod cases;
mod meanings;
mod models;

use crate::conformance;
use crate::support::{Outcome, all, cpu, engine, synth_tiny, trial, within};
use greta_backend::{CompileOptions, RouteRule};
use greta_models::{Arithmetic, EngineOptions};
use greta_ops::{DType, Op};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    let mut list = vec![
        trial("plain/conformance", conforms),
        trial("plain/faults/fit", cases::change_what_they_fit),
        trial("plain/faults/thresholds", cases::keep_their_thresholds),
        trial("plain/faults/meanings", meanings::are_what_they_say),
        trial("plain/faults/halves", meanings::halves_round_as_halves),
        trial("plain/faults/steps", models::change_the_steps_they_should),
        trial("plain/faults/refused", models::are_refused_where_they_do_not_fit),
        trial("plain/faults/early_copies", models::early_copies_come_and_go),
    ];
    for mix in ["F32", "Q4_K_M", "Q8_0"] {
        for arith in [Arithmetic::Exact, Arithmetic::Int8] {
            list.push(trial(format!("plain/model/{mix}/{arith}"), move || whole_model(mix, arith)));
        }
    }
    list
}

/// `*=plain`.
fn everywhere() -> Result<Vec<RouteRule>, Outcome> {
    Ok(vec!["*=plain".parse().map_err(Outcome::Failed)?])
}

fn conforms() -> Result<(), Outcome> {
    let routes = everywhere()?;
    let mut failures = Vec::new();
    for threads in [1, 2] {
        let backend = cpu(threads)?;
        for case in Op::cases() {
            let options = CompileOptions { routes: &routes, ..CompileOptions::default() };
            if let Err(e) = conformance::run(&case, &backend, options) {
                failures.push(format!("{}, {threads} threads: {e}", case.title()));
            }
        }
    }
    all(failures)
}

/// Logits of a prompt are the same bits however it is cut, down to decode steps; in exact arithmetic they are those of
/// the other kernels but for rounding.
fn whole_model(mix: &str, arith: Arithmetic) -> Result<(), Outcome> {
    let model = synth_tiny(mix)?;
    let tokens: Vec<u32> = (0..75).map(|i| i * 7919 % 1000).collect();
    let logits = |routes: Vec<RouteRule>, chunk: usize, threads: usize| -> Result<Vec<f32>, Outcome> {
        let options = EngineOptions { arith, max_tokens: chunk, kv: DType::F32, routes, ..EngineOptions::default() };
        let engine = engine(&model, &cpu(threads)?, &options)?;
        Ok(engine.context()?.prefill(&tokens, &mut |_, _| true)?.unwrap_or_default())
    };
    let mut failures = Vec::new();
    let want = logits(everywhere()?, 512, 2)?;
    for (chunk, threads) in [(1, 1), (7, 2), (32, 1), (512, 1)] {
        let got = logits(everywhere()?, chunk, threads)?;
        let n = got.iter().zip(&want).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        if n > 0 || got.len() != want.len() || want.is_empty() {
            failures.push(format!("chunks of {chunk}, {threads} threads: {n} of {} logits differ", want.len()));
        }
    }
    let usual = logits(Vec::new(), 512, 2)?;
    let error = relative(&want, &usual);
    // A code of an activation may round the other way; then the logits are those of another rounding.
    let bound = if arith == Arithmetic::Exact { 1e-4 } else { 0.02 };
    if !within(error, bound) {
        failures.push(format!("relative L2 error against the other kernels {error:.2e}"));
    }
    all(failures)
}

/// ‖a − b‖ / ‖b‖
fn relative(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let error: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (error / b.iter().map(|&x| square(x)).sum::<f64>()).sqrt()
}
