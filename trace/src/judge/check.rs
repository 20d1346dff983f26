//! One op's outputs against its reference.

use super::{Judge, gather};
use crate::At;
use greta_graph::{Kind, NodeId, Value};
use greta_ops::{Bound, DType, Data, HostTensor, Op};
use serde::Serialize;

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every element within its bound.
    Clean,
    /// An element is over its bound.
    OverBound,
    /// A NaN or an infinity that no operand row has.
    NonFinite,
    /// A NaN or an infinity of an operand that is gone from the output.
    Swallowed,
}

/// How far one row is off.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowError {
    /// Which row.
    pub at: At,
    /// The worst element's error over its bound.
    pub ratio: f64,
    /// Its index within the row, of the first output and then the others.
    pub element: usize,
    /// What the op gave there, and what its reference gives.
    pub got: f64,
    /// See `got`.
    pub want: f64,
    /// The bound there.
    pub bound: f64,
    /// Mean absolute error of the row.
    pub mae: f64,
    /// Largest absolute error.
    pub max_abs: f64,
    /// Elements over their bounds.
    pub over: usize,
}

/// One op in one step, judged.
#[derive(Clone, Debug)]
pub struct NodeCheck {
    /// The node.
    pub node: NodeId,
    /// The rows judged.
    pub rows: Vec<At>,
    /// The operands the graph gives it, stacked over the rows.
    pub ins: Vec<HostTensor>,
    /// What it gave.
    pub outs: Vec<HostTensor>,
    /// What its reference gives.
    pub want: Vec<HostTensor>,
    /// How far each element may be off.
    pub bounds: Vec<Bound>,
    /// Row by row.
    pub errors: Vec<RowError>,
    /// What came of it.
    pub outcome: Outcome,
    remembered: Option<f64>,
}

impl NodeCheck {
    /// A check that was made before on the same bits.
    pub(super) fn remembered(node: NodeId, rows: Vec<At>, worst: f64) -> NodeCheck {
        let (ins, outs, want, bounds, errors) = Default::default();
        NodeCheck { node, rows, ins, outs, want, bounds, errors, outcome: Outcome::Clean, remembered: Some(worst) }
    }

    /// The largest error over its bound.
    pub fn worst(&self) -> f64 {
        self.remembered.unwrap_or_else(|| self.errors.iter().fold(0.0, |m, e| f64::max(m, e.ratio)))
    }
}

pub(super) fn check(
    j: &Judge<'_>,
    id: NodeId,
    rows: Vec<At>,
    ins: Vec<HostTensor>,
) -> Result<NodeCheck, gather::Missing> {
    let node = j.graph.node(id);
    let Kind::Op(op) = &node.kind else { return Err(gather::Missing::NotRecorded) };
    let observed = |o: usize| gather::stacked(j, Value { node: id, out: o as u8 }, &rows);
    // Without a whole first output there is nothing to hold against the reference, and nothing is passed.
    let mut outs = vec![observed(0)?];
    outs.extend((1..node.outs.len()).map_while(|o| observed(o).ok()));
    let refs: Vec<&HostTensor> = ins.iter().collect();
    let (want, bounds) = match j.arithmetic.and_then(|a| a.judge(op, &refs)) {
        Some(other) => other,
        None => {
            let want = op.spec().reference(&refs);
            let bounds = op.spec().error_bound(&refs, &want, j.precision);
            (want, bounds)
        }
    };
    let mut errors: Vec<RowError> = rows.iter().map(|&at| RowError::new(at)).collect();
    let mut base = 0;
    for (o, out) in outs.iter().enumerate() {
        let stored = stored(&want[o], node.outs[o].dtype);
        for (r, e) in errors.iter_mut().enumerate() {
            compare(out, &want[o], &stored, &bounds[o], r, base, e);
        }
        base += out.cols();
    }
    // What a weight holds is born at the op that reads it.
    let from_weight = |v: &Value| matches!(j.graph.node(v.node).kind, Kind::Weight { .. } | Kind::Op(Op::Dequant(_)));
    let brought: Vec<&HostTensor> =
        j.graph.operands(id).iter().zip(&ins).filter(|(v, _)| !from_weight(v)).map(|(_, t)| t).collect();
    let outcome = outcome(&brought, &outs, &want, &errors);
    Ok(NodeCheck { node: id, rows, ins, outs, want, bounds, errors, outcome, remembered: None })
}

/// Compares row `r`; `stored` is the reference rounded to the value's type.
fn compare(
    out: &HostTensor,
    want: &HostTensor,
    stored: &HostTensor,
    bound: &[f64],
    r: usize,
    base: usize,
    e: &mut RowError,
) {
    let (got, want, stored) = (out.row(r), want.row(r), stored.row(r));
    let bound = &bound[r * want.len()..][..want.len()];
    let mut sum = 0.0;
    for i in 0..got.len() {
        let same = got[i] == stored[i] || (got[i].is_nan() && stored[i].is_nan());
        let abs = if same { 0.0 } else { (got[i] - want[i]).abs() };
        // A difference that is no number is larger than any.
        let abs = if abs.is_nan() { f64::INFINITY } else { abs };
        let ratio = if abs == 0.0 { 0.0 } else { abs / bound[i].max(f64::MIN_POSITIVE) };
        sum += abs;
        e.max_abs = e.max_abs.max(abs);
        e.over += usize::from(ratio > 1.0);
        if ratio > e.ratio {
            (e.ratio, e.element, e.got, e.want, e.bound) = (ratio, base + i, got[i], want[i], bound[i]);
        }
    }
    e.mae += sum / got.len().max(1) as f64;
}

fn outcome(ins: &[&HostTensor], outs: &[HostTensor], want: &[HostTensor], errors: &[RowError]) -> Outcome {
    let broken = |t: &HostTensor| match &t.data {
        Data::Real(v) => v.iter().any(|x| !x.is_finite()),
        _ => false,
    };
    let bad_in = ins.iter().any(|t| broken(t));
    let bad_out = outs.iter().any(broken);
    if bad_out && !bad_in {
        return Outcome::NonFinite;
    }
    match errors.iter().any(|e| e.ratio > 1.0) {
        // Beyond a value that is no number, only its spreading is judged.
        true if bad_in && !bad_out && want.iter().any(broken) => Outcome::Swallowed,
        true => Outcome::OverBound,
        false => Outcome::Clean,
    }
}

/// The worst error over its bound of the first `rows` rows of an output of this type.
pub fn worst_ratio(out: &HostTensor, want: &HostTensor, bound: &[f64], dtype: DType, rows: usize) -> f64 {
    let at = At { prompt: 0, order: 0, phase: Default::default(), step: 0, seq: 0, position: 0, token: 0 };
    let stored = stored(want, dtype);
    let mut e = RowError::new(at);
    (0..rows).for_each(|r| compare(out, want, &stored, bound, r, 0, &mut e));
    e.ratio
}

/// A reference rounded to the type its value is stored as.
fn stored(want: &HostTensor, dtype: DType) -> HostTensor {
    match &want.data {
        Data::Real(_) => HostTensor::from_bytes(&want.shape, dtype, &want.to_bytes(dtype)),
        _ => want.clone(),
    }
}

impl RowError {
    fn new(at: At) -> RowError {
        RowError { at, ratio: 0.0, element: 0, got: 0.0, want: 0.0, bound: 0.0, mae: 0.0, max_abs: 0.0, over: 0 }
    }
}
