//! Models: GGUF files, tokenizers, chat templates, the Llama graph, and generation. Nothing here knows a device: an
//! [`Engine`] takes any [`greta_backend::Backend`].

mod arch;
pub mod chat;
mod engine;
mod error;
mod generate;
pub mod gguf;
pub mod llama;
mod model;
mod perplexity;
pub mod sampling;
pub mod synth;
pub mod tokenizer;
mod vocab;

pub use arch::architectures;
pub use engine::{Arithmetic, Engine, EngineOptions};
pub use error::ModelError;
pub use generate::{Context, GenerateOptions, Generated, Stop};
pub use model::Model;
pub use perplexity::{Perplexity, perplexity};
