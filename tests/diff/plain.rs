//! The numbers themselves, and what sides can be written as.

use crate::support::{Outcome, all, trial};
use greta_trace::diff::{Selector, distances, logits, resolve, ulps_between};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![trial("diff/metrics", metrics), trial("diff/logits", logits_of), trial("diff/selectors", selectors)]
}

fn metrics() -> Result<(), Outcome> {
    let mut failures = Vec::new();
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    // A, B; mean and largest difference, relative L2 distance, cosine, distance in f32 values.
    type Case = (&'static [f64], &'static [f64], [f64; 4], u64);
    let cases: [Case; 7] = [
        (&[3.0, 4.0], &[3.0, 4.0], [0.0, 0.0, 0.0, 1.0], 0),
        (&[3.0, 4.0], &[4.0, 3.0], [1.0, 1.0, 0.28284271247461906, 0.96], 4_194_304),
        (&[0.0, 0.0], &[0.0, 0.0], [0.0, 0.0, 0.0, 1.0], 0),
        (&[0.0], &[1.0], [1.0, 1.0, f64::INFINITY, 0.0], 0x3f80_0000),
        (&[1.0, 2.0, 9.0], &[1.0, 2.0], [0.0, 0.0, 0.0, 1.0], 0),
        (&[f64::NAN, f64::INFINITY], &[f64::NAN, f64::INFINITY], [0.0, 0.0, 0.0, 1.0], 0),
        (&[1.0], &[-1.0], [2.0, 2.0, 2.0, -1.0], 2 * 0x3f80_0000),
    ];
    for (a, b, [mae, max, rel, cosine], ulp) in cases {
        let m = distances(a, b, true).ok_or_else(|| Outcome::Failed("nothing compared".into()))?;
        let close = |x: f64, y: f64| x == y || (x - y).abs() < 1e-12;
        let same = close(m.mae, mae) && close(m.max_abs, max) && close(m.rel_l2, rel) && close(m.cosine, cosine);
        if !same || m.max_ulp != Some(ulp) {
            failures.push(format!("{a:?} and {b:?}: {m:?}"));
        }
    }
    for (a, b) in [(nan, 1.0), (1.0, nan), (inf, -inf), (inf, 1.0)] {
        let m = distances(&[a, 1.0], &[b, 1.0], true).ok_or_else(|| Outcome::Failed("nothing compared".into()))?;
        if m.max_abs != inf || m.rel_l2 < 1.0 || m.mae != inf {
            failures.push(format!("{a} and {b}: {m:?}"));
        }
    }
    let p99 = distances(&[0.0; 200], &(0..200).map(f64::from).collect::<Vec<_>>(), false).map(|m| m.p99_abs);
    if p99 != Some(197.0) || distances(&[], &[1.0], true).is_some() {
        failures.push(format!("the 99th percentile is {p99:?}"));
    }
    let next = |x: f32| f32::from_bits(x.to_bits() + 1);
    for (a, b, want) in
        [(1.0, next(1.0), 1), (0.0, -0.0, 0), (0.0, next(0.0), 1), (f32::NAN, 1.0, 1 << 32), (-next(0.0), next(0.0), 2)]
    {
        if ulps_between(a, b) != want {
            failures.push(format!("{a} and {b} are {} apart", ulps_between(a, b)));
        }
    }
    all(failures)
}

fn logits_of() -> Result<(), Outcome> {
    let a: Vec<f64> = (0..50).map(|i| f64::from(i) / 10.0).collect();
    let mut b = a.clone();
    b.swap(48, 49);
    b.swap(0, 45);
    let l = logits(3, &a, &b, 10).ok_or_else(|| Outcome::Failed("nothing compared".into()))?;
    let own = logits(3, &a, &a, 10).ok_or_else(|| Outcome::Failed("nothing compared".into()))?;
    let p = |v: &[f64], i: usize| v[i].exp() / v.iter().map(|x| x.exp()).sum::<f64>();
    let kl: f64 = (0..50).map(|i| p(&a, i) * (p(&a, i) / p(&b, i)).ln()).sum();
    let right = !l.top1_equal
        && (l.top1_a, l.top1_b, l.top_overlap, l.k) == (49, 48, 9, 10)
        && (l.margin_a - 0.1).abs() < 1e-12
        && (l.kl - kl).abs() < 1e-12
        && own.kl == 0.0
        && own.top1_equal
        && logits(0, &a, &b[1..], 10).is_none();
    if right { Ok(()) } else { Err(Outcome::Failed(format!("{l:?}, divergence {kl}; {own:?}"))) }
}

fn selectors() -> Result<(), Outcome> {
    let mut failures = Vec::new();
    for name in ["prefill", "prefill_last", "decode", "decode0", "decode12", "all"] {
        if name.parse::<Selector>().map(|s| s.to_string()) != Ok(name.into()) {
            failures.push(name.into());
        }
    }
    if "decodex".parse::<Selector>().is_ok() {
        failures.push("decodex".into());
    }
    use Selector::{All, DecodeStep, Prefill, PrefillLast};
    for (a, b, want) in [
        (All, None, Some((PrefillLast, DecodeStep(0)))),
        (Prefill, None, None),
        (All, Some(Prefill), Some((Prefill, Prefill))),
        (DecodeStep(0), Some(All), Some((DecodeStep(0), DecodeStep(0)))),
        (All, Some(All), Some((All, All))),
        (PrefillLast, Some(DecodeStep(0)), Some((PrefillLast, DecodeStep(0)))),
    ] {
        if resolve(a, b) != want {
            failures.push(format!("{a} and {b:?}: {:?}", resolve(a, b)));
        }
    }
    all(failures)
}
