//! `greta run`: completes a prompt.

use crate::args::{Common, Generation, Prompt};
use crate::errors::INTERRUPTED;
use crate::interrupt::Guard;
use crate::json;
use crate::output::{self, Stream};
use crate::session::{self, Loaded};
use greta::sampling::{SampleError, Sampler};
use greta::tokenizer::{StreamDecoder, Tokenizer};
use greta::trace::events::OldEvents;
use greta::{Context, GenerateOptions, Generated, ModelError, Stop};
use serde_json::json;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Complete a prompt
///
/// The prompt is completed as it stands: special tokens written in it are recognised, and the beginning of sequence is
/// added where the model's tokenizer does so. On a terminal the prompt is shown, dim, before the text; elsewhere
/// standard output holds the generated text alone. A line of timings goes to standard error.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  greta run \"The capital of France is\"
  greta run -m model.gguf -n 200 --temp 0 -f prompt.txt
  greta run --chat --system \"Answer in one sentence.\" \"Why is the sky blue?\"
  printf 'Once upon a time' | greta run --json --seed 7 -")]
pub struct Run {
    #[command(flatten)]
    prompt: Prompt,
    /// Wrap the prompt in the model's chat template, as the user's turn
    #[arg(long)]
    chat: bool,
    /// System message before it
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Most tokens to generate; -1: until the model ends or the context is full
    #[arg(short = 'n', long = "predict", value_name = "N", default_value_t = 128, allow_negative_numbers = true)]
    n: i64,
    #[command(flatten)]
    generation: Generation,
    #[command(flatten)]
    common: Common,
}

impl Run {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let text = self.prompt.read()?;
        let mut sampler = self.generation.sampler()?;
        let options = self.generation.options(self.n)?;
        let model = self.common.open()?;
        let tokenizer = session::tokenizer(&model)?;
        let prompt = session::prompt(&model, tokenizer, &text, self.chat, self.system.as_deref())?;
        let events = OldEvents::from_env(&model)?;
        let mut options_of_engine = self.common.engine_options();
        if let Some(e) = &events {
            options_of_engine.taps = e.requests(&model.graph(options_of_engine.kv)?)?;
        }
        let mut loaded = self.common.load(&model, options_of_engine)?;
        if let Some(e) = events {
            let graph = loaded.engine.executable().plan().graph().clone();
            loaded.context.tap(Some(Box::new(e.for_one_prompt(Arc::new(graph)))));
        }
        let ready = output::since_start();

        let guard = Guard::arm();
        let echo = !self.common.json && !self.chat && Stream::Out.is_terminal();
        if echo {
            output::print(&Stream::Out.paint("2", &text))?;
        }
        let mut text = String::new();
        let json = self.common.json;
        let mut show = |piece: &str| {
            text.push_str(piece);
            if json { Ok(()) } else { output::print(piece) }
        };
        let answer = answer(&mut loaded.context, tokenizer, &prompt, &mut sampler, &options, &guard, &mut show)?;
        if json {
            json::print(&self.json(&loaded, &sampler, &prompt, &text, &answer, ready))?;
        } else {
            if echo || !text.ends_with('\n') {
                output::print("\n")?;
            }
            output::say(&Stream::Err.paint("2", &answer.summary(ready, prompt.len())));
        }
        Ok(if answer.generated.stop == Stop::Interrupted { INTERRUPTED.into() } else { ExitCode::SUCCESS })
    }

    fn json(
        &self,
        loaded: &Loaded,
        sampler: &Sampler,
        prompt: &[u32],
        text: &str,
        a: &Answer,
        ready: Duration,
    ) -> serde_json::Value {
        json!({
            "settings": loaded.settings(&self.common),
            "seed": sampler.seed(),
            "prompt_tokens": prompt,
            "generated_tokens": a.generated.tokens,
            "text": text,
            "stop": a.generated.stop.to_string(),
            "timings": a.timings(ready),
        })
    }
}

/// What came of a prompt.
pub struct Answer {
    /// The tokens.
    pub generated: Generated,
    /// Tokens of the prompt that were run: those the cache did not hold.
    ran: usize,
    prefill: Duration,
    /// Since the process started.
    first_token: Option<Duration>,
    /// Steps that were decoded: the last token of all is drawn, not run.
    steps: usize,
}

impl Answer {
    /// Times in milliseconds, and tokens a second.
    pub fn timings(&self, ready: Duration) -> serde_json::Value {
        json!({
            "load_ms": json::ms(ready),
            "prompt_ms": json::ms(self.prefill),
            "prompt_tokens_per_second": json::rate(self.ran, self.prefill),
            "first_token_ms": self.first_token.map(json::ms),
            "generation_ms": json::ms(self.generated.time),
            "generation_tokens_per_second": json::rate(self.steps, self.generated.time),
            "total_ms": json::ms(output::since_start()),
        })
    }

    /// The same in one line.
    pub fn summary(&self, ready: Duration, prompt: usize) -> String {
        let rate = |n: usize, t: Duration| {
            if n == 0 || t.is_zero() { String::new() } else { format!(", {:.1} tokens/s", n as f64 / t.as_secs_f64()) }
        };
        let stop = match self.generated.stop {
            Stop::End => "the model ended",
            Stop::Length => "-n reached",
            Stop::Context => "the context is full",
            Stop::Interrupted => "interrupted",
        };
        format!(
            "load {:.2} s · prompt {prompt} tokens{} · generated {}{} · {stop}",
            ready.as_secs_f64(),
            rate(self.ran, self.prefill),
            self.generated.tokens.len(),
            rate(self.steps, self.generated.time),
        )
    }
}

/// Runs a prompt and generates, giving the text piece by piece to `show`; an error of that stops it.
pub fn answer(
    context: &mut Context,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    sampler: &mut Sampler,
    options: &GenerateOptions,
    guard: &Guard,
    show: &mut dyn FnMut(&str) -> io::Result<()>,
) -> anyhow::Result<Answer> {
    let held = prompt.iter().zip(context.tokens()).take_while(|(a, b)| a == b).count();
    let start = Instant::now();
    let logits = session::prefill(context, prompt, guard)?;
    let prefill = start.elapsed();
    let ran = prompt.len() - held.min(prompt.len().saturating_sub(1));
    let Some(logits) = logits else {
        let generated = Generated { tokens: Vec::new(), stop: Stop::Interrupted, time: Duration::ZERO };
        return Ok(Answer { generated, ran, prefill, first_token: None, steps: 0 });
    };
    // Traces have a decode0: the prompt's last token once more, as a decode step.
    let logits = if context.is_tapped() { context.again()? } else { logits };
    let mut decoder = StreamDecoder::hiding_control();
    let (mut first_token, mut failed) = (None, Ok(()));
    let generated = context.generate(logits, sampler, options, &mut |id| {
        first_token.get_or_insert_with(output::since_start);
        let piece = decoder.push(tokenizer, id);
        if !piece.is_empty() {
            failed = show(&piece);
        }
        failed.is_ok() && !guard.hit()
    });
    if let Err(ModelError::Sample(SampleError::NotANumber { .. } | SampleError::Infinite { .. })) = &generated {
        output::warn(&not_finite(context.model().gguf().path()));
    }
    let generated = generated?;
    failed?;
    show(&decoder.finish())?;
    let steps = context.tokens().len() - prompt.len();
    Ok(Answer { generated, ran, prefill, first_token, steps })
}

/// What to do about logits that are no numbers.
fn not_finite(model: &std::path::Path) -> String {
    format!(
        "the logits hold NaN or infinity; `greta verify -m {}` names the op where it is born, `greta inspect --check` looks \
         for it in the weights",
        model.display()
    )
}
