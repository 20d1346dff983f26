//! What two rows of logits would have said.

use super::metrics::{Metrics, distances};
use serde::Serialize;

/// Two rows of logits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LogitsDiff {
    /// Position of the rows.
    pub position: u32,
    /// Kullback–Leibler divergence of B's distribution from A's, in nats.
    pub kl: f64,
    /// Whether the likeliest token is the same.
    pub top1_equal: bool,
    /// That token on each side; the lower id of equals.
    pub top1_a: usize,
    /// See `top1_a`.
    pub top1_b: usize,
    /// The likeliest token's logit less the second's, in A: how far a difference must reach to change the choice.
    pub margin_a: f64,
    /// The same in B.
    pub margin_b: f64,
    /// Tokens among the `k` likeliest of both sides.
    pub top_overlap: usize,
    /// How many were looked at.
    pub k: usize,
    /// Distances of the logits themselves.
    pub metrics: Metrics,
}

/// Compares two rows; `None` if they are empty or differ in length.
pub fn logits(position: u32, a: &[f64], b: &[f64], k: usize) -> Option<LogitsDiff> {
    if a.len() != b.len() {
        return None;
    }
    let metrics = distances(a, b, true)?;
    let k = k.min(a.len());
    let (ta, tb) = (largest(a, k.max(2)), largest(b, k.max(2)));
    let margin = |v: &[f64], t: &[usize]| t.get(1).map_or(0.0, |&second| v[t[0]] - v[second]);
    let top_overlap = ta[..k].iter().filter(|i| tb[..k].contains(i)).count();
    Some(LogitsDiff {
        position,
        kl: kl(a, b),
        top1_equal: ta[0] == tb[0],
        top1_a: ta[0],
        top1_b: tb[0],
        margin_a: margin(a, &ta),
        margin_b: margin(b, &tb),
        top_overlap,
        k,
        metrics,
    })
}

fn largest(v: &[f64], k: usize) -> Vec<usize> {
    let mut ids: Vec<usize> = (0..v.len()).collect();
    let order = |a: &usize, b: &usize| v[*b].total_cmp(&v[*a]).then(a.cmp(b));
    if k < ids.len() {
        ids.select_nth_unstable_by(k, order);
        ids.truncate(k);
    }
    ids.sort_unstable_by(order);
    ids
}

fn log_softmax(v: &[f64]) -> impl Iterator<Item = f64> + '_ {
    let max = v.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log = v.iter().map(|x| (x - max).exp()).sum::<f64>().ln() + max;
    v.iter().map(move |x| x - log)
}

fn kl(a: &[f64], b: &[f64]) -> f64 {
    let terms =
        log_softmax(a).zip(log_softmax(b)).map(|(p, q)| if p == f64::NEG_INFINITY { 0.0 } else { p.exp() * (p - q) });
    // Rounding may leave a sum of equals a hair below zero; `max` would hide a NaN.
    let sum: f64 = terms.sum();
    if sum < 0.0 { 0.0 } else { sum }
}
