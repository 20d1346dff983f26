//! What can go wrong on the way to a device and on it.

use crate::KvError;

/// An error of a backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The backend has no kernel for this node.
    #[error("{backend}: node `{node}` ({op}) is not supported: {why}")]
    Unsupported {
        /// The backend.
        backend: &'static str,
        /// The node.
        node: String,
        /// Its op.
        op: String,
        /// What is missing.
        why: String,
    },
    /// A tensor the graph names and the model does not have, or has in another shape.
    #[error("weight `{tensor}`: {why}")]
    Weight {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        why: String,
    },
    /// A batch that can't be run.
    #[error("the batch can't be run: {0}")]
    Batch(String),
    /// The cache is full or a sequence is unknown.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// Memory that can't be had.
    #[error("{bytes} bytes for {what} can't be allocated")]
    OutOfMemory {
        /// What for.
        what: String,
        /// How much.
        bytes: usize,
    },
    /// Threads, drivers and the like.
    #[error("{0}")]
    Device(String),
    /// A kernel that could not be compiled or run.
    #[error("{backend}: node `{node}`, kernel `{kernel}`: {why}")]
    Kernel {
        /// The backend and its driver.
        backend: String,
        /// The node.
        node: String,
        /// The kernel.
        kernel: String,
        /// What happened.
        why: String,
    },
    /// A route rule that can't be kept.
    #[error("route `{rule}`: {why}")]
    Route {
        /// The rule.
        rule: String,
        /// What is wrong with it.
        why: String,
    },
    /// A fault that can't be injected.
    #[error("fault {injection}: {why}")]
    Fault {
        /// Which fault, where.
        injection: String,
        /// Why not.
        why: String,
    },
    /// The caller's [`crate::Interrupt`] stopped a step. Its tokens must be taken out of the cache again, or run again.
    #[error("interrupted")]
    Interrupted,
    /// What receives tapped rows could not take one.
    #[error("`{tap}`: {source}")]
    Tap {
        /// The tap.
        tap: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A kernel wrote outside its buffer.
    #[error("bytes {place} the buffer of slot {slot} were overwritten, last by node `{node}` or before")]
    Guard {
        /// `before` or `after`.
        place: &'static str,
        /// The plan's slot.
        slot: u32,
        /// The last node that wrote to the slot.
        node: String,
    },
}
