//! What a comparison found: everything that reports are made of.

use super::{DiffVerdict, Limits, LogitsDiff, Metrics, Rule, Selector};
use crate::At;
use serde::Serialize;
use std::path::PathBuf;

/// Two runs, compared.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    /// What it comes to.
    pub verdict: DiffVerdict,
    /// Why, where that is not plain from the prompts.
    pub why: Vec<String>,
    /// What was asked of the numbers.
    pub rule: Rule,
    /// And with which limits.
    pub limits: Limits,
    /// The first side.
    pub a: SideInfo,
    /// The second.
    pub b: SideInfo,
    /// Rows joined.
    pub joined: usize,
    /// Prompt by prompt, in A's order.
    pub prompts: Vec<PromptDiff>,
    /// Prompts of one side alone.
    pub prompts_only_a: Vec<String>,
    /// See `prompts_only_a`.
    pub prompts_only_b: Vec<String>,
    /// Values that one side alone recorded in the steps compared.
    pub only_a: Vec<String>,
    /// See `only_a`.
    pub only_b: Vec<String>,
}

/// What was compared.
#[derive(Clone, Debug, Serialize)]
pub struct SideInfo {
    /// The run's label.
    pub label: Option<String>,
    /// What wrote it.
    pub engine: String,
    /// The backend.
    pub backend: String,
    /// Its device.
    pub device: String,
    /// The arithmetic.
    pub arith: String,
    /// Type of the KV cache.
    pub kv: String,
    /// The model's file.
    pub model: PathBuf,
    /// Kernels forced.
    pub routes: Vec<String>,
    /// Which steps.
    pub phases: Selector,
    /// Whether the run ended.
    pub complete: bool,
}

/// One prompt.
#[derive(Clone, Debug, Serialize)]
pub struct PromptDiff {
    /// Its name.
    pub prompt: String,
    /// What it comes to.
    pub verdict: DiffVerdict,
    /// Why, where the nodes do not say.
    pub why: Option<String>,
    /// The first value over its limit, in the graph's order.
    pub first_mismatch: Option<String>,
    /// The first value that is not equal to the bit.
    pub first_difference: Option<String>,
    /// Rows joined.
    pub joined: usize,
    /// The last joined row of `logits`, if there is one.
    pub logits: Option<LogitsDiff>,
    /// Value by value, in the graph's order.
    pub nodes: Vec<NodeDiff>,
}

/// One value of one prompt: the worst of its rows.
#[derive(Clone, Debug, Serialize)]
pub struct NodeDiff {
    /// The prompt's name.
    pub prompt: String,
    /// The value's name: its node's, with `.1` for a second output.
    pub node: String,
    /// Its layer, for nodes of one.
    pub layer: Option<u32>,
    /// The op's name.
    pub op: String,
    /// Whether every row is equal to the bit.
    pub equal: bool,
    /// Whether the value is over its limit.
    pub over: bool,
    /// The largest relative L2 distance it may have.
    pub limit: f64,
    /// Mean absolute difference over all rows; this and the next are null where no value was kept.
    pub mae: Option<f64>,
    /// The largest absolute difference.
    pub max_abs: Option<f64>,
    /// The largest 99th percentile of a row's absolute differences.
    pub p99_abs: Option<f64>,
    /// The largest relative L2 distance of a row.
    pub rel_l2: Option<f64>,
    /// The smallest cosine of two rows.
    pub cosine: Option<f64>,
    /// The largest distance in representable f32 values.
    pub max_ulp: Option<u64>,
    /// The worst row's largest difference over the op's bound: of a value that differs though its operands are equal,
    /// where they were recorded and the model is at hand.
    pub bound_ratio: Option<f64>,
    /// How far statistics are apart, relative to A's root mean square, of rows that differ without kept values.
    pub stats_apart: Option<f64>,
    /// The kernels of the first row.
    pub route_a: String,
    /// See `route_a`.
    pub route_b: String,
    /// Row by row, in A's order.
    pub rows: Vec<RowDiff>,
}

/// Two rows.
#[derive(Clone, Debug, Serialize)]
pub struct RowDiff {
    /// Where A's row belongs.
    pub at_a: At,
    /// Where B's does.
    pub at_b: At,
    /// Whether they are equal to the bit; of foreign runs, as far as values were kept.
    pub equal: bool,
    /// The hashes of the whole rows.
    pub hash_a: String,
    /// See `hash_a`.
    pub hash_b: String,
    /// Whether both sides kept every value.
    pub whole: bool,
    /// How far apart they are; null where no value was kept on both sides.
    pub metrics: Option<Metrics>,
    /// The largest difference over the op's bound.
    pub bound_ratio: Option<f64>,
    /// Where A's row lay: buffer and byte offset.
    pub place_a: (String, u64),
    /// Where B's did.
    pub place_b: (String, u64),
}

impl NodeDiff {
    /// What is held against a limit: the relative L2 distance. `None` where a row differs in values that were not kept.
    pub fn distance(&self) -> Option<f64> {
        match self.rows.iter().all(RowDiff::is_known) {
            true => Some(self.rel_l2.unwrap_or(0.0)),
            false => None,
        }
    }
}

impl RowDiff {
    /// Whether the values that make the difference, if there is one, were kept.
    fn is_known(&self) -> bool {
        self.equal || self.metrics.as_ref().is_some_and(|m| self.whole || m.max_abs > 0.0)
    }
}

impl Diff {
    /// All values of all prompts.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeDiff> {
        self.prompts.iter().flat_map(|p| &p.nodes)
    }

    /// One value of one prompt.
    pub fn node(&self, prompt: &str, node: &str) -> Option<&NodeDiff> {
        self.nodes().find(|n| n.prompt == prompt && n.node == node)
    }
}
