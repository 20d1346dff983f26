//! A difference held against the op's error bound.

use super::metrics::spacing;
use crate::judge::{Judge, JudgeOptions};
use crate::{Recording, Row, Series};
use greta_backend::Weights;
use greta_graph::{Graph, Kind, NodeId};
use greta_ops::{Bindings, Data};

/// Operations spent on bounds of one comparison: a few seconds' worth.
const BUDGET: u64 = 20_000_000_000;

/// Works out bounds on what A recorded.
pub(super) struct Bounds<'a> {
    judge: Judge<'a>,
    left: u64,
}

impl<'a> Bounds<'a> {
    pub fn new(a: &'a Recording, weights: &'a dyn Weights) -> Option<Bounds<'a>> {
        let judge = Judge::new(a, weights, JudgeOptions::default()).ok()?;
        Some(Bounds { judge, left: BUDGET })
    }

    /// The largest difference of two rows over the bound that A's operands give; `must` is worked out over the budget.
    ///
    /// Half the distance to the next value of the stored type is added to each bound: both rows were rounded to it.
    pub fn ratio(&mut self, a: (&Series, &Row), b: (&Series, &Row), must: bool) -> Option<f64> {
        let graph = self.judge.graph.clone();
        let id = graph.find(&a.0.node)?;
        let Kind::Op(op) = &graph.node(id).kind else { return None };
        if !a.0.is_whole(a.1) || !b.0.is_whole(b.1) {
            return None;
        }
        let cost = cost(&graph, id, a.1);
        if cost > self.left && !must {
            return None;
        }
        let ins = self.judge.operands(id, &[a.1.at]).ok()?;
        self.left = self.left.saturating_sub(cost);
        let ins: Vec<_> = ins.iter().collect();
        let want = op.spec().reference(&ins);
        let bound = op.spec().error_bound(&ins, &want, self.judge.precision);
        let (bound, want) = (bound.get(a.0.out as usize)?, want.get(a.0.out as usize)?);
        let (x, y) = (a.0.values(a.1), b.0.values(b.1));
        if bound.len() != x.len() {
            return None;
        }
        let dtype = a.0.dtype.filter(|_| matches!(want.data, Data::Real(_)));
        let ratio = |i: usize| {
            let apart = if x[i] == y[i] || (x[i].is_nan() && y[i].is_nan()) { 0.0 } else { (x[i] - y[i]).abs() };
            let slack = dtype.map_or(0.0, |t| spacing(Some(t), x[i]) / 2.0);
            match apart {
                0.0 => 0.0,
                d if d.is_nan() => f64::INFINITY,
                d => d / (bound[i] + slack),
            }
        };
        Some((0..x.len()).map(ratio).fold(0.0, f64::max))
    }
}

/// Operations that the reference and the bound of one row take, about.
fn cost(g: &Graph, id: NodeId, row: &Row) -> u64 {
    let Kind::Op(op) = &g.node(id).kind else { return 0 };
    let ins = g.operands(id);
    let descs: Vec<_> = ins.iter().map(|&v| g.desc(v)).collect();
    let at = Bindings { tokens: 1, rows: 1, slots: row.at.position as usize + 1, seqs: 1, pages: 1 };
    2 * op.spec().cost(&descs, &g.node(id).outs, &at).flops
}
