//! Kernels that work value by value or row by row.

use super::{U, judge, levels, random};
use greta_cpu::kernels::{add, quantize, rmsnorm, rope, swiglu};
use greta_ops::quant::Rng;

pub fn rmsnorm_rows() -> Vec<String> {
    let mut bad = Vec::new();
    let mut rng = Rng::new(5);
    for n in [1, 15, 16, 33, 576, 4096] {
        let (x, w) = (random(&mut rng, n), random(&mut rng, n));
        let what = format!("rmsnorm of {n}");
        let got = levels(&what, &mut bad, |level| {
            let mut out = vec![0.0; n];
            rmsnorm::rmsnorm(level, &x, &w, 1e-5, &mut out);
            out
        });
        let ss: f64 = x.iter().map(|v| f64::from(*v).powi(2)).sum();
        let inv = 1.0 / (ss / n as f64 + f64::from(1e-5f32)).sqrt();
        judge(&what, &mut bad, &got, |i| {
            let y = f64::from(x[i]) * inv * f64::from(w[i]);
            (y, y.abs() * U * (n as f64 / 16.0 + 10.0))
        });
    }
    bad
}

pub fn quantize_blocks() -> Vec<String> {
    let mut bad = Vec::new();
    let mut rng = Rng::new(6);
    let mut x = random(&mut rng, 64 * 32);
    for (b, size) in [1e-30f32, 1e-38, 1e-41, 1e30, 3e38].into_iter().enumerate() {
        x[b * 32..][..32].iter_mut().for_each(|v| *v = (*v * size).clamp(f32::MIN, f32::MAX));
    }
    x[5 * 32..][..32].fill(0.0);
    x[6 * 32 + 7] = f32::NAN;
    x[7 * 32 + 31] = f32::NEG_INFINITY;
    for (i, v) in x[8 * 32..][..32].iter_mut().enumerate() {
        // 127 at the end makes the scale 1, so that halves are ties.
        *v = if i == 31 { 127.0 } else { i as f32 - 15.5 };
    }
    let got = levels("quantize", &mut bad, |level| {
        let (mut codes, mut scales) = (vec![1i8; x.len()], vec![1.0; x.len() / 32]);
        quantize::quantize(level, &x, &mut codes, &mut scales);
        codes.iter().map(|c| f32::from(*c)).chain(scales).collect()
    });
    let (codes, scales) = got.split_at(x.len());
    for (b, (x, codes)) in x.chunks(32).zip(codes.chunks(32)).enumerate() {
        let amax = x.iter().fold(0.0, |a: f32, v| if v.abs() > a || v.is_nan() { v.abs() } else { a });
        if !amax.is_finite() {
            if !scales[b].is_nan() || codes.iter().any(|c| *c != 0.0) {
                bad.push(format!("block {b} hides that it is not finite"));
            }
            continue;
        }
        if scales[b] != amax / 127.0 {
            bad.push(format!("block {b}: scale {} for {amax}", scales[b]));
        }
        for (v, c) in x.iter().zip(codes) {
            let exact = if amax == 0.0 { 0.0 } else { f64::from(*v) * 127.0 / f64::from(amax) };
            if (exact - f64::from(*c)).abs() > 0.5 + 127.0 * 3.0 * U || c.abs() > 127.0 {
                bad.push(format!("block {b}: {v} became {c}, not {exact}"));
            }
        }
    }
    let ties: Vec<f32> = codes[8 * 32..][..31].to_vec();
    if ties.iter().any(|c| c % 2.0 != 0.0) {
        bad.push(format!("ties do not go to even: {ties:?}"));
    }
    bad
}

pub fn swiglu_values() -> Vec<String> {
    let mut bad = Vec::new();
    let mut gate: Vec<f32> = (0..400_000).map(|i| (i as f32 - 200_000.0) * 5e-4).collect();
    gate.extend([f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.0, -0.0, 1e-40, -1e-40, f32::MAX, f32::MIN, -300.0]);
    let up = vec![1.0; gate.len()];
    let got = levels("swiglu", &mut bad, |level| {
        let mut out = vec![0.0; gate.len()];
        swiglu::swiglu(level, &gate, &up, &mut out);
        out
    });
    judge("swiglu", &mut bad, &got, |i| {
        let g = f64::from(gate[i]);
        let y = if g == f64::NEG_INFINITY { 0.0 } else { g / (1.0 + (-g).exp()) };
        if y.is_infinite() {
            return (f64::NAN, if got[i] == f32::INFINITY { f64::INFINITY } else { 0.0 });
        }
        // One ulp of a denormal where the factor e^g already is one, |g| times.
        (y, y.abs() * U * 8.0 + g.abs().min(120.0) * f64::from(f32::from_bits(1)))
    });
    bad.retain(|text| !text.contains("value 400000 is inf"));
    bad
}

pub fn add_and_rope() -> Vec<String> {
    let mut bad = Vec::new();
    let mut rng = Rng::new(7);
    let (a, b) = (random(&mut rng, 1001), random(&mut rng, 1001));
    let got = levels("add", &mut bad, |level| {
        let mut out = vec![0.0; a.len()];
        add::add(level, &a, &b, &mut out);
        out
    });
    judge("add", &mut bad, &got, |i| (f64::from(a[i] + b[i]), 0.0));
    for (head_dim, half, adjacent) in [(64, 32, true), (64, 32, false), (40, 12, true), (8, 4, false)] {
        let what = format!("rope of {half} pairs of {head_dim}, adjacent {adjacent}");
        let row = random(&mut rng, 3 * head_dim);
        let (sin, cos): (Vec<f32>, Vec<f32>) = (0..half).map(|i| (i as f32 * 0.3).sin_cos()).unzip();
        let got = levels(&what, &mut bad, |level| {
            let mut row = row.clone();
            rope::rope(level, &mut row, head_dim, &cos, &sin, adjacent);
            row
        });
        judge(&what, &mut bad, &got, |i| {
            let (head, d) = (i / head_dim * head_dim, i % head_dim);
            if d >= 2 * half {
                return (f64::from(row[i]), 0.0);
            }
            let (pair, second) = if adjacent { (d / 2, d % 2 == 1) } else { (d % half, d >= half) };
            let (first, last) = if adjacent { (2 * pair, 2 * pair + 1) } else { (pair, pair + half) };
            let (x, y) = (f64::from(row[head + first]), f64::from(row[head + last]));
            let (c, s) = (f64::from(cos[pair]), f64::from(sin[pair]));
            let value = if second { x * s + y * c } else { x * c - y * s };
            (value, 2.0 * U * ((x * c).abs() + (y * s).abs() + (x * s).abs() + (y * c).abs()))
        });
    }
    bad
}
