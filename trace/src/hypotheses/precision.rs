//! Values or sums kept in too few bits.

use super::product::Product;
use super::scene::{Scene, like};
use super::{Guess, Hypothesis, Prediction};
use crate::judge::Class;
use greta_ops::{ACT_BLOCK, Data};
use half::{bf16, f16};
use std::rc::Rc;

pub(super) const ROOM: &[Hypothesis] = &[
    Hypothesis { name: "output truncated to bf16", class: Class::EPrecision, predict: |s| output(s, TRUNCATED) },
    Hypothesis { name: "output rounded to bf16", class: Class::EPrecision, predict: |s| output(s, BF16) },
    Hypothesis { name: "output rounded to f16", class: Class::EPrecision, predict: |s| output(s, F16) },
    Hypothesis { name: "operands truncated to bf16", class: Class::EPrecision, predict: |s| operands(s, TRUNCATED) },
    Hypothesis { name: "operands rounded to bf16", class: Class::EPrecision, predict: |s| operands(s, BF16) },
    Hypothesis { name: "operands rounded to f16", class: Class::EPrecision, predict: |s| operands(s, F16) },
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
struct Short {
    round: fn(f32) -> f32,
    /// Unit roundoff.
    unit: f64,
}

const F16: Short = Short { round: |v| f16::from_f32(v).to_f32(), unit: 1.0 / 2048.0 };
const BF16: Short = Short { round: |v| bf16::from_f32(v).to_f32(), unit: 1.0 / 256.0 };
const TRUNCATED: Short = Short { round: |v| f32::from_bits(v.to_bits() & 0xffff_0000), unit: 1.0 / 128.0 };

impl Short {
    fn of(self, v: f64) -> f64 {
        f64::from((self.round)(v as f32))
    }
}

/// The right value lost bits when it was stored. Where it lies so near a border that a right kernel's rounding decides,
/// either side will do.
fn output<'s>(scene: &'s Scene<'_>, short: Short) -> Vec<Prediction<'s>> {
    if scene.outs.len() != 1 || !matches!(scene.outs[0].data, Data::Real(_)) {
        return Vec::new();
    }
    let mut guess = Guess::default();
    for r in 0..scene.rows.len() {
        let (got, plain) = (scene.outs[0].row(r), scene.plain(0, r));
        for ((g, w), b) in got.iter().zip(&plain.values).zip(&plain.bounds) {
            let sides = [short.of(*w), short.of(w - b), short.of(w + b)];
            let nearest = sides.into_iter().min_by(|x, y| (x - g).abs().total_cmp(&(y - g).abs()));
            guess.values.extend(nearest);
        }
    }
    vec![Prediction::whole("", vec![guess])]
}

fn operands<'s>(scene: &'s Scene<'_>, short: Short) -> Vec<Prediction<'s>> {
    if let Some(p) = Product::of(scene) {
        return products(scene, p, short);
    }
    let mut ins = scene.borrowed();
    let mut changed = false;
    for (i, v) in scene.operands().into_iter().enumerate() {
        if let (true, Data::Real(values)) = (scene.is_row_operand(v), &scene.ins[i].data) {
            let cut: Vec<f64> = values.iter().map(|v| short.of(*v)).collect();
            changed |= cut != *values;
            ins[i] = std::borrow::Cow::Owned(like(&scene.ins[i], cut));
        }
    }
    match changed {
        true => vec![scene.predict("", scene.op.clone(), ins)],
        false => Vec::new(),
    }
}

fn products<'s>(scene: &'s Scene<'_>, p: Rc<Product<'s>>, short: Short) -> Vec<Prediction<'s>> {
    if scene.ins.len() == 3 {
        return Vec::new();
    }
    let make = |(detail, x_too, w_too): (&'static str, bool, bool)| {
        let p = p.clone();
        Prediction::columns(detail, move |cols: &[usize]| {
            let cut = |x: &Vec<f64>| x.iter().map(|v| if x_too { short.of(*v) } else { *v }).collect();
            let x: Vec<Vec<f64>> = p.x.iter().map(cut).collect();
            p.with(cols, &x, |n, w| {
                p.plain_row(n, w);
                if w_too {
                    w.iter_mut().for_each(|v| *v = short.of(*v));
                }
            })
        })
    };
    [("both", true, true), ("activations", true, false), ("weight", false, true)].map(make).into()
}

/// The order of a sum: how many interleaved partial sums, and terms added in f32 before one addition in few bits.
const ORDERS: [(usize, usize); 7] = [(1, 1), (8, 1), (16, 1), (32, 1), (64, 1), (1, 32), (16, 32)];

fn accumulated<'s>(scene: &'s Scene<'_>, short: Short) -> Vec<Prediction<'s>> {
    let Some(p) = Product::of(scene) else { return Vec::new() };
    let blocks = scene.ins.len() == 3;
    let mut out = Vec::new();
    for (lanes, run) in ORDERS.into_iter().filter(|(_, run)| !blocks || *run == ACT_BLOCK) {
        for (products, rounded) in [("", false), (", products too", true)] {
            if rounded && run > 1 {
                continue;
            }
            for (fold, tree) in [("", false), (", folded in halves", true)] {
                if tree && lanes == 1 {
                    continue;
                }
                let p = p.clone();
                let of = if run > 1 { format!(" of sums of {run}") } else { String::new() };
                let detail = format!("{lanes} partial sums{of}{products}{fold}");
                out.push(Prediction::columns(detail, move |cols: &[usize]| {
                    let mut w = Vec::new();
                    let mut guess = Guess { values: vec![0.0; cols.len() * p.x.len()], bounds: Vec::new() };
                    for (i, &c) in cols.iter().enumerate() {
                        p.plain_row(c, &mut w);
                        for (r, x) in p.x.iter().enumerate() {
                            let sum = Sum { short, lanes, run, rounded, tree };
                            guess.values[r * cols.len() + i] = sum.of(&w, x);
                        }
                    }
                    guess
                }));
            }
        }
    }
    out.extend(representable(scene, &p, short));
    out
}

/// A sum with few bits, in a stated order.
struct Sum {
    short: Short,
    lanes: usize,
    run: usize,
    rounded: bool,
    tree: bool,
}

impl Sum {
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

/// Values needed before it can't be chance that all of them fit few bits.
const ENOUGH: usize = 64;

/// In whatever order a sum was made, its result has few bits: each value is one of the short type's and about as far off
/// as such a sum may be.
fn representable<'s>(scene: &'s Scene<'_>, p: &Product<'_>, short: Short) -> Option<Prediction<'s>> {
    let n = p.n;
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
    let spread = 4.0 * (p.k as f64).sqrt() * short.unit;
    let mut w = Vec::new();
    for c in (0..n).step_by(n.div_ceil(ENOUGH)) {
        p.plain_row(c, &mut w);
        for (r, x) in p.x.iter().enumerate() {
            let size: f64 = w.iter().zip(x).map(|(w, x)| (w * x).abs()).sum();
            let off = (guess.values[r * n + c] - scene.want[0].row(r)[c]).abs();
            if off > spread * size {
                return None;
            }
        }
    }
    (some >= ENOUGH).then(|| Prediction::whole("in an order not known", vec![guess]))
}
