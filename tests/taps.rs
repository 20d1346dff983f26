//! Taps: what they record, and that looking changes nothing (P2).

use crate::support::{Outcome, all, cpu, hips, smollm2, synth_tiny, trial};
use greta_backend::{Backend, Phase};
use greta_cpu::simd::Level;
use greta_cpu::{Cpu, CpuOptions};
use greta_graph::{Detail, Graph, Kind, PhaseFilter, TapMode, TapRequest, TapRows, TapSpec, Value};
use greta_hip::Hip;
use greta_models::{Arithmetic, Engine, EngineOptions, Model};
use greta_ops::{ACT_BLOCK, DType, Stats};
use greta_reference::Reference;
use greta_trace::tracer::{self, TracePlan};
use greta_trace::{PromptInfo, Recording, Row, Series};
use libtest_mimic::Trial;
use std::path::Path;
use std::sync::Arc;

pub fn trials() -> Vec<Trial> {
    let mut list = vec![
        trial("taps/patterns", patterns),
        trial("taps/rows_phases_detail", rows_phases_detail),
        trial("taps/statistics_on_every_instruction_set", statistics),
        trial("taps/as_executed_moves_nothing", as_executed_moves_nothing),
        trial("taps/reference", reference),
        trial("taps/quantised_activations", quantised),
        trial("taps/p2/reference", || looking_changes_nothing(&synth_tiny("Q4_K_M")?, Arithmetic::Int8, &Reference)),
    ];
    for mix in ["F32", "F16", "Q4_0", "Q4_K_M", "Q8_0", "Q6_K"] {
        for arith in [Arithmetic::Exact, Arithmetic::Int8] {
            list.push(trial(format!("taps/p2/{mix}/{arith}"), move || {
                looking_changes_nothing(&synth_tiny(mix)?, arith, &cpu(2)?)
            }));
        }
    }
    for (mix, arith) in [("Q4_K_M", Arithmetic::Int8), ("Q8_0", Arithmetic::Exact)] {
        for (label, open) in hips() {
            let test = move || looking_changes_nothing(&synth_tiny(mix)?, arith, &open()?);
            list.push(trial(format!("taps/p2/{label}/{mix}/{arith}"), test));
        }
    }
    for (label, open) in hips() {
        list.push(trial(format!("taps/statistics_on_the_device/{label}"), move || statistics_on_the_device(&open()?)));
    }
    for arith in [Arithmetic::Exact, Arithmetic::Int8] {
        let test = move || looking_changes_nothing(&smollm2("Q4_1")?, arith, &cpu(2)?);
        list.push(trial(format!("taps/p2/smollm2-Q4_1/{arith}"), test));
    }
    list
}

/// A tap of every node, every row, every step, whole.
pub fn everything() -> TapRequest {
    request("all", TapRows::All, &[PhaseFilter::Every], Detail::Full)
}

/// A tap.
pub fn request(pattern: &str, rows: TapRows, phases: &[PhaseFilter], detail: Detail) -> TapRequest {
    let spec = TapSpec { rows, phases: phases.to_vec(), detail };
    TapRequest { pattern: pattern.parse().expect("a pattern of this file"), spec }
}

/// Two prompts, one of them longer than a page of the cache.
pub fn prompts() -> Vec<PromptInfo> {
    let prompt = |id: &str, n: u32| PromptInfo {
        id: id.into(),
        tokens: (0..n).map(|i| (i * 7919 + n) % 1000).collect(),
        ..PromptInfo::default()
    };
    vec![prompt("short", 3), prompt("long", 40)]
}

/// Records a run of [`prompts`], in chunks of 16.
pub fn record(
    mix: &str,
    backend: &dyn Backend,
    options: &EngineOptions<'_>,
) -> Result<(Recording, tracer::Logits), Outcome> {
    record_file(&synth_tiny(mix)?, backend, options)
}

fn record_file(
    path: &Path,
    backend: &dyn Backend,
    options: &EngineOptions<'_>,
) -> Result<(Recording, tracer::Logits), Outcome> {
    let model = Arc::new(Model::open(path)?);
    let plan = TracePlan { decode_steps: 2, chunk: Some(16), ..TracePlan::default() };
    Ok(tracer::record(&model, backend, options, &prompts(), &plan, &mut |_, _, _| true)?)
}

fn bits(logits: &tracer::Logits) -> Vec<u32> {
    logits.iter().flatten().flatten().map(|x| x.to_bits()).collect()
}

fn looking_changes_nothing(path: &Path, arith: Arithmetic, backend: &dyn Backend) -> Result<(), Outcome> {
    let run = |taps: Vec<TapRequest>, tap_mode| {
        record_file(path, backend, &EngineOptions { arith, taps, tap_mode, ..EngineOptions::default() })
    };
    let want = bits(&run(Vec::new(), TapMode::Semantic)?.1);
    let mut failures = Vec::new();
    for mode in [TapMode::Semantic, TapMode::AsExecuted] {
        let (rec, logits) = run(vec![everything()], mode)?;
        if bits(&logits) != want || want.is_empty() {
            failures.push(format!("{mode:?}: the logits differ"));
        }
        // What the tap of the logits saw is what came back.
        let tapped = rec.get("logits").map(|s| s.reals.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        if tapped.as_ref() != Some(&want) {
            failures.push(format!("{mode:?}: the tap of the logits saw others"));
        }
        if rec.rows() < 1000 {
            failures.push(format!("{mode:?}: only {} rows", rec.rows()));
        }
    }
    all(failures)
}

fn patterns() -> Result<(), Outcome> {
    let model = Model::open(&synth_tiny("Q8_0")?)?;
    let graph = model.graph(DType::F16)?;
    let tap = |p: &str| -> Result<Graph, String> {
        let spec = TapSpec::default();
        let request = TapRequest::new(p, spec).map_err(|e| e.to_string())?;
        greta_graph::insert_taps(&graph, &[request]).map_err(|e| e.to_string())
    };
    let mut failures = Vec::new();
    for (pattern, taps) in [
        ("blk.0.q", 1),
        ("blk.*.q", 2),
        ("blk.?.{q,k}", 4),
        ("blk.[1].*norm", 2),
        ("*_cache", 4),
        ("{tokens,positions}", 2),
        ("blk.0.attn_q.weight.f32", 1),
    ] {
        match tap(pattern).map(|g| g.nodes().filter(|(_, n)| matches!(n.kind, Kind::Tap(_))).count()) {
            Ok(n) if n == taps => {}
            other => failures.push(format!("{pattern}: {other:?}, expected {taps} taps")),
        }
    }
    for (pattern, words) in [
        ("blk.0.quark", &["blk.0.quark", "blk.0.q"][..]),
        ("blk.9.out", &["matches no node", "blk."]),
        ("", &["empty"]),
        ("blk.{0", &["can't be read"]),
    ] {
        match tap(pattern) {
            Err(text) if words.iter().all(|w| text.contains(w)) => {}
            other => {
                failures.push(format!("{pattern}: {:?}, expected an error with {words:?}", other.map(|g| g.len())))
            }
        }
    }
    // Of several requests that match, the first decides.
    let first = TapRequest::new("blk.0.q", TapSpec { detail: Detail::Stats, ..TapSpec::default() })?;
    let both = greta_graph::insert_taps(&graph, &[first, everything()])?;
    let found = both.find("tap:blk.0.q").and_then(|id| both.tapped(id)).map(|(_, s)| s.detail);
    if found != Some(Detail::Stats) {
        failures.push(format!("the first request does not decide: {found:?}"));
    }
    if both.without_taps()? != graph {
        failures.push("without its taps the graph is another".into());
    }
    all(failures)
}

/// Rows, phases, detail; what is recorded of the prompt of 40 tokens (phase and step: positions), and values kept.
type Records = &'static [(Phase, u32, &'static [u32])];

fn rows_phases_detail() -> Result<(), Outcome> {
    use Phase::{Decode, Prefill};
    use PhaseFilter as P;
    const WHOLE: usize = usize::MAX;
    const ENDS: [u32; 16] = [16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31];
    let cases: [(TapRows, &[P], Detail, Records, usize); 8] = [
        (
            TapRows::Last,
            &[P::PrefillLast, P::DecodeStep(0)],
            Detail::Full,
            &[(Prefill, 2, &[39]), (Decode, 0, &[39])],
            WHOLE,
        ),
        (
            TapRows::Last,
            &[P::Every],
            Detail::Stats,
            &[(Prefill, 0, &[15]), (Prefill, 1, &[31]), (Prefill, 2, &[39]), (Decode, 0, &[39]), (Decode, 1, &[40])],
            0,
        ),
        (TapRows::All, &[P::PrefillLast], Detail::Full, &[(Prefill, 2, &[39])], WHOLE),
        (
            TapRows::Positions(vec![5, 39]),
            &[P::Prefill],
            Detail::Sample(3),
            &[(Prefill, 0, &[5]), (Prefill, 2, &[39])],
            3,
        ),
        (TapRows::Positions(vec![5]), &[P::Decode], Detail::Full, &[], WHOLE),
        (TapRows::All, &[P::DecodeStep(1)], Detail::Sample(1000), &[(Decode, 1, &[40])], WHOLE),
        (TapRows::Last, &[P::Decode], Detail::Full, &[(Decode, 0, &[39]), (Decode, 1, &[40])], WHOLE),
        (TapRows::Positions(ENDS.to_vec()), &[P::Every], Detail::Stats, &[(Prefill, 1, &ENDS)], 0),
    ];
    let mut failures = Vec::new();
    for (backend, b) in [("cpu", Box::new(cpu(2)?) as Box<dyn Backend>), ("reference", Box::new(Reference))] {
        for (i, (rows, phases, detail, want, kept)) in cases.iter().enumerate() {
            for node in ["blk.1.q", "blk.1.k_cache"] {
                let taps = vec![request(node, rows.clone(), phases, *detail)];
                let (rec, _) = record("Q8_0", &*b, &EngineOptions { taps, ..EngineOptions::default() })?;
                let none = Series::default();
                let series = rec.get(node).unwrap_or(&none);
                let got: Vec<_> = series.rows.iter().filter(|r| r.at.prompt == 1).collect();
                let want: Vec<_> =
                    want.iter().flat_map(|(p, s, list)| list.iter().map(move |&x| (*p, *s, x))).collect();
                let at: Vec<_> = got.iter().map(|r| (r.at.phase, r.at.step, r.at.position)).collect();
                let kept = (*kept).min(series.cols);
                if at != want || got.iter().any(|r| r.data.len() != kept) {
                    failures.push(format!("{backend}, case {i}, {node}: {at:?}, expected {want:?} with {kept} values"));
                }
                let tokens = &rec.info.prompts[1];
                if got.iter().any(|r| tokens.token(r.at.position as usize) != Some(r.at.token as u32)) {
                    failures.push(format!("{backend}, case {i}, {node}: a row has another position's token"));
                }
            }
        }
    }
    all(failures)
}

/// Statistics by the plainest loop.
fn plain(row: &[f32]) -> Stats {
    let finite: Vec<f32> = row.iter().copied().filter(|x| x.is_finite()).collect();
    let sum = |f: fn(f64) -> f64| finite.iter().map(|&x| f(f64::from(x))).sum::<f64>();
    let count = |f: fn(&f32) -> bool| row.iter().filter(|x| f(x)).count() as u32;
    Stats {
        count: row.len() as u32,
        min: finite.iter().copied().reduce(f32::min).unwrap_or(0.0),
        max: finite.iter().copied().reduce(f32::max).unwrap_or(0.0),
        sum: sum(|x| x),
        abs_sum: sum(f64::abs),
        sum_sq: sum(|x| x * x),
        nan: count(|x| x.is_nan()),
        inf: count(|x| x.is_infinite()),
        zeros: count(|x| *x == 0.0),
        hash: 0,
    }
}

fn wide(s: &Series, r: &Row) -> Vec<f32> {
    s.values(r).iter().map(|&x| x as f32).collect()
}

fn statistics() -> Result<(), Outcome> {
    let mut failures = Vec::new();
    let mut first: Option<Vec<Stats>> = None;
    for level in Level::available() {
        let backend = Cpu::new(CpuOptions { threads: Some(2), level: Some(level), guard: true })?;
        let options = EngineOptions { taps: vec![everything()], ..EngineOptions::default() };
        let (rec, _) = record("Q4_K_M", &backend, &options)?;
        for s in &rec.series {
            for r in &s.rows {
                let (row, got) = (wide(s, r), r.stats);
                let (want, close) = (plain(&row), |a: f64, b: f64, size: f64| (a - b).abs() <= 1e-12 * size);
                let sums = close(got.sum, want.sum, want.abs_sum)
                    && close(got.abs_sum, want.abs_sum, want.abs_sum)
                    && close(got.sum_sq, want.sum_sq, want.sum_sq);
                let rest = Stats { sum: got.sum, abs_sum: got.abs_sum, sum_sq: got.sum_sq, hash: got.hash, ..want };
                if !sums || got != rest || got.hash != Stats::hash_of(&row) {
                    failures.push(format!("{}, {}: {got:?}, by definition {want:?}", level.name(), s.name));
                }
            }
        }
        let stats: Vec<Stats> = rec.series.iter().flat_map(|s| s.rows.iter().map(|r| r.stats)).collect();
        if *first.get_or_insert_with(|| stats.clone()) != stats {
            failures.push(format!("{}: other statistics than the first level's", level.name()));
        }
    }
    failures.truncate(5);
    all(failures)
}

fn as_executed_moves_nothing() -> Result<(), Outcome> {
    let model = Arc::new(Model::open(&synth_tiny("Q4_K_M")?)?);
    let backend = cpu(2)?;
    let mut failures = Vec::new();
    for arith in [Arithmetic::Exact, Arithmetic::Int8] {
        let options = |taps: Vec<TapRequest>| EngineOptions {
            arith,
            taps,
            tap_mode: TapMode::AsExecuted,
            ..EngineOptions::default()
        };
        let bare = Engine::new(model.clone(), &backend, &options(Vec::new()))?;
        let places = |e: &greta_graph::Plan| -> Vec<String> {
            let g = e.graph();
            let outs = g.nodes().filter(|(_, n)| !matches!(n.kind, Kind::Tap(_))).flat_map(|(id, n)| {
                (0..n.outs.len() as u8).map(move |out| Value { node: id, out }).map(|v| (g.value_name(v), v))
            });
            outs.map(|(name, v)| format!("{name} in {:?}", e.place(v))).collect()
        };
        let plan = bare.executable().plan();
        let names: Vec<String> =
            plan.graph().nodes().filter(|(_, n)| matches!(n.kind, Kind::Op(_))).map(|(_, n)| n.name.clone()).collect();
        for name in names.iter().map(String::as_str).chain(["all"]) {
            let tap = request(name, TapRows::All, &[PhaseFilter::Every], Detail::Full);
            let (tapped, _) = Engine::plan(&model, &backend, &options(vec![tap]))?;
            if places(&tapped) != places(plan) || tapped.slots() != plan.slots() {
                failures.push(format!("{arith}, tap on {name}: another slot"));
            }
            if tapped.graph().without_taps()? != *plan.graph() {
                failures.push(format!("{arith}, tap on {name}: another graph"));
            }
        }
        let tapped = Engine::new(model.clone(), &backend, &options(vec![everything()]))?;
        for (tokens, rows) in [(1, 1), (7, 1), (200, 1)] {
            if tapped.executable().routes(tokens, rows) != bare.executable().routes(tokens, rows) {
                failures.push(format!("{arith}: another kernel for {tokens} tokens"));
            }
        }
    }
    all(failures)
}

fn reference() -> Result<(), Outcome> {
    let options = EngineOptions { taps: vec![everything()], tap_mode: TapMode::AsExecuted, ..EngineOptions::default() };
    let (rec, _) = record("Q8_0", &Reference, &options)?;
    let options = EngineOptions { tap_mode: TapMode::Semantic, ..options };
    let (on_cpu, _) = record("Q8_0", &cpu(2)?, &options)?;
    let mut failures = Vec::new();
    for s in &rec.series {
        // The reference backend dequantises row by row; nothing else it has is unknown to the CPU.
        let Some(t) = on_cpu.get(&s.name) else {
            failures.push(format!("{} is not tapped on the CPU", s.name));
            continue;
        };
        let keys = |s: &Series| s.rows.iter().map(|r| (r.at, r.row, r.data.len())).collect::<Vec<_>>();
        if keys(s) != keys(t) || (s.cols, s.dtype) != (t.cols, t.dtype) {
            failures.push(format!("{}: {} rows, on the CPU {}", s.name, s.rows.len(), t.rows.len()));
        }
        if let Some(r) = s.rows.iter().find(|r| r.stats.hash != Stats::hash_of(&wide(s, r))) {
            failures.push(format!("{}: the statistics of position {} are not its values'", s.name, r.at.position));
        }
    }
    all(failures)
}

fn quantised() -> Result<(), Outcome> {
    let options = EngineOptions { taps: vec![everything()], ..EngineOptions::default() };
    let (rec, _) = record("Q8_0", &cpu(2)?, &options)?;
    let find = |name: &str| rec.get(name).ok_or_else(|| Outcome::Failed(format!("`{name}` is not recorded")));
    let (codes, scales, source) =
        (find("blk.0.attn_norm.q8")?, find("blk.0.attn_norm.q8.1")?, find("blk.0.attn_norm")?);
    if (codes.dtype, scales.dtype) != (Some(DType::I8), Some(DType::F32)) || codes.reals.len() + scales.ints.len() > 0 {
        return Err(Outcome::Failed(format!("{:?} and {:?}", codes.dtype, scales.dtype)));
    }
    let mut failures = Vec::new();
    for ((c, s), x) in codes.rows.iter().zip(&scales.rows).zip(&source.rows) {
        let (c, s, x) = (codes.values(c), scales.values(s), source.values(x));
        for (i, (code, x)) in c.iter().zip(&x).enumerate() {
            let scale = s[i / ACT_BLOCK];
            if code.abs() > 127.0 || (code * scale - x).abs() > scale * 0.5001 {
                failures.push(format!("value {i}: code {code} × {scale} for {x}"));
            }
        }
    }
    if codes.rows.is_empty() || codes.rows.len() != source.rows.len() {
        failures.push(format!("{} rows of codes of {} rows", codes.rows.len(), source.rows.len()));
    }
    failures.truncate(5);
    all(failures)
}

/// Statistics that a device computed are those of the values it recorded, to the last bit.
fn statistics_on_the_device(hip: &Hip) -> Result<(), Outcome> {
    let options = EngineOptions { taps: vec![everything()], ..EngineOptions::default() };
    let (rec, _) = record("Q4_K_M", hip, &options)?;
    let mut failures = Vec::new();
    for series in &rec.series {
        for row in &series.rows {
            let values: Vec<f32> = series.values(row).iter().map(|&v| v as f32).collect();
            let want = Stats::of(&values);
            if row.stats != want {
                failures.push(format!("{} at {:?}: {:?}, expected {want:?}", series.node, row.at, row.stats));
            }
        }
    }
    failures.truncate(5);
    all(failures)
}
