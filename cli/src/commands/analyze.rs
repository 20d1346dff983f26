//! `greta analyze`: what recorded runs say, without running anything.

use crate::errors::Interrupted;
use crate::interrupt::Guard;
use crate::verdict::{self, JUDGED, WRONG};
use crate::{json, output, progress};
use anyhow::Context as _;
use greta::Model;
use greta::trace::diff::{self, Diff, DiffOptions, DiffVerdict, NodeDiff, PromptDiff, Selector};
use greta::trace::foreign::{self, ForeignOptions};
use greta::trace::judge::{Judge, JudgeOptions, Verdict, VerdictKind};
use greta::trace::{Recording, RunInfo, Status, TraceError, bundle, folder};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Say what recorded runs show: decode0 against prefill_last, and the first op that is wrong
///
/// For each run, the row of each prompt's last token in the prefill is compared with the one that decode0 made of the same
/// token, value by value. Where the run's model is at hand, every op is then judged on its own recorded inputs. Nothing is
/// run, and no backend is needed: bundles of `greta trace --bundle` come from other machines.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Exit codes: 0 no difference and no fault, 1 a difference or a fault, 2 could not judge: a file is missing or damaged, a
run did not end, or its model was given with -m and can't judge it. A run whose model is not here is compared all the same.

Examples:
  greta analyze --dir greta-run-E1 --out analysis.txt
  greta analyze --dir artifacts.tgz --out analysis.txt        # a bundle
  greta analyze --dir runs/ -m model.gguf --json              # every run in a folder"
)]
pub struct Analyze {
    /// A run folder, a folder of run folders, or a bundle
    #[arg(long, value_name = "DIR|BUNDLE")]
    dir: PathBuf,
    /// File for the report [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Model to judge with [default: the one a run names, if it is there]
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Layer whose norm and query the table shows
    #[arg(long, value_name = "N", default_value_t = 0)]
    layer: u32,
    /// Print one JSON value on standard output and nothing else
    #[arg(long)]
    json: bool,
}

impl Analyze {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        verdict::judged(self.analyze())
    }

    fn analyze(&self) -> anyhow::Result<ExitCode> {
        // Bundles are unpacked for as long as they are read.
        let unpacked = tempfile::tempdir().context("no temporary folder can be made")?;
        let analysis = Analysis::of(&self.dir, unpacked.path(), self.model.as_deref(), self.layer)?;
        if let Some(path) = &self.out {
            let text = plain(&analysis.text());
            std::fs::write(path, text).with_context(|| format!("{}: can't be written", path.display()))?;
        }
        match (&self.out, self.json) {
            (_, true) => json::print(&analysis.json())?,
            (Some(_), false) => output::print(&analysis.summary())?,
            (None, false) => output::print(&analysis.text())?,
        }
        Ok(analysis.code().into())
    }
}

/// What some runs say.
pub struct Analysis {
    source: PathBuf,
    layer: u32,
    runs: Vec<Run>,
}

/// What one run says.
struct Run {
    /// As the report names it.
    name: String,
    info: Option<RunInfo>,
    diff: Option<Diff>,
    judged: Result<Verdict, String>,
    /// Whether a run that can't be judged is as bad as one that can't be compared.
    must: bool,
    /// What kept it from being read or compared.
    error: Option<String>,
}

impl Analysis {
    /// Analyses a run folder, a folder of them, or a bundle, which is unpacked into `room`.
    pub fn of(source: &Path, room: &Path, model: Option<&Path>, layer: u32) -> anyhow::Result<Analysis> {
        let given = model.map(Model::open).transpose()?;
        let mut runs = Vec::new();
        for (name, dir) in folders(source, room)? {
            runs.push(Run::of(name, &dir, given.as_ref())?);
        }
        Ok(Analysis { source: source.into(), layer, runs })
    }

    /// The worst of the runs: what differs or is wrong, then what can't be judged.
    pub fn code(&self) -> u8 {
        let codes: Vec<u8> = self.runs.iter().map(Run::code).collect();
        let any = |code| codes.contains(&code);
        if any(WRONG) {
            WRONG
        } else if any(JUDGED) {
            JUDGED
        } else {
            0
        }
    }

    /// The report.
    pub fn text(&self) -> String {
        self.runs.iter().map(|r| r.text(self.layer)).collect::<Vec<_>>().join("\n")
    }

    /// A line for each run.
    fn summary(&self) -> String {
        self.runs.iter().map(|r| format!("{}: {}\n", r.name, r.headline())).collect()
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let runs = self.runs.iter().map(|r| r.json(self.layer)).collect::<Vec<_>>();
        json!({ "source": self.source, "layer": self.layer, "exit_code": self.code(), "runs": runs })
    }
}

/// The run folders of a source, with the names that the report gives them.
fn folders(source: &Path, room: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let shown = source.display().to_string();
    if source.is_file() {
        let found = bundle::unpack(source, room)?;
        let inner = |dir: &Path| dir.strip_prefix(room).map_or(String::new(), |d| d.display().to_string());
        return Ok(found.into_iter().map(|dir| (format!("{shown}: {}", inner(&dir)), dir)).collect());
    }
    // A folder with any part of a run is meant to be one; what it lacks is an error that names it.
    let parts = [folder::RUN, folder::GRAPH, folder::TAPS, folder::TENSORS];
    let is_run = |dir: &Path| parts.iter().any(|p| dir.join(p).exists());
    if !source.is_dir() || is_run(source) {
        return Ok(vec![(shown, source.into())]);
    }
    let entries = std::fs::read_dir(source).with_context(|| format!("{shown}: can't be read"))?;
    let mut found: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| is_run(p) && !p.join("replay.json").exists()).collect();
    found.sort();
    anyhow::ensure!(!found.is_empty(), "{shown}: is no run folder, and none lies in it: no {} is there", folder::RUN);
    Ok(found.into_iter().map(|dir| (dir.display().to_string(), dir)).collect())
}

impl Run {
    /// Only Ctrl-C ends the analysis; a run that can't be read is reported and the next one is looked at.
    fn of(name: String, dir: &Path, given: Option<&Model>) -> anyhow::Result<Run> {
        let failed = |info, e: &dyn std::fmt::Display| {
            let error = Some(errors_text(e, dir, &name));
            Run { name: name.clone(), info, diff: None, judged: Err("it can't be read".into()), must: false, error }
        };
        let recording = match Recording::open(dir) {
            Ok(recording) => recording,
            Err(e) => return Ok(failed(folder::info(dir).ok(), &e)),
        };
        let info = recording.info.clone();
        let own = match given {
            Some(_) => None,
            None => Some(own_model(&info)),
        };
        let model = match (given, &own) {
            (Some(model), _) | (None, Some(Ok(model))) => Ok(model),
            (None, Some(Err(why))) => Err(why.clone()),
            (None, None) => Err("no model was given".into()),
        };
        let weights = model.as_ref().ok().map(|m| m.weights());
        let options = DiffOptions { weights: weights.as_deref(), ..DiffOptions::default() };
        let diff = match diff::diff(&recording, Selector::PrefillLast, &recording, Selector::DecodeStep(0), &options) {
            Ok(diff) => diff,
            Err(e) => return Ok(failed(Some(info), &e)),
        };
        let judged = match model.map(|m| judge(&recording, m)) {
            Ok(Err(TraceError::Interrupted)) => return Err(Interrupted.into()),
            Ok(other) => other.map_err(|e| e.to_string()),
            Err(why) => Err(why),
        };
        Ok(Run { name, info: Some(info), diff: Some(diff), judged, must: given.is_some(), error: None })
    }

    fn code(&self) -> u8 {
        let judged = match &self.judged {
            Ok(v) if v.verdict == VerdictKind::Fault => WRONG,
            Ok(v) if v.verdict == VerdictKind::Clean => 0,
            _ if self.must => JUDGED,
            _ => 0,
        };
        let compared = self.diff.as_ref().map_or(JUDGED, |d| d.verdict.exit_code());
        if [judged, compared].contains(&WRONG) { WRONG } else { judged.max(compared) }
    }

    /// The first mismatch of all prompts.
    fn first(&self) -> Option<(&PromptDiff, &NodeDiff)> {
        self.diff.as_ref()?.prompts.iter().find_map(|p| {
            let name = p.first_mismatch.as_ref()?;
            Some((p, p.nodes.iter().find(|n| n.node == *name)?))
        })
    }

    fn headline(&self) -> String {
        if let Some(error) = &self.error {
            return format!("ERROR: {error}");
        }
        let compared = self.diff.as_ref().map_or("not compared", |d| d.verdict.name());
        let judged = match &self.judged {
            Ok(v) => match (&v.culprit, v.verdict) {
                (Some(c), _) => format!("FAULT at `{}`, {}", c.node, c.class),
                (None, VerdictKind::Incomplete) => "INCOMPLETE: no op could be judged".into(),
                (None, _) => "CLEAN".into(),
            },
            Err(why) => format!("not judged: {why}"),
        };
        format!("{compared}; {judged}")
    }

    fn text(&self, layer: u32) -> String {
        let mut out = String::new();
        // Writing to a string can't fail.
        let _ = writeln!(out, "{}", output::Stream::Out.paint("1", &self.name));
        if let Some(info) = &self.info {
            let label = info.label.as_ref().map(|l| format!("{l}: ")).unwrap_or_default();
            let state = match &info.status {
                Status::Complete => String::new(),
                Status::Incomplete => "; INCOMPLETE: it did not end".into(),
                Status::Failed(why) => format!("; INCOMPLETE: it ended with an error: {why}"),
            };
            let _ = writeln!(out, "{label}{}, {}, {}, KV {}{state}", info.engine, info.backend, info.arith, info.kv);
        }
        if let Some(error) = &self.error {
            let _ = writeln!(out, "ERROR: {error}");
            return out;
        }
        let Some(d) = &self.diff else { return out };
        let head = ["prompt", "norm_out MAE", "q MAE", "first mismatch"].map(String::from).to_vec();
        let rows = d.prompts.iter().map(|p| {
            let mae = |name: &str| node(p, layer, name).and_then(|n| n.mae).map_or("–".into(), number);
            vec![p.prompt.clone(), mae("attn_norm"), mae("q"), first_mismatch(p)]
        });
        let table: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
        let _ = writeln!(out, "\nprefill_last against decode0, layer {layer}: {}\n", d.verdict.name());
        out += &output::table(&table, &[false, true, true, false]);
        let _ = match self.first() {
            None if d.verdict.is_clean() => writeln!(out, "\nfirst mismatch: NONE in {} rows", d.joined),
            None => writeln!(out, "\nfirst mismatch: none found"),
            Some((p, n)) => {
                let (mae, max) = (n.mae.map_or("–".into(), number), n.max_abs.map_or("–".into(), number));
                writeln!(out, "\nfirst mismatch: `{}` ({}) in {}, MAE {mae}, max abs {max}", n.node, n.op, p.prompt)
            }
        };
        let whys = d.prompts.iter().filter_map(|p| Some(format!("{}: {}", p.prompt, p.why.as_ref()?)));
        whys.chain(d.why.iter().cloned()).for_each(|why| out += &format!("{why}\n"));
        out.push('\n');
        match (&self.judged, &self.info) {
            (Ok(v), Some(info)) => out += &verdict::text(v, info, true),
            (Err(why), _) => out += &format!("not judged: {why}\n"),
            (Ok(_), None) => {}
        }
        out
    }

    fn json(&self, layer: u32) -> Value {
        let prompts = self.diff.iter().flat_map(|d| &d.prompts).map(|p| {
            let mae = |name: &str| node(p, layer, name).and_then(|n| n.mae);
            json!({
                "prompt": p.prompt,
                "verdict": p.verdict,
                "norm_out_mae": mae("attn_norm"),
                "q_mae": mae("q"),
                "first_mismatch": p.first_mismatch,
                "first_difference": p.first_difference,
                "rows": p.joined,
                "why": p.why,
            })
        });
        let first = self.first().map(|(p, n)| {
            json!({"prompt": p.prompt, "node": n.node, "op": n.op, "layer": n.layer, "mae": n.mae, "max_abs": n.max_abs})
        });
        json!({
            "run": self.name,
            "label": self.info.as_ref().and_then(|i| i.label.clone()),
            "model": self.info.as_ref().map(|i| i.model.path.clone()),
            "complete": self.info.as_ref().is_some_and(|i| i.status == Status::Complete),
            "compared": self.diff.as_ref().map(|d| d.verdict),
            "why": self.diff.as_ref().map(|d| d.why.clone()).unwrap_or_default(),
            "prompts": prompts.collect::<Vec<_>>(),
            "first_mismatch": first,
            "judged": self.judged.as_ref().ok(),
            "not_judged": self.judged.as_ref().err(),
            "error": self.error,
            "exit_code": self.code(),
        })
    }
}

fn node<'d>(p: &'d PromptDiff, layer: u32, name: &str) -> Option<&'d NodeDiff> {
    let name = format!("blk.{layer}.{name}");
    p.nodes.iter().find(|n| n.node == name)
}

/// `NONE` is for prompts that were compared.
fn first_mismatch(p: &PromptDiff) -> String {
    match &p.first_mismatch {
        Some(name) => name.clone(),
        None if p.verdict.is_clean() => "NONE".into(),
        None => format!("– ({})", DiffVerdict::name(p.verdict)),
    }
}

fn number(x: f64) -> String {
    match x {
        0.0 => "0.0".into(),
        x if !x.is_finite() => x.to_string(),
        x if (1e-3..1e5).contains(&x.abs()) => format!("{x:.7}"),
        x => format!("{x:.3e}"),
    }
}

/// The model that a run names, if it is there.
fn own_model(info: &RunInfo) -> Result<Model, String> {
    let path = &info.model.path;
    if path.as_os_str().is_empty() {
        return Err("the run names no model; -m gives one".into());
    }
    if !path.exists() {
        return Err(format!("its model, {}, is not here; -m gives it", path.display()));
    }
    Model::open(path).map_err(|e| e.to_string())
}

fn judge(recording: &Recording, model: &Model) -> Result<Verdict, TraceError> {
    let guard = Guard::arm();
    let told = progress::Shared::new("analysing");
    let tell = |done: usize, all: usize| {
        told.set("judging", done, all);
        !guard.hit()
    };
    let info = &recording.info;
    if !info.is_greta() {
        return foreign::judge(recording, model, &ForeignOptions::default(), &tell);
    }
    verdict::same_model(info, model)?;
    let weights = model.weights();
    Judge::new(recording, &*weights, JudgeOptions::default())?.run(&tell)
}

/// An error's text with the name that the reader knows for a folder that a bundle was unpacked to.
fn errors_text(e: &dyn std::fmt::Display, dir: &Path, name: &str) -> String {
    e.to_string().replace(&dir.display().to_string(), name)
}

/// Without colours: a file is no terminal.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut parts = text.split('\x1b');
    out.push_str(parts.next().unwrap_or_default());
    parts.for_each(|p| out.push_str(p.split_once('m').map_or("", |(_, rest)| rest)));
    out
}
