//! `diff`: what is joined, what the numbers are, and what is said of them.

mod plain;

use crate::support::{Outcome, all, cpu, synth_tiny, trial};
use crate::taps::{everything, record, request};
use greta_backend::Phase;
use greta_graph::{Detail, PhaseFilter, TapMode, TapRequest, TapRows};
use greta_models::{Arithmetic, EngineOptions, Model};
use greta_ops::{DType, Stats};
use greta_reference::Reference;
use greta_trace::diff::{Diff, DiffOptions, DiffVerdict, Rule, Selector, diff};
use greta_trace::{At, Recording, Status};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    let mut list = vec![
        trial("diff/cpu_and_reference", backends),
        trial("diff/exact_and_int8", arithmetics),
        trial("diff/cache_types", cache_types),
        trial("diff/routes", routes),
        trial("diff/taps_of_other_modes", modes),
        trial("diff/statistics_alone", statistics_alone),
        trial("diff/one_value_changed", one_value_changed),
        trial("diff/unlike", unlike),
        trial("diff/foreign", foreign),
        trial("diff/decoded_otherwise", decoded_otherwise),
    ];
    list.extend(plain::trials());
    for mix in ["F32", "F16", "BF16", "Q4_0", "Q5_1", "Q8_0", "Q4_K_M", "Q6_K"] {
        for arith in [Arithmetic::Exact, Arithmetic::Int8] {
            list.push(trial(format!("diff/prefill_is_decode/{mix}/{arith}"), move || prefill_is_decode(mix, arith)));
        }
    }
    list
}

type Change = fn(&mut EngineOptions<'_>);

fn options(change: Change) -> EngineOptions<'static> {
    let mut o = EngineOptions { taps: vec![everything()], ..EngineOptions::default() };
    change(&mut o);
    o
}

fn on_cpu(mix: &str, change: Change) -> Result<Recording, Outcome> {
    Ok(record(mix, &cpu(2)?, &options(change))?.0)
}

fn all_of(a: &Recording, b: &Recording) -> Result<Diff, Outcome> {
    Ok(diff(a, Selector::All, b, Selector::All, &DiffOptions::default())?)
}

const LAST: Selector = Selector::PrefillLast;
const DECODE0: Selector = Selector::DecodeStep(0);

/// Holds a verdict and its rule.
fn hold(d: &Diff, rule: Rule, verdict: DiffVerdict) -> Result<(), Outcome> {
    let brief = || {
        let prompts =
            d.prompts.iter().map(|p| format!("{} {} {:?} {:?}", p.prompt, p.verdict, p.first_mismatch, p.why));
        format!(
            "{} by {:?}, expected {verdict} by {rule:?}: {:?} {:?}",
            d.verdict,
            d.rule,
            prompts.collect::<Vec<_>>(),
            d.why
        )
    };
    if (d.rule, d.verdict) == (rule, verdict) { Ok(()) } else { Err(Outcome::Failed(brief())) }
}

fn prefill_is_decode(mix: &str, arith: Arithmetic) -> Result<(), Outcome> {
    let mut o = options(|_| {});
    o.arith = arith;
    let rec = record(mix, &cpu(2)?, &o)?.0;
    let d = diff(&rec, LAST, &rec, DECODE0, &DiffOptions::default())?;
    hold(&d, Rule::Bits, DiffVerdict::Equal)?;
    let wrong: Vec<String> = d
        .nodes()
        .filter(|n| n.mae != Some(0.0) || n.max_abs != Some(0.0) || n.rows.len() != 1)
        .map(|n| format!("{} {}: {:?} over {} rows", n.prompt, n.node, n.mae, n.rows.len()))
        .collect();
    let values = d.prompts.iter().map(|p| p.nodes.len()).min().unwrap_or(0);
    if values < 30 || d.prompts.len() != 2 {
        return Err(Outcome::Failed(format!("only {values} values of {} prompts", d.prompts.len())));
    }
    all(wrong)
}

/// With bounds, which name no op either.
fn backends() -> Result<(), Outcome> {
    for (arith, mix) in [(Arithmetic::Exact, "Q4_K_M"), (Arithmetic::Int8, "Q4_K_M"), (Arithmetic::Exact, "F16")] {
        let o = EngineOptions { arith, tap_mode: TapMode::AsExecuted, ..options(|_| {}) };
        let (a, b) = (record(mix, &cpu(2)?, &o)?.0, record(mix, &Reference, &o)?.0);
        let weights = Model::open(&synth_tiny(mix)?)?.weights();
        let d = diff(
            &a,
            Selector::All,
            &b,
            Selector::All,
            &DiffOptions { weights: Some(&*weights), ..DiffOptions::default() },
        )?;
        hold(&d, Rule::Bounds, DiffVerdict::WithinBounds)?;
        let worst = d.nodes().filter_map(|n| n.bound_ratio).fold(0.0, f64::max);
        if !(worst > 0.0 && worst < 2.0) {
            return Err(Outcome::Failed(format!("{mix}, {arith}: the worst difference is {worst} of its bound")));
        }
        // The same distance under another name of the bound's making: a tenth of the tolerance is not enough.
        let tight = DiffOptions { tolerance: Some(1e-9), ..DiffOptions::default() };
        hold(&diff(&a, Selector::All, &b, Selector::All, &tight)?, Rule::Bounds, DiffVerdict::Differs)?;
    }
    Ok(())
}

fn arithmetics() -> Result<(), Outcome> {
    let (a, b) = (on_cpu("Q8_0", |o| o.arith = Arithmetic::Exact)?, on_cpu("Q8_0", |_| {})?);
    let d = diff(&a, Selector::Prefill, &b, Selector::Prefill, &DiffOptions::default())?;
    hold(&d, Rule::Drift, DiffVerdict::ExpectedDrift)?;
    let tight = DiffOptions { drift: Some(1e-4), ..DiffOptions::default() };
    let d = diff(&a, Selector::Prefill, &b, Selector::Prefill, &tight)?;
    hold(&d, Rule::Drift, DiffVerdict::Differs)?;
    // The first that int8 computes otherwise, in the graph's order.
    let first = d.prompts[0].first_mismatch.as_deref();
    if first == Some("blk.0.q") && !d.only_b.is_empty() { Ok(()) } else { Err(Outcome::Failed(format!("{first:?}"))) }
}

fn cache_types() -> Result<(), Outcome> {
    let (a, b) = (on_cpu("F32", |o| o.kv = DType::F32)?, on_cpu("F32", |_| {})?);
    let d = diff(&a, Selector::Prefill, &b, Selector::Prefill, &DiffOptions::default())?;
    hold(&d, Rule::Drift, DiffVerdict::ExpectedDrift)
}

fn routes() -> Result<(), Outcome> {
    let a = on_cpu("Q4_0", |o| o.routes = "blk.*.q:decode=portable".parse().into_iter().collect())?;
    if a.info.routes != ["blk.*.q:decode=portable"] {
        return Err(Outcome::Failed(format!("{:?}", a.info.routes)));
    }
    let d = diff(&a, LAST, &a, DECODE0, &DiffOptions::default())?;
    hold(&d, Rule::Bounds, DiffVerdict::Equal)?;
    let q = d.node("long", "blk.0.q").map(|n| n.route_b.clone()).unwrap_or_default();
    if !q.contains("portable") {
        return Err(Outcome::Failed(format!("decode0 took {q}")));
    }
    hold(&all_of(&a, &on_cpu("Q4_0", |_| {})?)?, Rule::Bounds, DiffVerdict::Equal)
}

fn modes() -> Result<(), Outcome> {
    let (a, b) = (on_cpu("Q8_0", |_| {})?, on_cpu("Q8_0", |o| o.tap_mode = TapMode::AsExecuted)?);
    let d = all_of(&a, &b)?;
    hold(&d, Rule::Bits, DiffVerdict::Equal)?;
    // Fusions hide the norms; what one side alone has is said.
    match d.only_a.iter().any(|n| n == "blk.0.attn_norm") && d.only_b.is_empty() {
        true => Ok(()),
        false => Err(Outcome::Failed(format!("{:?} {:?}", d.only_a, d.only_b))),
    }
}

fn stats() -> Vec<TapRequest> {
    vec![request("all", TapRows::Last, &[PhaseFilter::PrefillLast, PhaseFilter::DecodeStep(0)], Detail::Stats)]
}

fn statistics_alone() -> Result<(), Outcome> {
    let mut rec = on_cpu("Q8_0", |o| o.taps = stats())?;
    let d = diff(&rec, LAST, &rec, DECODE0, &DiffOptions::default())?;
    hold(&d, Rule::Bits, DiffVerdict::Equal)?;
    let full = on_cpu("Q8_0", |_| {})?;
    hold(&diff(&full, LAST, &rec, LAST, &DiffOptions::default())?, Rule::Bits, DiffVerdict::Equal)?;
    let other = on_cpu("Q8_0", |o| (o.taps, o.arith) = (stats(), Arithmetic::Exact))?;
    hold(&diff(&rec, LAST, &other, LAST, &DiffOptions::default())?, Rule::Drift, DiffVerdict::Incomplete)?;
    let series = rec.series.iter_mut().find(|s| s.name == "blk.1.v").ok_or_else(|| Outcome::Failed("no v".into()))?;
    series.rows[1].stats.hash ^= 1;
    let d = diff(&rec, LAST, &rec, DECODE0, &DiffOptions::default())?;
    hold(&d, Rule::Bits, DiffVerdict::Differs)?;
    let first = d.prompts[0].first_mismatch.as_deref();
    if first == Some("blk.1.v") { Ok(()) } else { Err(Outcome::Failed(format!("{first:?}"))) }
}

/// Multiplies a value at a place, and makes its statistics follow.
fn scale(rec: &mut Recording, name: &str, decode: bool, factor: f32) -> Result<(), Outcome> {
    let s = rec.series.iter_mut().find(|s| s.name == name).ok_or_else(|| Outcome::Failed(format!("no {name}")))?;
    let rows: Vec<usize> = (0..s.rows.len()).filter(|&i| (s.rows[i].at.phase == Phase::Decode) == decode).collect();
    for i in rows {
        let span = s.rows[i].data.clone();
        s.reals[span.clone()].iter_mut().for_each(|x| *x *= factor);
        s.rows[i].stats = Stats::of(&s.reals[span]);
    }
    Ok(())
}

fn one_value_changed() -> Result<(), Outcome> {
    let rec = on_cpu("Q4_K_M", |_| {})?;
    let mut failures = Vec::new();
    let mut first = |d: &Diff, what: &str, want: &str| {
        let found: Vec<_> = d.prompts.iter().map(|p| p.first_mismatch.as_deref().unwrap_or("NONE")).collect();
        if d.verdict != DiffVerdict::Differs || found.iter().any(|f| *f != want) {
            failures.push(format!("{what}: {} {found:?}, expected {want}", d.verdict));
        }
    };
    for (node, factor) in [("embd", 1.0000001), ("blk.0.k_cache", 2.0), ("blk.1.ffn_norm", -1.0), ("logits", f32::NAN)]
    {
        let mut bad = rec.clone();
        scale(&mut bad, node, true, factor)?;
        first(&diff(&bad, LAST, &bad, DECODE0, &DiffOptions::default())?, "phases", node);
        first(&diff(&rec, DECODE0, &bad, DECODE0, &DiffOptions::default())?, "runs", node);
        // Under the other rules a difference in the last bit is none; a large one is.
        for (rule, change) in [
            (Rule::Bounds, (|r| r.info.backend = "other".into()) as fn(&mut Recording)),
            (Rule::Drift, |r| r.info.arith = "other".into()),
        ] {
            change(&mut bad);
            let d = diff(&rec, DECODE0, &bad, DECODE0, &DiffOptions::default())?;
            match node {
                "embd" => hold(
                    &d,
                    rule,
                    if rule == Rule::Bounds { DiffVerdict::WithinBounds } else { DiffVerdict::ExpectedDrift },
                )?,
                _ => first(&d, &format!("{rule:?}"), node),
            }
        }
    }
    // By its bound, an op that is off by little is found too: all but the changed op's inputs are equal.
    let weights = Model::open(&synth_tiny("Q4_K_M")?)?.weights();
    let mut bad = rec.clone();
    scale(&mut bad, "blk.1.attn_out", true, 1.001)?;
    bad.info.backend = "other".into();
    let o = DiffOptions { weights: Some(&*weights), ..DiffOptions::default() };
    first(&diff(&rec, DECODE0, &bad, DECODE0, &o)?, "bounds", "blk.1.attn_out");
    hold(&diff(&rec, DECODE0, &bad, DECODE0, &DiffOptions::default())?, Rule::Bounds, DiffVerdict::WithinBounds)?;
    all(failures)
}

fn unlike() -> Result<(), Outcome> {
    use DiffVerdict::{Incomplete, TraceMismatch};
    let rec = on_cpu("Q8_0", |_| {})?;
    type Edit = fn(&mut Recording);
    let cases: [(&str, Edit, Selector, DiffVerdict, &str); 10] = [
        ("model", |r| r.info.graph = "another".into(), Selector::All, TraceMismatch, "the models differ"),
        ("sha", |r| r.info.model.sha256 = "b".into(), Selector::All, TraceMismatch, "SHA-256"),
        (
            "prompt_names",
            |r| r.info.prompts.iter_mut().for_each(|p| p.id += "2"),
            Selector::All,
            TraceMismatch,
            "no prompt is in both",
        ),
        (
            "prompt_tokens",
            |r| r.info.prompts.iter_mut().for_each(|p| p.tokens[1] = 5),
            Selector::All,
            TraceMismatch,
            "differ at position 1",
        ),
        (
            "prompt_length",
            |r| r.info.prompts.iter_mut().for_each(|p| p.tokens.push(5)),
            Selector::All,
            TraceMismatch,
            "the end in A",
        ),
        ("row_tokens", |r| at(r, |a| a.token += 1), Selector::All, TraceMismatch, "was fed token"),
        ("positions", |r| at(r, |a| a.position += 1000), Selector::All, TraceMismatch, "unlike positions"),
        ("no_phase", |_| {}, Selector::DecodeStep(7), Incomplete, "no rows of decode7"),
        ("incomplete", |r| r.info.status = Status::Incomplete, Selector::All, Incomplete, "did not end"),
        ("failed", |r| r.info.status = Status::Failed("no space".into()), Selector::All, Incomplete, "no space"),
    ];
    let mut failures = Vec::new();
    for (name, edit, select, verdict, words) in cases {
        let (mut a, mut b) = (rec.clone(), rec.clone());
        a.info.model.sha256 = if name == "sha" { "a".into() } else { String::new() };
        edit(&mut b);
        let d = diff(&a, select, &b, select, &DiffOptions::default())?;
        let said = format!("{:?} {:?}", d.why, d.prompts.iter().map(|p| &p.why).collect::<Vec<_>>());
        let numbers = d.joined > 0 && verdict == TraceMismatch;
        if d.verdict != verdict || !said.contains(words) || numbers {
            failures.push(format!(
                "{name}: {} with {} rows, {said}; expected {verdict} and `{words}`",
                d.verdict, d.joined
            ));
        }
    }
    // A run that did not end but differs already differs.
    let mut b = rec.clone();
    b.info.status = Status::Incomplete;
    scale(&mut b, "blk.0.v", true, 2.0)?;
    hold(&all_of(&rec, &b)?, Rule::Bits, DiffVerdict::Differs)?;
    all(failures)
}

fn at(rec: &mut Recording, edit: fn(&mut At)) {
    rec.series.iter_mut().flat_map(|s| &mut s.rows).for_each(|r| edit(&mut r.at));
}

/// A run as an import leaves it: no graph, another engine, some names it alone has, and not everything told.
fn foreign() -> Result<(), Outcome> {
    let rec = on_cpu("Q8_0", |o| o.arith = Arithmetic::Exact)?;
    let theirs = |tells: bool| {
        let mut f = record("Q8_0", &Reference, &options(|o| o.arith = Arithmetic::Exact))?.0;
        f.graph = None;
        f.info.engine = "llama.cpp b1".into();
        f.info.prompts.iter_mut().for_each(|p| p.tokens.clear());
        f.series.retain(|s| !s.name.ends_with("_cache"));
        f.series.reverse();
        // What else made hashes has its own.
        f.series.iter_mut().flat_map(|s| &mut s.rows).for_each(|r| r.stats.hash = 7);
        if !tells {
            for s in &mut f.series {
                s.rows.retain(|r| r.at.phase == Phase::Decode && r.at.step == 0);
            }
            at(&mut f, |a| (a.token, a.position) = (At::NO_TOKEN, At::NO_POSITION));
        }
        Ok::<_, Outcome>(Recording::of(f.info, None, f.series))
    };
    for tells in [true, false] {
        let d = diff(&rec, DECODE0, &theirs(tells)?, DECODE0, &DiffOptions::default())?;
        hold(&d, Rule::Drift, DiffVerdict::ExpectedDrift)?;
        let order: Vec<&str> = d.prompts[0].nodes.iter().map(|n| n.node.as_str()).take(4).collect();
        if order[..3] != ["tokens", "positions", "seqs"] || order[3] != "embd" {
            return Err(Outcome::Failed(format!("the graph's order is lost: {order:?}")));
        }
    }
    let mut f = theirs(true)?;
    at(&mut f, |a| a.token += 1);
    hold(&all_of(&rec, &f)?, Rule::Drift, DiffVerdict::TraceMismatch)?;
    let mut f = theirs(true)?;
    scale(&mut f, "blk.1.q", true, 3.0)?;
    let d = all_of(&rec, &f)?;
    hold(&d, Rule::Drift, DiffVerdict::Differs)?;
    let first = d.prompts[0].first_mismatch.as_deref();
    if first == Some("blk.1.q") { Ok(()) } else { Err(Outcome::Failed(format!("{first:?}"))) }
}

/// Runs that went on with other tokens: rows before are compared, those after are not.
fn decoded_otherwise() -> Result<(), Outcome> {
    let rec = on_cpu("Q8_0", |_| {})?;
    let mut other = rec.clone();
    other.info.prompts.iter_mut().for_each(|p| p.decoded[0] += 1);
    let d = all_of(&rec, &other)?;
    hold(&d, Rule::Bits, DiffVerdict::TraceMismatch)?;
    let latest = d.nodes().flat_map(|n| &n.rows).map(|r| r.at_a.position).max();
    let why = d.prompts[1].why.clone().unwrap_or_default();
    if latest != Some(39) || !why.contains("decode1 was fed token") {
        return Err(Outcome::Failed(format!("compared up to position {latest:?}: {why}")));
    }
    // What differs before the tokens do is why they do.
    scale(&mut other, "blk.0.attn", false, 1.5)?;
    hold(&all_of(&rec, &other)?, Rule::Bits, DiffVerdict::Differs)
}
