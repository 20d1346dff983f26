//! Reports: what they say follows from the run, in both languages, and the page shows it in a real browser.

mod page;

use crate::support::{Outcome, all, cpu, synth_tiny, trial};
use greta_backend::{Fault, Injection};
use greta_graph::{TapRequest, TapRows, TapSpec};
use greta_models::{Arithmetic, Engine, EngineOptions, Model};
use greta_trace::facts::{Recorder, with_facts};
use greta_trace::report::{Languages, Options, Report, Subject, markdown, report, texts};
use greta_trace::{PromptInfo, Recording, RunInfo, Status, TracePlan, prompts, tracer};
use libtest_mimic::Trial;
use std::path::Path;
use std::sync::Arc;

pub fn trials() -> Vec<Trial> {
    let mut list = vec![
        trial("report/clean", clean),
        trial("report/tile_transposed", tile_transposed),
        trial("report/two_runs", two_runs),
        trial("report/unlike_prompts", unlike_prompts),
        trial("report/not_judged", not_judged),
        trial("report/texts", every_text),
        trial("report/command", command),
    ];
    list.extend(page::trials());
    list
}

/// A run of a tiny model in memory, every value at every token.
fn run(faults: &[Injection], arith: Arithmetic, tap: &str) -> Result<(Arc<Model>, Recording), Outcome> {
    let model = Arc::new(Model::open(&synth_tiny("Q4_K_M")?)?);
    let prompts = prompts::built_in(&model, &[], model.context().min(512))?;
    let rec = record(&model, faults, arith, tap, &prompts)?;
    Ok((model, rec))
}

fn record(
    model: &Arc<Model>,
    faults: &[Injection],
    arith: Arithmetic,
    tap: &str,
    prompts: &[PromptInfo],
) -> Result<Recording, Outcome> {
    let taps = vec![TapRequest::new(tap, TapSpec { rows: TapRows::All, ..TapSpec::default() })?];
    let backend = cpu(2)?;
    let mut options = EngineOptions { arith, taps, faults: faults.to_vec(), ..EngineOptions::default() };
    options.taps = with_facts(model, &backend, &options)?;
    let engine = Engine::new(model.clone(), &backend, &options)?;
    let mut info = RunInfo::of(&engine, model, ("cpu", "a test".into()), &options);
    info.prompts = prompts.to_vec();
    let graph = Arc::new(engine.executable().plan().graph().without_taps()?);
    let mut recorder = Recorder::new(Recording::new(info.clone(), Some(graph)), model.weights());
    tracer::run(&engine, &mut info, &TracePlan::default(), &mut recorder, &mut |_, _, _| true)?;
    let mut rec = recorder.recording;
    rec.info = info;
    rec.info.status = Status::Complete;
    rec.info.command = ["greta", "trace", "-o", "a run"].map(String::from).to_vec();
    Ok(rec)
}

/// The fault of the first reports: 16×16 output tiles of `q` transposed, in steps of more than 32 rows.
fn faulty() -> Result<(Arc<Model>, Recording), Outcome> {
    let fault = Injection { fault: Fault::TileTransposed, node: "blk.0.q".into(), phase: None, param: Some(32) };
    run(&[fault], Arithmetic::Exact, "all")
}

fn of(model: &Model, rec: &Recording) -> Result<Report, Outcome> {
    let options = Options { rows: Some(24), ..Options::default() };
    Ok(report(&Subject { recording: rec, folder: None, model: Ok(model) }, None, &options, &|_, _| true)?)
}

/// The cells of a table's line that begins with this one.
fn line<'t>(text: &'t str, first: &str) -> Vec<&'t str> {
    let start = format!("| {first} |");
    let found = text.lines().find(|l| l.starts_with(&start)).unwrap_or_default();
    found.trim_matches('|').split('|').map(str::trim).collect()
}

/// What a text must hold, and what it may not.
fn holds(text: &str, has: &[&str], not: &[&str]) -> Vec<String> {
    let lacks = has.iter().filter(|h| !text.contains(**h)).map(|h| format!("lacks: {h}"));
    lacks.chain(not.iter().filter(|n| text.contains(**n)).map(|n| format!("has: {n}"))).collect()
}

fn clean() -> Result<(), Outcome> {
    let (model, rec) = run(&[], Arithmetic::Int8, "all")?;
    let text = markdown(&of(&model, &rec)?, Languages::Both);
    let has = [
        "# run — prefill_last vs decode0 (Layer0, Decode0)",
        "## Resumen Ejecutivo (ES)",
        "## Executive Summary (EN)",
        "## Metodología / Method",
        "greta trace -o 'a run'",
        "## Resultados / Results",
        "values compared are equal to the bit** (MAE = 0.0)",
        "are within their error bounds**",
        "prefill ≡ decode, bit for bit",
        "prefill ≡ decode, bit a bit",
        "## Short vs Long Prompt Behavior (EN)",
        "length makes no difference",
        "## Evidencia / Evidence",
        "## Conclusión y Próximo Paso / Conclusion & Next Step",
        "No fault was found",
    ];
    let mut failures = holds(&text, &has, &["Class `", "DIFFERS", "not the cause"]);
    for prompt in ["p0_short", "p4_sys", "p5_ba", "p6_long"] {
        let got = line(&text, prompt);
        if got != [prompt, "0.0", "0.0", "NONE"] {
            failures.push(format!("{prompt}: {got:?}"));
        }
    }
    all(failures)
}

fn tile_transposed() -> Result<(), Outcome> {
    let (model, rec) = faulty()?;
    let made = of(&model, &rec)?;
    let text = markdown(&made, Languages::Both);
    let has = [
        "**The first value that differs is `blk.0.q`**, for `p4_sys`, `p5_ba`, `p6_long`",
        "**the first op that is wrong is `blk.0.q`**, class **`D_kernel_math`**",
        "`blk.0.attn_norm` is **not** the cause",
        "`blk.0.attn_norm` **no** es la causa",
        "neither the weight nor its layout in the file is the cause",
        "this is the **kernel** on the route that large M takes",
        "is over its bound in `prefill` and within it in `decode0`",
        "tile-transposed",
        "output tile transposed",
        "**(aceptada / accepted)**",
    ];
    let mut failures = holds(&text, &has, &["UNKNOWN", "No fault was found"]);
    let short = line(&text, "p0_short");
    if short != ["p0_short", "0.0", "0.0", "NONE"] {
        failures.push(format!("p0_short: {short:?}"));
    }
    for prompt in ["p4_sys", "p5_ba", "p6_long"] {
        let got = line(&text, prompt);
        let q = got.get(2).and_then(|q| q.parse::<f64>().ok()).unwrap_or(0.0);
        if (got.first(), got.get(1), got.get(3)) != (Some(&prompt), Some(&"0.0"), Some(&"q")) || q <= 1e-3 {
            failures.push(format!("{prompt}: {got:?}"));
        }
    }
    // One language alone has none of the other.
    let (en, es) = (markdown(&made, Languages::En), markdown(&made, Languages::Es));
    failures.extend(holds(&en, &["## Executive Summary (EN)", "## Method\n"], &["Resumen", "Metodología"]));
    failures.extend(holds(&es, &["## Resumen Ejecutivo (ES)", "## Metodología\n"], &["Executive", "Method\n"]));
    all(failures)
}

/// Runs of two arithmetics are apart by drift, and nothing is wrong with that.
fn two_runs() -> Result<(), Outcome> {
    let (model, a) = run(&[], Arithmetic::Exact, "{*.q,*.attn_norm,*.out,logits}")?;
    let b = record(&model, &[], Arithmetic::Int8, "{*.q,*.attn_norm,*.out,logits}", &a.info.prompts)?;
    let mut named = [a, b];
    named[0].info.label = Some("exact".into());
    named[1].info.label = Some("int8".into());
    let [a, b] = &named;
    let subject = |rec| Subject { recording: rec, folder: None, model: Ok(&*model) };
    let made = report(&subject(a), Some(&subject(b)), &Options::default(), &|_, _| true)?;
    let text = markdown(&made, Languages::En);
    let has =
        ["# exact / int8 — exact vs int8 (Layer0)", "Two runs of", "EXPECTED_DRIFT", "two arithmetics bring about"];
    all(holds(&text, &has, &["prefill ≡ decode", "owe each other"]))
}

/// Unlike tokens give no number.
fn unlike_prompts() -> Result<(), Outcome> {
    let (model, a) = run(&[], Arithmetic::Exact, "{blk.0.q,tokens}")?;
    let mut other = a.info.prompts.clone();
    other[1].tokens[0] ^= 1;
    let b = record(&model, &[], Arithmetic::Exact, "{blk.0.q,tokens}", &other)?;
    let subject = |rec| Subject { recording: rec, folder: None, model: Err("not wanted".into()) };
    let made = report(&subject(&a), Some(&subject(&b)), &Options::default(), &|_, _| true)?;
    let text = markdown(&made, Languages::En);
    let mut failures = holds(&text, &["`p4_sys` gives no number (TRACE_MISMATCH)"], &[]);
    let row = line(&text, "p4_sys");
    if row != ["p4_sys", "–", "–", "TRACE_MISMATCH"] {
        failures.push(format!("p4_sys: {row:?}"));
    }
    all(failures)
}

/// Without the model nothing is said to be right.
fn not_judged() -> Result<(), Outcome> {
    let (_, rec) = run(&[], Arithmetic::Exact, "blk.0.*")?;
    let subject = Subject { recording: &rec, folder: None, model: Err("there is no such file".into()) };
    let made = report(&subject, None, &Options::default(), &|_, _| true)?;
    let text = markdown(&made, Languages::En);
    let has = ["were not judged against their references: there is no such file", "Whether they are right is not said"];
    all(holds(&text, &has, &["within their error bounds", "No fault was found"]))
}

/// Every text is there in both languages, with the same places, and every key that is used has one.
fn every_text() -> Result<(), Outcome> {
    let mut failures = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (key, en, es) in texts::all() {
        let (mut a, mut b) = (texts::places(en), texts::places(es));
        a.sort_unstable();
        b.sort_unstable();
        if en.is_empty() || es.is_empty() || a != b || !seen.insert(*key) {
            failures.push(format!("{key}: {a:?} in English, {b:?} in Spanish, or empty, or twice"));
        }
        if en.matches('`').count() % 2 + es.matches('`').count() % 2 > 0 {
            failures.push(format!("{key}: a code span is not closed"));
        }
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("trace/src/report");
    let mut used = 0;
    for name in ["findings.rs", "markdown.rs", "page/page.js", "page/heat.js", "page/detail.js", "page/page.html"] {
        let text = std::fs::read_to_string(dir.join(name))?;
        for part in text.split(['"', '\'']).filter(|p| is_key(p)) {
            used += 1;
            if !seen.contains(part) {
                failures.push(format!("{name} uses `{part}`, which has no text"));
            }
        }
    }
    if used < 150 {
        failures.push(format!("only {used} uses were found"));
    }
    all(failures)
}

fn is_key(word: &str) -> bool {
    let rooms =
        ["h", "l", "p", "summary", "diff", "side", "class", "verdict", "finite", "open", "length", "end", "next"];
    let Some((room, rest)) = word.split_once('.') else { return false };
    rooms.contains(&room)
        && !rest.is_empty()
        && rest.chars().all(|c| c.is_ascii_lowercase() || "_.".contains(c))
        && !rest.ends_with('.')
}

/// The command on a run folder.
fn command() -> Result<(), Outcome> {
    let dir = tempfile::tempdir()?;
    let greta = |args: &[&str]| -> Result<(bool, String, String), Outcome> {
        let out =
            std::process::Command::new(env!("CARGO_BIN_EXE_greta")).args(args).current_dir(dir.path()).output()?;
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        Ok((out.status.success(), text(&out.stdout), text(&out.stderr)))
    };
    let model = synth_tiny("Q4_K_M")?;
    let model = model.to_string_lossy();
    let taps = "{blk.0.*,tokens,embd}";
    let (ok, _, err) =
        greta(&["trace", "-m", &model, "-o", "run", "--label", "small", "--taps", taps, "--rows", "all"])?;
    let mut failures = Vec::new();
    if !ok {
        failures.push(format!("trace: {err}"));
    }
    let (ok, out, err) =
        greta(&["report", "run", "--md", "r.md", "--html", "r.html", "--lang", "both", "--rows", "4"])?;
    if !ok || !out.is_empty() {
        failures.push(format!("writing files: {out}{err}"));
    }
    let md = std::fs::read_to_string(dir.path().join("r.md"))?;
    failures.extend(holds(&md, &["# small — ", "`taps.jsonl` ("], &[]));
    let page = std::fs::read_to_string(dir.path().join("r.html"))?;
    failures.extend(holds(&page, &["<title>small — greta</title>"], &[]));
    let (ok, out, err) = greta(&["report", "run", "--no-judge", "--json"])?;
    let json: serde_json::Value = serde_json::from_str(&out)?;
    if !ok || json["compared"]["verdict"] != "EQUAL" || json["runs"][0]["judged"]["why_not"] != "--no-judge" {
        failures.push(format!("--json: {err}{}", json["compared"]["verdict"]));
    }
    let norm = json["runs"][0]["nodes"].as_array().and_then(|n| n.iter().find(|n| n["name"] == "blk.0.attn_norm"));
    let facts = norm.map(|n| &n["prompts"][1]["detail"]["facts"]["norm"]);
    if facts.is_none_or(|f| f["eps"].is_null() || f["inv_rms"].is_null()) {
        failures.push(format!("a norm without its facts: {norm:?}"));
    }
    let (ok, out, _) = greta(&["report", "run", "--no-judge", "--lang", "es", "--node", "blk.0.q"])?;
    if !ok || !out.contains("## Resumen Ejecutivo (ES)") {
        failures.push(format!("to standard output: {out}"));
    }
    let (ok, _, err) = greta(&["report", "nowhere"])?;
    if ok || !err.contains("nowhere: there is no such folder") {
        failures.push(format!("a folder that is not there: {err}"));
    }
    all(failures)
}
