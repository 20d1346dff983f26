//! The op read, or gave, what its buffer held after the step before.

use super::rows::{choices, replaced};
use super::scene::Scene;
use super::{Guess, Hypothesis, Prediction};
use crate::At;
use crate::judge::Class;
use greta_graph::Value;

pub(super) const ROOM: &[Hypothesis] = &[
    Hypothesis { name: "stale operand", class: Class::GStaleData, predict: operand },
    Hypothesis { name: "stale output", class: Class::GStaleData, predict: output },
    // A row of the buffer that this step does not use still holds the step before: not old data of this row, but a wrong
    // choice of the row.
    Hypothesis { name: "another token's row, of the step before", class: Class::AInputSelection, predict: leftover },
    Hypothesis { name: "beside the row in its buffer", class: Class::AInputSelection, predict: beside },
];

/// Where the rows of the step before lay: by the batch row of now, and how many there were.
type Old = fn(u32, u32) -> u32;

const SAME_PLACE: &[(&str, Old)] =
    &[("same row, step before", |r, _| r), ("last row, step before", |_, n| n.wrapping_sub(1))];

const OTHER_PLACE: &[(&str, Old)] =
    &[("the next", |r, _| r + 1), ("the one before", |r, _| r.wrapping_sub(1)), ("the first", |_, _| 0)];

fn operand<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    read_before(scene, SAME_PLACE)
}

fn leftover<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let mut out = read_before(scene, OTHER_PLACE);
    for (what, which) in choices(scene) {
        for by in [-1i32, -2, 1] {
            let read = |v: Value, _: usize, at: &At| {
                let series = scene.series(v)?;
                let position = at.position.checked_add_signed(by)?;
                let row = series.latest(at.prompt, scene.step_before(at)?, at.seq, position);
                row.filter(|r| series.is_whole(r)).map(|r| series.values(r))
            };
            if let Some(ins) = replaced(scene, &which, read) {
                out.push(scene.predict(format!("{what}position {by:+}"), scene.op.clone(), ins));
            }
        }
    }
    out
}

/// The row after or before in memory, whatever was last written there: buffers are shared by values that don't meet.
fn beside<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let mut out = Vec::new();
    for (what, which) in choices(scene) {
        for (detail, by) in [("the next", 1i64), ("the one before", -1)] {
            if let Some(ins) = replaced(scene, &which, |v, _, at| in_memory(scene, v, at, by)) {
                out.push(scene.predict(format!("{what}{detail}"), scene.op.clone(), ins));
            }
        }
    }
    out
}

fn in_memory(scene: &Scene<'_>, v: Value, at: &At, by: i64) -> Option<Vec<f64>> {
    let all = &scene.judge.recording.series;
    let own = scene.series(v)?;
    let row = own.find(at.prompt, at.order, at.seq, at.position)?;
    let bytes = own.dtype?.row_bytes(own.cols)? as i64;
    let offset = row.offset.checked_add_signed(by * bytes)?;
    let reader = all.iter().position(|s| s.node == scene.name())?;
    let mut last: Option<((u32, usize), &crate::Series, &crate::Row)> = None;
    for (i, s) in all.iter().enumerate().filter(|(_, s)| s.dtype == own.dtype && s.cols == own.cols) {
        for r in s.rows.iter().filter(|r| r.at.prompt == at.prompt && r.buffer == row.buffer && r.offset == offset) {
            let when = (r.at.order, i);
            if when < (at.order, reader) && last.is_none_or(|(w, ..)| w < when) {
                last = Some((when, s, r));
            }
        }
    }
    last.filter(|(_, s, r)| s.is_whole(r)).map(|(_, s, r)| s.values(r))
}

fn read_before<'s>(scene: &'s Scene<'_>, places: &[(&str, Old)]) -> Vec<Prediction<'s>> {
    let mut out = Vec::new();
    for (what, which) in choices(scene) {
        for (detail, place) in places {
            let read = |v: Value, _: usize, at: &At| old(scene, v, at, *place);
            if let Some(ins) = replaced(scene, &which, read) {
                out.push(scene.predict(format!("{what}{detail}"), scene.op.clone(), ins));
            }
        }
    }
    out
}

fn old(scene: &Scene<'_>, v: Value, at: &At, place: Old) -> Option<Vec<f64>> {
    let before = scene.step_before(at)?;
    let row = place(scene.batch_row(at)?, scene.rows_in_step(v, at.prompt, before));
    scene.recorded(v, at.prompt, before, row)
}

fn output<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let made = |place: Old| -> Option<Vec<Guess>> {
        let mut outs = vec![Guess::default(); scene.outs.len()];
        for (o, guess) in outs.iter_mut().enumerate() {
            for at in &scene.rows {
                guess.values.extend(old(scene, Value { node: scene.node, out: o as u8 }, at, place)?);
            }
        }
        Some(outs)
    };
    let all = SAME_PLACE.iter().chain(&OTHER_PLACE[2..]);
    all.filter_map(|(detail, place)| Some(Prediction::whole(*detail, made(*place)?))).collect()
}
