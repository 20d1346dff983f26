//! When two runs are said to agree.

use super::{DiffOptions, NodeDiff, Side};
use serde::Serialize;
use std::fmt;

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DiffVerdict {
    /// Every joined row is equal to the bit.
    Equal,
    /// One arithmetic computed in two ways, and no further apart than rounding explains.
    WithinBounds,
    /// Two arithmetics, and no further apart than those are.
    ExpectedDrift,
    /// Nothing could be compared, or a run did not end.
    Incomplete,
    /// Another token, position, model or prompt.
    TraceMismatch,
    /// A value differs that should not; the first is named.
    Differs,
}

impl DiffVerdict {
    /// The verdict as reports write it.
    pub fn name(self) -> &'static str {
        match self {
            DiffVerdict::Equal => "EQUAL",
            DiffVerdict::WithinBounds => "WITHIN_BOUNDS",
            DiffVerdict::ExpectedDrift => "EXPECTED_DRIFT",
            DiffVerdict::Incomplete => "INCOMPLETE",
            DiffVerdict::TraceMismatch => "TRACE_MISMATCH",
            DiffVerdict::Differs => "DIFFERS",
        }
    }

    /// Whether the runs agree.
    pub fn is_clean(self) -> bool {
        matches!(self, DiffVerdict::Equal | DiffVerdict::WithinBounds | DiffVerdict::ExpectedDrift)
    }

    /// 0 for runs that agree, 1 for runs that differ, 2 where that could not be judged.
    pub fn exit_code(self) -> u8 {
        match self {
            v if v.is_clean() => 0,
            DiffVerdict::Differs => 1,
            _ => 2,
        }
    }
}

impl fmt::Display for DiffVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is asked of two runs; it follows from what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// One version of greta, backend, arithmetic, cache type and choice of kernels: equal to the bit.
    Bits,
    /// One arithmetic and cache type, but another backend, kernels or version: a value that differs though its operands
    /// are equal is within twice its op's bound, and every value within the tolerance, without a sudden jump.
    Bounds,
    /// Another arithmetic or cache type, or a foreign engine: every value within the drift limit, and no sudden jump.
    Drift,
}

/// Backends whose bits are promised for each device alone: shaders are compiled by its driver.
const BY_DEVICE: &[&str] = &["wgpu"];

impl Rule {
    /// The rule for two runs.
    pub(super) fn of(a: Side<'_>, b: Side<'_>) -> Rule {
        let (x, y) = (&a.rec.info, &b.rec.info);
        if !x.is_greta() || !y.is_greta() || x.arith != y.arith || x.kv != y.kv {
            return Rule::Drift;
        }
        // A rule for one phase alone gives prefill and decode different kernels.
        let phased =
            |r: &String| r.split('=').next().is_some_and(|l| l.ends_with(":prefill") || l.ends_with(":decode"));
        let kernels = x.routes == y.routes && (a.select == b.select || !x.routes.iter().any(phased));
        let device = !BY_DEVICE.contains(&x.backend.as_str()) || x.device == y.device;
        match x.engine == y.engine && x.backend == y.backend && device && kernels {
            true => Rule::Bits,
            false => Rule::Bounds,
        }
    }
}

/// What is held against a prompt's nodes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// Under [`Rule::Bounds`]: the largest relative L2 distance of any value.
    pub tolerance: f64,
    /// Under [`Rule::Drift`]: the same.
    pub drift: f64,
    /// Under both: the largest factor by which a value may be further apart than any before it; distances
    /// below [`Limits::FLOOR`] count as that.
    pub jump: f64,
}

impl Limits {
    /// What quantising activations to 8 bits does to one product, about.
    pub const FLOOR: f64 = 0.004;
    /// A difference of one op's making may be this many times the op's bound: each side may be off by one.
    pub const BOUNDS: f64 = 2.0;

    pub(super) fn of(o: &DiffOptions<'_>, int8: bool) -> Limits {
        // A rounding difference moves an 8-bit code now and then; layer by layer the rounding of all codes becomes
        // another, and two right int8 runs end as far apart as int8 is from exact.
        let tolerance = o.tolerance.unwrap_or(if int8 { 0.25 } else { 0.01 });
        Limits { tolerance, drift: o.drift.unwrap_or(0.25), jump: o.jump.unwrap_or(10.0) }
    }

    /// Judges a prompt's nodes, which are in the graph's order: sets each one's limit and whether it is over it. Says
    /// why nothing can be said, if so.
    pub(super) fn judge(&self, rule: Rule, nodes: &mut [NodeDiff]) -> (DiffVerdict, Option<String>) {
        let (mut before, mut unkept) = (Self::FLOOR, None);
        let first = nodes.iter().position(|n| !n.equal);
        for n in nodes.iter_mut() {
            n.limit = match rule {
                Rule::Bits => 0.0,
                Rule::Bounds => self.tolerance.min(self.jump * before),
                Rule::Drift => self.drift.min(self.jump * before),
            };
            let apart = n.distance();
            n.over = match (n.equal, rule, apart) {
                (true, ..) => false,
                (_, Rule::Bits, _) => true,
                (_, Rule::Bounds, _) if n.bound_ratio.is_some_and(|r| crate::over(r, Self::BOUNDS)) => true,
                // Not `apart > limit`: what is no number is over any.
                (.., Some(apart)) => crate::over(apart, n.limit),
                (.., None) => {
                    unkept.get_or_insert_with(|| n.node.clone());
                    false
                }
            };
            before = apart.filter(|d| d.is_finite()).map_or(before, |d| before.max(d));
        }
        let over = nodes.iter().any(|n| n.over);
        let verdict = match (over, first, unkept, rule) {
            (true, ..) => DiffVerdict::Differs,
            (_, None, ..) if nodes.is_empty() => DiffVerdict::Incomplete,
            (_, None, ..) => DiffVerdict::Equal,
            (_, _, Some(node), _) => {
                let why = format!("`{node}` differs, and its values were not kept; record with --detail full");
                return (DiffVerdict::Incomplete, Some(why));
            }
            (.., Rule::Drift) => DiffVerdict::ExpectedDrift,
            _ => DiffVerdict::WithinBounds,
        };
        (verdict, None)
    }
}
