//! `greta verify`: names the first op whose numbers are wrong.

use crate::args::Common;
use crate::errors::Interrupted;
use crate::interrupt::Guard;
use crate::taps::{PromptFlags, RouteFlags};
use crate::verdict::{self, JUDGED, WRONG};
use crate::{json, output, progress};
use clap::builder::RangedU64ValueParser;
use greta::EngineOptions;
use greta::graph::NamePattern;
use greta::trace::foreign::{self, ForeignOptions};
use greta::trace::judge::{Judge, JudgeOptions, Verdict, VerdictKind};
use greta::trace::replay::Bundle;
use greta::trace::verify::{self, Outcome, VerifyOptions};
use greta::trace::{Recording, Status, TraceError, TracePlan};
use std::path::PathBuf;
use std::process::ExitCode;

/// Find the first op whose numbers are wrong
///
/// Runs prompts with every value recorded and holds each op, in the graph's order, against its f64 reference on the
/// recorded inputs of the same token. The first op over its error bound is named, with its class, the hypothesis that
/// explains it, and a replay bundle that runs the op alone. No second run is needed.
#[derive(clap::Args, Debug)]
#[command(after_help = "Exit codes: 0 every op judged is right, 1 an op is wrong, 2 could not judge.

Examples:
  greta verify                                   # the four built-in prompts
  greta verify -m model.gguf --prompts p6_long --arith exact
  greta verify --nodes 'blk.3.*' --rows 8 --json \"Hello\"
  greta verify --repeat 5                        # values that differ between identical runs
  greta verify --run greta-run-E1                # judge a recorded or an imported run")]
pub struct Verify {
    #[command(flatten)]
    prompts: PromptFlags,
    /// Judge a run folder instead of running anything
    #[arg(long, value_name = "DIR", conflicts_with_all = ["prompt", "file", "tokens", "prompts", "prompt_file", "repeat"])]
    run: Option<PathBuf>,
    /// Nodes to judge; * ? [ab] {a,b} stand for several [default: all]
    #[arg(long, value_name = "PATTERN")]
    nodes: Option<NamePattern>,
    /// Rows of a step judged at most [default: as many as take seconds]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    rows: Option<usize>,
    /// Run N times and compare every value, to the bit
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Decode steps after each prompt
    #[arg(long, value_name = "N", default_value_t = 1)]
    decode: u32,
    /// Most tokens of a prefill step [default: 512]
    #[arg(long, value_name = "N")]
    chunk: Option<usize>,
    /// Folder for the replay bundle [default: greta-replay-NODE]
    #[arg(long, value_name = "DIR")]
    bundle_dir: Option<PathBuf>,
    /// An op that could not be judged is no CLEAN: exit code 2
    #[arg(long)]
    strict: bool,
    /// Write no replay bundle
    #[arg(long)]
    no_bundle: bool,
    #[command(flatten)]
    routes: RouteFlags,
    #[command(flatten)]
    common: Common,
}

impl Verify {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        verdict::judged(self.judge())
    }

    fn judge(&self) -> anyhow::Result<ExitCode> {
        if let Some(dir) = &self.run {
            return self.judge_folder(dir);
        }
        let model = self.common.open()?;
        let backend = self.common.open_backend()?;
        let engine = EngineOptions { routes: self.routes.route.clone(), ..self.common.engine_options() };
        let context = engine.context.unwrap_or_else(|| model.context().min(4096)).min(model.context());
        let prompts = self.prompts.read(&model, context)?;
        let options = VerifyOptions {
            nodes: self.nodes.clone(),
            rows: self.rows,
            repeat: self.repeat,
            plan: TracePlan { decode_steps: self.decode, chunk: self.chunk, drop_first: 0 },
            ..VerifyOptions::default()
        };
        let guard = Guard::arm();
        let told = progress::Shared::new("verifying");
        let tell = |what: &str, done: usize, all: usize| {
            told.set(what, done, all);
            !guard.hit()
        };
        let found = verify::verify(&model, &*backend, &engine, &prompts, &options, None, &tell);
        let Outcome { mut verified, bundle, recording } = match found {
            Err(TraceError::Interrupted) => return Err(Interrupted.into()),
            other => other?,
        };
        drop(told);
        self.save(bundle, &mut verified.verdict);
        match self.common.json {
            true => json::print(&serde_json::to_value(&verified)?)?,
            false => {
                output::print(&verdict::text(&verified.verdict, &recording.info, false))?;
                if !verified.taps_change_nothing {
                    output::warn("logits with taps differ from logits without them");
                }
            }
        }
        Ok(self.code(&verified.verdict))
    }
}

impl Verify {
    /// Judges what a run folder holds: a run of greta's by its graph, a foreign one by its arithmetic.
    fn judge_folder(&self, dir: &std::path::Path) -> anyhow::Result<ExitCode> {
        let recording = Recording::open(dir)?;
        let mut common = self.common.clone();
        if common.model.is_none() && recording.info.is_greta() {
            common.model = Some(recording.info.model.path.clone());
        }
        let model = common.open()?;
        let guard = Guard::arm();
        let told = progress::Shared::new("verifying");
        let tell = |done: usize, all: usize| {
            told.set("judging", done, all);
            !guard.hit()
        };
        let options = JudgeOptions { nodes: self.nodes.clone(), rows: self.rows };
        let judge = || match recording.info.is_greta() {
            true => {
                let weights = model.weights();
                let judge = Judge::new(&recording, &*weights, options)?;
                let found = judge.run(&tell)?;
                let bundle = found.culprit.as_ref().map(|c| Bundle::of(&judge, c)).transpose()?;
                Ok((found, bundle.flatten()))
            }
            // Its op would run on another engine's kernel.
            false => {
                let options = ForeignOptions { arith: None, judge: options };
                foreign::judge(&recording, &model, &options, &tell).map(|found| (found, None))
            }
        };
        if recording.info.is_greta() {
            verdict::same_model(&recording.info, &model)?;
        }
        let (mut found, bundle) = match judge() {
            Err(TraceError::Interrupted) => return Err(Interrupted.into()),
            other => other?,
        };
        drop(told);
        self.save(bundle, &mut found);
        match self.common.json {
            true => json::print(&serde_json::to_value(&found)?)?,
            false => output::print(&verdict::text(&found, &recording.info, true))?,
        }
        if recording.info.status != Status::Complete {
            output::warn("the run is incomplete; what it recorded was judged");
            if found.verdict == VerdictKind::Clean {
                return Ok(JUDGED.into());
            }
        }
        Ok(self.code(&found))
    }
}

impl Verify {
    /// Writes the replay bundle, and notes in the verdict where it is.
    fn save(&self, bundle: Option<Bundle>, found: &mut Verdict) {
        if let (Some(bundle), Some(culprit), false) = (bundle, &mut found.culprit, self.no_bundle) {
            let name = format!("greta-replay-{}", culprit.node);
            let dir = self.bundle_dir.clone().unwrap_or_else(|| name.into());
            // The verdict is what was asked for; it is said in any case.
            match bundle.save(&dir) {
                Ok(()) => culprit.bundle = Some(dir.display().to_string()),
                Err(e) => output::warn(&format!("no replay bundle was written: {:#}", anyhow::Error::from(e))),
            }
        }
    }

    /// The exit code of a verdict.
    fn code(&self, found: &Verdict) -> ExitCode {
        match found.verdict {
            VerdictKind::Clean if self.strict && !found.not_judged.is_empty() => JUDGED.into(),
            VerdictKind::Clean => ExitCode::SUCCESS,
            VerdictKind::Fault => WRONG.into(),
            VerdictKind::Incomplete => JUDGED.into(),
        }
    }
}
