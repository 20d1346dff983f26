//! What every backend offers, and the session and KV cache types they share.
//!
//! A [`Backend`] compiles a plan with a model's weights into an [`Executable`]; that opens [`Session`]s, which keep a KV
//! cache and run batches. Backends know no model; a buffer never leaves its backend.

mod batch;
mod case;
mod checks;
mod error;
mod fault;
mod interrupt;
mod kv;
mod route;
pub mod taps;
mod traits;

pub use batch::{Batch, RowsWanted, StepOut, Want};
pub use case::CaseRunner;
pub use checks::{Check, CheckStatus, Checked, Checkup, DeviceEntry, DeviceRates, DriverEntry};
pub use error::BackendError;
pub use fault::{Fault, Injection};
pub use interrupt::Interrupt;
pub use kv::{KvConfig, KvError, KvOps, PageTable, SeqId};
pub use route::RouteRule;
pub use taps::{NoTaps, Phase, RowData, StepAt, TapRow, TapSink};
pub use traits::{
    Backend, CompileOptions, Executable, KernelProfile, KernelRun, Lowered, Session, StepSize, WeightView, Weights,
};
