//! From flags to a model that is ready to run.

use crate::args::Common;
use crate::progress::{Progress, Unit};
use crate::{default_model, output};
use greta::backends::{Backend, Interrupt};
use greta::chat::Message;
use greta::tokenizer::{EncodeOptions, Tokenizer};
use greta::{BackendOptions, Context, Engine, EngineOptions, Model};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Common {
    /// The model file: the one given, or the default one.
    pub fn model_path(&self) -> anyhow::Result<PathBuf> {
        // An empty variable is how scripts unset one.
        let variable = || std::env::var_os("GRETA_MODEL").filter(|v| !v.is_empty()).map(PathBuf::from);
        self.model.clone().or_else(variable).map_or_else(default_model::path, Ok)
    }

    /// Opens the model.
    pub fn open(&self) -> anyhow::Result<Arc<Model>> {
        Ok(Arc::new(Model::open(&self.model_path()?)?))
    }

    /// How to open the backend.
    pub fn backend_options(&self) -> BackendOptions {
        BackendOptions { threads: self.threads, launching: self.launch.launching() }
    }

    /// Opens the backend.
    pub fn open_backend(&self) -> anyhow::Result<Box<dyn Backend>> {
        Ok(greta::backend(&self.backend, &self.backend_options())?)
    }

    /// Threads that compute.
    pub fn thread_count(&self) -> anyhow::Result<usize> {
        Ok(greta::backend_threads(&self.backend, &self.backend_options())?)
    }

    /// The engine's options these flags describe.
    pub fn engine_options(&self) -> EngineOptions<'static> {
        EngineOptions {
            arith: self.arith.into(),
            kv: self.kv.dtype(),
            context: self.context,
            without: self.without.clone(),
            interrupt: Interrupt::when(crate::interrupt::noted),
            ..EngineOptions::default()
        }
    }

    /// Compiles the model, showing progress.
    pub fn load(&self, model: &Arc<Model>, options: EngineOptions<'_>) -> anyhow::Result<Loaded> {
        let start = Instant::now();
        let backend = self.open_backend()?;
        let cores = std::thread::available_parallelism().map_or(usize::MAX, |n| n.get());
        if self.threads.is_some_and(|t| t > cores) {
            output::warn(&format!("-t is more than the {cores} processors here: threads will wait for each other"));
        }
        let progress = Progress::new("loading", Unit::Bytes);
        let tell = |done, all| progress.set(done, all);
        let engine = Engine::new(model.clone(), &*backend, &EngineOptions { progress: Some(&tell), ..options })?;
        let context = engine.context()?;
        Ok(Loaded { engine, context, backend, time: start.elapsed() })
    }
}

/// A compiled model with an empty cache.
pub struct Loaded {
    /// The engine.
    pub engine: Engine,
    /// Its one context.
    pub context: Context,
    /// What compiled it.
    pub backend: Box<dyn Backend>,
    /// How long that took.
    pub time: Duration,
}

impl Loaded {
    /// What the numbers depend on, for a command's JSON.
    pub fn settings(&self, common: &Common) -> serde_json::Value {
        json!({
            "model": self.engine.model().gguf().path(),
            "backend": self.backend.name(),
            "arith": self.engine.arithmetic().to_string(),
            "kv": common.kv.dtype().name().to_lowercase(),
            "context": self.engine.context_size(),
            "without": common.without,
        })
    }
}

/// The tokenizer, its warnings said.
pub fn tokenizer(model: &Model) -> anyhow::Result<&Tokenizer> {
    let tokenizer = model.tokenizer()?;
    tokenizer.warnings().iter().for_each(|w| output::warn(w));
    Ok(tokenizer)
}

/// Tokens of a text that is to be completed as it stands: special tokens in it are recognised, the beginning of sequence
/// is added where the tokenizer does so. An end of sequence is not: nothing could follow it.
pub fn encode(tokenizer: &Tokenizer, text: &str) -> anyhow::Result<Vec<u32>> {
    let mut tokens = tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: true })?;
    if tokenizer.adds_eos() {
        tokens.pop();
    }
    Ok(tokens)
}

/// Tokens of a prompt: as it stands, or as the user's turn in the model's chat template.
pub fn prompt(
    model: &Model,
    tokenizer: &Tokenizer,
    text: &str,
    chat: bool,
    system: Option<&str>,
) -> anyhow::Result<Vec<u32>> {
    if !chat {
        return encode(tokenizer, text);
    }
    let mut messages: Vec<Message> = system.iter().map(|s| Message::new("system", *s)).collect();
    messages.push(Message::new("user", text));
    Ok(tokenizer.encode_chat(&model.chat_template()?.render(&messages, true)?)?)
}

/// Runs a prompt, showing progress; `None` if Ctrl-C stopped it.
pub fn prefill(
    context: &mut Context,
    prompt: &[u32],
    guard: &crate::interrupt::Guard,
) -> anyhow::Result<Option<Vec<f32>>> {
    let progress = Progress::new("prompt", Unit::Things("tokens"));
    let logits = context.prefill(prompt, &mut |done, all| {
        progress.set(done as u64, all as u64);
        !guard.hit()
    })?;
    Ok(logits.filter(|_| !guard.hit()))
}
