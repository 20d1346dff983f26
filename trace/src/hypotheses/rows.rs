//! The op read another row of the same step, or began to read at the wrong element.

use super::scene::{Scene, like};
use super::{Hypothesis, Prediction};
use crate::At;
use crate::judge::Class;
use greta_graph::Value;
use greta_ops::{Data, HostTensor, Op};
use std::borrow::Cow;

pub(super) const ROOM: &[Hypothesis] = &[
    Hypothesis { name: "another token's row", class: Class::AInputSelection, predict: another_row },
    Hypothesis { name: "another row's output", class: Class::AInputSelection, predict: another_output },
    Hypothesis { name: "wrong offset", class: Class::AInputSelection, predict: offset },
];

/// Steps longer than this are not searched for the row that was read.
const MOST_SEARCHED: u32 = 512;

/// The operands with some of the row operands replaced: `f` gives row `r` of a value, or nothing can be said.
pub(super) fn replaced<'s>(
    scene: &'s Scene<'_>,
    which: &[usize],
    f: impl Fn(Value, usize, &At) -> Option<Vec<f64>>,
) -> Option<Vec<Cow<'s, HostTensor>>> {
    let mut ins = scene.borrowed();
    let operands = scene.operands();
    let mut changed = false;
    for &i in which {
        let mut values = Vec::new();
        for (r, at) in scene.rows.iter().enumerate() {
            values.extend(f(operands[i], r, at)?);
        }
        let t = like(&scene.ins[i], values);
        changed |= t != scene.ins[i];
        ins[i] = Cow::Owned(t);
    }
    changed.then_some(ins)
}

/// The row operands, alone and together; codes and their scales belong together.
pub(super) fn choices(scene: &Scene<'_>) -> Vec<(String, Vec<usize>)> {
    let operands = scene.operands();
    let rows: Vec<usize> =
        (0..operands.len().min(scene.ins.len())).filter(|&i| scene.is_row_operand(operands[i])).collect();
    let mut nodes: Vec<_> = rows.iter().map(|&i| operands[i].node).collect();
    nodes.dedup();
    if nodes.len() < 2 {
        return if rows.is_empty() { Vec::new() } else { vec![(String::new(), rows)] };
    }
    let alone = rows.iter().map(|&i| (format!("{} ", scene.op.spec().operands()[i]), vec![i]));
    alone.chain([("all operands ".into(), rows.clone())]).collect()
}

/// Whether computing the op on other rows costs little, so that every row of the step may be tried.
fn cheap(scene: &Scene<'_>) -> bool {
    !matches!(scene.op, Op::MatMul(_) | Op::Attention(_))
}

fn another_row<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let mut out = Vec::new();
    for (what, which) in choices(scene) {
        let v = scene.operands()[which[0]];
        let at = scene.rows[0];
        let many = scene.rows_in_step(v, at.prompt, at.order);
        let mut go = |detail: String, row: &dyn Fn(u32) -> u32| {
            let read = |v: Value, _: usize, at: &At| {
                // Past the step's rows there is nothing to be read: such a row is as it should be.
                let own = scene.batch_row(at)?;
                let other = Some(row(own)).filter(|&r| r < many).unwrap_or(own);
                scene.recorded(v, at.prompt, at.order, other)
            };
            if let Some(ins) = replaced(scene, &which, read) {
                out.push(scene.predict(format!("{what}{detail}"), scene.op.clone(), ins));
            }
        };
        go("the next".into(), &|r| r + 1);
        go("the one before".into(), &|r| r.wrapping_sub(1));
        go("the next, round the end".into(), &|r| (r + 1) % many.max(1));
        go("the one before, round the end".into(), &|r| (r + many.max(1) - 1) % many.max(1));
        let fixed: Vec<u32> = match cheap(scene) && many <= MOST_SEARCHED {
            true => (0..many).collect(),
            false => [0, many.wrapping_sub(1)].into_iter().filter(|&r| r < many).collect(),
        };
        for m in fixed {
            go(format!("row {m} of the step"), &|_| m);
        }
    }
    out
}

/// Everything the op reads is another row's, its position too.
fn another_output<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    // Without a position this is what reading another row gives.
    if !matches!(scene.op, Op::Rope(_) | Op::Attention(_)) {
        return Vec::new();
    }
    let Some(series) = scene.series(Value { node: scene.node, out: 0 }) else { return Vec::new() };
    let first = scene.rows[0];
    let step: Vec<At> = series.of_step(first.prompt, first.order).iter().map(|r| r.at).collect();
    let mut out = Vec::new();
    let last = step.len().wrapping_sub(1);
    for (detail, shift) in
        [("the next", 1isize), ("the one before", -1), ("the first", isize::MIN), ("the last", isize::MAX)]
    {
        let other = |at: &At| {
            let own = step.iter().position(|a| a == at)?;
            let i = match shift {
                isize::MIN => 0,
                isize::MAX => last,
                by => own.checked_add_signed(by)?,
            };
            step.get(i).filter(|_| i != own)
        };
        let made = scene.row_by_row(detail, |_, at| {
            let ins = scene.judge.operands(scene.node, &[*other(at)?]).ok()?;
            Some((scene.op.clone(), ins))
        });
        out.extend(made);
    }
    out
}

fn offset<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let mut out = Vec::new();
    for (what, which) in choices(scene) {
        if which.len() != 1 || !matches!(scene.ins[which[0]].data, Data::Real(_)) {
            continue;
        }
        for by in [-1isize, 1] {
            let read = |v: Value, r: usize, at: &At| {
                let own = scene.ins[which[0]].row(r);
                let row = scene.batch_row(at)?;
                let n = own.len() as isize;
                let side = row.checked_add_signed(by as i32);
                // Rows lie one after the other; outside the step there is nothing known, and 0 is as good as any.
                let side = side.and_then(|s| scene.recorded(v, at.prompt, at.order, s));
                let value = |i: isize| match i {
                    i if (0..n).contains(&i) => own[i as usize],
                    i => side.as_ref().map_or(0.0, |s| s[i.rem_euclid(n) as usize]),
                };
                Some((0..n).map(|i| value(i + by)).collect())
            };
            if let Some(ins) = replaced(scene, &which, read) {
                out.push(scene.predict(format!("{what}{by:+} element"), scene.op.clone(), ins));
            }
        }
    }
    out
}
