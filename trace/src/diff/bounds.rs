//! A difference held against the op's error bound.

use super::metrics::spacing;
use crate::judge::{Judge, JudgeOptions};
use crate::{Recording, Row, Series};
use greta_backend::Weights;
use greta_graph::Kind;
use greta_ops::Data;
use std::collections::HashSet;

/// Works out bounds on what A recorded.
pub(super) struct Bounds<'a> {
    judge: Judge<'a>,
}

impl<'a> Bounds<'a> {
    pub fn new(a: &'a Recording, weights: &'a dyn Weights) -> Option<Bounds<'a>> {
        let judge = Judge::new(a, weights, JudgeOptions::default()).ok()?;
        Some(Bounds { judge })
    }

    /// The largest difference of two rows over the bound that A's operands give; `None` if an operand is among `apart`,
    /// the values that differ themselves, or was not recorded.
    ///
    /// Half the distance to the next value of the stored type is added to each bound: both rows were rounded to it.
    pub fn ratio(&self, a: (&Series, &Row), b: (&Series, &Row), apart: &HashSet<&str>) -> Option<f64> {
        let graph = &self.judge.graph;
        let id = graph.find(&a.0.node)?;
        let Kind::Op(op) = &graph.node(id).kind else { return None };
        let inherited = graph.operands(id).iter().any(|&v| apart.contains(graph.value_name(v).as_str()));
        if inherited || !a.0.is_whole(a.1) || !b.0.is_whole(b.1) {
            return None;
        }
        let ins = self.judge.operands(id, &[a.1.at]).ok()?;
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
