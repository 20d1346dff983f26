//! Statistics of a norm.
//!
//! Everything here is a wrong epsilon: a mean square m' instead of m is what ε + m' − m gives, so a fused norm is
//! predicted by the same op with another attribute.

use super::scene::{Scene, like, some_rows};
use super::sums::LANES;
use super::{Hypothesis, Prediction};
use crate::At;
use crate::judge::Class;
use greta_ops::{Fused, Op, RmsNorm};

pub(super) const ROOM: &[Hypothesis] = &[
    Hypothesis { name: "epsilon", class: Class::BNormStats, predict: epsilon },
    Hypothesis { name: "norm over half the lanes", class: Class::DKernelMath, predict: half },
    Hypothesis { name: "norm over the first K' values", class: Class::DKernelMath, predict: first },
];

/// The norm of an op that is one, alone or as a fusion's first step.
pub(super) fn norm(op: &Op) -> Option<&RmsNorm> {
    match op {
        Op::RmsNorm(n) => Some(n),
        Op::Fused(f) => match &f.steps.first()?.op {
            Op::RmsNorm(n) => Some(n),
            _ => None,
        },
        _ => None,
    }
}

fn with_eps(op: &Op, eps: f64) -> Op {
    let norm = RmsNorm { eps: eps as f32 };
    if matches!(op, Op::Fused(_)) { Fused::norm_quantize(norm).into() } else { norm.into() }
}

/// The prediction of an epsilon for each row.
pub(super) fn of_rows<'s>(
    scene: &'s Scene<'_>,
    detail: impl Into<String>,
    eps: impl Fn(usize) -> Option<f64>,
) -> Option<Prediction<'s>> {
    scene.row_by_row(detail, |r, _: &At| {
        let eps = eps(r)?;
        // The attribute is an f32, too coarse for what cancels a large mean square. A row s·x with ε' gives what x gives
        // with ε'/s².
        let scale = (f64::from(eps as f32) / eps).sqrt();
        let scale = if scale.is_finite() && scale > 0.0 { scale } else { 1.0 };
        let x = scene.ins[0].row(r).iter().map(|v| v * scale).collect();
        Some((with_eps(scene.op, eps), vec![like(&some_rows(&scene.ins[0], &[r]), x), scene.ins[1].clone()]))
    })
}

/// Mean square of some values, over the number of all.
pub(super) fn mean(row: &[f64], kept: impl Fn(usize) -> bool) -> f64 {
    row.iter().enumerate().filter(|(i, _)| kept(*i)).map(|(_, v)| v * v).sum::<f64>() / row.len() as f64
}

/// The mean square plus ε that row `r` was divided by, as far as its values say.
fn divided_by(scene: &Scene<'_>, r: usize) -> Option<f64> {
    let norm = norm(scene.op)?;
    let x = scene.ins[0].row(r);
    let right = mean(&x, |_| true) + f64::from(norm.eps);
    // Of a fused norm the scales are reals; they are as the norm's own values are.
    let (got, want) = (scene.outs.last()?.row(r), scene.want.last()?.row(r));
    let (mut both, mut own) = (0.0, 0.0);
    for (g, w) in got.iter().zip(want.iter()) {
        both += g * w;
        own += w * w;
    }
    let factor = both / own;
    (factor.is_finite() && factor > 0.0).then(|| right / (factor * factor))
}

/// The largest epsilon believed; a larger one is a factor on the whole output.
const LARGEST: f64 = 0.1;

fn epsilon<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let Some(norm) = norm(scene.op) else { return Vec::new() };
    let mut out = Vec::new();
    let own = f64::from(norm.eps);
    let round = (2..=12).flat_map(|e| [1.0, 2.0, 5.0].map(|d| d * 10f64.powi(-e))).chain([0.0, 0.1]);
    for eps in round.chain([own * 10.0, own / 10.0, own * 2.0, own / 2.0, own * own, own.sqrt()]) {
        if (eps - own).abs() > own * 1e-6 && eps <= LARGEST {
            out.extend(of_rows(scene, format!("{eps:e}"), |_| Some(eps)));
        }
    }
    // Rows of unlike size tell an epsilon from a factor; of one row any error of its mean square would do.
    if scene.rows.len() >= 2 {
        let fits: Vec<f64> = (0..scene.rows.len())
            .filter_map(|r| Some(divided_by(scene, r)? - mean(&scene.ins[0].row(r), |_| true)))
            .collect();
        let eps = fits.iter().sum::<f64>() / fits.len().max(1) as f64;
        let means: Vec<f64> = (0..scene.rows.len()).map(|r| mean(&scene.ins[0].row(r), |_| true)).collect();
        let spread =
            means.iter().fold(0.0, |m, v| f64::max(m, *v)) / means.iter().fold(f64::MAX, |m, v| f64::min(m, *v));
        if (0.0..=LARGEST).contains(&eps) && spread > 1.02 {
            out.extend(of_rows(scene, format!("fitted: {eps:.3e}"), |_| Some(eps)));
        }
    }
    out
}

fn half<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let Some(norm) = norm(scene.op) else { return Vec::new() };
    let mut out = Vec::new();
    for (detail, of, kept) in LANES {
        for (times, by) in [(1.0, ""), (2.0, ", divided by half the width")] {
            out.extend(of_rows(scene, format!("{detail}{by}"), |r| {
                let x = scene.ins[0].row(r);
                let part = mean(&x, |i| kept.contains(&(i % of)));
                Some(f64::from(norm.eps) + times * part - mean(&x, |_| true))
            }));
        }
    }
    out
}

/// The number of values is searched in the row that is worst off, then held against all.
fn first<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let (Some(norm), Some(found)) = (norm(scene.op), divided_by(scene, 0)) else { return Vec::new() };
    let (own, x) = (f64::from(norm.eps), scene.ins[0].row(0));
    let n = x.len();
    let mut out = Vec::new();
    for (divisor, by) in [(false, ""), (true, ", divided by K'")] {
        let (mut sum, mut near) = (0.0, Vec::new());
        for (k, v) in x.iter().enumerate() {
            sum += v * v;
            let m = sum / if divisor { k + 1 } else { n } as f64 + own;
            // A factor of the root: half of the relative error.
            near.push(((m / found - 1.0).abs(), k + 1));
        }
        near.pop();
        // One row fixes a number of values without proof, unless it is a round one.
        let one = scene.rows.len() < 2;
        near.retain(|(e, k)| *e < 1e-4 && (!one || k.trailing_zeros() >= 4));
        near.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (_, k) in near.into_iter().take(3) {
            out.extend(of_rows(scene, format!("K' = {k} of {n}{by}"), |r| {
                let x = scene.ins[0].row(r);
                let times = if divisor { n as f64 / k as f64 } else { 1.0 };
                Some(own + times * mean(&x, |i| i < k) - mean(&x, |_| true))
            }));
        }
    }
    out
}
