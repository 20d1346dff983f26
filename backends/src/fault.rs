//! Faults that can be built into a kernel or its lowering, to prove that they are found.
//!
//! Nothing but `greta faults`, `greta gate` and tests asks for one. A backend injects a fault by changing an index, a
//! stride, a bound or an order in the node's kernel; it shares no code with whatever judges the result.

use crate::Phase;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! faults {
    ($($id:ident $name:literal $about:literal),* $(,)?) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Fault { $(#[doc = $about] $id),* }

        impl Fault {
            /// Every fault.
            pub const ALL: &[Fault] = &[$(Fault::$id),*];

            /// Its name, such as `tile-transposed`.
            pub fn name(self) -> &'static str { match self { $(Fault::$id => $name),* } }

            /// What the kernel does wrong, in one line.
            pub fn about(self) -> &'static str { match self { $(Fault::$id => $about),* } }
        }
    };
}

faults! {
    EmbdColMajor "embd-col-major" "the embedding table is read column-major",
    TileTransposed "tile-transposed" "16×16 output tiles are stored transposed when a step has more than `param` rows; the last rows are filled up with zeros",
    OperandsTransposed "operands-transposed" "16×16 fragments of both operands are loaded transposed when a step has more than `param` rows; the last rows are filled up with zeros",
    WeightColMajor "weight-col-major" "the weight matrix is read column-major",
    Q4kScales "q4k-scales" "the 6-bit scales of Q4_K are unpacked in the wrong order",
    Q4kNibbles "q4k-nibbles" "the nibbles of Q4_K are taken in the wrong order",
    Q6kOrder "q6k-order" "the low and high parts of Q6_K are combined in the wrong order",
    KvTransposed "kv-transposed" "the key or value weight is taken for its transpose",
    RopeHalves "rope-halves" "halves of a head are rotated where the file wants adjacent pairs, or the other way round",
    RopePosPlus1 "rope-pos+1" "a decode step rotates by the next position",
    KvLayerBase "kv-layer-base" "attention reads the cache of layer 0",
    GqaMap "gqa-map" "query head h reads key-value head h % kv_heads",
    SeqLenPlus1 "seq-len+1" "a decode step attends to one slot too many",
    SeqLenMinus1 "seq-len-1" "a decode step attends to one slot too few",
    InputRow "input-row" "a norm reads another token's row",
    InputToken "input-token" "the embedding looks up token `param` instead of the step's",
    Eps "eps" "the norm's epsilon is wrong",
    NormWeightLayer "norm-weight-layer" "the norm's weight is the neighbour layer's",
    HalfWave "half-wave" "a reduction covers 32 of every 64 values",
    KTruncated "k-truncated" "a reduction stops after `param` terms",
    CtxBoundary "ctx-boundary" "attention is right up to a context of `param` and wrong past it",
    F16Accumulate "f16-accumulate" "a dot product is summed in half precision",
    Bf16Truncate "bf16-truncate" "values are cut to bfloat16, toward zero",
    ScaleUniform "scale-uniform" "the whole output is off by a constant factor",
    NoSqrtD "no-sqrt-d" "attention scores are not divided by √d",
    MaskPlus1 "mask+1" "the causal mask lets one future key in",
    StaleBuffer "stale-buffer" "the op reads its operand's value of the step before",
    AsyncCopy "async-copy" "a tap is copied before its source is finished, now and then",
    LogitsRow "logits-row" "the logits of another row are returned",
    BosMissing "bos-missing" "the prompt is run without its beginning-of-sequence token",
    LaneSign "lane-sign" "one lane in sixteen has the wrong sign",
    ResidualTwice "residual-twice" "the residual is added twice",
    OneScale "one-scale" "one quantisation scale in a row of the weight is wrong",
    Noise "noise" "every value is off by noise of some five times its bound",
    BlockDropped "block-dropped" "one block of 32 terms in the middle of a sum is skipped",
    ColumnRepeated "column-repeated" "every sixteenth column holds its neighbour's value",
    Saturated "saturated" "values are clamped to half of their largest magnitude",
    LayerNorm "layer-norm" "the norm subtracts the mean first",
    WeightPlusOne "weight-plus-one" "the norm multiplies with one plus its weight",
    HardSilu "hard-silu" "the activation is a piecewise linear silu",
    CoarseExp "coarse-exp" "softmax uses a coarse exponential",
    MantissaBit "mantissa-bit" "a bit of the mantissa is flipped in every seventh value",
    PairSkipped "pair-skipped" "the last rotary pair of each head is not rotated",
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Fault::ALL.iter().copied().find(|f| f.name() == s).ok_or_else(|| {
            let known = Fault::ALL.iter().map(|f| f.name()).collect::<Vec<_>>().join(", ");
            format!("unknown fault `{s}`; known: {known}")
        })
    }
}

impl Serialize for Fault {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A fault in one node's kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injection {
    /// Which fault.
    pub fault: Fault,
    /// The node of the compiled graph whose kernel is changed.
    pub node: String,
    /// In steps of this phase alone; `None`: in all.
    pub phase: Option<Phase>,
    /// A threshold, limit or token, as the fault's description says; `None`: a default that suits the node.
    pub param: Option<u32>,
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.fault, self.node)?;
        if let Some(p) = self.phase {
            write!(f, " in {}", p.name())?;
        }
        if let Some(p) = self.param {
            write!(f, " ({p})")?;
        }
        Ok(())
    }
}
