//! `greta perplexity`: how well a model predicts a text.

use crate::args::{self, Common};
use crate::errors::Interrupted;
use crate::interrupt::Guard;
use crate::progress::{Progress, Unit};
use crate::{json, output, session};
use greta::tokenizer::EncodeOptions;
use greta::{EngineOptions, ModelError};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Measure the perplexity of a text
///
/// As llama.cpp defines it: the text is cut into windows of -c tokens (512 unless given), each starts with an empty
/// cache and, where the tokenizer adds one, the beginning of sequence; the second half of each window is scored.
/// Special tokens are not recognised in the text.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  greta perplexity -f text.txt
  greta perplexity -m model.gguf -f text.txt -c 512 --chunks 40 --json")]
pub struct Perplexity {
    /// The text
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Most windows to score [default: all]
    #[arg(long, value_name = "N")]
    chunks: Option<usize>,
    #[command(flatten)]
    common: Common,
}

const WINDOW: usize = 512;
/// Rows of logits in a step. A row is as long as the vocabulary, so more would take memory and win little.
const ROWS: usize = 64;

impl Perplexity {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        if self.chunks == Some(0) {
            anyhow::bail!("--chunks 0: there is nothing to score; give 1 or more");
        }
        let text = args::read_text(&self.file)?;
        let model = self.common.open()?;
        let window = self.common.context.unwrap_or(WINDOW.min(model.context()));
        let tokenizer = session::tokenizer(&model)?;
        let tokens = tokenizer.encode(&text, EncodeOptions { add_special: true, parse_special: false })?;
        if window > model.context() {
            let text = format!("-c {window}: the model's context is {} tokens", model.context());
            return Err(ModelError::Options(text).into());
        }
        if tokens.len() / 2 < window {
            // Said before the model is loaded.
            return Err(
                ModelError::TextTooShort { tokens: tokens.len(), window, needed: window.saturating_mul(2) }.into()
            );
        }
        let options =
            EngineOptions { context: Some(window), max_rows: ROWS.min(window), ..self.common.engine_options() };
        let mut loaded = self.common.load(&model, options)?;

        let guard = Guard::arm();
        let progress = Progress::new("perplexity", Unit::Things("windows"));
        let (start, mut running) = (Instant::now(), Vec::new());
        let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
        let score =
            greta::perplexity(&mut loaded.context, &tokens, bos, window, self.chunks, &mut |so_far, windows| {
                running.push(so_far.perplexity);
                progress.set_noted(so_far.chunks as u64, windows as u64, &format!("{:.4}", so_far.perplexity));
                !guard.hit()
            })?;
        drop(progress);
        if guard.hit() {
            return Err(Interrupted.into());
        }
        let time = start.elapsed();
        if self.common.json {
            json::print(&json!({
                "perplexity": score.perplexity,
                "error": score.error,
                "tokens": score.tokens,
                "chunks": score.chunks,
                "window": window,
                "settings": loaded.settings(&self.common),
                "running": running,
                "time_ms": json::ms(time),
                "tokens_per_second": json::rate(score.chunks * window, time),
            }))?;
        } else {
            let scored = format!("{} tokens scored in {} windows of {window}", score.tokens, score.chunks);
            output::print(&format!("perplexity {:.4} ± {:.4} ({scored})\n", score.perplexity, score.error))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
