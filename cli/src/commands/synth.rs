//! `greta synth`: models of random weights.

use crate::errors::Interrupted;
use crate::interrupt::Guard;
use crate::progress::{Progress, Unit};
use crate::{json, output};
use clap::builder::PossibleValuesParser;
use greta::synth::{self, Mix, SynthError, SynthSpec};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Make a Llama-shaped model with random weights
///
/// The file has a model's shape, types and a tokenizer, so that speed can be measured and tests can run without weights.
/// What it writes is noise. The same flags give the same file everywhere.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  greta synth -o tiny.gguf
  greta synth -o 8b.gguf --preset 8b --mix Q4_K_M --seed 7
  greta synth -o odd.gguf --preset tiny --layers 3 --heads 6 --kv-heads 2 --dim 384 --mix Q8_0")]
pub struct Synth {
    /// File to write
    #[arg(short, long, alias = "out", value_name = "FILE")]
    output: PathBuf,
    /// Shape to start from
    #[arg(long, default_value = SynthSpec::PRESETS[0], value_parser = PossibleValuesParser::new(SynthSpec::PRESETS))]
    preset: String,
    /// Mix of weight types, as quantised files are named
    #[arg(long, aliases = ["type-mix", "quant"], default_value = "Q4_K_M", ignore_case = true, value_parser = PossibleValuesParser::new(Mix::ALL.iter().map(|m| m.name())))]
    mix: String,
    /// Every seed gives other weights
    #[arg(long, value_name = "SEED", default_value_t = 42)]
    seed: u64,
    #[command(flatten)]
    shape: Shape,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    /// Threads [default: all processors]
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,
    /// Print one JSON value on standard output and nothing else
    #[arg(long)]
    json: bool,
}

/// What may differ from the preset.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Shape (the preset's unless given)")]
struct Shape {
    /// Transformer blocks
    #[arg(long, value_name = "N")]
    layers: Option<u32>,
    /// Width of the hidden state: a multiple of 32
    #[arg(long, value_name = "N")]
    dim: Option<u32>,
    /// Width of the feed-forward part: a multiple of 32
    #[arg(long, value_name = "N")]
    ffn: Option<u32>,
    /// Query heads
    #[arg(long, value_name = "N")]
    heads: Option<u32>,
    /// Key and value heads; divides --heads
    #[arg(long, value_name = "N")]
    kv_heads: Option<u32>,
    /// Values in a head
    #[arg(long, value_name = "N")]
    head_dim: Option<u32>,
    /// Longest sequence
    #[arg(short, long, value_name = "TOKENS")]
    context: Option<u32>,
    /// Tokens in the vocabulary
    #[arg(long, value_name = "N")]
    vocab: Option<u32>,
    /// Whether the output matrix is the embedding table
    #[arg(long, value_name = "BOOL")]
    tied: Option<bool>,
    /// Standard deviation of the weights
    #[arg(long, value_name = "X")]
    std: Option<f32>,
}

impl Synth {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        if self.output.exists() && !self.force {
            anyhow::bail!("{}: there is a file already; --force replaces it", self.output.display());
        }
        if self.threads == Some(0) {
            anyhow::bail!("-t 0: someone must do the work; give 1 or more");
        }
        let spec = self.spec()?;
        let (guard, progress, start) = (Guard::arm(), Progress::new("writing", Unit::Bytes), Instant::now());
        let mut tell = |done, all| {
            progress.set(done, all);
            !guard.hit()
        };
        let made = match self.threads {
            Some(n) => synth::write_with_threads(&spec, &self.output, n, &mut tell),
            None => synth::write(&spec, &self.output, &mut tell),
        };
        drop(progress);
        let report = made.map_err(|e| match e {
            SynthError::Cancelled => Interrupted.into(),
            e => anyhow::Error::from(e),
        })?;
        if self.json {
            json::print(&json!({
                "file": self.output,
                "preset": self.preset,
                "mix": spec.mix.name(),
                "seed": spec.seed,
                "tensors": report.tensors,
                "parameters": report.parameters,
                "bytes": report.bytes,
                "time_ms": json::ms(start.elapsed()),
            }))?;
        } else {
            let (parameters, bytes) = (output::count(report.parameters), output::bytes(report.bytes));
            let file = self.output.display();
            output::print(&format!("{file}: {parameters} parameters, {} tensors, {bytes}\n", report.tensors))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn spec(&self) -> anyhow::Result<SynthSpec> {
        // clap has held both names against the same lists.
        let preset =
            SynthSpec::preset(&self.preset).ok_or_else(|| anyhow::anyhow!("unknown preset `{}`", self.preset))?;
        let mix = Mix::from_name(&self.mix).ok_or_else(|| anyhow::anyhow!("unknown mix `{}`", self.mix))?;
        let s = &self.shape;
        Ok(SynthSpec {
            layers: s.layers.unwrap_or(preset.layers),
            dim: s.dim.unwrap_or(preset.dim),
            ffn: s.ffn.unwrap_or(preset.ffn),
            heads: s.heads.unwrap_or(preset.heads),
            kv_heads: s.kv_heads.unwrap_or(preset.kv_heads),
            head_dim: s.head_dim.or(preset.head_dim),
            context: s.context.unwrap_or(preset.context),
            vocab: s.vocab.unwrap_or(preset.vocab),
            tied: s.tied.unwrap_or(preset.tied),
            std: s.std.unwrap_or(preset.std),
            mix,
            seed: self.seed,
            ..preset
        })
    }
}
