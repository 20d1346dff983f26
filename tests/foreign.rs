//! Runs of other engines under their own arithmetic: the verdict on llama.cpp's own rows; and for every weight type, a
//! kernel in f32 that follows the definition is within the bound, one that strays is not.

use crate::support::{Outcome, all, golden, smollm2, trial};
use greta_models::Model;
use greta_ops::quant::{self, Rng};
use greta_ops::{DType, Data, HostTensor, MatMul, Op};
use greta_trace::Recording;
use greta_trace::foreign::blocks::{Act, quantize};
use greta_trace::foreign::llama::Llama;
use greta_trace::foreign::{self, ForeignOptions};
use greta_trace::import::{self, ImportOptions};
use greta_trace::judge::{Arithmetic, VerdictKind};
use half::f16;
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("foreign/blocks", blocks),
        trial("foreign/products", products),
        trial("foreign/samples_are_not_judged", samples),
        trial("foreign/golden/llama-q8", || clean("Q4_1", "llama-q8")),
        trial("foreign/golden/f32", || clean("F32", "f32")),
        trial("foreign/golden/other_arithmetic", other_arithmetic),
        trial("foreign/golden/a_wrong_row_is_named", wrong_rows),
    ]
}

const TYPES: [DType; 10] = [
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q8_0,
    DType::Q2_K,
    DType::Q3_K,
    DType::Q4_K,
    DType::Q5_K,
    DType::Q6_K,
];

fn blocks() -> Result<(), Outcome> {
    let mut failures = Vec::new();
    let mut x = vec![0.0; 32];
    (x[0], x[1], x[2], x[3]) = (-127.0, 0.5, 2.5001, -7.4);
    let b = &quantize(Act::Q8_1, &x)[0];
    if (b.d, b.d_slack, b.codes[0], b.codes[2], b.codes[3]) != (1.0, 0.0, -127.0, 3.0, -7.0) {
        failures.push(format!("Q8_1: {b:?}"));
    }
    // One half is neither 0 nor 1 for certain, and the sum follows it.
    if b.unsure.iter().sum::<f64>() != 1.0 || b.unsure[1] != 1.0 || b.sum_slack != 1.0 {
        failures.push(format!("Q8_1's tie: {b:?}"));
    }
    let mut x = vec![0.0; 256];
    (x[5], x[6]) = (-254.0, 100.0);
    let b = &quantize(Act::Q8K, &x)[0];
    // The scale has the largest value's sign turned, so that its code is -127.
    if (b.d, b.codes[5], b.codes[6]) != (2.0, -127.0, 50.0) {
        failures.push(format!("Q8_K: {b:?}"));
    }
    let zeros = &quantize(Act::Q8_0, &[0.0; 32])[0];
    if zeros.d != 0.0 || zeros.codes.iter().any(|&c| c != 0.0) {
        failures.push(format!("zeros: {zeros:?}"));
    }
    x[9] = f64::NAN;
    if !quantize(Act::Q8K, &x)[0].d.is_nan() {
        failures.push("a NaN vanished".into());
    }
    all(failures)
}

/// How a kernel may round codes.
type Round = fn(f32) -> f32;

/// A block's scale, codes and sum in f32, as vector code makes them.
fn act_f32(act: Act, x: &[f32], round: Round) -> (f32, Vec<f32>, f32) {
    let max = x.iter().fold(0f32, |m, &v| if v.abs() > m.abs() { v } else { m });
    let half = |v: f32| f16::from_f32(v).to_f32();
    if act == Act::Q8K {
        let inverse = -127.0 / max;
        let codes: Vec<f32> = x.iter().map(|v| round(inverse * v).min(127.0)).collect();
        let (d, sum) = (1.0 / inverse, codes.iter().sum::<f32>());
        return (d, codes, d * sum);
    }
    let (d, inverse) = (max.abs() / 127.0, 127.0 / max.abs());
    let codes: Vec<f32> = x.iter().map(|v| round(v * inverse)).collect();
    let sum = half(d * codes.iter().sum::<f32>());
    (half(d), codes, sum)
}

/// A dot product with one weight row, in eight lanes.
fn dot_f32(t: DType, row: &[u8], x: &[f32], act: Act, round: Round) -> f32 {
    let Some(f) = quant::format(t) else { return f32::NAN };
    let (mut lanes, mut low) = ([0f32; 8], 0f32);
    for (block, x) in row.chunks_exact(t.block_bytes()).zip(x.chunks_exact(t.block_len())) {
        let p = f.parts(block);
        let (d, codes, sum) = act_f32(act, x, round);
        let (mut whole, mut mins) = ([0i32; 8], 0i32);
        for (i, &q) in codes.iter().enumerate() {
            let g = i / f.sub;
            whole[i / 4 % 8] += i32::from(p.scales[g]) * (i32::from(p.codes[i]) - f.offset) * q as i32;
            mins += i32::from(p.mins[g]) * q as i32;
        }
        for (lane, w) in lanes.iter_mut().zip(whole) {
            *lane += p.d * d * w as f32;
        }
        match act {
            Act::Q8_0 => {}
            Act::Q8_1 => low += p.dmin * sum,
            Act::Q8K => low += p.dmin * d * mins as f32,
        }
    }
    lanes.iter().sum::<f32>() - low
}

fn products() -> Result<(), Outcome> {
    let (n, k) = (24, 1536);
    let mut failures = Vec::new();
    for t in TYPES {
        let Some(act) = Act::with(t) else {
            failures.push(format!("{t} has no activation blocks"));
            continue;
        };
        let Some(row) = t.row_bytes(k) else { continue };
        let mut rng = Rng::new(11);
        let mut bytes = vec![0u8; n * row];
        quant::random_row(t, &mut rng, 0.05, &mut bytes);
        let mut plain = vec![0u8; 4 * k];
        quant::random_row(DType::F32, &mut rng, 1.0, &mut plain);
        let x: Vec<f32> = plain.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect();
        let w = HostTensor { shape: [n, k].as_slice().into(), data: Data::Packed(t, bytes.clone().into()) };
        let ins = HostTensor::real(&[1, k], x.iter().map(|&v| f64::from(v)).collect());
        let Some((want, bounds)) = Llama.judge(&Op::from(MatMul {}), &[&w, &ins]) else {
            failures.push(format!("{t} is not judged"));
            continue;
        };
        let worst = |round: Round| {
            (0..n).fold(0f64, |m, r| {
                let got = dot_f32(t, &bytes[r * row..][..row], &x, act, round);
                m.max((f64::from(got) - want[0].reals()[r]).abs() / bounds[0][r])
            })
        };
        let (right, away, cut) = (worst(f32::round_ties_even), worst(f32::round), worst(f32::trunc));
        if right > 1.0 || away > 1.0 {
            failures.push(format!("{t}: a right kernel is {right:.2} or {away:.2} times its bound off"));
        }
        if cut < 10.0 {
            failures.push(format!("{t}: codes cut off are only {cut:.2} times the bound off"));
        }
    }
    all(failures)
}

fn recorded(file: &str) -> Result<Recording, Outcome> {
    Ok(import::read(&[golden(&format!("smollm2/trace.p4_sys.{file}.json"))?], &ImportOptions::default())?)
}

/// No op of llama.cpp's own run is over its bound, and all but attention are judged.
fn clean(file: &str, arith: &str) -> Result<(), Outcome> {
    let recording = recorded(file)?;
    let model = Model::open(&smollm2("Q4_1")?)?;
    let mut failures = Vec::new();
    if recording.info.arith != arith {
        failures.push(format!("arithmetic is {}, expected {arith}", recording.info.arith));
    }
    let verdict = foreign::judge(&recording, &model, &ForeignOptions::default(), &|_, _| true)?;
    if verdict.verdict != VerdictKind::Clean {
        failures.push(format!("{:?}: {:?}", verdict.verdict, verdict.culprit));
    }
    // Fifteen ops a layer are recorded, of which attention reads a cache that is not; and embd, output_norm, logits.
    if verdict.judged != 30 * 14 + 3 {
        failures.push(format!("{} ops were judged", verdict.judged));
    }
    let other = verdict.not_judged.iter().find(|n| !n.node.ends_with(".attn"));
    if let Some(n) = other {
        failures.push(format!("{} was not judged: {}", n.node, n.why));
    }
    if verdict.not_judged.len() != 30 {
        failures.push(format!("{} ops were not judged", verdict.not_judged.len()));
    }
    all(failures)
}

/// A row with two values swapped or all of them scaled makes its op the culprit, and no other.
fn wrong_rows() -> Result<(), Outcome> {
    let model = Model::open(&smollm2("Q4_1")?)?;
    let mut failures = Vec::new();
    type Change = fn(&mut [f32]);
    let swap: Change = |v| v.swap(3, 17);
    let scale: Change = |v| v.iter_mut().for_each(|x| *x *= 1.01);
    for (node, change) in [
        ("embd", swap),
        ("blk.0.attn_norm", scale),
        ("blk.3.q", scale),
        ("blk.3.k", swap),
        ("blk.7.q_rope", scale),
        ("blk.11.attn_out", swap),
        ("blk.12.ffn_inp", scale),
        ("blk.19.ffn_act", swap),
        ("blk.29.ffn_out", scale),
        ("output_norm", scale),
        ("logits", scale),
    ] {
        let mut recording = recorded("Q4_1")?;
        let series = recording.series.iter_mut().find(|s| s.name == node);
        let Some(series) = series else {
            failures.push(format!("{node} is not in the recording"));
            continue;
        };
        change(&mut series.reals);
        let verdict = foreign::judge(&recording, &model, &ForeignOptions::default(), &|_, _| true)?;
        let named = verdict.culprit.map(|c| c.node);
        if named.as_deref() != Some(node) {
            failures.push(format!("{node} was changed, {named:?} was named"));
        }
    }
    all(failures)
}

/// The bound is tight enough to tell arithmetics apart: as `f32`, the first product of the quantised run is wrong.
fn other_arithmetic() -> Result<(), Outcome> {
    let model = Model::open(&smollm2("Q4_1")?)?;
    let options = ForeignOptions { arith: Some(foreign::ForeignArith::F32), ..ForeignOptions::default() };
    let verdict = foreign::judge(&recorded("Q4_1")?, &model, &options, &|_, _| true)?;
    match verdict.culprit {
        Some(c) if c.node == "blk.0.q" => Ok(()),
        other => Err(Outcome::Failed(format!("blk.0.q should be wrong as f32, found {:?}", other.map(|c| c.node)))),
    }
}

/// A row of which only a sample was kept is not judged, and never passed.
fn samples() -> Result<(), Outcome> {
    let model = Model::open(&smollm2("Q4_1")?)?;
    let mut recording = recorded("Q4_1")?;
    for s in &mut recording.series {
        if s.name == "blk.2.q" {
            s.rows[0].data.end = s.rows[0].data.start + 8;
        }
    }
    let verdict = foreign::judge(&recording, &model, &ForeignOptions::default(), &|_, _| true)?;
    let missing: Vec<&str> =
        verdict.not_judged.iter().map(|n| n.node.as_str()).filter(|n| !n.ends_with(".attn")).collect();
    match (verdict.verdict, missing.as_slice()) {
        (VerdictKind::Clean, ["blk.2.q", "blk.2.q_rope"]) => Ok(()),
        other => Err(Outcome::Failed(format!("{other:?}"))),
    }
}
