//! What an operation **is**: its shapes, its plain f64 reference, the error it may make, what it costs, and the cases
//! every backend is judged by. One file per op; one file per quantised block format.
//!
//! Nothing here knows a graph, a model or a device.

mod case;
mod desc;
mod dtype;
mod op;
pub mod quant;
mod spec;
mod stats;
mod tensor;

mod add;
mod attention;
mod cache_write;
mod dequant;
mod embed;
mod fused;
mod matmul;
mod quantize;
mod rmsnorm;
mod rope;
mod swiglu;

pub use add::Add;
pub use attention::Attention;
pub use cache_write::CacheWrite;
pub use case::{Case, CaseInput};
pub use dequant::Dequant;
pub use desc::{Bindings, Descs, Dim, TensorDesc};
pub use dtype::DType;
pub use embed::Embed;
pub use fused::{Fused, Pattern, Source, Step};
pub use matmul::MatMul;
pub use op::Op;
pub use quantize::Quantize;
pub use rmsnorm::RmsNorm;
pub use rope::{Pairing, Rope};
pub use spec::{Bound, Cost, InferError, OpSpec, Precision};
pub use stats::Stats;
pub use swiglu::Swiglu;
pub use tensor::{Data, HostTensor};

/// Tokens in one page of the KV cache, and the fixed absolute stride at which attention cuts its keys.
///
/// Partial softmax sums are merged page by page in ascending order, so this number is part of the arithmetic.
pub const PAGE_TOKENS: usize = 32;

/// Values that share one scale in quantised activations.
pub const ACT_BLOCK: usize = 32;
