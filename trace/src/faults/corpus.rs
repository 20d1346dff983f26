//! Where each fault is put, and what is to be said of it.
//!
//! The table knows names alone: how a fault is made is the backend's business, how it is recognised the hypotheses'.

use crate::judge::Class;
use greta_backend::{Fault, Phase};
use greta_ops::DType;

/// A fault of the corpus.
pub struct Entry {
    /// The fault.
    pub fault: Fault,
    /// The node: a point of a layer, or a node outside layers if [`Entry::global`].
    pub point: &'static str,
    /// Whether `point` is a whole name.
    pub global: bool,
    /// In steps of this phase alone.
    pub phase: Option<Phase>,
    /// The fault's parameter.
    pub param: Param,
    /// A type that the node's weight must have.
    pub needs: Option<DType>,
    /// The class to be said; `UNKNOWN` for faults that no hypothesis describes.
    pub class: Class,
    /// The hypotheses that describe it, without their parameters.
    pub hypotheses: &'static [&'static str],
}

/// Where a fault's parameter comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Param {
    /// The backend's default for the node.
    Default,
    /// A number.
    Is(u32),
    /// The likeliest token after the prompt.
    NextToken,
}

const fn entry(fault: Fault, point: &'static str, class: Class, hypotheses: &'static [&'static str]) -> Entry {
    Entry { fault, point, global: false, phase: None, param: Param::Default, needs: None, class, hypotheses }
}

const fn global(fault: Fault, point: &'static str, class: Class, hypotheses: &'static [&'static str]) -> Entry {
    Entry { global: true, ..entry(fault, point, class, hypotheses) }
}

const fn decode(e: Entry) -> Entry {
    Entry { phase: Some(Phase::Decode), ..e }
}

const fn prefill(e: Entry) -> Entry {
    Entry { phase: Some(Phase::Prefill), ..e }
}

const fn param(e: Entry, p: Param) -> Entry {
    Entry { param: p, ..e }
}

const fn needs(e: Entry, t: DType) -> Entry {
    Entry { needs: Some(t), ..e }
}

use Class::{
    AInputSelection as A, BNormStats as B, CWeightLayout as C, DKernelMath as D, EPrecision as E, FCache as F,
    GStaleData as G, TraceMismatch, Unknown,
};

/// Every fault: those that really happened, then those that no hypothesis describes.
pub const CORPUS: &[Entry] = &[
    global(Fault::EmbdColMajor, "embd", C, &["column-major weight"]),
    param(entry(Fault::TileTransposed, "q", D, &["output tile transposed"]), Param::Is(32)),
    param(entry(Fault::OperandsTransposed, "ffn_up", D, &["operand tiles transposed"]), Param::Is(32)),
    entry(Fault::WeightColMajor, "q", C, &["column-major weight"]),
    needs(entry(Fault::Q4kScales, "*", C, &["scale packing"]), DType::Q4_K),
    needs(entry(Fault::Q4kNibbles, "*", C, &["nibble order"]), DType::Q4_K),
    needs(entry(Fault::Q6kOrder, "*", C, &["Q6_K low and high bits"]), DType::Q6_K),
    entry(Fault::KvTransposed, "k", C, &["column-major weight"]),
    entry(Fault::RopeHalves, "q_rope", D, &["RoPE pairing"]),
    decode(entry(Fault::RopePosPlus1, "q_rope", A, &["RoPE position"])),
    entry(Fault::KvLayerBase, "attn", F, &["another layer's cache"]),
    entry(Fault::GqaMap, "attn", F, &["GQA head map"]),
    decode(entry(Fault::SeqLenPlus1, "attn", F, &["sequence length +1"])),
    decode(entry(Fault::SeqLenMinus1, "attn", F, &["sequence length -1"])),
    decode(entry(Fault::InputRow, "ffn_norm", A, &["another token's row", "another token's row, of the step before"])),
    decode(param(global(Fault::InputToken, "embd", A, &["another token's embedding"]), Param::NextToken)),
    entry(Fault::Eps, "attn_norm", B, &["epsilon"]),
    entry(Fault::NormWeightLayer, "attn_norm", C, &["neighbour layer's weight"]),
    entry(Fault::HalfWave, "ffn_norm", D, &["norm over half the lanes", "half the lanes"]),
    entry(Fault::KTruncated, "ffn_out", D, &["first K' terms"]),
    param(entry(Fault::CtxBoundary, "attn", D, &["context limit"]), Param::Is(64)),
    entry(Fault::F16Accumulate, "ffn_out", E, &["f16 accumulation"]),
    entry(Fault::Bf16Truncate, "v", E, &["output truncated to bf16"]),
    entry(Fault::ScaleUniform, "attn_out", D, &["uniform scale"]),
    entry(Fault::NoSqrtD, "attn", D, &["missing 1/√d"]),
    prefill(entry(Fault::MaskPlus1, "attn", D, &["causal mask +1"])),
    entry(Fault::StaleBuffer, "ffn_up", G, &["stale operand", "stale output"]),
    entry(Fault::AsyncCopy, "ffn_gate", G, &["value differs between repeats"]),
    global(Fault::LogitsRow, "rows", A, &["another token's row", "another row's output"]),
    global(Fault::BosMissing, "tokens", TraceMismatch, &[]),
    entry(Fault::LaneSign, "k", Unknown, &[]),
    entry(Fault::ResidualTwice, "ffn_inp", Unknown, &[]),
    entry(Fault::OneScale, "ffn_gate", Unknown, &[]),
    entry(Fault::Noise, "attn_out", Unknown, &[]),
    entry(Fault::BlockDropped, "ffn_out", Unknown, &[]),
    entry(Fault::ColumnRepeated, "v", Unknown, &[]),
    entry(Fault::Saturated, "out", Unknown, &[]),
    entry(Fault::LayerNorm, "ffn_norm", Unknown, &[]),
    entry(Fault::WeightPlusOne, "attn_norm", Unknown, &[]),
    entry(Fault::HardSilu, "ffn_act", Unknown, &[]),
    entry(Fault::CoarseExp, "attn", Unknown, &[]),
    entry(Fault::MantissaBit, "q", Unknown, &[]),
    entry(Fault::PairSkipped, "k_rope", Unknown, &[]),
];

/// Two faults at once: the first is to be named.
pub struct Pair {
    /// The one that comes first in the graph's order, and its layer.
    pub first: (Fault, &'static str),
    /// The other.
    pub second: (Fault, &'static str),
}

impl Pair {
    /// Both names, joined by `+`.
    pub fn name(&self) -> String {
        format!("{}+{}", self.first.0, self.second.0)
    }
}

/// Pairs of faults.
pub const PAIRS: &[Pair] = &[
    Pair { first: (Fault::WeightColMajor, "blk.0.q"), second: (Fault::HalfWave, "blk.0.ffn_norm") },
    Pair { first: (Fault::RopeHalves, "blk.1.k_rope"), second: (Fault::GqaMap, "blk.1.attn") },
    Pair { first: (Fault::NoSqrtD, "blk.0.attn"), second: (Fault::NoSqrtD, "blk.2.attn") },
    Pair { first: (Fault::LaneSign, "blk.0.v"), second: (Fault::ScaleUniform, "blk.1.attn_out") },
    Pair { first: (Fault::NormWeightLayer, "blk.1.attn_norm"), second: (Fault::Eps, "blk.2.ffn_norm") },
];
