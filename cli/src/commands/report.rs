//! `greta report`: what a recorded run comes to, as Markdown, as a page, or as JSON.

use crate::errors::Interrupted;
use crate::interrupt::Guard;
use crate::progress::{Progress, Unit};
use crate::{json, output, verdict};
use anyhow::Context as _;
use clap::builder::RangedU64ValueParser;
use greta::Model;
use greta::graph::NamePattern;
use greta::trace::report::{Languages, Options, Report, Subject, html, markdown, report};
use greta::trace::{Recording, TraceError};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

/// Report on a recorded run: what differs, what is wrong, and on what evidence
///
/// A run is a folder that `greta trace` wrote. A report of one run compares prefill_last with decode0; a report of two
/// compares the runs. Where the run's model is at hand, every recorded op is also held against its f64 reference.
/// Without --md and --html the Markdown goes to standard output.
#[derive(clap::Args, Debug)]
#[command(
    name = "report",
    after_help = "Exit codes: 0 the report is written, whatever it says; 1 error, 2 wrong usage, 130 stopped by Ctrl-C.

Examples:
  greta report run1
  greta report run1 --html run1.html --md run1.md --lang both
  greta report cpu/ reference/ --layer 3 --node 'blk.3.*'
  greta report run1 --json | jq .runs[0].judged.culprit"
)]
pub struct ReportCommand {
    /// The run folder
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// A second run to compare it with
    #[arg(value_name = "RUN2")]
    second: Option<PathBuf>,
    /// Write the report as Markdown
    #[arg(long, value_name = "FILE")]
    md: Option<PathBuf>,
    /// Write the report as one page that needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Language: en, es or both
    #[arg(long, value_name = "LANG", default_value = "en")]
    lang: Languages,
    /// Layer of the main table [default: that of the first mismatch, else of the first wrong op, else 0]
    #[arg(long, value_name = "N")]
    layer: Option<u32>,
    /// Nodes to report on, by name; * ? [ab] {a,b} stand for several [default: all]
    #[arg(long, value_name = "PATTERN")]
    node: Option<NamePattern>,
    /// Rows of a step to judge at most [default: as many as take seconds]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    rows: Option<usize>,
    /// Model to judge with [default: the one the run names, if it is there]
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Compare alone: hold no op against its reference
    #[arg(long, conflicts_with = "model")]
    no_judge: bool,
    /// Print the report's data as one JSON value on standard output and nothing else
    #[arg(long)]
    json: bool,
}

impl ReportCommand {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let runs = std::iter::once(&self.run).chain(&self.second).map(|dir| Ok((dir, Recording::open(dir)?)));
        let runs: Vec<(&PathBuf, Recording)> = runs.collect::<Result<_, TraceError>>()?;
        let models = runs.iter().map(|(_, rec)| self.model(rec)).collect::<anyhow::Result<Vec<_>>>()?;
        let subjects: Vec<Subject<'_>> = runs
            .iter()
            .zip(&models)
            .map(|((dir, recording), model)| Subject {
                recording,
                folder: Some((*dir).clone()),
                model: model.as_ref().map_err(String::clone),
            })
            .collect();
        let options = Options { layer: self.layer, nodes: self.node.clone(), rows: self.rows };
        let made = self.make(&subjects, &options)?;
        if let Some(pattern) = self.node.as_ref().filter(|_| made.runs.iter().all(|r| r.nodes.is_empty())) {
            output::warn(&format!("--node {pattern} leaves nothing to report on"));
        }
        if let Some(path) = &self.md {
            write(path, &markdown(&made, self.lang))?;
        }
        if let Some(path) = &self.html {
            write(path, &html(&made, self.lang)?)?;
        }
        match (self.json, &self.md, &self.html) {
            (true, ..) => json::print(&json!(made))?,
            (_, None, None) => output::print(&markdown(&made, self.lang))?,
            _ => {}
        }
        Ok(ExitCode::SUCCESS)
    }

    fn make(&self, subjects: &[Subject<'_>], options: &Options) -> anyhow::Result<Report> {
        let guard = Guard::arm();
        // Told from several threads.
        let progress = Mutex::new(Progress::new("judging", Unit::Things("checks")));
        let tell = |done: usize, all: usize| {
            if let Ok(p) = progress.lock() {
                p.set(done as u64, all as u64);
            }
            !guard.hit()
        };
        match report(&subjects[0], subjects.get(1), options, &tell) {
            Err(TraceError::Interrupted) => Err(Interrupted.into()),
            other => Ok(other?),
        }
    }

    /// The model to judge a run with, or why it is not judged. One that the run names may be gone; one that was given
    /// may not, and either must be the file that was run.
    fn model(&self, rec: &Recording) -> anyhow::Result<Result<Model, String>> {
        if self.no_judge {
            return Ok(Err("--no-judge".into()));
        }
        let named = &rec.info.model;
        let path = self.model.as_ref().unwrap_or(&named.path);
        let shown = path.display();
        match (self.model.is_some(), path.exists()) {
            (false, _) if named.path.as_os_str().is_empty() => {
                return Ok(Err("the run names no model; give it with -m".into()));
            }
            (false, false) => return Ok(Err(format!("the model {shown} is not there; give it with -m"))),
            _ => {}
        }
        let model = match (Model::open(path), self.model.is_some()) {
            (Ok(model), _) => model,
            (Err(e), true) => return Err(e.into()),
            (Err(e), false) => return Ok(Err(e.to_string())),
        };
        match verdict::same_model(&rec.info, &model) {
            Err(e @ TraceError::Mismatch(_)) => return Ok(Err(e.to_string())),
            other => other?,
        }
        Ok(Ok(model))
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("{}: the report can't be written", path.display()))
}
