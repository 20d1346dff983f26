//! Attention over the right cache, computed otherwise.

use super::cache::{AFTER, After, attention, changed, over, seen, with_next, without_last};
use super::scene::{Scene, like};
use super::sums::LANES;
use super::{Guess, Hypothesis, Prediction};
use crate::judge::Class;
use greta_backend::Phase;
use greta_ops::{Attention, HostTensor};

pub(super) const ROOM: &[Hypothesis] = &[
    Hypothesis { name: "causal mask +1", class: Class::DKernelMath, predict: mask_more },
    Hypothesis { name: "causal mask -1", class: Class::DKernelMath, predict: mask_less },
    Hypothesis { name: "no causal mask", class: Class::DKernelMath, predict: no_mask },
    Hypothesis { name: "missing 1/√d", class: Class::DKernelMath, predict: scale },
    Hypothesis { name: "GQA head map", class: Class::FCache, predict: head_map },
    Hypothesis { name: "neighbour head's queries", class: Class::DKernelMath, predict: query_head },
    Hypothesis { name: "context limit", class: Class::DKernelMath, predict: limit },
    Hypothesis { name: "scores over half the lanes", class: Class::DKernelMath, predict: lanes },
    Hypothesis { name: "keys and values swapped", class: Class::DKernelMath, predict: swapped },
];

fn prefills(scene: &Scene<'_>) -> bool {
    scene.rows[0].phase == Phase::Prefill
}

fn mask_more<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    if !prefills(scene) {
        return Vec::new();
    }
    let make = |(detail, last): &(&str, After)| {
        changed(scene, format!("at the end: {detail}"), |at, s| {
            with_next(scene, at, s.clone(), After::Left).or_else(|| with_next(scene, at, s, *last))
        })
    };
    // The step's last row has no future key: it may be right, or see what lies behind.
    let held = changed(scene, "", |at, s| with_next(scene, at, s, After::Left));
    held.into_iter().chain(AFTER[1..].iter().filter_map(make)).collect()
}

fn mask_less<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    if !prefills(scene) {
        return Vec::new();
    }
    changed(scene, "", without_last).into_iter().collect()
}

/// Every key of the step is seen.
fn no_mask<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    if attention(scene).is_none() {
        return Vec::new();
    }
    let ins = scene.operands();
    let (Some(k), Some(v)) = (scene.series(ins[1]), scene.series(ins[2])) else { return Vec::new() };
    let made = changed(scene, "", |at, mut s| {
        let mine = |r: &&crate::Row| r.at.seq == at.seq && r.at.position > at.position;
        for row in k.of_step(at.prompt, at.order).iter().filter(mine) {
            let value = v.find(at.prompt, at.order, at.seq, row.at.position)?;
            s.0.push(k.values(row));
            s.1.push(v.values(value));
        }
        (s.0.len() > at.position as usize + 1).then_some(s)
    });
    made.into_iter().collect()
}

fn scale<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let Some(a) = attention(scene) else { return Vec::new() };
    let d = a.head_dim as f32;
    let all = [("factor 1", 1.0), ("factor 1/d", 1.0 / d), ("factor √d", d.sqrt())];
    let others = all.into_iter().filter(|(_, s)| *s != a.scale);
    others.map(|(t, scale)| scene.predict(t, Attention { scale, ..a.clone() }.into(), scene.borrowed())).collect()
}

/// Query heads that read other key-value heads: the heads change places before and back after.
fn mapped<'s>(scene: &'s Scene<'_>, detail: &str, kv: impl Fn(usize) -> usize) -> Option<Prediction<'s>> {
    let a = attention(scene)?;
    let (group, d) = (a.heads / a.kv_heads, a.head_dim);
    // Of each key-value head, which query heads come to it. A place takes one; further ones need further rounds.
    let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); a.kv_heads];
    (0..a.heads).for_each(|h| waiting[kv(h)].push(h));
    let q = &scene.ins[0];
    let mut guess = Guess { values: vec![0.0; q.rows() * q.cols()], bounds: vec![0.0; q.rows() * q.cols()] };
    while waiting.iter().any(|w| !w.is_empty()) {
        let mut places: Vec<Option<usize>> = vec![None; a.heads];
        for (kv, w) in waiting.iter_mut().enumerate() {
            (0..group).for_each(|i| places[kv * group + i] = w.pop());
        }
        let mut turned = vec![0.0; q.rows() * q.cols()];
        let copy =
            |to: &mut [f64], t: usize, i: usize, from: &[f64]| to[t * q.cols() + i * d..][..d].copy_from_slice(from);
        for t in 0..q.rows() {
            for (i, h) in places.iter().enumerate() {
                if let Some(h) = h {
                    copy(&mut turned, t, i, &q.row(t)[h * d..][..d]);
                }
            }
        }
        let turned = like(q, turned);
        let mut ins: Vec<&HostTensor> = scene.ins.iter().collect();
        ins[0] = &turned;
        let out = scene.outputs(scene.op, &ins).swap_remove(0);
        for t in 0..q.rows() {
            for (i, h) in places.iter().enumerate() {
                if let Some(h) = h {
                    copy(&mut guess.values, t, *h, &out.values[t * q.cols() + i * d..][..d]);
                    copy(&mut guess.bounds, t, *h, &out.bounds[t * q.cols() + i * d..][..d]);
                }
            }
        }
    }
    Some(Prediction::whole(detail, vec![guess]))
}

fn head_map<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let Some(a) = attention(scene).filter(|a| a.kv_heads > 1) else { return Vec::new() };
    let (n, group) = (a.kv_heads, a.heads / a.kv_heads);
    let all = [
        mapped(scene, "h % kv_heads", |h| h % n),
        mapped(scene, "the next head", |h| (h / group + 1) % n),
        mapped(scene, "the head before", |h| (h / group + n - 1) % n),
        mapped(scene, "the first head for all", |_| 0),
        mapped(scene, "h, held at the end", |h| h.min(n - 1)),
    ];
    all.into_iter().flatten().collect()
}

fn query_head<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let Some(a) = attention(scene).filter(|a| a.heads > 1) else { return Vec::new() };
    let (q, d) = (&scene.ins[0], a.head_dim);
    let moved = |by: usize| {
        let row = |t: usize| {
            let row = q.row(t);
            (0..a.heads).flat_map(|h| row[(h + by) % a.heads * d..][..d].to_vec()).collect::<Vec<_>>()
        };
        like(q, (0..q.rows()).flat_map(row).collect())
    };
    [("+1", 1), ("-1", a.heads - 1)].map(|(detail, by)| scene.with_operand(detail, 0, moved(by))).into()
}

/// Keys past a limit are dropped, or keys further back than one. The limit is searched in the worst row and head.
fn limit<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let Some(a) = attention(scene) else { return Vec::new() };
    let mut out = Vec::new();
    for (what, back) in [("first", false), ("last", true)] {
        for kept in fitting(scene, a, back).into_iter().take(3) {
            out.extend(changed(scene, format!("{what} {kept} keys"), |_, (mut k, mut v)| {
                let n = k.len();
                if n <= kept {
                    return None;
                }
                if back {
                    (k, v) = (k.split_off(n - kept), v.split_off(n - kept));
                } else {
                    k.truncate(kept);
                    v.truncate(kept);
                }
                Some((k, v))
            }));
        }
    }
    for step in [8usize, 16, 32, 64, 128] {
        out.extend(changed(scene, format!("whole blocks of {step} keys"), |_, (mut k, mut v)| {
            let kept = k.len() / step * step;
            k.truncate(kept);
            v.truncate(kept);
            (kept > 0).then_some((k, v))
        }));
    }
    let longest = scene.rows.iter().map(|a| a.position as usize + 1).max().unwrap_or(0);
    for end in (4..20).map(|e| 1usize << e).filter(|e| *e < longest) {
        let round = |mut rows: Vec<Vec<f64>>| {
            (end..rows.len()).for_each(|j| rows[j] = rows[j % end].clone());
            rows
        };
        out.extend(changed(scene, format!("wraps at {end}"), |_, (k, v)| Some((round(k), round(v)))));
    }
    out
}

/// Numbers of keys that explain the worst head of the worst row; round ones first.
fn fitting(scene: &Scene<'_>, a: &Attention, back: bool) -> Vec<usize> {
    let (got, want, d) = (scene.outs[0].row(0), scene.want[0].row(0), a.head_dim);
    let ratio = |i: usize| (got[i] - want[i]).abs() / scene.bounds[0][i].max(f64::MIN_POSITIVE);
    let Some(worst) = (0..got.len()).max_by(|&a, &b| ratio(a).total_cmp(&ratio(b))) else { return Vec::new() };
    let h = worst / d;
    let base = h / (a.heads / a.kv_heads) * d;
    let q = scene.ins[0].row(0);
    let (mut keys, mut values) = seen(scene, &scene.rows[0]);
    if back {
        keys.reverse();
        values.reverse();
    }
    let (mut max, mut sum, mut acc) = (f64::NEG_INFINITY, 0.0, vec![0.0; d]);
    let mut found = Vec::new();
    for j in 0..keys.len().saturating_sub(1) {
        let dot: f64 = q[h * d..][..d].iter().zip(&keys[j][base..]).map(|(a, b)| a * b).sum();
        let score = dot * f64::from(a.scale);
        let new = f64::max(max, score);
        let (old, weight) = ((max - new).exp(), (score - new).exp());
        sum = sum * old + weight;
        (0..d).for_each(|i| acc[i] = acc[i] * old + weight * values[j][base + i]);
        max = new;
        if (0..d).all(|i| (acc[i] / sum - got[h * d + i]).abs() <= 2.0 * scene.bounds[0][h * d + i]) {
            found.push(j + 1);
        }
    }
    found.sort_by_key(|k| std::cmp::Reverse(k.trailing_zeros()));
    found
}

fn lanes<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let Some(a) = attention(scene) else { return Vec::new() };
    let q = &scene.ins[0];
    let lanes = LANES.iter().filter(|(_, of, _)| *of <= a.head_dim).map(|(detail, of, kept)| {
        let values = q.reals().iter().enumerate();
        let some = values.map(|(i, v)| if kept.contains(&(i % a.head_dim % of)) { *v } else { 0.0 }).collect();
        scene.with_operand(*detail, 0, like(q, some))
    });
    lanes.collect()
}

fn swapped<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let Some(op) = attention(scene) else { return Vec::new() };
    let made = scene.row_by_row("", |r, at| {
        let (k, v) = seen(scene, at);
        over(scene, op, r, (v, k))
    });
    made.into_iter().collect()
}
