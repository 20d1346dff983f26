//! The CPU backend's kernels: each against an f64 reference with a derived bound, every instruction set against the
//! others bit for bit, and one row alone against the same row among many.

mod attention;
mod matmul;
mod rows;

use greta_cpu::simd::Level;
use greta_ops::quant::Rng;
use libtest_mimic::{Failed, Trial};

/// Half an ulp of f32, relative.
const U: f64 = 1.0 / (1u64 << 24) as f64;

/// A table of checks: the failures of all its lines.
type Test = fn() -> Vec<String>;

/// Every test of the kernels.
pub fn trials() -> Vec<Trial> {
    let tests: &[(&str, Test)] = &[
        ("panels_unpack_exactly", matmul::panels_unpack_exactly),
        ("matmul_int8", matmul::int8),
        ("matmul_int8_nan_scale", matmul::int8_nan_scale),
        ("matmul_exact", matmul::exact),
        ("rmsnorm", rows::rmsnorm_rows),
        ("quantize", rows::quantize_blocks),
        ("swiglu", rows::swiglu_values),
        ("add_and_rope", rows::add_and_rope),
        ("attention", attention::attention_rows),
        ("attention_ignores_later_slots", attention::attention_later_slots),
        ("cache_rows", attention::cache_rows),
    ];
    tests
        .iter()
        .map(|&(name, test)| {
            Trial::test(format!("kernels::{name}"), move || {
                let failures = test();
                if failures.is_empty() { Ok(()) } else { Err(Failed::from(failures.join("\n"))) }
            })
        })
        .collect()
}

fn random(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.normal()).collect()
}

/// Bits, with every NaN the same.
fn bits(v: &[f32]) -> Vec<u32> {
    v.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// Runs a computation at every level; all must agree with the portable one, whose result is returned.
fn levels(what: &str, bad: &mut Vec<String>, mut run: impl FnMut(Level) -> Vec<f32>) -> Vec<f32> {
    let reference = run(Level::PORTABLE);
    for level in Level::available() {
        let other = run(level);
        let differ = bits(&other).iter().zip(bits(&reference)).filter(|(a, b)| **a != *b).count();
        if differ > 0 {
            bad.push(format!("{what}: {} differs from portable in {differ} of {} values", level.name(), other.len()));
        }
    }
    reference
}

/// Reports values further from the reference than their bound.
fn judge(what: &str, bad: &mut Vec<String>, got: &[f32], want: impl Fn(usize) -> (f64, f64)) {
    let mut worst: Option<(f64, String)> = None;
    for (i, &y) in got.iter().enumerate() {
        let (r, bound) = want(i);
        let error = (f64::from(y) - r).abs();
        let fine = error <= bound || (r.is_nan() && y.is_nan());
        let ratio = if error.is_nan() { f64::INFINITY } else { error / bound };
        if !fine && worst.as_ref().is_none_or(|(w, _)| ratio > *w) {
            worst = Some((ratio, format!("{what}: value {i} is {y}, not {r} ± {bound:e}")));
        }
    }
    bad.extend(worst.map(|(_, text)| text));
}
