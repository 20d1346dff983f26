//! What a wrong op may have done instead, each a small function over the f64 references.
//!
//! A hypothesis predicts the op's output on the rows that are wrong. It is accepted only if what it leaves unexplained is
//! under the op's bound **and** at least ten times below the runner-up and the plain reference. Nothing here knows how
//! faults are injected.

use crate::At;
use crate::judge::{Class, Explained, Judge, NodeCheck, Outcome, Residual};
use greta_graph::{Kind, NodeId};
use greta_ops::{Bound, Data, HostTensor, Op};

/// A failed check and everything a hypothesis may look at.
pub struct Scene<'a> {
    /// Lookups of other rows, values, steps and weights.
    pub judge: &'a Judge<'a>,
    /// The node.
    pub node: NodeId,
    /// Its op.
    pub op: &'a Op,
    /// The rows that are wrong, worst first, at most [`MOST_ROWS`].
    pub rows: Vec<At>,
    /// The operands the graph gives the op, stacked over `rows`.
    pub ins: Vec<HostTensor>,
    /// What the op gave.
    pub outs: Vec<HostTensor>,
    /// What its reference gives.
    pub want: Vec<HostTensor>,
    /// Bounds on the reference.
    pub bounds: Vec<Bound>,
    /// What was found.
    pub outcome: Outcome,
}

/// Rows a hypothesis has to explain.
pub const MOST_ROWS: usize = 4;

/// What a hypothesis says the op gave.
pub struct Prediction {
    /// The parameter, such as `+1` or `tile 16`; empty if there is none.
    pub detail: String,
    /// Outputs stacked over [`Scene::rows`]; as many as the op has, or the first alone.
    pub outs: Vec<HostTensor>,
}

/// Something an op may have done instead of its definition.
pub struct Hypothesis {
    /// Its name.
    pub name: &'static str,
    /// The class it stands for.
    pub class: Class,
    /// The outputs it predicts, one for each parameter worth trying; none where it does not fit the op or lacks data.
    pub predict: fn(&Scene<'_>) -> Vec<Prediction>,
}

/// Every hypothesis.
pub const ALL: &[&[Hypothesis]] = &[];

impl<'a> Scene<'a> {
    /// The scene of a failed check.
    pub fn new(judge: &'a Judge<'a>, check: &NodeCheck) -> Scene<'a> {
        let mut wrong: Vec<usize> = (0..check.rows.len()).filter(|&i| check.errors[i].ratio > 1.0).collect();
        wrong.sort_by(|&a, &b| check.errors[b].ratio.total_cmp(&check.errors[a].ratio));
        wrong.truncate(MOST_ROWS);
        if wrong.is_empty() {
            wrong.push(0);
        }
        let rows: Vec<At> = wrong.iter().map(|&i| check.rows[i]).collect();
        let Kind::Op(op) = &judge.graph.node(check.node).kind else { unreachable!("only ops are checked") };
        let n = check.rows.len();
        let take = |t: &HostTensor| if t.rows() == n && t.shape.len() == 2 { some_rows(t, &wrong) } else { t.clone() };
        let bounds = check.bounds.iter().map(|b| {
            let cols = b.len() / n.max(1);
            wrong.iter().flat_map(|&r| b[r * cols..][..cols].to_vec()).collect()
        });
        // Operands of other shapes (weights, caches, lists) are gathered again for the rows at hand.
        let ins = judge.operands(check.node, &rows).unwrap_or_else(|_| check.ins.clone());
        Scene {
            judge,
            node: check.node,
            op,
            ins,
            outs: check.outs.iter().map(take).collect(),
            want: check.want.iter().map(take).collect(),
            bounds: bounds.collect(),
            outcome: check.outcome,
            rows,
        }
    }

    /// The op's outputs on other operands.
    pub fn reference(&self, ins: &[&HostTensor]) -> Vec<HostTensor> {
        self.op.spec().reference(ins)
    }

    /// The worst error over its bound that a prediction leaves; infinite if it says nothing.
    pub fn residual(&self, outs: &[HostTensor]) -> f64 {
        let mut worst = 0.0f64;
        for (o, predicted) in outs.iter().enumerate() {
            let Some(got) = self.outs.get(o) else { continue };
            if predicted.shape != got.shape {
                return f64::INFINITY;
            }
            for r in 0..got.rows() {
                let (p, g) = (predicted.row(r), got.row(r));
                for i in 0..g.len() {
                    let bound = self.bounds[o][r * g.len() + i].max(f64::from(f32::EPSILON) * p[i].abs() / 2.0);
                    let e = (p[i] - g[i]).abs();
                    let e =
                        if e.is_nan() { if p[i].is_nan() && g[i].is_nan() { 0.0 } else { f64::INFINITY } } else { e };
                    worst = worst.max(if e == 0.0 { 0.0 } else { e / bound.max(f64::MIN_POSITIVE) });
                }
            }
        }
        worst
    }
}

/// Some rows of a tensor.
pub fn some_rows(t: &HostTensor, rows: &[usize]) -> HostTensor {
    let cols = t.cols();
    match &t.data {
        Data::Int(v) => {
            HostTensor::int(&[rows.len(), cols], rows.iter().flat_map(|&r| v[r * cols..][..cols].to_vec()).collect())
        }
        _ => HostTensor::real(&[rows.len(), cols], rows.iter().flat_map(|&r| t.row(r).into_owned()).collect()),
    }
}

/// Tries every hypothesis.
pub fn explain(scene: &Scene<'_>) -> Explained {
    let mut tried: Vec<(Residual, Vec<HostTensor>)> = Vec::new();
    for h in ALL.iter().flat_map(|room| room.iter()) {
        for p in (h.predict)(scene) {
            let name = if p.detail.is_empty() { h.name.into() } else { format!("{} ({})", h.name, p.detail) };
            let residual = Residual { hypothesis: name, class: h.class, residual: scene.residual(&p.outs) };
            tried.push((residual, p.outs));
        }
    }
    let plain = scene.residual(&scene.want);
    accept(scene, tried, plain)
}

fn accept(scene: &Scene<'_>, mut tried: Vec<(Residual, Vec<HostTensor>)>, plain: f64) -> Explained {
    // Stable: of equal residuals the hypothesis listed first is named.
    tried.sort_by(|a, b| a.0.residual.total_cmp(&b.0.residual));
    let nothing = scene.outs.iter().all(|t| (0..t.rows()).all(|r| t.row(r).iter().all(|&v| v == 0.0)));
    let best = tried.first().map(|(r, outs)| (r.clone(), outs.clone()));
    // A prediction of the very same values is the same explanation under another name.
    let runner = best.as_ref().and_then(|(_, outs)| tried.iter().find(|(_, o)| o != outs)).map(|(r, _)| r.residual);
    let accepted = best.filter(|(r, _)| {
        let floor = r.residual.max(1e-3) * 10.0;
        !nothing && r.residual <= 1.0 && floor <= plain && runner.is_none_or(|n| floor <= n)
    });
    let mut residuals: Vec<Residual> = tried.into_iter().map(|(r, _)| r).collect();
    residuals.push(Residual { hypothesis: "plain reference".into(), class: Class::None, residual: plain });
    residuals.sort_by(|a, b| a.residual.total_cmp(&b.residual));
    residuals.truncate(12);
    match accepted {
        Some((r, _)) => {
            let detail = format!("explained by: {}", r.hypothesis);
            Explained { class: r.class, hypothesis: Some(r.hypothesis), detail, residuals }
        }
        None => {
            let detail = "no hypothesis fits".into();
            Explained { class: Class::Unknown, hypothesis: None, detail, residuals }
        }
    }
}
