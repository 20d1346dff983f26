//! Rotary position embedding turned otherwise.

use super::scene::{Scene, like};
use super::{Hypothesis, Prediction};
use crate::judge::Class;
use greta_ops::{HostTensor, Op, Pairing, Rope};

pub(super) const ROOM: &[Hypothesis] = &[
    Hypothesis { name: "RoPE pairing", class: Class::DKernelMath, predict: pairing },
    Hypothesis { name: "RoPE position", class: Class::AInputSelection, predict: position },
    Hypothesis { name: "RoPE direction", class: Class::DKernelMath, predict: direction },
    Hypothesis { name: "RoPE theta", class: Class::DKernelMath, predict: theta },
    Hypothesis { name: "RoPE factors left out", class: Class::DKernelMath, predict: factors },
    Hypothesis { name: "neighbour head's input", class: Class::DKernelMath, predict: head },
];

fn rope<'s>(scene: &'s Scene<'_>) -> Option<&'s Rope> {
    match scene.op {
        Op::Rope(r) => Some(r),
        _ => None,
    }
}

fn pairing<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let Some(r) = rope(scene) else { return Vec::new() };
    let (pairing, detail) = match r.pairing {
        Pairing::Adjacent => (Pairing::Halves, "halves"),
        Pairing::Halves => (Pairing::Adjacent, "adjacent"),
    };
    vec![scene.predict(detail, Rope { pairing, ..r.clone() }.into(), scene.borrowed())]
}

fn at_positions<'s>(
    scene: &'s Scene<'_>,
    detail: &str,
    f: impl Fn(i32, usize) -> Option<i32>,
) -> Option<Prediction<'s>> {
    rope(scene)?;
    let own = scene.ins[1].ints();
    let list: Vec<i32> = own.iter().enumerate().map(|(r, &p)| f(p, r)).collect::<Option<_>>()?;
    (list != own).then(|| scene.with_operand(detail, 1, HostTensor::int(&[list.len()], list)))
}

fn position<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let in_step = |_: i32, r: usize| scene.batch_row(&scene.rows[r]).map(|row| row as i32);
    let all = [
        at_positions(scene, "+1", |p, _| Some(p + 1)),
        at_positions(scene, "-1", |p, _| Some(p - 1)),
        at_positions(scene, "the row in the step", in_step),
    ];
    all.into_iter().flatten().collect()
}

/// The angle's sign.
fn direction<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    at_positions(scene, "inverse", |p, _| Some(-p)).into_iter().collect()
}

fn theta<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let Some(r) = rope(scene) else { return Vec::new() };
    let known = [1e4, 2.5e4, 5e4, 1e5, 1.3e5, 2.5e5, 5e5, 1e6, 1e7];
    let others = known.into_iter().filter(|t| *t != r.theta);
    others
        .map(|theta| scene.predict(format!("{theta}"), Rope { theta, ..r.clone() }.into(), scene.borrowed()))
        .collect()
}

fn factors<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    if rope(scene).is_none() || scene.ins.len() < 3 {
        return Vec::new();
    }
    vec![scene.predict("", scene.op.clone(), scene.borrowed().into_iter().take(2).collect())]
}

fn head<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let Some(r) = rope(scene) else { return Vec::new() };
    let x = &scene.ins[0];
    let (heads, d) = (x.cols() / r.head_dim, r.head_dim);
    if heads < 2 {
        return Vec::new();
    }
    let moved = |by: usize| -> Vec<f64> {
        (0..x.rows())
            .flat_map(|t| {
                let row = x.row(t);
                (0..heads).flat_map(|h| row[(h + by) % heads * d..][..d].to_vec()).collect::<Vec<_>>()
            })
            .collect()
    };
    [("+1", 1), ("-1", heads - 1)].map(|(detail, by)| scene.with_operand(detail, 0, like(x, moved(by)))).into()
}
