//! `greta probe`: narrow questions about one layer.

use crate::args::Common;
use crate::errors::Interrupted;
use crate::interrupt::Guard;
use crate::output::Stream;
use crate::progress::{Progress, Unit};
use crate::taps::{PromptFlags, RouteFlags};
use crate::verdict::{self, JUDGED, WRONG};
use crate::{json, output};
use clap::{Args, Subcommand, ValueEnum};
use greta::EngineOptions;
use greta::trace::judge::VerdictKind;
use greta::trace::probe::{self, Cell, Kind, Lang, Point};
use greta::trace::{Recording, Status, TraceError};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Ask one question of one layer: norm-qkv, rmsnorm, weights, embedding, rope, cache
///
/// A run is recorded (prefill, then decode0: the prompt's last token again, at its own position) with what the question
/// needs. The table compares prefill_last with decode0; what is concluded comes from the judge, which holds each op
/// against its f64 reference on its recorded inputs.
#[derive(Args, Debug)]
#[command(
    subcommand_required = true,
    after_help = "Exit codes: 0 nothing wrong, 1 something is wrong, 2 could not judge.

Examples:
  greta probe norm-qkv                          # layer 0, the four built-in prompts
  greta probe rmsnorm --layer 3 --point attn_norm --prompts p6_long
  greta probe weights -m model.gguf --json
  greta trace --rows all -o run1 && greta probe cache --run run1 --layer 1"
)]
pub struct Probe {
    #[command(subcommand)]
    which: Which,
}

#[derive(Subcommand, Debug)]
enum Which {
    /// Which of a layer's attention norm, q, k and v differs first between prefill and decode
    NormQkv(Asked),
    /// In which layout each weight matrix of a layer was read
    Weights(Asked),
    /// Whether a norm is wrong, or what comes before it
    Rmsnorm {
        /// The norm
        #[arg(long, value_enum, default_value_t = Norm::FfnNorm)]
        point: Norm,
        #[command(flatten)]
        asked: Asked,
    },
    /// In which layout the table of embeddings was read
    Embedding(Asked),
    /// By which pairing and position queries and keys were rotated
    Rope(Asked),
    /// Which layer's cache, head map and length attention used
    Cache(Asked),
}

/// `--point`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Norm {
    /// Before attention
    #[value(name = "attn_norm")]
    AttnNorm,
    /// Before the feed-forward part
    #[value(name = "ffn_norm")]
    FfnNorm,
}

/// `--lang`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Language {
    /// English
    En,
    /// Spanish
    Es,
}

#[derive(Args, Debug)]
struct Asked {
    #[command(flatten)]
    prompts: PromptFlags,
    /// The layer, from 0; the embedding has none
    #[arg(long, value_name = "N", default_value_t = 0)]
    layer: u32,
    /// Ask a run folder instead of running anything
    #[arg(long, value_name = "DIR", conflicts_with_all = ["prompt", "file", "tokens", "prompts", "route"])]
    run: Option<PathBuf>,
    /// Language of the interpretation
    #[arg(long, value_enum, default_value_t = Language::En)]
    lang: Language,
    #[command(flatten)]
    routes: RouteFlags,
    #[command(flatten)]
    common: Common,
}

impl Probe {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let (kind, asked) = match &self.which {
            Which::NormQkv(a) => (Kind::NormQkv, a),
            Which::Weights(a) => (Kind::Weights, a),
            Which::Rmsnorm { point: Norm::AttnNorm, asked } => (Kind::RmsNorm(Point::AttnNorm), asked),
            Which::Rmsnorm { point: Norm::FfnNorm, asked } => (Kind::RmsNorm(Point::FfnNorm), asked),
            Which::Embedding(a) => (Kind::Embedding, a),
            Which::Rope(a) => (Kind::Rope, a),
            Which::Cache(a) => (Kind::Cache, a),
        };
        verdict::judged(asked.answer(kind))
    }
}

impl Asked {
    fn answer(&self, kind: Kind) -> anyhow::Result<ExitCode> {
        let (recording, model) = match &self.run {
            Some(dir) => {
                let recording = Recording::open(dir)?;
                let mut common = self.common.clone();
                if common.model.is_none() && recording.info.is_greta() {
                    common.model = Some(recording.info.model.path.clone());
                }
                let model = common.open()?;
                verdict::same_model(&recording.info, &model)?;
                (recording, model)
            }
            None => self.record(kind)?,
        };
        let mut found = probe::run(kind, &recording, &model, self.layer)?;
        found.lang = match self.lang {
            Language::En => Lang::En,
            Language::Es => Lang::Es,
        };
        match self.common.json {
            true => json::print(&serde_json::to_value(&found)?)?,
            false => output::print(&text(&found))?,
        }
        if recording.info.status != Status::Complete {
            output::warn("the run is incomplete; what it recorded was judged");
        }
        Ok(match found.verdict {
            VerdictKind::Clean => ExitCode::SUCCESS,
            VerdictKind::Fault => WRONG.into(),
            VerdictKind::Incomplete => JUDGED.into(),
        })
    }

    fn record(&self, kind: Kind) -> anyhow::Result<(Recording, std::sync::Arc<greta::Model>)> {
        let model = self.common.open()?;
        let backend = self.common.open_backend()?;
        let engine = EngineOptions { routes: self.routes.route.clone(), ..self.common.engine_options() };
        let context = engine.context.unwrap_or_else(|| model.context().min(4096)).min(model.context());
        let prompts = self.prompts.read(&model, context)?;
        let guard = Guard::arm();
        let progress = Progress::new("recording", Unit::Things("tokens"));
        let mut tell = |id: &str, done: usize, all: usize| {
            progress.set_noted(done as u64, all as u64, id);
            !guard.hit()
        };
        match probe::record(kind, &model, &*backend, &engine, &prompts, self.layer, &mut tell) {
            Err(TraceError::Interrupted) => Err(Interrupted.into()),
            other => Ok((other?, model)),
        }
    }
}

fn text(p: &probe::Probe) -> String {
    let mut out = String::new();
    if let Some(first) = p.rows.first() {
        let mut rows = vec![first.0.iter().map(|(column, _)| column.to_string()).collect::<Vec<_>>()];
        rows.extend(p.rows.iter().map(|r| r.0.iter().map(|(_, cell)| cell.to_string()).collect()));
        let right: Vec<bool> = (0..first.0.len())
            .map(|i| p.rows.iter().any(|r| matches!(r.0.get(i), Some((_, Cell::Number(_) | Cell::Whole(_))))))
            .collect();
        out += &output::table(&rows, &right);
        out.push('\n');
    }
    // Writing to a string can't fail.
    for c in p.findings.iter().take(8) {
        let ratio = c.worst.as_ref().map_or(String::new(), |w| format!(", {:.1e} × its bound", w.ratio));
        let why = c.hypothesis.as_deref().unwrap_or("no hypothesis fits");
        let _ = writeln!(out, "wrong: {} in {} {}, {}: {} ({why}){ratio}", c.node, c.prompt, c.phase, c.route, c.class);
    }
    if p.findings.len() > 8 {
        let _ = writeln!(out, "and {} more", p.findings.len() - 8);
    }
    for n in p.not_judged.iter().take(5) {
        let _ = writeln!(out, "not judged: {}: {}", n.node, n.why);
    }
    let (colour, headline) = match p.verdict {
        VerdictKind::Clean => ("32;1", "CLEAN"),
        VerdictKind::Fault => ("31;1", "FAULT"),
        VerdictKind::Incomplete => ("33;1", "INCOMPLETE"),
    };
    let _ = writeln!(out, "{}: {}", Stream::Out.paint(colour, headline), p.interpretation.get(p.lang));
    out
}
