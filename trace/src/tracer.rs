//! Runs prompts and hands what taps record to a sink.

use crate::recording::{RowSink, StepBegin, StepSink, phase_name};
use crate::{PromptInfo, Recording, RunInfo, StepInfo, TraceError};
use greta_backend::{Backend, Batch, Phase, RowsWanted, SeqId, Session, StepAt, StepOut, TapSink, Want};
use greta_models::{Engine, EngineOptions, Model};
use std::sync::Arc;
use std::time::Instant;

/// What is run for each prompt.
#[derive(Clone, Debug)]
pub struct TracePlan {
    /// Decode steps. The first, `decode0`, runs the prompt's last token again at its own position, over a cache that holds
    /// the tokens before it; the next run the likeliest token so far.
    pub decode_steps: u32,
    /// Most tokens of a prefill step; `None`: as many as the engine takes.
    pub chunk: Option<usize>,
    /// Feed this many tokens fewer at the prompt's beginning than its record says: the fault `bos-missing`.
    pub drop_first: usize,
}

impl Default for TracePlan {
    fn default() -> Self {
        TracePlan { decode_steps: 1, chunk: None, drop_first: 0 }
    }
}

/// Told which prompt, and tokens done of how many; answers whether to go on.
pub type Progress<'a> = &'a mut dyn FnMut(&str, usize, usize) -> bool;

/// The logits of each prompt's steps: the end of the prefill, then each decode step.
pub type Logits = Vec<Vec<Vec<f32>>>;

/// Runs prompts one after the other, each in a session of its own. `info` receives decoded tokens and times.
pub fn run(
    engine: &Engine,
    info: &mut RunInfo,
    plan: &TracePlan,
    sink: &mut dyn RowSink,
    progress: Progress<'_>,
) -> Result<Logits, TraceError> {
    check(engine, info, plan)?;
    info.decode_steps = plan.decode_steps;
    let mut all = Vec::new();
    for p in 0..info.prompts.len() {
        let prompt = info.prompts[p].clone();
        let mut one = OnePrompt { engine, session: engine.session()?, prompt: p as u32, order: 0, sink: &mut *sink };
        all.push(one.run(info, &prompt, plan, &mut *progress)?);
    }
    Ok(all)
}

/// Whether the prompts can be run: each has tokens, all in the vocabulary, and fits the context with its decode steps.
pub fn check(engine: &Engine, info: &RunInfo, plan: &TracePlan) -> Result<(), TraceError> {
    let (context, vocab) = (engine.context_size(), engine.model().vocab());
    for prompt in &info.prompts {
        let id = &prompt.id;
        if prompt.tokens.is_empty() {
            return Err(TraceError::Prompt(format!("`{id}` has no tokens")));
        }
        if let Some(t) = prompt.tokens.iter().find(|t| **t as usize >= vocab) {
            return Err(TraceError::Prompt(format!("`{id}` has token id {t}; the vocabulary has {vocab} tokens")));
        }
        let (tokens, steps) = (prompt.tokens.len(), plan.decode_steps as usize);
        if tokens + steps.saturating_sub(1) > context {
            return Err(TraceError::TooLong { id: id.clone(), tokens, steps, context });
        }
    }
    Ok(())
}

struct OnePrompt<'a> {
    engine: &'a Engine,
    session: Box<dyn Session>,
    prompt: u32,
    order: u32,
    sink: &'a mut dyn RowSink,
}

const SEQ: SeqId = SeqId(0);

impl OnePrompt<'_> {
    fn run(
        &mut self,
        info: &mut RunInfo,
        prompt: &PromptInfo,
        plan: &TracePlan,
        progress: Progress<'_>,
    ) -> Result<Vec<Vec<f32>>, TraceError> {
        let fed = &prompt.tokens[plan.drop_first.min(prompt.tokens.len() - 1)..];
        let (most, _) = self.session.limits();
        let chunk = plan.chunk.unwrap_or(most).clamp(1, most);
        let mut logits = Vec::new();
        let chunks = fed.chunks(chunk).count();
        for (i, part) in fed.chunks(chunk).enumerate() {
            let last = i + 1 == chunks;
            let at = StepAt { phase: Phase::Prefill, step: i as u32, ends_prompt: last };
            let out = self.step(info, part, if last { RowsWanted::Last } else { RowsWanted::None }, at)?;
            if last {
                logits.push(out.logits);
            }
            if !progress(&prompt.id, ((i + 1) * chunk).min(fed.len()), fed.len()) {
                return Err(TraceError::Interrupted);
            }
        }
        for step in 0..plan.decode_steps {
            let token = match step {
                0 => {
                    self.session.kv().truncate(SEQ, fed.len() - 1).map_err(greta_backend::BackendError::from)?;
                    fed[fed.len() - 1]
                }
                _ => {
                    let token = greta_models::sampling::argmax(logits.last().map_or(&[][..], |l| l))
                        .map_err(|e| TraceError::NotJudged(format!("decode{step} of `{}`: {e}", prompt.id)))?;
                    info.prompts[self.prompt as usize].decoded.push(token);
                    token
                }
            };
            let at = StepAt { phase: Phase::Decode, step, ends_prompt: true };
            logits.push(self.step(info, &[token], RowsWanted::Last, at)?.logits);
            if !progress(&prompt.id, fed.len(), fed.len()) {
                return Err(TraceError::Interrupted);
            }
        }
        Ok(logits)
    }

    fn step(
        &mut self,
        info: &mut RunInfo,
        tokens: &[u32],
        rows: RowsWanted,
        at: StepAt,
    ) -> Result<StepOut, TraceError> {
        let mut batch = Batch::default();
        batch.append(self.session.kv(), SEQ, tokens, rows)?;
        let want = if batch.rows.is_empty() { Want::Nothing } else { Want::Logits };
        let pages = self.session.kv().table().sequence_pages(SEQ).to_vec();
        self.sink.begin(&StepBegin { prompt: self.prompt, order: self.order, at, pages: &pages })?;
        let start = Instant::now();
        let exe = self.engine.executable().clone();
        let mut sink = StepSink { graph: exe.plan().graph(), prompt: self.prompt, order: self.order, sink: self.sink };
        let out = self.session.run_tapped(&batch, want, at, &mut sink as &mut dyn TapSink)?;
        info.steps.push(StepInfo {
            prompt: self.prompt,
            phase: phase_name(at.phase, at.step),
            tokens: tokens.len(),
            seconds: start.elapsed().as_secs_f64(),
        });
        self.order += 1;
        self.sink.end()?;
        Ok(out)
    }
}

/// Compiles a model with taps, runs prompts and keeps everything in memory.
pub fn record(
    model: &Arc<Model>,
    backend: &dyn Backend,
    options: &EngineOptions<'_>,
    prompts: &[PromptInfo],
    plan: &TracePlan,
    progress: Progress<'_>,
) -> Result<(Recording, Logits), TraceError> {
    let engine = Engine::new(model.clone(), backend, options)?;
    let mut info = RunInfo::of(&engine, model, (backend.name(), backend.describe()), options);
    info.prompts = prompts.to_vec();
    let graph = Arc::new(engine.executable().plan().graph().without_taps()?);
    let mut recording = Recording::new(info.clone(), Some(graph));
    let logits = run(&engine, &mut info, plan, &mut recording, progress)?;
    info.status = crate::Status::Complete;
    recording.info = info;
    Ok((recording, logits))
}
