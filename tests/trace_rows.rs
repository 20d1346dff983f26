//! Op by op against llama.cpp: the last row of every op's output on the dequantised SmolLM2 Q4_1 weights.

use crate::support::{Outcome, all, cpu, engine, golden, json, smollm2, trial, within};
use greta_backend::RowsWanted;
use greta_models::{Arithmetic, EngineOptions};
use greta_ops::DType;
use greta_trace::names;
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![trial("golden/trace/smollm2-Q4_1", every_op)]
}

fn every_op() -> Result<(), Outcome> {
    let trace = json(&golden("smollm2/trace.p4_sys.F32.json")?)?;
    let rows = std::fs::read(golden("smollm2/trace.p4_sys.F32.rows.f32")?)?;
    let value =
        |i: usize| f64::from(f32::from_le_bytes([rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]]));
    let tokens: Vec<u32> =
        trace["tokens"].as_array().into_iter().flatten().filter_map(|t| t.as_u64()).map(|t| t as u32).collect();
    let ops: Vec<_> = trace["ops"].as_array().cloned().unwrap_or_default();
    let text = |o: &serde_json::Value, k: &str| o[k].as_str().unwrap_or_default().to_string();
    let wanted: Vec<(String, usize, usize)> = ops
        .iter()
        .filter_map(|o| {
            let size = |k: &str| o[k].as_u64().unwrap_or(0) as usize;
            Some((names::llama_cpp(&text(o, "name"), &text(o, "op"))?, size("row_offset"), size("row_len")))
        })
        .collect();
    let outputs: Vec<String> = wanted.iter().map(|w| w.0.clone()).filter(|n| n != "logits").collect();
    let options = EngineOptions { arith: Arithmetic::Exact, kv: DType::F32, outputs, ..EngineOptions::default() };
    let engine = engine(&smollm2("Q4_1")?, &cpu(2)?, &options)?;
    let out = engine.context()?.step(&tokens, RowsWanted::Last)?;
    let mut failures = Vec::new();
    for (name, offset, len) in &wanted {
        let got: Vec<f64> = match out.values.iter().find(|(n, _)| n == name) {
            Some((_, t)) => t.row(t.rows() - 1).into_owned(),
            None => out.logits.iter().map(|&x| f64::from(x)).collect(),
        };
        if got.len() != *len {
            failures.push(format!("{name}: {} values, expected {len}", got.len()));
            continue;
        }
        let (mut error, mut size) = (0.0, 0.0);
        for (i, g) in got.iter().enumerate() {
            let w = value(offset + i);
            error += (g - w).powi(2);
            size += w * w;
        }
        // Both sum in f32, in different orders, through up to thirty layers.
        let relative = (error / size).sqrt();
        if !within(relative, 1e-4) {
            failures.push(format!("{name}: relative L2 error {relative:.2e}"));
        }
    }
    if wanted.len() < 30 * 14 {
        failures.push(format!("only {} ops were compared", wanted.len()));
    }
    all(failures)
}
