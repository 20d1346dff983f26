//! Run folders: what goes in comes out, and what was cut or edited is said.

mod bad;

use crate::support::{Outcome, all, cpu, synth_tiny, trial};
use crate::taps::{everything, prompts, request};
use greta_backend::TapRow;
use greta_graph::{Detail, Graph, PhaseFilter, TapRequest, TapRows};
use greta_models::{Arithmetic, Engine, EngineOptions, Model};
use greta_ops::{DType, Stats};
use greta_trace::facts::{Recorder, with_facts};
use greta_trace::folder::{self, FolderWriter, Record};
use greta_trace::recording::{At, RowSink, StepBegin};
use greta_trace::{Recording, RunInfo, Status, TraceError, TracePlan, tracer};
use libtest_mimic::Trial;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub fn trials() -> Vec<Trial> {
    let mut list = vec![
        trial("run_folder/facts", facts),
        trial("run_folder/safetensors", safetensors),
        trial("run_folder/saved_again", saved_again),
        trial("run_folder/cut_short", cut_short),
        trial("run_folder/keeps_what_is_there", keeps_what_is_there),
        trial("run_folder/by_label", by_label),
        trial("run_folder/prompts_of_one_name", one_name),
    ];
    for (mix, arith) in [("Q8_0", Arithmetic::Int8), ("Q4_K_M", Arithmetic::Exact), ("F16", Arithmetic::Exact)] {
        for detail in [Detail::Full, Detail::Stats, Detail::Sample(5)] {
            let name = format!("run_folder/round_trip/{mix}/{arith}/{detail}");
            list.push(trial(name, move || round_trip(mix, arith, detail)));
        }
    }
    list.extend(bad::trials());
    list
}

/// Two sinks at once.
struct Tee<'a>(&'a mut dyn RowSink, &'a mut dyn RowSink);

impl RowSink for Tee<'_> {
    fn begin(&mut self, step: &StepBegin<'_>) -> Result<(), TraceError> {
        self.0.begin(step)?;
        self.1.begin(step)
    }

    fn row(&mut self, g: &Graph, at: At, row: &TapRow<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.0.row(g, at, row)?;
        self.1.row(g, at, row)
    }

    fn end(&mut self) -> Result<(), TraceError> {
        self.0.end()?;
        self.1.end()
    }
}

fn fresh(name: &str) -> Result<PathBuf, Outcome> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("run-{}-{name}", std::process::id()));
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    Ok(dir)
}

/// Runs [`prompts`] into a folder and into memory.
fn traced(dir: &Path, mix: &str, arith: Arithmetic, taps: Vec<TapRequest>) -> Result<Recording, Outcome> {
    let model = Arc::new(Model::open(&synth_tiny(mix)?)?);
    let backend = cpu(2)?;
    let mut options = EngineOptions { arith, taps, ..EngineOptions::default() };
    options.taps = with_facts(&model, &backend, &options)?;
    let engine = Engine::new(model.clone(), &backend, &options)?;
    let mut info = RunInfo::of(&engine, &model, ("cpu", "a test".into()), &options);
    info.prompts = prompts();
    info.label = Some("E1".into());
    let plan = TracePlan { decode_steps: 2, chunk: Some(16), ..TracePlan::default() };
    let graph = engine.executable().plan().graph();
    let mut writer = FolderWriter::create(dir, &info, graph, &plan, model.weights(), false)?;
    let kept = Recording::new(info.clone(), Some(Arc::new(graph.without_taps()?)));
    let mut memory = Recorder::new(kept, model.weights());
    tracer::run(&engine, &mut info, &plan, &mut Tee(&mut writer, &mut memory), &mut |_, _, _| true)?;
    info.status = Status::Complete;
    let written = writer.finish(&info)?;
    let mut rec = memory.recording;
    rec.info = info;
    if (written.rows, written.values) != (rec.rows(), rec.series.len()) {
        return Err(Outcome::Failed(format!("{written:?} for {} rows", rec.rows())));
    }
    Ok(rec)
}

/// What two recordings do not have in common.
fn differences(a: &Recording, b: &Recording) -> Vec<String> {
    let mut out = Vec::new();
    if a.info != b.info {
        out.push(format!("{:?}\n{:?}", a.info, b.info));
    }
    if a.graph != b.graph {
        out.push("the graphs differ".into());
    }
    let names = |r: &Recording| r.series.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
    if names(a) != names(b) {
        out.push(format!("{:?}\n{:?}", names(a), names(b)));
    }
    out.extend(a.series.iter().zip(&b.series).filter(|(s, t)| s != t).map(|(s, _)| format!("{} differs", s.name)));
    out
}

fn round_trip(mix: &str, arith: Arithmetic, detail: Detail) -> Result<(), Outcome> {
    let dir = fresh(&format!("round-{mix}-{arith}-{}", detail.to_string().replace(':', "")))?;
    let taps = vec![request("all", TapRows::All, &[PhaseFilter::Every], detail)];
    let memory = traced(&dir, mix, arith, taps)?;
    let read = Recording::open(&dir)?;
    fs::remove_dir_all(&dir)?;
    all(differences(&memory, &read))
}

fn records(dir: &Path) -> Result<Vec<Record>, Outcome> {
    let text = fs::read_to_string(dir.join(folder::TAPS))?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn facts() -> Result<(), Outcome> {
    let dir = fresh("facts")?;
    // The norms alone are asked for: statistics of what they read come along.
    let pattern = "{blk.*.*_norm,output_norm,blk.0.q,blk.0.attn,blk.0.attn_norm.q8}";
    let taps = vec![request(pattern, TapRows::Last, &[PhaseFilter::Every], Detail::Full)];
    traced(&dir, "Q8_0", Arithmetic::Int8, taps)?;
    let model = Model::open(&synth_tiny("Q8_0")?)?;
    let list = records(&dir)?;
    let mut failures = Vec::new();
    let (mut norms, mut products, mut attentions, mut blocks) = (0, 0, 0, 0);
    for r in &list {
        let place = (&r.prompt, r.order, r.position);
        let Some(f) = &r.facts else { continue };
        if let Some(n) = &f.norm {
            norms += 1;
            let Some(input) = &n.input else {
                failures.push(format!("{} does not know its input", r.node));
                continue;
            };
            let source = list.iter().find(|s| s.node == input.value && (&s.prompt, s.order, s.position) == place);
            let same = source.is_some_and(|s| {
                s.stats.stats.sum_sq == input.sum_sq && s.buffer == input.buffer && s.offset == input.offset
            });
            let inv = 1.0 / (input.sum_sq / n.cols as f64 + f64::from(n.eps)).sqrt();
            if !same || n.inv_rms != Some(inv) || n.cols != 256 || n.eps != 1e-5 {
                failures.push(format!("{}: {n:?}", r.node));
            }
        }
        if let Some(m) = &f.matmul {
            products += 1;
            let w = f.weight.as_ref().map(|w| (&*w.tensor, w.dtype, w.window.len()));
            if (m.k, m.n) != (256, 256) || w != Some(("blk.0.attn_q.weight", DType::Q8_0, 16)) {
                failures.push(format!("{}: {m:?} {w:?}", r.node));
            }
        }
        if let Some(w) = &f.weight {
            let bytes = model.gguf().tensor(&w.tensor).map(|t| model.gguf().bytes(t)).unwrap_or_default();
            let hash: String = Sha256::digest(bytes).iter().take(8).map(|b| format!("{b:02x}")).collect();
            if hash != w.hash {
                failures.push(format!("{}: the hash of {} is {}, expected {hash}", r.node, w.tensor, w.hash));
            }
        }
        if let Some(a) = &f.attention {
            attentions += 1;
            let pages = (r.position as usize / 32) + 1;
            let table = (a.first_page.is_some(), a.last_page.is_some());
            if (a.positions, a.pages) != (r.position as usize + 1, pages) || table != (true, true) || a.heads != 4 {
                failures.push(format!("{}: {a:?} at position {}", r.node, r.position));
            }
        }
        blocks += usize::from(f.block == Some(32));
    }
    if [norms, products, attentions, blocks].contains(&0) {
        failures.push(format!("{norms} norms, {products} products, {attentions} attentions, {blocks} quantisations"));
    }
    failures.truncate(5);
    all(failures)
}

/// The format's own rules: header length, JSON, sizes, no gaps, and places that a mapped file can be read at.
fn safetensors() -> Result<(), Outcome> {
    let dir = fresh("safetensors")?;
    let taps = vec![request("*.q8", TapRows::All, &[PhaseFilter::Every], Detail::Sample(3)), everything()];
    let rec = traced(&dir, "Q8_0", Arithmetic::Int8, taps)?;
    let bytes = fs::read(dir.join(folder::TENSORS))?;
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap_or_default()) as usize;
    let value: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header])?;
    let mut failures = Vec::new();
    let mut ends = 0;
    for (name, t) in value.as_object().into_iter().flatten().filter(|(n, _)| *n != "__metadata__") {
        let number = |v: &serde_json::Value| v.as_u64().unwrap_or(u64::MAX) as usize;
        let (start, end) = (number(&t["data_offsets"][0]), number(&t["data_offsets"][1]));
        let width = match t["dtype"].as_str() {
            Some("F32" | "I32") => 4,
            Some("I8") => 1,
            other => return Err(Outcome::Failed(format!("{name}: type {other:?}"))),
        };
        let size = number(&t["shape"][0]) * number(&t["shape"][1]) * width;
        // Entries come in the order of their bytes, each where the last one ended.
        if start != ends || end - start != size || !(8 + header + start).is_multiple_of(4) {
            failures.push(format!("{name}: {t}, the last one ended at {ends}"));
        }
        ends = end;
    }
    if 8 + header + ends != bytes.len() || !header.is_multiple_of(8) {
        failures.push(format!("header {header}, tensors {ends}, file {}", bytes.len()));
    }
    let tensor = &value["long/decode0/blk.1.q"];
    let at = tensor["data_offsets"][0].as_u64().unwrap_or(0) as usize + 8 + header;
    let first = f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
    let want = rec.get("blk.1.q").and_then(|s| {
        let row = s.rows.iter().find(|r| r.at.prompt == 1 && r.at.phase_name() == "decode0")?;
        s.reals.get(row.data.start).copied()
    });
    if tensor["shape"] != serde_json::json!([1, 256]) || Some(first) != want {
        failures.push(format!("{tensor}: {first}, expected {want:?}"));
    }
    all(failures)
}

/// A recording without a graph, as an import makes it, and one with: both can be written from memory.
fn saved_again() -> Result<(), Outcome> {
    let (dir, again) = (fresh("saved")?, fresh("saved-again")?);
    let mut rec = traced(&dir, "Q4_K_M", Arithmetic::Int8, vec![everything()])?;
    folder::save(&rec, &again, false)?;
    let mut failures = differences(&rec, &Recording::open(&again)?);
    (rec.graph, rec.info.plan, rec.info.engine) = (None, String::new(), "llama.cpp b1".into());
    for s in &mut rec.series {
        s.op.clear();
        s.rows.iter_mut().for_each(|r| (r.at.position, r.at.token) = (At::NO_POSITION, At::NO_TOKEN));
    }
    folder::save(&rec, &again, true)?;
    failures.extend(differences(&rec, &Recording::open(&again)?));
    all(failures)
}

fn cut_short() -> Result<(), Outcome> {
    let dir = fresh("cut")?;
    let whole = traced(&dir, "Q8_0", Arithmetic::Int8, vec![everything()])?;
    bad::edit(&dir, folder::RUN, |t| t.replacen("\"status\": \"complete\"", "\"status\": \"incomplete\"", 1))?;
    let mut failures = Vec::new();
    let text = fs::read(dir.join(folder::TAPS))?;
    let tensors = fs::read(dir.join(folder::TENSORS))?;
    for part in [10, 3, 2, 1] {
        let (lines, values) = (text.len() * part / 11, tensors.len() * part / 12);
        fs::write(dir.join(folder::TAPS), &text[..lines])?;
        fs::write(dir.join(folder::TENSORS), &tensors[..values])?;
        let rec = Recording::open(&dir)?;
        let there = text[..lines].iter().filter(|b| **b == b'\n').count();
        let kept: usize = rec.series.iter().flat_map(|s| &s.rows).filter(|r| !r.data.is_empty()).count();
        if rec.rows() != there || rec.info.status != Status::Incomplete || (kept == 0) != (part == 1 && kept == 0) {
            failures.push(format!("{part}/11: {} rows of {there} lines, {kept} with values", rec.rows()));
        }
        let like = |s: &greta_trace::Series| {
            let of = whole.get(&s.name);
            s.rows.iter().zip(of.map_or(&[][..], |o| &o.rows)).all(|(a, b)| {
                a.stats == b.stats && (a.data.is_empty() || of.is_some_and(|o| s.values(a) == o.values(b)))
            })
        };
        failures.extend(rec.series.iter().filter(|s| !like(s)).map(|s| format!("{part}/11: {} differs", s.name)));
    }
    for name in [folder::TENSORS, folder::TAPS, folder::GRAPH] {
        fs::remove_file(dir.join(name))?;
        Recording::open(&dir)?;
    }
    all(failures)
}

fn keeps_what_is_there() -> Result<(), Outcome> {
    let dir = fresh("there")?;
    let rec = traced(
        &dir,
        "F32",
        Arithmetic::Exact,
        vec![request("logits", TapRows::Last, &[PhaseFilter::Every], Detail::Full)],
    )?;
    fs::write(dir.join("notes.txt"), "mine")?;
    let mut failures = Vec::new();
    let mut refused = |dir: &Path, force: bool, word: &str| match folder::save(&rec, dir, force) {
        Err(e) if e.to_string().contains(word) => {}
        other => failures.push(format!("{}, force {force}: {other:?}, expected `{word}`", dir.display())),
    };
    refused(&dir, false, "--force replaces it");
    refused(&dir.join("notes.txt"), true, "is a file");
    let other = fresh("there-other")?;
    fs::create_dir_all(&other)?;
    fs::write(other.join("precious"), "mine")?;
    refused(&other, false, "neither empty nor a run folder");
    refused(&other, true, "neither empty nor a run folder");
    refused(&dir.join("notes.txt/below"), false, "can't be made");
    folder::save(&rec, &dir, true)?;
    if fs::read(dir.join("notes.txt"))? != b"mine" || !differences(&rec, &Recording::open(&dir)?).is_empty() {
        failures.push("--force lost something".into());
    }
    all(failures)
}

fn by_label() -> Result<(), Outcome> {
    let dir = fresh("labels")?;
    let mut rec =
        Recording::new(RunInfo { schema: greta_trace::SCHEMA, status: Status::Complete, ..RunInfo::default() }, None);
    for (folder, label) in [("one", "E1"), ("two", "E2"), ("three", "E2")] {
        rec.info.label = Some(label.into());
        folder::save(&rec, &dir.join(folder), false)?;
    }
    let mut failures = Vec::new();
    match folder::find(&dir, "E1") {
        Ok(path) if path == dir.join("one") => {}
        other => failures.push(format!("{other:?}")),
    }
    for (at, label, word) in
        [("", "E9", "there are E1"), ("", "E2", "two runs"), ("one", "E2", "not `E2`"), ("nil", "E1", "can't be read")]
    {
        match folder::find(&dir.join(at), label) {
            Err(e) if e.to_string().contains(word) => {}
            other => failures.push(format!("{at}@{label}: {other:?}, expected `{word}`")),
        }
    }
    all(failures)
}

fn one_name() -> Result<(), Outcome> {
    let mut rec = Recording::default();
    rec.info.prompts = vec![prompts()[0].clone(), prompts()[0].clone()];
    match folder::save(&rec, &fresh("twins")?, false) {
        Err(e) if e.to_string().contains("two prompts are named `short`") => {}
        other => return Err(Outcome::Failed(format!("{other:?}"))),
    }
    // What a hash covers: the place of a value, and the sign of a zero.
    let hashes = [[1.0, 2.0], [2.0, 1.0], [0.0, 0.0], [-0.0, 0.0]].map(|r| Stats::hash_of(&r));
    let unlike = hashes.iter().enumerate().all(|(i, h)| !hashes[..i].contains(h));
    if unlike { Ok(()) } else { Err(Outcome::Failed(format!("{hashes:x?}"))) }
}
