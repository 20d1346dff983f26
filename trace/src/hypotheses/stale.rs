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
    read_before(scene, OTHER_PLACE)
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
