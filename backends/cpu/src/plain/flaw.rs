//! Which fault a plain kernel has, and which ops a fault fits.

use greta_backend::{Fault, Injection};
use greta_ops::Op;

/// A kernel's fault, if it has one.
#[derive(Clone, Copy, Default)]
pub(super) struct Flaw {
    fault: Option<Fault>,
    param: Option<u32>,
}

impl Flaw {
    pub fn of(injection: Option<&Injection>) -> Flaw {
        injection.map_or(Flaw::default(), |i| Flaw { fault: Some(i.fault), param: i.param })
    }

    /// Which fault.
    pub fn fault(self) -> Option<Fault> {
        self.fault
    }

    /// Whether it is this one.
    pub fn is(self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// The injection's parameter, or a default.
    pub fn param(self, default: usize) -> usize {
        self.param.map_or(default, |p| p as usize)
    }

    /// Whether the kernel needs its operand as the step before left it.
    pub fn remembers(self) -> bool {
        self.is(Fault::StaleBuffer) || self.is(Fault::InputRow)
    }

    /// Whether the fault is one of whole rows of the output, whatever made them.
    pub fn in_output(self) -> bool {
        use Fault::*;
        let list = [Bf16Truncate, ScaleUniform, LaneSign, Noise, ColumnRepeated, Saturated, MantissaBit];
        self.is(TileTransposed) || self.fault.is_some_and(|f| list.contains(&f))
    }
}

const ANY: &[&str] =
    &["embed", "dequant", "quantize", "matmul", "rmsnorm", "rope", "cache_write", "attention", "swiglu", "add"];

/// The ops a fault fits, by name.
fn ops(fault: Fault) -> &'static [&'static str] {
    use Fault::*;
    match fault {
        EmbdColMajor | InputToken | LogitsRow => &["embed"],
        TileTransposed | OperandsTransposed | WeightColMajor | KvTransposed => &["matmul"],
        Q4kScales | Q4kNibbles | Q6kOrder | OneScale => &["matmul", "embed", "dequant"],
        RopeHalves | RopePosPlus1 | PairSkipped => &["rope"],
        KvLayerBase | GqaMap | SeqLenPlus1 | SeqLenMinus1 | NoSqrtD | MaskPlus1 | CtxBoundary | CoarseExp => {
            &["attention"]
        }
        Eps | NormWeightLayer | LayerNorm | WeightPlusOne => &["rmsnorm"],
        HalfWave | F16Accumulate => &["matmul", "rmsnorm", "attention"],
        KTruncated | BlockDropped => &["matmul", "rmsnorm"],
        InputRow => &["rmsnorm", "matmul", "swiglu", "add", "rope", "quantize", "attention"],
        ResidualTwice => &["add"],
        HardSilu => &["swiglu"],
        Bf16Truncate | ScaleUniform | LaneSign | Noise | ColumnRepeated | Saturated | MantissaBit | StaleBuffer => ANY,
        AsyncCopy | BosMissing => &[],
    }
}

/// Whether the kernel of `op` can have this fault; if not, which can. What else a fault asks of its node, such as a
/// type of weight, is looked at where the kernel is made.
pub(super) fn fits(op: &Op, flaw: Flaw) -> Result<(), String> {
    let Some(fault) = flaw.fault else { return Ok(()) };
    let (name, list) = (op.spec().name(), ops(fault));
    match fault {
        _ if list.contains(&name) => Ok(()),
        Fault::BosMissing => Err("it is in no kernel: run the prompt without its first token instead".into()),
        Fault::AsyncCopy => Err("it is in a tap, not in an op".into()),
        _ => Err(format!("it fits {}; this is {name}", list.join(", "))),
    }
}
