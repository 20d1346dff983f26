//! Which rows of the cache attention read.
//!
//! Softmax does not know the order of its keys, so whatever an op read is said by a list of key and value rows.

use super::scene::{Scene, some_rows};
use super::{Hypothesis, Prediction};
use crate::At;
use crate::judge::{self, Class};
use greta_backend::Phase;
use greta_graph::Value;
use greta_ops::{Attention, HostTensor, Op, PAGE_TOKENS};

pub(super) const ROOM: &[Hypothesis] = &[
    Hypothesis { name: "sequence length +1", class: Class::FCache, predict: one_more },
    Hypothesis { name: "sequence length -1", class: Class::FCache, predict: one_less },
    Hypothesis { name: "another layer's cache", class: Class::FCache, predict: layer },
    Hypothesis { name: "another page", class: Class::FCache, predict: page },
    Hypothesis { name: "cache slot off by one", class: Class::FCache, predict: slot },
    Hypothesis { name: "another sequence's cache", class: Class::FCache, predict: sequence },
    Hypothesis { name: "cache of the step before", class: Class::GStaleData, predict: stale },
];

/// Key rows and value rows, one for each position seen.
pub(super) type Seen = (Vec<Vec<f64>>, Vec<Vec<f64>>);

/// The attention op at hand.
pub(super) fn attention<'s>(scene: &'s Scene<'_>) -> Option<&'s Attention> {
    match scene.op {
        Op::Attention(a) => Some(a),
        _ => None,
    }
}

/// What row `at` should see.
pub(super) fn seen(scene: &Scene<'_>, at: &At) -> Seen {
    let rows = |t: &HostTensor| (0..=at.position as usize).map(|p| t.row(p).into_owned()).collect();
    (rows(&scene.ins[1]), rows(&scene.ins[2]))
}

/// Attention of row `r` over these keys and values.
pub(super) fn over(scene: &Scene<'_>, op: &Attention, r: usize, seen: Seen) -> Option<(Op, Vec<HostTensor>)> {
    let n = seen.0.len();
    let cols = scene.ins[1].cols();
    if n == 0 || seen.1.len() != n {
        return None;
    }
    let pages = n.div_ceil(PAGE_TOKENS);
    let ins = vec![
        some_rows(&scene.ins[0], &[r]),
        HostTensor::real(&[n, cols], seen.0.concat()),
        HostTensor::real(&[n, cols], seen.1.concat()),
        HostTensor::int(&[1], vec![n as i32 - 1]),
        HostTensor::int(&[1], vec![0]),
        HostTensor::int(&[1, pages], (0..pages as i32).collect()),
    ];
    Some((op.clone().into(), ins))
}

/// The prediction that each row saw what `f` makes of what it should see; a row without an answer is right.
pub(super) fn changed<'s>(
    scene: &'s Scene<'_>,
    detail: impl Into<String>,
    f: impl Fn(&At, Seen) -> Option<Seen>,
) -> Option<Prediction<'s>> {
    let op = attention(scene)?;
    scene.row_by_row(detail, |r, at| over(scene, op, r, f(at, seen(scene, at))?))
}

/// A cache's row of a position as it was after step `order`.
fn row(scene: &Scene<'_>, v: Value, at: &At, order: u32, position: usize) -> Option<Vec<f64>> {
    let series = scene.series(v)?;
    let row = series.latest(at.prompt, order, at.seq, position as u32).filter(|r| series.is_whole(r))?;
    Some(series.values(row))
}

fn zeros(scene: &Scene<'_>) -> Vec<f64> {
    vec![0.0; scene.ins[1].cols()]
}

/// What could lie in the slot after the last position.
#[derive(Clone, Copy)]
pub(super) enum After {
    /// What an earlier step wrote there.
    Left,
    /// Nothing was ever written.
    Zero,
    /// There is no page yet, and page 0 is read instead.
    FirstPage,
    /// There is no page yet, and the last one is read again from its beginning.
    LastPage,
}

pub(super) const AFTER: &[(&str, After)] = &[
    ("left from before", After::Left),
    ("zeros", After::Zero),
    ("first page", After::FirstPage),
    ("last page again", After::LastPage),
];

pub(super) fn with_next(scene: &Scene<'_>, at: &At, mut seen: Seen, after: After) -> Option<Seen> {
    let next = at.position as usize + 1;
    let ins = scene.operands();
    let (k, v) = match after {
        After::Left => (row(scene, ins[1], at, at.order, next)?, row(scene, ins[2], at, at.order, next)?),
        After::Zero => (zeros(scene), zeros(scene)),
        After::FirstPage if next.is_multiple_of(PAGE_TOKENS) => (seen.0.first()?.clone(), seen.1.first()?.clone()),
        After::LastPage if next.is_multiple_of(PAGE_TOKENS) => {
            (seen.0.get(next - PAGE_TOKENS)?.clone(), seen.1.get(next - PAGE_TOKENS)?.clone())
        }
        After::FirstPage | After::LastPage => return None,
    };
    seen.0.push(k);
    seen.1.push(v);
    Some(seen)
}

pub(super) fn without_last(_: &At, mut seen: Seen) -> Option<Seen> {
    seen.0.pop();
    seen.1.pop();
    (!seen.0.is_empty()).then_some(seen)
}

fn decodes(scene: &Scene<'_>) -> bool {
    scene.rows[0].phase == Phase::Decode
}

fn one_more<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    if !decodes(scene) {
        return Vec::new();
    }
    AFTER.iter().filter_map(|(detail, a)| changed(scene, *detail, |at, s| with_next(scene, at, s, *a))).collect()
}

fn one_less<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    if !decodes(scene) {
        return Vec::new();
    }
    changed(scene, "", without_last).into_iter().collect()
}

/// Layer 0's cache (a base that is not moved by layer), or a neighbour's.
fn layer<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let Some(own) = attention(scene).and_then(|_| judge::layer(scene.name())) else { return Vec::new() };
    let g = &scene.judge.graph;
    let ins = scene.operands();
    let mut layers = vec![own.checked_sub(1), Some(own + 1), Some(0)];
    layers.dedup();
    let mut out = Vec::new();
    for l in layers.into_iter().flatten().filter(|&l| l != own) {
        let cache = |v: Value| {
            let rest = g.node(v.node).name.splitn(3, '.').nth(2)?;
            Some(Value { node: g.find(&format!("blk.{l}.{rest}"))?, out: v.out })
        };
        let (Some(keys), Some(values)) = (cache(ins[1]), cache(ins[2])) else { continue };
        for (what, k, v) in [("", true, true), (", keys alone", true, false), (", values alone", false, true)] {
            let read = |c: Value, at: &At, p: usize| {
                // A later layer has not run in this step yet.
                let order = if l < own { Some(at.order) } else { at.order.checked_sub(1) };
                order.and_then(|o| row(scene, c, at, o, p)).unwrap_or_else(|| zeros(scene))
            };
            out.extend(changed(scene, format!("layer {l}{what}"), |at, (mut ks, mut vs)| {
                for p in 0..ks.len() {
                    if k {
                        ks[p] = read(keys, at, p);
                    }
                    if v {
                        vs[p] = read(values, at, p);
                    }
                }
                Some((ks, vs))
            }));
        }
    }
    out
}

/// The rows at other positions; zeros where nothing was written.
fn moved(scene: &Scene<'_>, at: &At, seen: &Seen, to: impl Fn(usize) -> Option<usize>) -> Seen {
    let ins = scene.operands();
    let get = |own: &[Vec<f64>], v: Value, p: usize| match to(p) {
        Some(q) if q < own.len() => own[q].clone(),
        Some(q) => row(scene, v, at, at.order, q).unwrap_or_else(|| zeros(scene)),
        None => zeros(scene),
    };
    let n = seen.0.len();
    ((0..n).map(|p| get(&seen.0, ins[1], p)).collect(), (0..n).map(|p| get(&seen.1, ins[2], p)).collect())
}

/// Pages tried one by one at most.
const MOST_PAGES: usize = 64;

fn page<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    if attention(scene).is_none() {
        return Vec::new();
    }
    let place = |page: usize, p: usize| page * PAGE_TOKENS + p % PAGE_TOKENS;
    let go = |detail: String, page: &dyn Fn(usize) -> Option<usize>| {
        changed(scene, detail, |at, s| {
            let to = |p: usize| page(p / PAGE_TOKENS).map(|b| place(b, p));
            // A page that stays itself is no change.
            let same = (0..s.0.len()).all(|p| to(p) == Some(p));
            (!same).then(|| moved(scene, at, &s, to))
        })
    };
    let pages = scene.rows.iter().map(|a| a.position as usize / PAGE_TOKENS + 1).max().unwrap_or(1);
    let mut out = vec![
        go("the first for all".into(), &|_| Some(0)),
        go("the next".into(), &|b| Some(b + 1)),
        go("the one before".into(), &|b| b.checked_sub(1)),
    ];
    for b in 0..pages.min(MOST_PAGES) {
        out.push(go(format!("page {b} is zeros"), &|x| (x != b).then_some(x)));
        out.push(go(format!("page {b} is the first"), &|x| Some(if x == b { 0 } else { x })));
    }
    out.into_iter().flatten().collect()
}

fn slot<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let by = |detail: &str, by: isize, keys: bool| {
        changed(scene, detail, |at, s| {
            let (k, v) = moved(scene, at, &s, |p| p.checked_add_signed(by));
            Some(if keys { (k, v) } else { (s.0, v) })
        })
    };
    let all =
        [by("+1", 1, true), by("-1", -1, true), by("+1, values alone", 1, false), by("-1, values alone", -1, false)];
    all.into_iter().flatten().collect()
}

fn sequence<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let ins = scene.operands();
    let Some(series) = attention(scene).and_then(|_| scene.series(ins[1])) else { return Vec::new() };
    let mut others: Vec<u32> = series.rows.iter().map(|r| r.at.seq).filter(|&s| s != scene.rows[0].seq).collect();
    others.sort_unstable();
    others.dedup();
    let of = |seq: &u32| {
        changed(scene, format!("sequence {seq}"), |at, s| {
            let other = At { seq: *seq, ..*at };
            let get = |v: Value, p| row(scene, v, &other, at.order, p).unwrap_or_else(|| zeros(scene));
            let n = s.0.len();
            Some(((0..n).map(|p| get(ins[1], p)).collect(), (0..n).map(|p| get(ins[2], p)).collect()))
        })
    };
    others.iter().filter_map(of).collect()
}

/// What this step wrote is not there yet.
fn stale<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let ins = scene.operands();
    let old = |v: Value, at: &At, p: usize| {
        at.order.checked_sub(1).and_then(|o| row(scene, v, at, o, p)).unwrap_or_else(|| zeros(scene))
    };
    let whole = changed(scene, "", |at, s| {
        let n = s.0.len();
        let new = ((0..n).map(|p| old(ins[1], at, p)).collect(), (0..n).map(|p| old(ins[2], at, p)).collect());
        (new != s).then_some(new)
    });
    whole.into_iter().collect()
}
