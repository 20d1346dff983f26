//! The static op graph: built once, verified after every pass, planned once for every step.

mod builder;
mod dot;
mod error;
#[allow(clippy::module_inception, reason = "the type of this crate")]
mod graph;
mod json;
mod pass;
pub mod passes;
mod plan;
mod taps;
mod text;
mod verify;

pub use builder::GraphBuilder;
pub use error::{BuildError, Violation};
pub use graph::{Graph, Input, Kind, Node, NodeId, StateRole, Value};
pub use json::GraphJson;
pub use pass::{Pass, PassEvent, PassLog, Pipeline, Rewriter, Rewritten};
pub use plan::{Plan, Size, Slot, SlotId};
pub use taps::{Detail, NamePattern, PhaseFilter, TAP_PREFIX, TapMode, TapRequest, TapRows, TapSpec, insert_taps};
pub use verify::verify;
