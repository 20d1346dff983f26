//! Sums kept in too few bits.
//!
//! Each rounding shows in the result, so the order of the sum has to be met as well: several are tried. Where none fits,
//! it still shows that every result has few bits.

use super::cache::{attention, seen};
use super::norm::{self, norm};
use super::product::Product;
use super::scene::{Scene, like};
use super::{Guess, Hypothesis, Prediction};
use crate::judge::Class;
use greta_ops::{ACT_BLOCK, Attention, HostTensor};
use half::{bf16, f16};

pub(super) const ROOM: &[Hypothesis] = &[
    Hypothesis { name: "f16 accumulation", class: Class::EPrecision, predict: |s| accumulated(s, F16) },
    Hypothesis { name: "bf16 accumulation", class: Class::EPrecision, predict: |s| accumulated(s, BF16) },
    Hypothesis {
        name: "truncating bf16 accumulation",
        class: Class::EPrecision,
        predict: |s| accumulated(s, TRUNCATED),
    },
];

/// A way to lose bits.
#[derive(Clone, Copy)]
pub(super) struct Short {
    pub round: fn(f32) -> f32,
    /// Unit roundoff.
    pub unit: f64,
}

pub(super) const F16: Short = Short { round: |v| f16::from_f32(v).to_f32(), unit: 1.0 / 2048.0 };
pub(super) const BF16: Short = Short { round: |v| bf16::from_f32(v).to_f32(), unit: 1.0 / 256.0 };
pub(super) const TRUNCATED: Short = Short { round: |v| f32::from_bits(v.to_bits() & 0xffff_0000), unit: 1.0 / 128.0 };

impl Short {
    /// The value with few bits.
    pub fn of(self, v: f64) -> f64 {
        f64::from((self.round)(v as f32))
    }
}

/// A sum with few bits, in a stated order.
#[derive(Clone, Copy)]
struct Sum {
    short: Short,
    /// Interleaved partial sums.
    lanes: usize,
    /// Terms added in f32 before one addition in few bits.
    run: usize,
    /// Whether each term is rounded before it is added.
    rounded: bool,
    /// Whether partial sums are folded in halves, not one after the other.
    tree: bool,
}

/// Partial sums, and terms of a run.
const ORDERS: [(usize, usize); 7] = [(1, 1), (8, 1), (16, 1), (32, 1), (64, 1), (1, 32), (16, 32)];

impl Sum {
    /// Every order worth trying, with its name.
    fn all(short: Short) -> impl Iterator<Item = (String, Sum)> {
        ORDERS.into_iter().flat_map(move |(lanes, run)| {
            let kinds = [(false, false), (false, true), (true, false), (true, true)];
            let kinds = kinds.into_iter().filter(move |(rounded, tree)| (!rounded || run == 1) && (!tree || lanes > 1));
            kinds.map(move |(rounded, tree)| {
                let of = if run > 1 { format!(" of sums of {run}") } else { String::new() };
                let products = if rounded { ", products too" } else { "" };
                let fold = if tree { ", folded in halves" } else { "" };
                (format!("{lanes} partial sums{of}{products}{fold}"), Sum { short, lanes, run, rounded, tree })
            })
        })
    }

    fn of(&self, w: &[f64], x: &[f64]) -> f64 {
        let round = self.short.round;
        let mut partial = vec![0.0f32; self.lanes];
        for (t, (w, x)) in w.chunks(self.run).zip(x.chunks(self.run)).enumerate() {
            let mut term = w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() as f32;
            if self.rounded {
                term = round(term);
            }
            let lane = &mut partial[t % self.lanes];
            *lane = round(*lane + term);
        }
        if self.tree {
            while partial.len() > 1 {
                let half = partial.len() / 2;
                (0..half).for_each(|i| partial[i] = round(partial[i] + partial[i + half]));
                partial.truncate(half);
            }
            return f64::from(partial[0]);
        }
        f64::from(partial.into_iter().reduce(|a, b| round(a + b)).unwrap_or(0.0))
    }
}

fn accumulated<'s>(scene: &'s Scene<'_>, short: Short) -> Vec<Prediction<'s>> {
    if let Some(a) = attention(scene) {
        return attended(scene, a, short);
    }
    if let Some(n) = norm(scene.op) {
        let own = f64::from(n.eps);
        return Sum::all(short)
            .filter_map(|(detail, sum)| {
                norm::of_rows(scene, detail, |r| {
                    let x = scene.ins[0].row(r);
                    Some(own + sum.of(&x, &x) / x.len() as f64 - norm::mean(&x, |_| true))
                })
            })
            .collect();
    }
    let Some(p) = Product::of(scene) else { return Vec::new() };
    let blocks = scene.ins.len() == 3;
    let mut out = Vec::new();
    for (detail, sum) in Sum::all(short).filter(|(_, s)| !blocks || s.run == ACT_BLOCK) {
        let p = p.clone();
        out.push(Prediction::columns(detail, move |cols: &[usize]| {
            let mut w = Vec::new();
            let mut guess = Guess { values: vec![0.0; cols.len() * p.x.len()], bounds: Vec::new() };
            for (i, &c) in cols.iter().enumerate() {
                p.plain_row(c, &mut w);
                for (r, x) in p.x.iter().enumerate() {
                    guess.values[r * cols.len() + i] = sum.of(&w, x);
                }
            }
            guess
        }));
    }
    let spread = 4.0 * (p.k as f64).sqrt() * short.unit;
    let mut w = Vec::new();
    let near = |r: usize, c: usize, off: f64| {
        p.plain_row(c, &mut w);
        off <= spread * w.iter().zip(&p.x[r]).map(|(w, x)| (w * x).abs()).sum::<f64>()
    };
    out.extend(representable(scene, short, near));
    out
}

/// Scores summed in few bits; or the weighted values, whose order is not known.
fn attended<'s>(scene: &'s Scene<'_>, a: &Attention, short: Short) -> Vec<Prediction<'s>> {
    let mut out: Vec<Prediction<'s>> =
        Sum::all(short).filter(|(_, s)| s.run == 1).map(|(detail, sum)| scored(scene, a, detail, sum)).collect();
    let mut sizes: Vec<&HostTensor> = scene.ins.iter().collect();
    let values = like(sizes[2], sizes[2].reals().iter().map(|v| v.abs()).collect());
    sizes[2] = &values;
    let size = scene.op.spec().reference(&sizes).swap_remove(0);
    let near = |r: usize, c: usize, off: f64| {
        off <= 4.0 * f64::from(scene.rows[r].position + 1).sqrt() * short.unit * size.row(r)[c]
    };
    out.extend(representable(scene, short, near));
    out
}

fn scored<'s>(scene: &'s Scene<'_>, a: &Attention, detail: String, sum: Sum) -> Prediction<'s> {
    let d = a.head_dim;
    let mut guess = Guess::default();
    for (r, at) in scene.rows.iter().enumerate() {
        let (q, (keys, values)) = (scene.ins[0].row(r), seen(scene, at));
        for h in 0..a.heads {
            let base = h / (a.heads / a.kv_heads) * d;
            let score = |k: &Vec<f64>| sum.of(&q[h * d..][..d], &k[base..][..d]) * f64::from(a.scale);
            let scores: Vec<f64> = keys.iter().map(score).collect();
            let max = scores.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v));
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            let value = |i: usize| weights.iter().zip(&values).map(|(w, v)| w * v[base + i]).sum::<f64>() / total;
            guess.values.extend((0..d).map(value));
        }
    }
    Prediction::whole(format!("scores, {detail}"), vec![guess])
}

/// Values needed before it can't be chance that all of them fit few bits.
const ENOUGH: usize = 64;

/// In whatever order a sum was made, its result has few bits: each value is one of the short type's and about as far off
/// as such a sum may be.
fn representable<'s>(
    scene: &'s Scene<'_>,
    short: Short,
    mut near: impl FnMut(usize, usize, f64) -> bool,
) -> Option<Prediction<'s>> {
    let n = scene.outs[0].cols();
    let mut guess = Guess::default();
    let mut some = 0;
    for r in 0..scene.rows.len() {
        let got = scene.outs[0].row(r);
        if got.iter().any(|v| short.of(*v) != *v) {
            return None;
        }
        some += got.iter().filter(|v| **v != 0.0).count();
        guess.values.extend_from_slice(&got);
    }
    for c in (0..n).step_by(n.div_ceil(ENOUGH)) {
        for r in 0..scene.rows.len() {
            if !near(r, c, (guess.values[r * n + c] - scene.want[0].row(r)[c]).abs()) {
                return None;
            }
        }
    }
    (some >= ENOUGH).then(|| Prediction::whole("in an order not known", vec![guess]))
}
