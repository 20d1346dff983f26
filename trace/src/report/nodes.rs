//! The parts of a report that have one entry for each node.

use crate::diff::{DiffVerdict, Rule};
use crate::facts::Facts;
use crate::judge::Outcome;
use greta_ops::Stats;
use serde::{Serialize, Serializer};

/// A number as a report writes it: at most nine significant digits, which tells any two f32 values apart; what is no
/// finite number is a string, because JSON has none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Num(pub f64);

impl Num {
    /// A number of which four digits are enough: an error, a ratio.
    pub fn short(v: f64) -> Num {
        Num(digits(v, 4))
    }
}

impl Serialize for Num {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            v if v.is_nan() => s.serialize_str("nan"),
            v if v.is_infinite() => s.serialize_str(if v > 0.0 { "inf" } else { "-inf" }),
            v => s.serialize_f64(digits(v, 9)),
        }
    }
}

/// The number of `n` significant digits nearest to `v`.
fn digits(v: f64, n: usize) -> f64 {
    if v == 0.0 || !v.is_finite() {
        return v;
    }
    format!("{v:.*e}", n - 1).parse().unwrap_or(v)
}

/// A node and what was recorded of it.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its layer, for nodes of one.
    pub layer: Option<u32>,
    /// Its name within the layer.
    pub point: String,
    /// The op with its attributes, or `input`.
    pub op: String,
    /// How the value is stored.
    pub dtype: String,
    /// Values in a row.
    pub cols: usize,
    /// The nodes whose values it reads, weights left out.
    pub reads: Vec<String>,
    /// Its weight: tensor, type, hash.
    pub weight: Option<(String, String, String)>,
    /// Prompt by prompt; `None` where nothing was recorded.
    pub prompts: Vec<Option<NodeAt>>,
}

/// A node in one prompt.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NodeAt {
    /// The largest error over its bound, over all rows judged; `None` where none was.
    pub worst: Option<Num>,
    /// What was found, where that is not clean: a NaN that the reference has too is over no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why it was not judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// Row by row, those judged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<RowAt>,
    /// The row shown in full: the worst, or the prompt's last. Of a large model, nodes within their bounds have one for
    /// the prompt alone where their error is largest.
    pub detail: Option<Detail>,
}

/// A judged row: index of its phase in `phases` of the run, position, largest error over its bound, elements over their
/// bounds. In JSON an array, since there are many.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RowAt(pub usize, pub u32, pub Num, pub usize);

/// A row in full.
#[derive(Clone, Debug, Serialize)]
pub struct Detail {
    /// `prefill`, `decode0` …
    pub phase: String,
    /// Its position.
    pub position: u32,
    /// Its token.
    pub token: i32,
    /// The kernel that made it.
    pub route: String,
    /// The buffer it lay in.
    pub buffer: String,
    /// Byte offset in the buffer.
    pub offset: u64,
    /// Statistics of the whole row.
    pub stats: RowStats,
    /// Which output of the node.
    pub out: usize,
    /// Index of the first value shown.
    pub start: usize,
    /// The values recorded.
    pub got: Vec<Num>,
    /// What the reference gives; empty where the row was not judged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub want: Vec<Num>,
    /// How far each may be off.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bound: Vec<Num>,
    /// What the same token's row holds on the other side of the comparison, and which side that is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other: Vec<Num>,
    /// See `other`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub other_side: String,
    /// How many elements of the row have which error over bound: exactly 0, then by half decades from 10⁻³ to 10³ with
    /// what lies below and above; see [`BINS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub histogram: Vec<u32>,
    /// What its op adds; the weight is the node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
}

/// Bins of a histogram: 0, below 10⁻³, twelve half decades, above 10³.
pub const BINS: usize = 15;

/// The bin of an error over its bound.
pub fn bin(ratio: f64) -> usize {
    match ratio {
        0.0 => 0,
        r if r < 1e-3 => 1,
        // What is no number is larger than any.
        r if r >= 1e3 || r.is_nan() => BINS - 1,
        r => ((r.log10() + 3.0) * 2.0).floor().clamp(0.0, 11.0) as usize + 2,
    }
}

/// [`Stats`] of a row as a report shows them.
#[derive(Clone, Debug, Serialize)]
pub struct RowStats {
    /// The smallest finite value.
    pub min: Num,
    /// The largest.
    pub max: Num,
    /// Their mean.
    pub mean: Num,
    /// The root of their mean square.
    pub rms: Num,
    /// NaNs.
    pub nan: u32,
    /// Infinities.
    pub inf: u32,
    /// Zeros.
    pub zeros: u32,
    /// Hash of the row's bits.
    pub hash: String,
}

impl From<&Stats> for RowStats {
    fn from(s: &Stats) -> Self {
        RowStats {
            min: Num(s.min.into()),
            max: Num(s.max.into()),
            mean: Num::short(s.mean()),
            rms: Num::short(s.rms()),
            nan: s.nan,
            inf: s.inf,
            zeros: s.zeros,
            hash: format!("{:016x}", s.hash),
        }
    }
}

/// Two runs, or two phases of one.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// Name of the first side: `prefill_last`, or a run's.
    pub a: String,
    /// Name of the second.
    pub b: String,
    /// Whether phases of one run are compared.
    pub phases: bool,
    /// What it comes to.
    pub verdict: DiffVerdict,
    /// What was asked of the numbers.
    pub rule: Rule,
    /// Why, where that is not plain from the prompts.
    pub why: Vec<String>,
    /// Rows joined.
    pub joined: usize,
    /// Values recorded on one side alone.
    pub only: usize,
    /// Prompt by prompt.
    pub prompts: Vec<PromptCompared>,
}

/// One prompt, compared.
#[derive(Clone, Debug, Serialize)]
pub struct PromptCompared {
    /// Its name.
    pub prompt: String,
    /// Its tokens.
    pub tokens: usize,
    /// What it comes to.
    pub verdict: DiffVerdict,
    /// Why, where the nodes do not say.
    pub why: Option<String>,
    /// The first value over its limit, in the graph's order.
    pub first_mismatch: Option<String>,
    /// The first that is not equal to the bit.
    pub first_difference: Option<String>,
    /// Mean absolute difference of the report layer's `attn_norm`, and of its `q`.
    pub norm_mae: Option<Num>,
    /// See `norm_mae`.
    pub q_mae: Option<Num>,
    /// Of the first value over its limit, if that is a norm: the columns of a norm's report.
    pub norm: Option<NormRow>,
    /// Value by value, in the graph's order.
    pub nodes: Vec<NodeCompared>,
}

/// One value, compared: the worst of its rows.
#[derive(Clone, Debug, Serialize)]
pub struct NodeCompared {
    /// The value.
    pub node: String,
    /// Its op's name.
    pub op: String,
    /// Whether every row is equal to the bit.
    pub equal: bool,
    /// Whether it is over its limit.
    pub over: bool,
    /// Mean absolute difference.
    pub mae: Option<Num>,
    /// The largest absolute difference.
    pub max_abs: Option<Num>,
    /// The largest relative L2 distance of a row.
    pub rel_l2: Option<Num>,
    /// The largest difference over the op's bound, where it was worked out.
    pub bound_ratio: Option<Num>,
    /// The kernels.
    pub route_a: String,
    /// See `route_a`.
    pub route_b: String,
    /// Position and mean absolute difference of rows; of many, some.
    pub rows: Vec<(u32, Option<Num>)>,
}

/// A norm on both sides, in the columns that norm reports have.
#[derive(Clone, Debug, Serialize)]
pub struct NormRow {
    /// The node.
    pub node: String,
    /// Mean absolute difference of what it read, where that was recorded.
    pub input_mae: Option<Num>,
    /// Of its weight: 0 if the hashes agree, unknown otherwise.
    pub weight_mae: Option<Num>,
    /// Of what it gave.
    pub output_mae: Option<Num>,
    /// Whether its epsilons agree.
    pub eps_match: bool,
    /// Difference of the sums of squares.
    pub sumsq_delta: Option<Num>,
    /// Difference of the inverse roots.
    pub inv_rms_delta: Option<Num>,
    /// Whether its input lay in the same buffer.
    pub input_ptr_match: Option<bool>,
    /// Whether it lay at the same offset.
    pub input_offset_match: Option<bool>,
    /// Whether its weight's bytes agree.
    pub weight_hash_match: Option<bool>,
    /// The class: the judge's where it names this node, else what the columns say.
    pub bucket: String,
}
