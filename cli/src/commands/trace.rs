//! `greta trace`: runs prompts and records what taps see.

use crate::args::Common;
use crate::errors::INTERRUPTED;
use crate::interrupt::Guard;
use crate::progress::{Progress, Unit};
use crate::remote::{self, Job, RemoteFlags};
use crate::taps::{PromptFlags, RouteFlags, TapFlags};
use crate::{json, output};
use greta::backends::Injection;
use greta::graph::Detail;
use greta::trace::bundle::{self, Packed};
use greta::trace::events::OldEvents;
use greta::trace::facts::with_facts;
use greta::trace::recording::Tee;
use greta::trace::{Folder, FolderWriter, RunInfo, Status, TraceError, TracePlan, sha256, tracer};
use greta::{Engine, EngineOptions, Model};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Run prompts and record what the taps see, into a run folder
///
/// A tap is a node of the graph; what it records changes no number. Each prompt is run as a prefill and then as decode
/// steps: decode0 runs its last token again, at its own position, over a cache that holds the tokens before it; decode1
/// and later ones run the likeliest token. The folder holds run.json, graph.json, taps.jsonl (a record a line) and
/// tensors.safetensors (the values); `greta diff` compares such folders. With --host all of it happens on another machine,
/// and the run is brought here and analysed as by `greta analyze`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Exit codes: 0 done, 1 error, 2 wrong usage, 130 stopped by Ctrl-C; the folder then holds what was recorded.
With --host: those of `greta analyze`; 1 also for a run that failed there, 2 also for no connection.

Examples:
  greta trace -o run1                                   # all four built-in prompts, every node
  greta trace --taps 'blk.0.{attn_norm,q}' --prompts p0_short,p4_sys -o run1 && greta diff run1
  greta trace --taps 'blk.*.out,logits' --detail stats --rows all \"Hello\"
  greta trace --label E1 --route 'blk.*.q:decode=plain' -o runs/e1 --json
  greta trace -o run1 --bundle run1.tgz && greta analyze --dir run1.tgz
  greta trace --host me@gpu1 -m /models/model.gguf -o run1   # copies this greta there and brings the run back"
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
    /// Also pack the run folder into this file, a gzip-compressed tar
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    remote: RemoteFlags,
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
        self.run_with(Vec::new())
    }

    /// Runs the command with these faults in the kernels.
    pub(super) fn run_with(&self, faults: Vec<Injection>) -> anyhow::Result<ExitCode> {
        if self.chunk == Some(0) {
            anyhow::bail!("--chunk 0: a step runs at least one token");
        }
        let requests = self.taps.requests()?;
        self.may_bundle()?;
        if let Some(host) = &self.remote.host {
            anyhow::ensure!(faults.is_empty(), "--host: faults are built into runs on this machine alone");
            return remote::run(&self.job(host)?);
        }
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
            faults,
            ..self.common.engine_options()
        };
        let events = OldEvents::from_env(&model)?;
        if let Some(e) = &events {
            let wanted = e.requests(&model.graph(options.kv)?)?;
            // Of several requests for a node the first decides: the one that keeps more.
            match self.taps.detail {
                Detail::Full => options.taps.extend(wanted),
                _ => drop(options.taps.splice(0..0, wanted)),
            }
        }
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
        let events = events.map(|e| e.with_prompts(info.prompts.iter().map(|p| p.id.clone())));
        let (folder, stopped) = self.record(engine, &model, &mut info, &plan, events)?;
        let packed = self.pack(&folder.path)?;
        self.show(&info, &folder, packed.as_ref(), start.elapsed().as_secs_f64())?;
        Ok(if stopped { INTERRUPTED.into() } else { ExitCode::SUCCESS })
    }

    /// Runs the prompts; also whether Ctrl-C stopped it.
    fn record(
        &self,
        engine: &Engine,
        model: &Arc<Model>,
        info: &mut RunInfo,
        plan: &TracePlan,
        mut events: Option<OldEvents>,
    ) -> anyhow::Result<(Folder, bool)> {
        let exe = engine.executable();
        let (dir, graph) = (self.folder(), exe.plan().graph());
        tracer::check(engine, info, plan)?;
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
        let ran = match &mut events {
            Some(e) => tracer::run(engine, info, plan, &mut Tee(&mut writer, e), &mut tell),
            None => tracer::run(engine, info, plan, &mut writer, &mut tell),
        };
        match ran {
            Ok(_) => {
                info.status = Status::Complete;
                Ok((writer.finish(info)?, false))
            }
            Err(TraceError::Interrupted) => Ok((writer.abandon(info), true)),
            Err(e) => {
                info.status = Status::Failed(e.to_string());
                let folder = writer.abandon(info);
                // What was recorded until then; the error to tell of is the run's own.
                let _ = self.pack(&folder.path);
                Err(e.into())
            }
        }
    }

    fn folder(&self) -> PathBuf {
        let time = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()).to_string();
        let name = || format!("greta-run-{}", self.label.clone().unwrap_or_else(time));
        self.output.clone().unwrap_or_else(|| name().into())
    }

    /// What would keep the bundle from being written is said before the run.
    fn may_bundle(&self) -> anyhow::Result<()> {
        let Some(path) = &self.bundle else { return Ok(()) };
        output::new_file(path, self.force)
    }

    fn pack(&self, dir: &Path) -> anyhow::Result<Option<Packed>> {
        Ok(self.bundle.as_ref().map(|path| bundle::pack(dir, path)).transpose()?)
    }

    /// This command for another machine. Taken apart field by field, so that none is forgotten.
    fn job<'a>(&'a self, host: &'a str) -> anyhow::Result<Job<'a>> {
        let Trace { prompts, output: _, force, label, decode, chunk, routes, taps, bundle, remote, common } = self;
        let TapFlags { taps, rows, phases, detail, as_executed } = taps;
        let mut args: Vec<String> = Vec::new();
        let mut flag = |name: &str, value: String| args.push(format!("--{name}={value}"));
        label.iter().for_each(|l| flag("label", l.clone()));
        flag("decode", decode.to_string());
        chunk.iter().for_each(|n| flag("chunk", n.to_string()));
        routes.route.iter().for_each(|r| flag("route", r.to_string()));
        taps.iter().for_each(|t| flag("taps", t.clone()));
        flag("rows", rows.to_string());
        phases.iter().for_each(|p| flag("phases", p.to_string()));
        flag("detail", detail.to_string());
        args.extend(as_executed.then(|| "--as-executed".to_string()));
        args.extend(common.flags());
        // A variable set to nothing is how scripts unset one.
        let variable = || std::env::var_os("GRETA_MODEL").filter(|v| !v.is_empty()).map(PathBuf::from);
        Ok(Job {
            flags: remote,
            host,
            args,
            model: common.model.clone().or_else(variable),
            prompts: prompts.written()?,
            folder: self.folder(),
            force: *force,
            bundle: bundle.clone(),
            json: common.json,
        })
    }

    fn show(&self, info: &RunInfo, folder: &Folder, packed: Option<&Packed>, seconds: f64) -> anyhow::Result<()> {
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
        if folder.rows == 0 {
            output::warn("no row was recorded: no token has a position that --rows names, or no step is of --phases");
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
                "bundle": packed,
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
        if let Some(p) = packed {
            output::print(&format!("{}: {}{state}\n", p.path.display(), output::bytes(p.bytes)))?;
        }
        Ok(())
    }
}
