//! The verdict's hypotheses: one node's recorded rows are replaced by wrong ones, and the judge has to say which node,
//! what class and why; or that it does not know. The distortions are written here, in f32, apart from the hypotheses.

mod run;
mod special;
mod sums;
mod unknown;
mod wrong;

use crate::support::{Outcome, all, trial};
use greta_models::Arithmetic;
use greta_ops::DType;
use greta_trace::judge::{Class, Judge, JudgeOptions, VerdictKind};
use libtest_mimic::Trial;
use run::{Step, Taped};
use std::time::Instant;

/// A distortion and what must be said of it.
pub struct Case {
    pub name: &'static str,
    pub mix: &'static str,
    pub arith: Arithmetic,
    pub node: &'static str,
    /// Rows of the node as a wrong kernel gives them in a step; `None` leaves the step right.
    pub wrong: fn(&Step<'_>) -> Option<Vec<Vec<f32>>>,
    pub class: Class,
    /// How the hypothesis begins; `None`: there must be none.
    pub hypothesis: Option<&'static str>,
}

pub fn trials() -> Vec<Trial> {
    let mut mixes: Vec<&'static str> = Vec::new();
    let cases = || wrong::cases().into_iter().chain(unknown::cases());
    cases().for_each(|c| {
        if !mixes.contains(&c.mix) {
            mixes.push(c.mix)
        }
    });
    let judged = mixes.into_iter().map(|mix| {
        trial(format!("hypotheses/{mix}"), move || {
            let mut failures = Vec::new();
            for arith in [Arithmetic::Exact, Arithmetic::Int8] {
                let cases: Vec<Case> = cases_of(mix, arith);
                if cases.is_empty() {
                    continue;
                }
                let taped = Taped::new(mix, arith, DType::F16, 70)?;
                cases.iter().for_each(|c| failures.extend(judged(&taped, c)));
            }
            all(failures)
        })
    });
    let clean = ["F32", "F16", "Q4_K_M", "Q6_K", "Q8_0", "Q2_K"].map(|mix| {
        trial(format!("hypotheses/clean/{mix}"), move || {
            for (arith, kv) in [(Arithmetic::Exact, DType::F32), (Arithmetic::Int8, DType::F16)] {
                clean(mix, arith, kv)?;
            }
            Ok(())
        })
    });
    judged.chain(clean).chain(special::trials()).collect()
}

fn cases_of(mix: &str, arith: Arithmetic) -> Vec<Case> {
    wrong::cases().into_iter().chain(unknown::cases()).filter(|c| c.mix == mix && c.arith == arith).collect()
}

/// What is wrong with the verdict on a case; one that must stay unknown is tried on a single decoded row as well.
fn judged(taped: &Taped, case: &Case) -> Option<String> {
    let decoded = || judged_in(taped, case, |s| if s.decodes() { (case.wrong)(s) } else { None });
    judged_in(taped, case, case.wrong).or_else(|| if case.class == Class::Unknown { decoded() } else { None })
}

fn judged_in(taped: &Taped, case: &Case, wrong: impl Fn(&Step<'_>) -> Option<Vec<Vec<f32>>>) -> Option<String> {
    let fail = |text: String| Some(format!("{} at {} ({}): {text}", case.name, case.node, case.mix));
    let recording = taped.distorted(case.node, wrong);
    let options = JudgeOptions { nodes: case.node.parse().ok(), rows: None };
    let weights = taped.model.weights();
    let judge = match Judge::new(&recording, &*weights, options) {
        Ok(j) => j,
        Err(e) => return fail(e.to_string()),
    };
    let start = Instant::now();
    let verdict = match judge.run(&|_, _| true) {
        Ok(v) => v,
        Err(e) => return fail(e.to_string()),
    };
    let Some(c) = verdict.culprit else { return fail(format!("{:?}: no culprit", verdict.verdict)) };
    if std::env::var_os("HYPOTHESES_SHOWN").is_some() {
        let worst = c.worst.as_ref().map_or(0.0, |w| w.ratio);
        let first = c.residuals.first().map_or(0.0, |r| r.residual);
        let time = start.elapsed();
        println!(
            "{:24} {:22} {} {:?} ratio {worst:.1e} residual {first:.1e} {time:.1?}",
            case.name, case.node, c.class, c.hypothesis
        );
    }
    let named = match (&c.hypothesis, case.hypothesis) {
        (Some(h), Some(want)) => h.starts_with(want),
        (None, None) => true,
        _ => false,
    };
    if c.node == case.node && c.class == case.class && named {
        return None;
    }
    let near: Vec<String> =
        c.residuals.iter().take(5).map(|r| format!("{} {:.2e}", r.hypothesis, r.residual)).collect();
    let worst = c.worst.map_or(0.0, |w| w.ratio);
    fail(format!("{} {:?} {}, worst {worst:.1e}; {}", c.node, c.hypothesis, c.class, near.join("; ")))
}

fn clean(mix: &'static str, arith: Arithmetic, kv: DType) -> Result<(), Outcome> {
    let taped = Taped::new(mix, arith, kv, 70)?;
    let weights = taped.model.weights();
    let verdict = Judge::new(&taped.recording, &*weights, JudgeOptions::default())?.run(&|_, _| true)?;
    match verdict.verdict {
        VerdictKind::Clean if verdict.not_judged.is_empty() => Ok(()),
        _ => Err(Outcome::Failed(format!("{mix}, {arith}: {:?} {:?}", verdict.culprit, verdict.not_judged))),
    }
}
