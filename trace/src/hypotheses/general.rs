//! What could happen to any op.

use super::norm::norm;
use super::scene::Scene;
use super::{Guess, Hypothesis, Prediction};
use crate::judge::Class;
use greta_ops::{Data, Op};

pub(super) const ROOM: &[Hypothesis] = &[
    Hypothesis { name: "operands swapped", class: Class::DKernelMath, predict: swapped },
    Hypothesis { name: "uniform scale", class: Class::DKernelMath, predict: scale },
];

/// Gate and up.
fn swapped<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let gated = match scene.op {
        Op::Swiglu(_) => true,
        Op::Fused(f) => matches!(f.steps.first().map(|s| &s.op), Some(Op::Swiglu(_))),
        _ => false,
    };
    if !gated {
        return Vec::new();
    }
    let mut ins = scene.borrowed();
    ins.swap(0, 1);
    vec![scene.predict("", scene.op.clone(), ins)]
}

/// Factors that a single row of a norm is believed to be off by: there any error of the statistics looks like a factor.
const KNOWN: [f64; 12] =
    [2.0, 0.5, 4.0, 0.25, 8.0, 0.125, 448.0 / 240.0, 240.0 / 448.0, -1.0, 10.0, 0.1, std::f64::consts::SQRT_2];

/// The factor is fitted over all wrong rows, by least squares.
fn scale<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    // Of codes and their scales, a factor moves the scales alone.
    let o = scene.outs.len() - 1;
    if !matches!(scene.outs[o].data, Data::Real(_)) {
        return Vec::new();
    }
    let (mut both, mut own) = (0.0, 0.0);
    for r in 0..scene.rows.len() {
        for (g, w) in scene.outs[o].row(r).iter().zip(scene.want[o].row(r).iter()) {
            both += g * w;
            own += w * w;
        }
    }
    let fitted = both / own;
    if !fitted.is_finite() || fitted == 0.0 {
        return Vec::new();
    }
    let near = |k: &f64| (fitted / k - 1.0).abs() < 1e-4;
    let factor = KNOWN.into_iter().find(near).unwrap_or(fitted);
    if scene.rows.len() < 2 && norm(scene.op).is_some() && !KNOWN.iter().any(near) {
        return Vec::new();
    }
    let outs = (0..=o).map(|i| {
        let mut g = Guess::of(&scene.want[i], scene.bounds[i].clone());
        if i == o {
            g.values.iter_mut().for_each(|v| *v *= factor);
            g.bounds.iter_mut().for_each(|b| *b *= factor.abs());
        }
        g
    });
    vec![Prediction::whole(format!("{factor:.6}"), outs.collect())]
}
