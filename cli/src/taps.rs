//! Flags about taps, routes and prompts that several commands share.

use crate::output;
use anyhow::Context as _;
use clap::Args;
use greta::Model;
use greta::backends::RouteRule;
use greta::graph::{Detail, PhaseFilter, TapMode, TapRequest, TapRows, TapSpec};
use greta::trace::PromptInfo;
use greta::trace::prompts::{self, FilePrompt};
use std::path::PathBuf;

/// What is recorded.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Taps")]
pub struct TapFlags {
    /// Nodes to record, by name; * ? [ab] {a,b} stand for several. Repeatable, or a comma-separated list
    #[arg(long, value_name = "PATTERN", default_value = "all")]
    pub taps: Vec<String>,
    /// Rows of each step: last, all, or positions such as 0,5,30-34
    #[arg(long, value_name = "ROWS", default_value = "last")]
    pub rows: TapRows,
    /// Steps: prefill_last, prefill, decode0 (decode1, …), decode, every [default: prefill_last,decode0; with --rows: prefill,decode]
    #[arg(long, value_name = "PHASE", value_delimiter = ',')]
    pub phases: Vec<PhaseFilter>,
    /// What is kept of a row: stats, sample:N or full. Statistics always are
    #[arg(long, value_name = "DETAIL", default_value = "full")]
    pub detail: Detail,
    /// Tap what the fused plan really has, instead of keeping fusions from hiding tapped values
    #[arg(long)]
    pub as_executed: bool,
}

impl TapFlags {
    /// The taps these flags ask for.
    pub fn requests(&self) -> anyhow::Result<Vec<TapRequest>> {
        let phases = match (self.phases.is_empty(), &self.rows) {
            (false, _) => self.phases.clone(),
            (true, TapRows::Last) => vec![PhaseFilter::PrefillLast, PhaseFilter::DecodeStep(0)],
            // The rows asked for are rows of the whole prompt.
            (true, _) => vec![PhaseFilter::Prefill, PhaseFilter::Decode],
        };
        let spec = TapSpec { rows: self.rows.clone(), phases, detail: self.detail };
        let patterns = self.taps.iter().flat_map(|p| split(p));
        Ok(patterns.map(|p| TapRequest::new(&p, spec.clone())).collect::<Result<_, _>>()?)
    }

    /// Which values the taps see.
    pub fn mode(&self) -> TapMode {
        if self.as_executed { TapMode::AsExecuted } else { TapMode::Semantic }
    }
}

/// Cuts a list of patterns at its commas, but not at those inside braces and brackets.
pub fn split(list: &str) -> Vec<String> {
    let (mut out, mut depth) = (vec![String::new()], 0i32);
    for c in list.chars() {
        depth += match c {
            '{' | '[' => 1,
            '}' | ']' => -1,
            _ => 0,
        };
        match out.last_mut() {
            Some(last) if c != ',' || depth > 0 => last.push(c),
            _ => out.push(String::new()),
        }
    }
    out.iter().map(|p| p.trim().to_owned()).collect()
}

/// Kernels forced.
#[derive(Args, Clone, Debug)]
pub struct RouteFlags {
    /// Force a kernel: PATTERN=KERNEL, or PATTERN:PHASE=KERNEL with prefill or decode. On cpu: plain, portable, avx2 …; on
    /// hip: matvec, matmul, attention-split, attention-tile. Repeatable
    #[arg(long, value_name = "RULE")]
    pub route: Vec<RouteRule>,
}

/// Which prompts: built-in ones unless one is given.
#[derive(Args, Clone, Debug)]
#[group(id = "source", required = false, multiple = false)]
pub struct PromptFlags {
    /// A prompt of your own, named `prompt`; `-` reads it from standard input
    #[arg(value_name = "PROMPT")]
    pub prompt: Option<String>,
    /// Read the prompt from a file; every byte counts, a final newline too
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Token ids, taken as given; the prompt is named `tokens`
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub tokens: Option<Vec<u32>>,
    /// Built-in prompts [default: all]: p0_short, p4_sys, p5_ba, p6_long
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub prompts: Vec<String>,
    /// Prompts from a JSON file: [{"id": …, "text": …} or {"id": …, "tokens": […]}, …]
    #[arg(long, value_name = "FILE")]
    pub prompt_file: Option<PathBuf>,
}

impl PromptFlags {
    /// The prompts as a prompt file has them, for a machine that has the model.
    pub fn written(&self) -> anyhow::Result<Vec<FilePrompt>> {
        if let Some(path) = &self.prompt_file {
            let text = crate::args::read_text(path)?;
            return serde_json::from_str(&text).with_context(|| format!("{}: is no list of prompts", path.display()));
        }
        if let Some(tokens) = &self.tokens {
            return Ok(vec![FilePrompt { id: "tokens".into(), tokens: Some(tokens.clone()), ..FilePrompt::default() }]);
        }
        match self.own()? {
            Some(text) => Ok(vec![FilePrompt { id: "prompt".into(), text: Some(text), ..FilePrompt::default() }]),
            None => Ok(prompts::written(&self.prompts)?),
        }
    }

    /// The text of a prompt of the user's own.
    fn own(&self) -> anyhow::Result<Option<String>> {
        let own = crate::args::Prompt { prompt: self.prompt.clone(), file: self.file.clone() };
        match own.prompt.is_none() && own.file.is_none() {
            true => Ok(None),
            false => Ok(Some(own.read()?)),
        }
    }

    /// The prompts as a model's tokens.
    pub fn read(&self, model: &Model, context: usize) -> anyhow::Result<Vec<PromptInfo>> {
        if let Some(tokens) = &self.tokens {
            return Ok(vec![PromptInfo { id: "tokens".into(), tokens: tokens.clone(), ..PromptInfo::default() }]);
        }
        if let Some(path) = &self.prompt_file {
            let text = crate::args::read_text(path)?;
            return prompts::from_json(model, &text, context).with_context(|| path.display().to_string());
        }
        let Some(text) = self.own()? else {
            let list = prompts::built_in(model, &self.prompts, context)?;
            for p in &list {
                let whole = p.text.as_deref().map_or(Ok(0), |t| prompts::encode(model, t).map(|t| t.len()))?;
                if whole > p.tokens.len() {
                    let (id, kept) = (&p.id, p.tokens.len());
                    output::warn(&format!("{id} is cut to {kept} of its {whole} tokens: the context is {context}"));
                }
            }
            return Ok(list);
        };
        let tokens = prompts::encode(model, &text)?;
        Ok(vec![PromptInfo { id: "prompt".into(), text: Some(text), tokens, decoded: Vec::new() }])
    }
}
