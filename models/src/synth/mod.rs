//! Synthetic models: GGUF files of Llama's shape with random weights.
//!
//! Speed depends on a model's shape and types, not on what it has learnt, so a file made here stands in for one that
//! would have to be downloaded, and tests get small models of every type. The text such a model writes is noise.
//!
//! A [`SynthSpec`] says what to make: a preset, or any shape. [`write()`] makes it, as a stream: memory stays small at
//! any size, and the same spec gives the same bytes, however many threads took part.
//!
//! ```no_run
//! use greta_models::synth::{Mix, SynthSpec, write};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let spec = SynthSpec { mix: Mix::Q8_0, seed: 7, ..SynthSpec::preset("tiny").ok_or("no such preset")? };
//! let report = write(&spec, "tiny.gguf".as_ref(), &mut |_done, _total| true)?;
//! println!("{} parameters", report.parameters);
//! # Ok(())
//! # }
//! ```

mod error;
mod metadata;
mod mix;
mod part;
mod plan;
mod spec;
mod vocab;
mod words;
mod write;

pub use error::SynthError;
pub use mix::Mix;
pub use spec::{Style, SynthSpec};
pub use write::{SynthReport, write, write_with_threads};
