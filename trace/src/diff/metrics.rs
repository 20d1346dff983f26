//! How far two rows are apart.

use crate::{Row, Series};
use greta_ops::{DType, Stats};
use serde::Serialize;

/// Distances of the values that both sides kept. JSON writes null for what is no finite number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Values compared.
    pub values: usize,
    /// Mean absolute difference.
    pub mae: f64,
    /// The largest absolute difference.
    pub max_abs: f64,
    /// The value's index.
    pub max_at: usize,
    /// What A has there, and B.
    pub max_a: f64,
    /// See `max_a`.
    pub max_b: f64,
    /// 99 % of the absolute differences are no larger.
    pub p99_abs: f64,
    /// `‖a − b‖ / ‖a‖`; 0 if both are zero.
    pub rel_l2: f64,
    /// The cosine of the angle between the rows; 1 if both are zero.
    pub cosine: f64,
    /// The largest distance in representable f32 values; none for integers. 2³² stands for a NaN on one side alone.
    pub max_ulp: Option<u64>,
}

/// Whether two rows are equal to the bit, as far as can be known: by their values where both kept them whole, else by
/// the hashes of the whole rows. A foreign run's hash is not comparable, so there the kept values decide.
pub(super) fn equal(a: (&Series, &Row), b: (&Series, &Row), hashes: bool) -> bool {
    let kept = a.0.kept(a.1).min(b.0.kept(b.1));
    let same = match (a.0.is_int(), b.0.is_int()) {
        (true, true) => ints(a)[..kept] == ints(b)[..kept],
        (false, false) => reals(a)[..kept].iter().zip(&reals(b)[..kept]).all(|(x, y)| same_bits(*x, *y)),
        _ => a.0.values(a.1)[..kept] == b.0.values(b.1)[..kept],
    };
    same && (!hashes || a.1.stats.hash == b.1.stats.hash)
}

fn same_bits(x: f32, y: f32) -> bool {
    x.to_bits() == y.to_bits()
}

fn reals<'s>((s, r): (&'s Series, &Row)) -> &'s [f32] {
    &s.reals[r.data.clone()]
}

fn ints<'s>((s, r): (&'s Series, &Row)) -> &'s [i32] {
    &s.ints[r.data.clone()]
}

/// The distances of two rows; `None` where no value was kept on both sides.
pub fn metrics(a: (&Series, &Row), b: (&Series, &Row)) -> Option<Metrics> {
    let (x, y) = (a.0.values(a.1), b.0.values(b.1));
    let ulps = !a.0.is_int() && !b.0.is_int();
    distances(&x, &y, ulps)
}

/// The distances of two lists; of lists of unlike length, of their common beginning.
pub fn distances(x: &[f64], y: &[f64], ulps: bool) -> Option<Metrics> {
    let n = x.len().min(y.len());
    if n == 0 {
        return None;
    }
    let mut m = Metrics {
        values: n,
        mae: 0.0,
        max_abs: 0.0,
        max_at: 0,
        max_a: x[0],
        max_b: y[0],
        p99_abs: 0.0,
        rel_l2: 0.0,
        cosine: 1.0,
        max_ulp: ulps.then_some(0),
    };
    let (mut dd, mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0, 0.0);
    let mut all = Vec::with_capacity(n);
    for (i, (&a, &b)) in x[..n].iter().zip(&y[..n]).enumerate() {
        let same = a == b || (a.is_nan() && b.is_nan());
        let d = if same { 0.0 } else { (a - b).abs() };
        // A difference that is no number is larger than any.
        let d = if d.is_nan() { f64::INFINITY } else { d };
        all.push(d);
        m.mae += d;
        if d > m.max_abs {
            (m.max_abs, m.max_at, m.max_a, m.max_b) = (d, i, a, b);
        }
        if let Some(u) = &mut m.max_ulp {
            *u = (*u).max(ulps_between(a as f32, b as f32));
        }
        if !same || a.is_finite() {
            (dd, aa, bb, ab) = (dd + d * d, aa + a * a, bb + b * b, ab + a * b);
        }
    }
    m.mae /= n as f64;
    let at = (n * 99).div_ceil(100) - 1;
    m.p99_abs = *all.select_nth_unstable_by(at, f64::total_cmp).1;
    m.rel_l2 = match (dd, aa) {
        (0.0, _) => 0.0,
        (_, 0.0) => f64::INFINITY,
        _ => (dd / aa).sqrt(),
    };
    m.cosine = match aa * bb {
        0.0 if aa == bb => 1.0,
        0.0 => 0.0,
        product => ab / product.sqrt(),
    };
    Some(m)
}

/// How many f32 values lie between two; zeros of either sign are one apart in bits but equal here.
pub fn ulps_between(a: f32, b: f32) -> u64 {
    if a == b || (a.is_nan() && b.is_nan()) {
        return 0;
    }
    if a.is_nan() || b.is_nan() {
        return 1 << 32;
    }
    // Sign and magnitude to a line of integers.
    let line = |x: f32| match x.to_bits() {
        bits if bits >> 31 == 0 => i64::from(bits),
        bits => -i64::from(bits & 0x7fff_ffff),
    };
    line(a).abs_diff(line(b))
}

/// The distance from a value to the next one that its type can hold; 0 for integers.
pub(super) fn spacing(dtype: Option<DType>, x: f64) -> f64 {
    let (bits, least) = match dtype {
        Some(DType::I8 | DType::I32) => return 0.0,
        Some(DType::F16) => (10, -24),
        _ => (23, -149),
    };
    if x == 0.0 || !x.is_finite() {
        return 2f64.powi(least);
    }
    2f64.powi((x.abs().log2().floor() as i32 - bits).max(least))
}

/// How far the statistics of two rows are apart, relative to A's, where no value was kept: root mean square, mean
/// magnitude, smallest and largest, whichever is furthest.
pub(super) fn stats_apart(a: &Stats, b: &Stats) -> f64 {
    let size = a.rms().max(f64::MIN_POSITIVE);
    let mean = |s: &Stats| s.abs_sum / f64::from(s.finite().max(1));
    let pairs = [
        (a.rms(), b.rms()),
        (mean(a), mean(b)),
        (f64::from(a.min), f64::from(b.min)),
        (f64::from(a.max), f64::from(b.max)),
    ];
    pairs.iter().fold(0.0, |m, (x, y)| f64::max(m, (x - y).abs() / size))
}
