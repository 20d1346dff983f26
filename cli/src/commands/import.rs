//! `greta import`: runs that other engines made, as run folders.

use crate::{json, output};
use anyhow::Context as _;
use clap::ValueEnum;
use greta::Model;
use greta::llama::Config;
use greta::trace::import::{self, Format, Heads, ImportOptions, Layout, Summary};
use greta::trace::{ModelInfo, Recording};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Read a run that another engine made
///
/// The sources are: a folder of one .npy or .safetensors file a point, as docs/recipes/pytorch_hooks.py writes it; the
/// text of llama.cpp's llama-eval-callback; JSONL files of attn_l0_pipe, rmsnorm_trace and stage_trace events; a JSON
/// list of ops with .rows.f32 beside it. Names are mapped to greta's nodes; those no node stands for are kept and listed
/// as not mapped. Without -o nothing is written: the sources are read and what is in them is said.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  greta import acts/ -o runs/torch
  greta import acts/ --layout hf -m model.gguf -o runs/torch
  llama-eval-callback -m model.gguf -p Hello >eval.txt 2>&1; greta import eval.txt -o runs/llama
  greta import attn_l0_pipe.jsonl stage_trace.jsonl -o runs/old")]
pub struct Import {
    /// What to read; several make one run where they are files of events
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// Folder to write
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace the run that the folder holds
    #[arg(long, requires = "output")]
    force: bool,
    /// What the sources are [default: found out]
    #[arg(long, value_enum)]
    format: Option<Kind>,
    /// The model that was run (GGUF): gives the numbers of heads, and is noted in the run
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Order of q and k within a head; hf: as Hugging Face's weights have it [default: as meta.json says, else gguf]
    #[arg(long, value_enum)]
    layout: Option<Order>,
    /// Query heads, for --layout hf
    #[arg(long, value_name = "N")]
    heads: Option<usize>,
    /// Key and value heads, for --layout hf [default: --heads]
    #[arg(long, value_name = "N", requires = "heads")]
    kv_heads: Option<usize>,
    /// Name of the prompt [default: the source's]
    #[arg(long, value_name = "ID")]
    prompt_id: Option<String>,
    /// What made the run [default: the source's]
    #[arg(long, value_name = "NAME")]
    engine: Option<String>,
    /// Its arithmetic, by which it can be judged: f32 or llama-q8 [default: the source's]
    #[arg(long, value_name = "NAME")]
    arith: Option<String>,
    /// Print one JSON value on standard output and nothing else
    #[arg(long)]
    json: bool,
}

/// `--format`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// A folder of .npy or .safetensors files
    Points,
    /// llama.cpp's eval-callback text
    EvalCallback,
    /// JSONL events
    Events,
    /// A JSON list of ops, rows beside it
    OpsJson,
}

impl From<Kind> for Format {
    fn from(k: Kind) -> Self {
        match k {
            Kind::Points => Format::Points,
            Kind::EvalCallback => Format::EvalCallback,
            Kind::Events => Format::Events,
            Kind::OpsJson => Format::OpsJson,
        }
    }
}

/// `--layout`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Order {
    /// Pairs side by side
    Gguf,
    /// Pairs half a head apart
    Hf,
}

impl From<Order> for Layout {
    fn from(o: Order) -> Self {
        match o {
            Order::Gguf => Layout::Gguf,
            Order::Hf => Layout::Hf,
        }
    }
}

impl Import {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let model = self.model.as_deref().map(Model::open).transpose()?;
        let given = self.heads.map(|heads| Heads { heads, kv_heads: self.kv_heads.unwrap_or(heads) });
        let of_model = model.as_ref().map(|m| Config::from_gguf(m.gguf())).transpose()?;
        let of_model = of_model.map(|c| Heads { heads: c.heads, kv_heads: c.kv_heads });
        let options = ImportOptions {
            format: self.format.map(Format::from),
            prompt_id: self.prompt_id.clone(),
            layout: self.layout.map(Layout::from),
            heads: given.or(of_model),
            engine: self.engine.clone(),
            arith: self.arith.clone(),
        };
        let mut recording = import::read(&self.sources, &options)?;
        if let Some(m) = &model {
            recording.info.model = model_info(m)?;
        }
        recording.info.command = std::env::args().collect();
        if let Some(dir) = &self.output {
            save(&recording, dir, self.force)?;
        }
        self.show(&recording, &import::summary(&recording))?;
        Ok(ExitCode::SUCCESS)
    }

    fn show(&self, recording: &Recording, s: &Summary) -> anyhow::Result<()> {
        let info = &recording.info;
        if self.json {
            let prompts: Vec<_> = info.prompts.iter().map(|p| json!({"id": p.id, "tokens": p.tokens.len()})).collect();
            return json::print(&json!({
                "engine": info.engine,
                "arith": info.arith,
                "prompts": prompts,
                "points": s.mapped + s.not_mapped.len(),
                "mapped": s.mapped,
                "not_mapped": s.not_mapped,
                "rows": s.rows,
                "output": self.output,
            }));
        }
        let wrote = self.output.as_ref().map_or(String::new(), |d| format!("{}: ", d.display()));
        let points = s.mapped + s.not_mapped.len();
        output::print(&format!(
            "{wrote}{points} points, {} rows, from {} (arithmetic: {})\n",
            s.rows, info.engine, info.arith
        ))?;
        if !s.not_mapped.is_empty() {
            let some = s.not_mapped.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if s.not_mapped.len() > 8 { ", …" } else { "" };
            output::warn(&format!(
                "{} points are not mapped to a node and keep their own names: {some}{more}",
                s.not_mapped.len()
            ));
        }
        Ok(())
    }
}

fn model_info(m: &Model) -> anyhow::Result<ModelInfo> {
    let path = m.gguf().path();
    let meta = std::fs::metadata(path).with_context(|| format!("{}: can't be read", path.display()))?;
    Ok(ModelInfo {
        path: path.canonicalize().unwrap_or_else(|_| path.into()),
        bytes: meta.len(),
        sha256: String::new(),
        architecture: m.architecture().into(),
    })
}

/// Writes the run folder.
fn save(recording: &Recording, dir: &Path, force: bool) -> anyhow::Result<()> {
    Ok(greta::trace::folder::save(recording, dir, force)?)
}
