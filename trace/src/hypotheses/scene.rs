//! A failed check and everything a hypothesis may look at.

use super::{Guess, Prediction};
use crate::judge::{Judge, NodeCheck, Outcome};
use crate::{At, Series};
use greta_graph::{Kind, NodeId, Value};
use greta_ops::{Bound, DType, Data, HostTensor, Op};
use std::borrow::Cow;

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

impl<'a> Scene<'a> {
    /// The scene of a failed check.
    pub fn new(judge: &'a Judge<'a>, check: &NodeCheck) -> Scene<'a> {
        let mut wrong: Vec<usize> = (0..check.rows.len()).filter(|&i| check.errors[i].ratio > 1.0).collect();
        wrong.sort_by(|&a, &b| check.errors[b].ratio.total_cmp(&check.errors[a].ratio));
        wrong.truncate(MOST_ROWS);
        if wrong.is_empty() {
            wrong.push(0);
        }
        Scene::at(judge, check, &wrong)
    }

    /// Rows of the same step that are right, if there are any: what explains the wrong ones should not touch them.
    pub fn control(judge: &'a Judge<'a>, check: &NodeCheck) -> Option<Scene<'a>> {
        let right: Vec<usize> = (0..check.rows.len()).filter(|&i| check.errors[i].ratio <= 1.0).collect();
        let some: Vec<usize> = (0..MOST_ROWS).filter_map(|i| right.get(i * right.len() / MOST_ROWS).copied()).collect();
        let wrong = check.rows.len() - right.len();
        (wrong > 0 && !some.is_empty()).then(|| {
            let mut some = some;
            some.dedup();
            Scene::at(judge, check, &some)
        })
    }

    /// The scene of these rows of a check, whether wrong or right.
    pub fn at(judge: &'a Judge<'a>, check: &NodeCheck, chosen: &[usize]) -> Scene<'a> {
        let rows: Vec<At> = chosen.iter().map(|&i| check.rows[i]).collect();
        let Kind::Op(op) = &judge.graph.node(check.node).kind else { unreachable!("only ops are checked") };
        let n = check.rows.len();
        let take = |t: &HostTensor| if t.rows() == n && t.shape.len() == 2 { some_rows(t, chosen) } else { t.clone() };
        let bounds = check.bounds.iter().map(|b| {
            let cols = b.len() / n.max(1);
            chosen.iter().flat_map(|&r| b[r * cols..][..cols].to_vec()).collect()
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

    /// The name of the node.
    pub fn name(&self) -> &str {
        &self.judge.graph.node(self.node).name
    }

    /// The operands' places in the graph.
    pub fn operands(&self) -> Vec<Value> {
        self.judge.graph.operands(self.node).to_vec()
    }

    /// The type output `o` is stored in.
    pub fn dtype(&self, o: usize) -> DType {
        self.judge.graph.node(self.node).outs[o].dtype
    }

    /// The recorded rows of a value.
    pub fn series(&self, v: Value) -> Option<&'a Series> {
        self.judge.recording.get(&self.judge.graph.value_name(v))
    }

    /// The row of the step's batch that a wrong row is.
    pub fn batch_row(&self, at: &At) -> Option<u32> {
        let series = self.series(Value { node: self.node, out: 0 })?;
        series.find(at.prompt, at.order, at.seq, at.position).map(|r| r.row)
    }

    /// A whole recorded row of a value, by its row in a step's batch.
    pub fn recorded(&self, v: Value, prompt: u32, order: u32, row: u32) -> Option<Vec<f64>> {
        let series = self.series(v)?;
        let row = series.at_row(prompt, order, row).filter(|r| series.is_whole(r))?;
        Some(series.values(row))
    }

    /// Rows of a value in a step: one more than the largest that was recorded.
    pub fn rows_in_step(&self, v: Value, prompt: u32, order: u32) -> u32 {
        self.series(v).map_or(0, |s| s.of_step(prompt, order).iter().map(|r| r.row + 1).max().unwrap_or(0))
    }

    /// The step before a row's, if it was recorded.
    pub fn step_before(&self, at: &At) -> Option<u32> {
        at.order.checked_sub(1)
    }

    /// Whether an operand has a row for each token that an op of the same step computed.
    pub fn is_row_operand(&self, v: Value) -> bool {
        let g = &self.judge.graph;
        matches!(&g.node(v.node).kind, Kind::Op(op) if !matches!(op, Op::Dequant(_))) && !g.is_state(v)
    }

    /// An op's outputs on some operands, with their bounds.
    pub fn outputs(&self, op: &Op, ins: &[&HostTensor]) -> Vec<Guess> {
        let outs = op.spec().reference(ins);
        let bounds = op.spec().error_bound(ins, &outs, self.judge.precision);
        outs.iter().zip(bounds).map(|(t, b)| Guess::of(t, b)).collect()
    }

    /// The prediction that the node ran `op` on these operands.
    pub fn predict<'s>(&'s self, detail: impl Into<String>, op: Op, ins: Vec<Cow<'s, HostTensor>>) -> Prediction<'s> {
        if matches!(op, Op::MatMul(_)) {
            return Prediction::columns(detail, move |cols: &[usize]| {
                let w = take_rows(&ins[0], cols);
                let mut refs: Vec<&HostTensor> = ins.iter().map(|t| t.as_ref()).collect();
                refs[0] = &w;
                self.outputs(&op, &refs).swap_remove(0)
            });
        }
        let refs: Vec<&HostTensor> = ins.iter().map(|t| t.as_ref()).collect();
        Prediction::whole(detail, self.outputs(&op, &refs))
    }

    /// The operands as the graph gives them, to be changed.
    pub fn borrowed<'s>(&'s self) -> Vec<Cow<'s, HostTensor>> {
        self.ins.iter().map(Cow::Borrowed).collect()
    }

    /// The prediction that operand `i` was another tensor.
    pub fn with_operand<'s>(&'s self, detail: impl Into<String>, i: usize, t: HostTensor) -> Prediction<'s> {
        let mut ins = self.borrowed();
        ins[i] = Cow::Owned(t);
        self.predict(detail, self.op.clone(), ins)
    }

    /// The prediction of an op and operands of its own for each row: `f` gives them, or the row is as it should be.
    pub fn row_by_row<'s>(
        &'s self,
        detail: impl Into<String>,
        f: impl Fn(usize, &At) -> Option<(Op, Vec<HostTensor>)>,
    ) -> Option<Prediction<'s>> {
        let mut all: Vec<Guess> = vec![Guess::default(); self.want.len()];
        let mut any = false;
        for (r, at) in self.rows.iter().enumerate() {
            let guess = match f(r, at) {
                Some((op, ins)) => {
                    any = true;
                    self.outputs(&op, &ins.iter().collect::<Vec<_>>())
                }
                None => (0..self.want.len()).map(|o| self.plain(o, r)).collect(),
            };
            for (sum, g) in all.iter_mut().zip(guess) {
                sum.values.extend(g.values);
                sum.bounds.extend(g.bounds);
            }
        }
        any.then(|| Prediction::whole(detail, all))
    }

    /// Output `o` of row `r` as the reference gives it.
    pub fn plain(&self, o: usize, r: usize) -> Guess {
        let n = self.want[o].cols();
        Guess { values: self.want[o].row(r).into_owned(), bounds: self.bounds[o][r * n..][..n].to_vec() }
    }
}

/// Some rows of a tensor of numbers.
pub fn some_rows(t: &HostTensor, rows: &[usize]) -> HostTensor {
    let cols = t.cols();
    match &t.data {
        Data::Int(v) => {
            HostTensor::int(&[rows.len(), cols], rows.iter().flat_map(|&r| v[r * cols..][..cols].to_vec()).collect())
        }
        _ => HostTensor::real(&[rows.len(), cols], rows.iter().flat_map(|&r| t.row(r).into_owned()).collect()),
    }
}

/// Some rows of a matrix, packed ones as they are stored.
pub(super) fn take_rows(t: &HostTensor, rows: &[usize]) -> HostTensor {
    match &t.data {
        Data::Packed(dtype, bytes) => {
            let some: Vec<u8> = rows.iter().flat_map(|&r| t.packed_row(*dtype, bytes, r)).copied().collect();
            HostTensor { shape: [rows.len(), t.cols()].as_slice().into(), data: Data::Packed(*dtype, some.into()) }
        }
        _ => some_rows(t, rows),
    }
}

/// A tensor of the same kind and number of rows with other values.
pub(super) fn like(t: &HostTensor, values: Vec<f64>) -> HostTensor {
    match &t.data {
        Data::Int(_) => HostTensor::int(&t.shape, values.into_iter().map(|v| v as i32).collect()),
        _ => HostTensor::real(&t.shape, values),
    }
}
