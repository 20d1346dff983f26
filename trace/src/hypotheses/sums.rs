//! A product's sum that covers a part of its terms.

use super::product::Product;
use super::scene::Scene;
use super::{Hypothesis, Prediction};
use crate::judge::Class;

pub(super) const ROOM: &[Hypothesis] = &[
    Hypothesis { name: "half the lanes", class: Class::DKernelMath, predict: half },
    Hypothesis { name: "first K' terms", class: Class::DKernelMath, predict: first },
];

/// Which half of how many lanes is summed.
pub(super) const LANES: &[(&str, usize, std::ops::Range<usize>)] = &[
    ("first 32 of 64", 64, 0..32),
    ("last 32 of 64", 64, 32..64),
    ("first 16 of 32", 32, 0..16),
    ("last 16 of 32", 32, 16..32),
    ("even", 2, 0..1),
    ("odd", 2, 1..2),
];

fn half<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let Some(p) = Product::of(scene) else { return Vec::new() };
    let lanes = LANES.iter().map(|(detail, of, kept)| {
        let p = p.clone();
        Prediction::columns(*detail, move |cols: &[usize]| {
            p.with_weights(cols, |n, w| {
                p.plain_row(n, w);
                w.iter_mut().enumerate().filter(|(k, _)| !kept.contains(&(k % of))).for_each(|(_, w)| *w = 0.0);
            })
        })
    });
    lanes.collect()
}

/// Columns whose every prefix is looked at.
const SEARCHED: usize = 12;

/// The number of terms is searched: whatever fits a few columns is then held against all.
fn first<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let Some(p) = Product::of(scene) else { return Vec::new() };
    let mut fits: Vec<bool> = vec![true; p.k];
    for i in 0..SEARCHED {
        let n = (i * p.n / SEARCHED + i) % p.n;
        let row = p.w.row(n);
        for (r, x) in p.x.iter().enumerate() {
            let got = scene.outs[0].row(r)[n];
            let bound = scene.bounds[0][r * p.n + n];
            let mut sum = 0.0;
            for k in 0..p.k {
                // `sum` is of the first k terms.
                fits[k] &= (sum - got).abs() <= bound;
                sum += row[k] * x[k];
            }
        }
    }
    let found = (1..p.k).filter(|&k| fits[k]);
    // Terms of zeros make neighbours equal; round numbers are likelier to be meant.
    let mut found: Vec<usize> = found.collect();
    found.sort_by_key(|k| std::cmp::Reverse(k.trailing_zeros()));
    found.truncate(4);
    found
        .into_iter()
        .map(|kept| {
            let p = p.clone();
            Prediction::columns(format!("K' = {kept} of {}", p.k), move |cols: &[usize]| {
                p.with_weights(cols, |n, w| {
                    p.plain_row(n, w);
                    w[kept..].fill(0.0);
                })
            })
        })
        .collect()
}
