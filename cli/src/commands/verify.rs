//! `greta verify`: names the first op whose numbers are wrong.

use crate::args::{Common, value_name};
use crate::errors::Interrupted;
use crate::further::{self, Further};
use crate::interrupt::Guard;
use crate::taps::{PromptFlags, RouteFlags};
use crate::verdict::{self, JUDGED, WRONG};
use crate::{json, output, progress};
use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;
use greta::graph::{NamePattern, TapMode};
use greta::trace::foreign::{self, ForeignOptions};
use greta::trace::judge::{Judge, JudgeOptions, Verdict, VerdictKind};
use greta::trace::prompts;
use greta::trace::replay::Bundle;
use greta::trace::verify::{self, Outcome, Verified, VerifyOptions};
use greta::trace::{PromptInfo, Recording, Status, TraceError, TracePlan};
use greta::{EngineOptions, Model};
use std::ffi::OsString;
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
  greta verify --repeat 5                        # values that differ from process to process
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
    /// Run N times and compare every value, to the bit. If the first run is judged right, N-1 more follow, each in a process
    /// of its own; how many differ from the first is told
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
    /// Be a further run of --repeat, with these values: prompts are a line of standard input, and the answer is their hashes
    #[arg(long, value_enum, value_name = "VALUES", hide = true)]
    hashes: Option<Values>,
    #[command(flatten)]
    routes: RouteFlags,
    #[command(flatten)]
    common: Common,
}

/// `--hashes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Values {
    /// Those of the unfused graph
    Semantic,
    /// Those that the fused plan really has
    AsExecuted,
}

impl Values {
    fn of(mode: TapMode) -> Values {
        match mode {
            TapMode::Semantic => Values::Semantic,
            TapMode::AsExecuted => Values::AsExecuted,
        }
    }

    fn mode(self) -> TapMode {
        match self {
            Values::Semantic => TapMode::Semantic,
            Values::AsExecuted => TapMode::AsExecuted,
        }
    }
}

impl Verify {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        verdict::judged(match self.hashes {
            Some(values) => self.once_more(values.mode()),
            None => self.judge(),
        })
    }

    fn engine(&self) -> EngineOptions<'static> {
        EngineOptions { routes: self.routes.route.clone(), ..self.common.engine_options() }
    }

    fn context(&self, model: &Model) -> usize {
        self.common.context.unwrap_or_else(|| model.context().min(4096)).min(model.context())
    }

    fn options(&self) -> VerifyOptions<'static> {
        VerifyOptions {
            nodes: self.nodes.clone(),
            rows: self.rows,
            repeat: self.repeat,
            plan: TracePlan { decode_steps: self.decode, chunk: self.chunk, drop_first: 0 },
            ..VerifyOptions::default()
        }
    }

    fn judge(&self) -> anyhow::Result<ExitCode> {
        if let Some(dir) = &self.run {
            return self.judge_folder(dir);
        }
        let model = self.common.open()?;
        let backend = self.common.open_backend()?;
        let engine = self.engine();
        let prompts = self.prompts.read(&model, self.context(&model))?;
        let further = Further::new(self.flags(&model), &prompts, self.repeat)?;
        let guard = Guard::arm();
        let told = progress::Shared::new("verifying");
        let tell = |what: &str, done: usize, all: usize| {
            told.set(what, done, all);
            !guard.hit()
        };
        let again = |mode: TapMode, number: u32| {
            let done = number as usize - 1;
            let wanted = || tell("repeating", done, self.repeat as usize);
            further.run(&value_name(&Values::of(mode)), number, &wanted)
        };
        let options = VerifyOptions { again: Some(&again), ..self.options() };
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
                output::print(&(verdict::text(&verified.verdict, &recording.info, false) + &self.repeated(&verified)))?;
                if !verified.taps_change_nothing {
                    output::warn("logits with taps differ from logits without them");
                }
            }
        }
        Ok(self.code(&verified.verdict))
    }
}

impl Verify {
    /// What a further run is called with. Taken apart field by field, so that none is forgotten.
    fn flags(&self, model: &Model) -> Vec<OsString> {
        let Verify {
            prompts,
            run,
            nodes,
            rows,
            repeat,
            decode,
            chunk,
            bundle_dir,
            strict,
            no_bundle,
            hashes,
            routes,
            common,
        } = self;
        // What is run stands on standard input; what is made of it is the first process's part.
        let _ = (prompts, run, repeat, bundle_dir, strict, no_bundle, hashes);
        let mut path = OsString::from("--model=");
        path.push(model.gguf().path());
        let mut args = vec![path, format!("--decode={decode}").into()];
        args.extend(nodes.iter().map(|n| format!("--nodes={n}").into()));
        args.extend(rows.iter().map(|n| format!("--rows={n}").into()));
        args.extend(chunk.iter().map(|n| format!("--chunk={n}").into()));
        args.extend(routes.route.iter().map(|r| format!("--route={r}").into()));
        args.extend(common.flags().into_iter().map(OsString::from));
        args
    }

    /// Is a further run.
    fn once_more(&self, mode: TapMode) -> anyhow::Result<ExitCode> {
        let guard = Guard::arm();
        let list = further::asked()?;
        let model = self.common.open()?;
        let backend = self.common.open_backend()?;
        let prompts: Vec<PromptInfo> = prompts::from_json(&model, &list, self.context(&model))?;
        let tell = |_: &str, _: usize, _: usize| !guard.hit();
        let hashes = verify::again(&model, &*backend, &self.engine(), &prompts, &self.options(), mode, &tell)?;
        json::print(&serde_json::to_value(&hashes)?)?;
        Ok(ExitCode::SUCCESS)
    }

    /// What came of further runs, in a line below the verdict.
    fn repeated(&self, found: &Verified) -> String {
        let text = match (self.repeat, found.repeats, found.differing) {
            (1, ..) => return String::new(),
            (_, n, 0) if n == self.repeat => format!("{n} runs, a process each, are alike to the bit"),
            (_, n, k) if k > 0 => format!("differs in {k} of {n} runs"),
            (_, 1, _) => "not repeated: an op of the first run is wrong".into(),
            (_, n, _) => format!("{n} runs are alike to the bit; an op of the first is wrong"),
        };
        format!("{:<12} {text}\n", "runs")
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
