//! Values kept in too few bits.

use super::accumulate::{BF16, F16, Short, TRUNCATED};
use super::product::Product;
use super::scene::{Scene, like};
use super::{Guess, Hypothesis, Prediction};
use crate::judge::Class;
use greta_ops::Data;
use std::rc::Rc;

pub(super) const ROOM: &[Hypothesis] = &[
    Hypothesis { name: "output truncated to bf16", class: Class::EPrecision, predict: |s| output(s, TRUNCATED) },
    Hypothesis { name: "output rounded to bf16", class: Class::EPrecision, predict: |s| output(s, BF16) },
    Hypothesis { name: "output rounded to f16", class: Class::EPrecision, predict: |s| output(s, F16) },
    Hypothesis { name: "operands truncated to bf16", class: Class::EPrecision, predict: |s| operands(s, TRUNCATED) },
    Hypothesis { name: "operands rounded to bf16", class: Class::EPrecision, predict: |s| operands(s, BF16) },
    Hypothesis { name: "operands rounded to f16", class: Class::EPrecision, predict: |s| operands(s, F16) },
];

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
        return products(p, short);
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

fn products<'s>(p: Rc<Product<'s>>, short: Short) -> Vec<Prediction<'s>> {
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
