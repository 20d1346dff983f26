//! `greta trace`: runs prompts and records what taps see.

use crate::args::Common;
use crate::errors::INTERRUPTED;
use crate::interrupt::Guard;
use crate::progress::{Progress, Unit};
use crate::taps::{PromptFlags, RouteFlags, TapFlags};
use crate::{json, output};
use greta::trace::facts::with_facts;
use greta::trace::{Folder, FolderWriter, RunInfo, Status, TraceError, TracePlan, sha256, tracer};
use greta::{Engine, EngineOptions, Model};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Run prompts and record what the taps see, into a run folder
///
/// A tap is a node of the graph; what it records changes no number. Each prompt is run as a prefill and then as decode
/// steps: decode0 runs its last token again, at its own position, over a cache that holds the tokens before it; decode1
/// and later ones run the likeliest token. The folder holds run.json, graph.json, taps.jsonl (a record a line) and
/// tensors.safetensors (the values); `greta diff` compares such folders.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Exit codes: 0 done, 1 error, 2 wrong usage, 130 stopped by Ctrl-C; the folder then holds what was recorded.

Examples:
  greta trace -o run1                                   # all four built-in prompts, every node
  greta trace --taps 'blk.0.{attn_norm,q}' --prompts p0_short,p4_sys -o run1 && greta diff run1
  greta trace --taps 'blk.*.out,logits' --detail stats --rows all \"Hello\"
  greta trace --label E1 --route 'blk.*.q:decode=plain' -o runs/e1 --json"
)]
pub struct Trace {
    #[command(flatten)]
    prompts: PromptFlags,
    /// Folder to write [default: greta-run-LABEL, or greta-run- and the time in seconds]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace the run that the folder holds
    #[arg(long)]
    force: bool,
    /// The condition this run stands for: letters, digits, . _ and -
    #[arg(long, value_name = "LABEL", value_parser = label)]
    label: Option<String>,
    /// Decode steps after each prompt
    #[arg(long, value_name = "N", default_value_t = 1)]
    decode: u32,
    /// Most tokens of a prefill step [default: 512]
    #[arg(long, value_name = "N")]
    chunk: Option<usize>,
    #[command(flatten)]
    routes: RouteFlags,
    #[command(flatten)]
    taps: TapFlags,
    #[command(flatten)]
    common: Common,
}

/// `DIR@LABEL:PHASE` must be readable.
fn label(s: &str) -> Result<String, String> {
    match !s.is_empty() && s.chars().all(|c| c.is_alphanumeric() || "._-".contains(c)) {
        true => Ok(s.into()),
        false => Err("a label is made of letters, digits, . _ and -".into()),
    }
}

impl Trace {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        if self.chunk == Some(0) {
            anyhow::bail!("--chunk 0: a step runs at least one token");
        }
        let requests = self.taps.requests()?;
        let model = self.common.open()?;
        // Read while the weights are prepared.
        let hash = std::thread::spawn({
            let path = model.gguf().path().to_owned();
            move || File::open(path).and_then(sha256)
        });
        let backend = self.common.open_backend()?;
        let mut options = EngineOptions {
            taps: requests,
            tap_mode: self.taps.mode(),
            routes: self.routes.route.clone(),
            ..self.common.engine_options()
        };
        options.taps = with_facts(&model, &*backend, &options)?;
        let loaded = self.common.load(&model, options.clone())?;
        let (engine, start) = (&loaded.engine, Instant::now());
        let mut info = RunInfo::of(engine, &model, (backend.name(), backend.describe()), &options);
        info.prompts = self.prompts.read(&model, engine.context_size())?;
        info.label = self.label.clone();
        info.command = std::env::args().collect();
        info.host = format!("{}, {} threads", info.host, self.common.thread_count()?);
        info.decode_steps = self.decode;
        // The folder may be read from elsewhere.
        info.model.path = info.model.path.canonicalize().unwrap_or(info.model.path);
        info.model.sha256 = hash.join().map_err(|_| anyhow::anyhow!("the model's hash could not be computed"))??;
        let plan = TracePlan { decode_steps: self.decode, chunk: self.chunk, drop_first: 0 };
        if let Some(n) = self.chunk {
            info.chunk = info.chunk.min(n);
        }
        let (folder, stopped) = self.record(engine, &model, &mut info, &plan)?;
        self.show(&info, &folder, start.elapsed().as_secs_f64())?;
        Ok(if stopped { INTERRUPTED.into() } else { ExitCode::SUCCESS })
    }

    /// Runs the prompts; also whether Ctrl-C stopped it.
    fn record(
        &self,
        engine: &Engine,
        model: &Arc<Model>,
        info: &mut RunInfo,
        plan: &TracePlan,
    ) -> anyhow::Result<(Folder, bool)> {
        let exe = engine.executable();
        let (dir, graph) = (self.folder(), exe.plan().graph());
        let mut writer = FolderWriter::create(&dir, info, graph, plan, model.weights(), self.force)?;
        let guard = Guard::arm();
        let progress = Progress::new("tracing", Unit::Things("tokens"));
        let all: usize = info.prompts.iter().map(|p| p.tokens.len()).sum();
        let sizes: Vec<(String, usize)> = info.prompts.iter().map(|p| (p.id.clone(), p.tokens.len())).collect();
        let mut tell = |id: &str, done: usize, _: usize| {
            let before: usize = sizes.iter().take_while(|p| p.0 != id).map(|p| p.1).sum();
            progress.set_noted((before + done) as u64, all as u64, id);
            !guard.hit()
        };
        match tracer::run(engine, info, plan, &mut writer, &mut tell) {
            Ok(_) => {
                info.status = Status::Complete;
                Ok((writer.finish(info)?, false))
            }
            Err(TraceError::Interrupted) => Ok((writer.abandon(info), true)),
            Err(e) => {
                info.status = Status::Failed(e.to_string());
                writer.abandon(info);
                Err(e.into())
            }
        }
    }

    fn folder(&self) -> PathBuf {
        let time = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()).to_string();
        let name = || format!("greta-run-{}", self.label.clone().unwrap_or_else(time));
        self.output.clone().unwrap_or_else(|| name().into())
    }

    fn show(&self, info: &RunInfo, folder: &Folder, seconds: f64) -> anyhow::Result<()> {
        if let Some(first) = &folder.first_not_finite {
            output::warn(&format!(
                "{} rows have NaN, {} have infinities; the first is `{}` in {} of {}, position {} ({} NaN, {} infinite)",
                folder.nan_rows,
                folder.inf_rows,
                first.node,
                first.phase,
                first.prompt,
                first.position,
                first.nan,
                first.inf
            ));
        }
        let phases: BTreeSet<&str> = info.steps.iter().map(|s| s.phase.as_str()).collect();
        let complete = info.status == Status::Complete;
        if self.common.json {
            let prompts =
                info.prompts.iter().map(|p| json!({"id": p.id, "tokens": p.tokens.len(), "decoded": p.decoded}));
            return json::print(&json!({
                "folder": folder.path,
                "label": info.label,
                "complete": complete,
                "model": info.model,
                "backend": info.backend,
                "arith": info.arith,
                "prompts": prompts.collect::<Vec<_>>(),
                "phases": phases,
                "values": folder.values,
                "rows": folder.rows,
                "bytes": folder.bytes,
                "nan_rows": folder.nan_rows,
                "inf_rows": folder.inf_rows,
                "first_not_finite": folder.first_not_finite,
                "seconds": seconds,
            }));
        }
        let state = if complete { "" } else { " (incomplete: it was stopped)" };
        output::print(&format!(
            "{}{state}: {} prompts × {} phases × {} values, {} rows, {}\n",
            folder.path.display(),
            info.prompts.len(),
            phases.len(),
            folder.values,
            folder.rows,
            output::bytes(folder.bytes)
        ))?;
        Ok(())
    }
}
