//! greta runs Llama models from GGUF files as a **static graph of operations**, on interchangeable backends.
//!
//! This crate is the library's front: each room of the workspace under one name. The `greta` command is a thin layer over
//! it and does nothing a program can't do.
//!
//! | module | what is in it |
//! |---|---|
//! | [`ops`] | what an operation *is*: shapes, f64 reference, error bound, cost, cases; types and quantised block formats |
//! | [`graph`] | the graph, its builder, verifier, passes and plan; text, DOT and JSON |
//! | [`backends`] | the traits of a backend, its session and its KV cache |
//! | [`gguf`], [`tokenizer`], [`chat`], [`llama`], [`sampling`], [`synth`] | what lies between a file and text |
//! | [`trace`] | runs recorded through taps: run folders, comparison, the first op whose numbers are wrong |
//! | [`Model`], [`Engine`], [`Context`] | the short way: a file, compiled for a backend, and a conversation with it |
//!
//! # Quick start
//!
//! ```
//! use greta::synth::{self, SynthSpec};
//! use greta::tokenizer::EncodeOptions;
//! use greta::{Engine, EngineOptions, Model};
//! use std::sync::Arc;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A small model of random weights stands in for a real file.
//! let folder = tempfile::tempdir()?;
//! let file = folder.path().join("tiny.gguf");
//! synth::write(&SynthSpec::preset("tiny").ok_or("no such preset")?, &file, &mut |_done, _all| true)?;
//!
//! // The file's header becomes a graph; the backend, chosen by a string, compiles it.
//! let model = Arc::new(Model::open(&file)?);
//! let backend = greta::backend("cpu", &Default::default())?;
//! let engine = Engine::new(model.clone(), &*backend, &EngineOptions::default())?;
//!
//! // A context holds a conversation: its KV cache and the tokens in it.
//! let mut context = engine.context()?;
//! let prompt = model.tokenizer()?.encode("Hello", EncodeOptions { add_special: true, parse_special: true })?;
//! let logits = context.prefill(&prompt, &mut |_done, _all| true)?.ok_or("stopped")?;
//! let top = greta::sampling::argmax(&logits)?;
//! println!("token {top}: {:?}", model.tokenizer()?.decode(&[top]));
//! # Ok(())
//! # }
//! ```
//!
//! To generate text, give the logits to [`Context::generate`] with a [`sampling::Sampler`].
//!
//! # What holds
//!
//! - **Prefill ≡ decode, bit for bit.** On one backend and one arithmetic, a token's values depend on the tokens up to it
//!   alone: not on how a prompt was chunked or on what else was in the batch.
//! - **No silent default.** What is missing, unknown or does not fit is an error that names it; a backend that is absent is
//!   never replaced by another.
//!
//! `examples/build_graph.rs` builds a model's graph by hand and runs it; `examples/switch_backend.rs` runs one model on two
//! backends and compares; `examples/insert_taps.rs` looks at every layer's output.

mod registry;

pub use greta_backend as backends;
pub use greta_graph as graph;
pub use greta_hip::Launching;
pub use greta_models::{
    Arithmetic, Context, Engine, EngineOptions, GenerateOptions, Generated, Model, ModelError, Perplexity, Stop,
    architectures, chat, gguf, llama, perplexity, sampling, synth, tokenizer,
};
pub use greta_ops as ops;
pub use greta_trace as trace;
pub use registry::{BACKENDS, BackendEntry, BackendOptions, OpenError, VISIBLE, backend, backend_threads, check_up};
