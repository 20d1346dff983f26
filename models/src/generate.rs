//! Prompts in, tokens out.

use crate::sampling::Sampler;
use crate::{Model, ModelError};
use greta_backend::{Batch, KvConfig, Phase, RowsWanted, SeqId, Session, StepAt, StepOut, TapSink, Want};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One conversation with a model: its cache, and the tokens that are in it.
pub struct Context {
    model: Arc<Model>,
    session: Box<dyn Session>,
    kv: KvConfig,
    tokens: Vec<u32>,
    taps: Option<Box<dyn TapSink + Send>>,
    /// Steps run since the taps were set or a prompt began: prefill chunks, decode steps.
    steps: [u32; 2],
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub struct GenerateOptions {
    /// Most tokens to generate; `None`: until the model ends or the context is full.
    pub max_tokens: Option<usize>,
    /// Go on past end-of-generation tokens.
    pub ignore_eos: bool,
}

/// Why generation stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model gave an end-of-generation token, which is not part of the result.
    End,
    /// As many tokens as asked for.
    Length,
    /// The context is full.
    Context,
    /// The caller said so.
    Interrupted,
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stop::End => "end",
            Stop::Length => "length",
            Stop::Context => "context",
            Stop::Interrupted => "interrupted",
        })
    }
}

/// What was generated.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The tokens, without an end-of-generation token that stopped it.
    pub tokens: Vec<u32>,
    /// Why it stopped.
    pub stop: Stop,
    /// Time of the decode steps.
    pub time: Duration,
}

const SEQ: SeqId = SeqId(0);

impl Context {
    pub(crate) fn new(model: Arc<Model>, session: Box<dyn Session>, kv: KvConfig) -> Context {
        Context { model, session, kv, tokens: Vec::new(), taps: None, steps: [0; 2] }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The tokens whose keys and values are in the cache.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The session, for steps of one's own. Changing sequence 0's cache here loses the token list.
    pub fn session(&mut self) -> &mut dyn Session {
        &mut *self.session
    }

    /// Hands what the model's taps record in later steps to `sink`; a prefill's chunks and the decode steps after it are
    /// counted from 0. It changes no number.
    pub fn tap(&mut self, sink: Option<Box<dyn TapSink + Send>>) {
        self.taps = sink;
        self.steps = [0; 2];
    }

    /// Whether taps are handed out.
    pub fn is_tapped(&self) -> bool {
        self.taps.is_some()
    }

    /// Runs the last token in the cache again, as a decode step at its own position over a cache that holds the tokens
    /// before it, and gives its logits: the same, to the bit, as the step that ran it first gave.
    pub fn again(&mut self) -> Result<Vec<f32>, ModelError> {
        let Some(&last) = self.tokens.last() else { return Err(ModelError::EmptyPrompt) };
        self.truncate(self.tokens.len() - 1)?;
        Ok(self.step(&[last], RowsWanted::Last)?.logits)
    }

    /// Keeps the first `n` tokens.
    pub fn truncate(&mut self, n: usize) -> Result<(), ModelError> {
        self.session.kv().truncate(SEQ, n)?;
        self.tokens.truncate(n);
        Ok(())
    }

    /// Runs the prompt and gives the logits of its last token. `progress(done, all)` is told after each chunk and
    /// stops the work by answering `false`; then there are no logits, as where the engine's interrupt stopped a step.
    ///
    /// Tokens a prompt shares with what the cache holds are not run again.
    pub fn prefill(
        &mut self,
        prompt: &[u32],
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<Vec<f32>>, ModelError> {
        if prompt.is_empty() {
            return Err(ModelError::EmptyPrompt);
        }
        if prompt.len() > self.kv.context {
            let (tokens, context, limit) = (prompt.len(), self.kv.context, self.model.context());
            return Err(ModelError::PromptTooLong { tokens, context, limit });
        }
        // The last token must be run in any case: its logits are wanted.
        let shared = prompt.iter().zip(&self.tokens).take_while(|(a, b)| a == b).count();
        self.truncate(shared.min(prompt.len() - 1))?;
        let (chunk, _) = self.session.limits();
        self.steps = [0; 2];
        while self.tokens.len() < prompt.len() {
            let done = self.tokens.len();
            let next = &prompt[done..prompt.len().min(done + chunk)];
            let last = done + next.len() == prompt.len();
            let rows = if last { RowsWanted::Last } else { RowsWanted::None };
            let out = match self.run(Phase::Prefill, next, rows) {
                Err(e) if e.is_interrupted() => return Ok(None),
                out => out?,
            };
            if !progress(self.tokens.len(), prompt.len()) && !last {
                return Ok(None);
            }
            if last {
                return Ok(Some(out.logits));
            }
        }
        Ok(None)
    }

    /// Runs tokens at the end of the cache as one step and gives the logits of the rows wanted.
    pub fn step(&mut self, tokens: &[u32], rows: RowsWanted) -> Result<StepOut, ModelError> {
        self.run(if tokens.len() == 1 { Phase::Decode } else { Phase::Prefill }, tokens, rows)
    }

    fn run(&mut self, phase: Phase, tokens: &[u32], rows: RowsWanted) -> Result<StepOut, ModelError> {
        if let Some(&id) = tokens.iter().find(|&&t| t as usize >= self.model.vocab()) {
            return Err(ModelError::TokenId { id, vocab: self.model.vocab() });
        }
        let before = self.tokens.len();
        let step = &mut self.steps[usize::from(phase == Phase::Decode)];
        let at = StepAt { phase, step: *step, ends_prompt: !matches!(rows, RowsWanted::None) };
        *step += 1;
        let taps = &mut self.taps;
        let mut run = |session: &mut dyn Session| {
            let mut batch = Batch::default();
            batch.append(session.kv(), SEQ, tokens, rows)?;
            let want = if batch.rows.is_empty() { Want::Nothing } else { Want::Logits };
            match taps {
                Some(sink) => session.run_tapped(&batch, want, at, &mut **sink),
                None => session.run(&batch, want),
            }
        };
        match run(&mut *self.session) {
            Ok(out) => {
                self.tokens.extend_from_slice(tokens);
                Ok(out)
            }
            Err(e) => {
                self.session.kv().truncate(SEQ, before)?;
                Err(e.into())
            }
        }
    }

    /// Generates from the logits that [`Context::prefill`] gave. `on_token` sees each token and stops by answering
    /// `false`.
    pub fn generate(
        &mut self,
        logits: Vec<f32>,
        sampler: &mut Sampler,
        options: &GenerateOptions,
        on_token: &mut dyn FnMut(u32) -> bool,
    ) -> Result<Generated, ModelError> {
        let start = Instant::now();
        // Token lists given as ids need no vocabulary; then no token ends the generation.
        let model = self.model.clone();
        let tokenizer = model.tokenizer().ok();
        let (mut logits, mut tokens) = (logits, Vec::new());
        let stop = loop {
            if options.max_tokens.is_some_and(|n| tokens.len() >= n) {
                break Stop::Length;
            }
            // The last token drawn is run only if another is to follow it.
            if let Some(&last) = tokens.last() {
                if self.tokens.len() >= self.kv.context {
                    break Stop::Context;
                }
                logits = match self.step(&[last], RowsWanted::Last) {
                    Err(e) if e.is_interrupted() => break Stop::Interrupted,
                    out => out?.logits,
                };
            }
            let history: &[u32] = &self.tokens;
            let id = sampler.sample(&logits, history)?;
            if !options.ignore_eos && tokenizer.is_some_and(|t| t.is_end_of_generation(id)) {
                break Stop::End;
            }
            tokens.push(id);
            if !on_token(id) {
                break Stop::Interrupted;
            }
        };
        Ok(Generated { tokens, stop, time: start.elapsed() })
    }
}
