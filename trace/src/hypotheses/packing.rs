//! Packed blocks unpacked wrongly.

use super::product::Product;
use super::scales::{self, Change};
use super::scene::Scene;
use super::{Guess, Hypothesis, Prediction};
use crate::judge::Class;
use greta_ops::quant::{Format, Parts};
use greta_ops::{DType, Data, Op, quant};
use std::rc::Rc;

pub(super) const ROOM: &[Hypothesis] = &[
    Hypothesis { name: "nibble order", class: Class::CWeightLayout, predict: nibbles },
    Hypothesis { name: "scale packing", class: Class::CWeightLayout, predict: scale_packing },
    Hypothesis { name: "neighbour block's scale", class: Class::CWeightLayout, predict: neighbour_scale },
    Hypothesis { name: "Q6_K low and high bits", class: Class::CWeightLayout, predict: q6k },
];

/// The blocks of a matrix and the one at hand.
pub(super) struct Blocks<'t> {
    pub format: &'static Format,
    pub bytes: &'t [u8],
    pub at: usize,
}

impl<'t> Blocks<'t> {
    /// Block `at + by` of the matrix; the one at hand where there is none.
    pub fn block(&self, by: isize) -> &'t [u8] {
        let size = self.format.dtype.block_bytes();
        let there = |b: usize| self.bytes.get(b * size..(b + 1) * size);
        self.at.checked_add_signed(by).and_then(there).unwrap_or_else(|| &self.bytes[self.at * size..][..size])
    }
}

fn nibbles<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let Some(f) = format(scene) else { return Vec::new() };
    // Where a block's nibbles begin, and how many bytes hold two runs of codes, low ones first.
    let (from, run) = match f.dtype {
        DType::Q4_0 => (2, 16),
        DType::Q4_1 => (4, 16),
        DType::Q5_0 => (6, 16),
        DType::Q5_1 => (8, 16),
        DType::Q4_K => (16, 32),
        DType::Q5_K => (48, 32),
        _ => return Vec::new(),
    };
    let n = f.dtype.block_len();
    // Code i as (byte, high nibble).
    type Place = fn(usize, usize, usize) -> (usize, bool);
    let places: [(&str, Place); 4] = [
        ("high nibble first", |i, run, _| (i / (2 * run) * run + i % run, i / run % 2 == 0)),
        ("low and high adjacent", |i, _, _| (i / 2, i % 2 == 1)),
        ("high and low adjacent", |i, _, _| (i / 2, i % 2 == 0)),
        ("all low ones first", |i, _, n| (i % (n / 2), i >= n / 2)),
    ];
    let changes = places.into_iter().map(|(detail, place)| {
        let change = move |b: &Blocks<'_>, p: &mut Parts| {
            let qs = &b.block(0)[from..];
            for i in 0..n {
                let (byte, high) = place(i, run, n);
                let nibble = if high { qs[byte] >> 4 } else { qs[byte] & 15 };
                p.codes[i] = (p.codes[i] & !15) | nibble;
            }
        };
        (detail.to_string(), Rc::new(change) as Change)
    });
    predict(scene, changes.collect())
}

fn scale_packing<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    format(scene).map_or_else(Vec::new, |f| predict(scene, scales::packings(f)))
}

fn neighbour_scale<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    format(scene).map_or_else(Vec::new, |f| predict(scene, scales::neighbours(f)))
}

/// Low nibbles and bit pairs of Q6_K: each half of a block has four groups of 32 values, whose sources may be confused.
fn q6k<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    if format(scene).is_none_or(|f| f.dtype != DType::Q6_K) {
        return Vec::new();
    }
    // A code from a half's nibbles, its pairs, and its place.
    type Code = dyn Fn(&[u8], &[u8], usize) -> u8;
    type Plain = fn(&[u8], &[u8], usize) -> u8;
    // Low bits and high bits of value i of a half, from its 64 bytes of nibbles and 32 of pairs.
    fn low(ql: &[u8], i: usize) -> u8 {
        (ql[i % 64] >> (i / 64 * 4)) & 15
    }
    fn high(qh: &[u8], i: usize) -> u8 {
        (qh[i % 32] >> (i / 32 * 2)) & 3
    }
    let special: [(&str, Plain); 7] = [
        ("low bits above high bits", |ql, qh, i| (low(ql, i) << 2) | high(qh, i)),
        ("nibbles adjacent", |ql, qh, i| ((ql[i / 2] >> (i % 2 * 4)) & 15) | (high(qh, i) << 4)),
        ("pairs adjacent", |ql, qh, i| low(ql, i) | (((qh[i / 4] >> (i % 4 * 2)) & 3) << 4)),
        ("nibbles and pairs adjacent", |ql, qh, i| {
            ((ql[i / 2] >> (i % 2 * 4)) & 15) | (((qh[i / 4] >> (i % 4 * 2)) & 3) << 4)
        }),
        ("no high bits", |ql, _, i| low(ql, i)),
        ("high nibble in low place", |ql, qh, i| low(ql, (i + 64) % 128) | (high(qh, i) << 4)),
        ("nibbles of 32", |ql, qh, i| ((ql[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4)) & 15) | (high(qh, i) << 4)),
    ];
    let mut changes: Vec<(String, Change)> = Vec::new();
    let change = |f: Rc<Code>| {
        Rc::new(move |b: &Blocks<'_>, p: &mut Parts| {
            let block = b.block(0);
            for i in 0..256 {
                p.codes[i] = f(&block[i / 128 * 64..][..64], &block[128 + i / 128 * 32..][..32], i % 128);
            }
        }) as Change
    };
    for (detail, f) in special {
        changes.push((detail.into(), change(Rc::new(f))));
    }
    for order in orders() {
        let moved = move |i: usize| order[i / 32] * 32 + i % 32;
        let name = order.map(|g| g.to_string()).concat();
        let lows = move |ql: &[u8], qh: &[u8], i: usize| low(ql, moved(i)) | (high(qh, i) << 4);
        let highs = move |ql: &[u8], qh: &[u8], i: usize| low(ql, i) | (high(qh, moved(i)) << 4);
        let both = move |ql: &[u8], qh: &[u8], i: usize| low(ql, moved(i)) | (high(qh, moved(i)) << 4);
        changes.push((format!("low bits in order {name}"), change(Rc::new(lows))));
        changes.push((format!("high bits in order {name}"), change(Rc::new(highs))));
        changes.push((format!("groups in order {name}"), change(Rc::new(both))));
    }
    predict(scene, changes)
}

/// Every order of four but the right one.
fn orders() -> Vec<[usize; 4]> {
    let all = (0..256usize).map(|i| [i & 3, (i >> 2) & 3, (i >> 4) & 3, i >> 6]);
    let fits = |o: &[usize; 4]| (0..4).all(|g| o.contains(&g)) && *o != [0, 1, 2, 3];
    all.filter(fits).collect()
}

/// The format of the packed operand, which comes first.
fn format(scene: &Scene<'_>) -> Option<&'static Format> {
    match (&scene.ins.first()?.data, scene.op) {
        (Data::Packed(dtype, _), Op::MatMul(_) | Op::Embed(_)) => quant::format(*dtype),
        _ => None,
    }
}

/// Predictions of the op on weights whose blocks came apart otherwise.
fn predict<'s>(scene: &'s Scene<'_>, changes: Vec<(String, Change)>) -> Vec<Prediction<'s>> {
    let w = &scene.ins[0];
    let Data::Packed(dtype, bytes) = &w.data else { return Vec::new() };
    let Some(format) = quant::format(*dtype) else { return Vec::new() };
    let (len, blocks) = (dtype.block_len(), w.cols() / dtype.block_len());
    let row = move |change: &Change, n: usize, out: &mut Vec<f64>| {
        out.clear();
        for b in 0..blocks {
            let from = Blocks { format, bytes, at: n * blocks + b };
            let mut parts = format.parts(from.block(0));
            change(&from, &mut parts);
            out.extend((0..len).map(|i| f64::from(format.value(&parts, i))));
        }
    };
    if let Op::Embed(_) = scene.op {
        let ids: Option<Vec<usize>> =
            scene.ins[1].ints().iter().map(|&i| usize::try_from(i).ok().filter(|&i| i < w.rows())).collect();
        let Some(ids) = ids else { return Vec::new() };
        let whole = changes.iter().map(|(detail, change)| {
            let mut guess = Guess::default();
            let mut one = Vec::new();
            for &id in &ids {
                row(change, id, &mut one);
                guess.values.extend_from_slice(&one);
            }
            Prediction::whole(detail.clone(), vec![guess])
        });
        return whole.collect();
    }
    let Some(p) = Product::of(scene) else { return Vec::new() };
    let lazy = changes.into_iter().map(|(detail, change)| {
        let p = p.clone();
        Prediction::columns(detail, move |cols: &[usize]| p.with_weights(cols, |n, w| row(&change, n, w)))
    });
    lazy.collect()
}
