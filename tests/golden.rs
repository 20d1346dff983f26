//! Against llama.cpp: `*.f32.json` is its run on the dequantised weights, `*.kv32.json` and `*.default.json` are its
//! quantised runs. The figures are those the project promises.

use crate::support::{Outcome, all, cpu, engine, golden, hips, json, smollm2, trial, within};
use greta_backend::Backend;
use greta_models::sampling::{Sampler, SamplerConfig};
use greta_models::{Arithmetic, Context, EngineOptions, GenerateOptions, perplexity, tokenizer::EncodeOptions};
use greta_ops::DType;
use libtest_mimic::Trial;
use serde_json::Value;

const TINY: [&str; 13] = [
    "llama3-tiny-BF16",
    "llama3-tiny-F16",
    "llama3-tiny-Q2_K",
    "llama3-tiny-Q3_K_M",
    "llama3-tiny-Q4_0",
    "llama3-tiny-Q4_1",
    "llama3-tiny-Q4_K_M",
    "llama3-tiny-Q5_0",
    "llama3-tiny-Q5_1",
    "llama3-tiny-Q5_K_M",
    "llama3-tiny-Q6_K",
    "llama3-tiny-Q8_0",
    "llama31-tiny-tied-Q4_K_M",
];

pub fn trials() -> Vec<Trial> {
    let mut list: Vec<Trial> =
        TINY.iter().map(|&name| trial(format!("golden/exact/{name}"), move || tiny(name, &cpu(2)?))).collect();
    for name in TINY {
        for (label, open) in hips() {
            list.push(trial(format!("golden/{label}/{name}"), move || tiny(name, &open()?)));
        }
    }
    for quant in ["Q4_1", "Q4_K_M"] {
        for kv in [DType::F32, DType::F16] {
            list.push(trial(format!("golden/exact/smollm2-{quant}-kv-{kv}"), move || smollm2_exact(quant, kv)));
        }
        list.push(trial(format!("golden/int8/smollm2-{quant}"), move || smollm2_int8(quant)));
    }
    // llama.cpp's figures for these files; the exact one is that of the dequantised weights.
    for (quant, arith, want, within) in [
        ("Q4_1", Arithmetic::Int8, 15.810, 5e-3),
        ("Q4_K_M", Arithmetic::Int8, 16.875, 5e-3),
        ("Q4_1", Arithmetic::Exact, 15.775, 1e-3),
    ] {
        let name = format!("golden/perplexity/smollm2-{quant}-{arith}");
        list.push(trial(name, move || score(quant, arith, want, within)));
    }
    list
}

fn tiny(name: &str, backend: &dyn Backend) -> Result<(), Outcome> {
    let reference = json(&golden(&format!("tiny/{name}.f32.json"))?)?;
    let model = golden(&format!("tiny/{name}.gguf"))?;
    let options = EngineOptions { arith: Arithmetic::Exact, kv: DType::F32, ..EngineOptions::default() };
    let engine = engine(&model, backend, &options)?;
    let mut failures = Vec::new();
    for p in prompts(&reference) {
        let mut context = engine.context()?;
        check_exact(&p, &mut context, engine.model().tokenizer()?, 1e-5, 1e-4, &mut failures)?;
    }
    all(failures)
}

fn smollm2_exact(quant: &str, kv: DType) -> Result<(), Outcome> {
    let reference = json(&golden(&format!("smollm2/{quant}.f32.json"))?)?;
    let bound = if kv == DType::F32 { 2e-3 } else { 0.05 };
    let options = EngineOptions { arith: Arithmetic::Exact, kv, ..EngineOptions::default() };
    let engine = engine(&smollm2(quant)?, &cpu(2)?, &options)?;
    let mut failures = Vec::new();
    for p in prompts(&reference) {
        let mut context = engine.context()?;
        check_exact(&p, &mut context, engine.model().tokenizer()?, bound, 0.02, &mut failures)?;
    }
    all(failures)
}

/// `(id, logit)`, largest first.
pub type TopLogits = Vec<(u32, f64)>;

/// A prompt of a reference file.
pub struct Prompt {
    pub name: String,
    text: String,
    pub tokens: Vec<u32>,
    pub top: TopLogits,
    greedy: Vec<u32>,
    margins: Vec<f64>,
}

pub fn prompts(file: &Value) -> Vec<Prompt> {
    let ids = |v: &Value| v.as_array().into_iter().flatten().filter_map(|x| x.as_u64()).map(|x| x as u32).collect();
    let list = file["prompts"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|p| Prompt {
            name: p["name"].as_str().unwrap_or_default().into(),
            text: p["text"].as_str().unwrap_or_default().into(),
            tokens: ids(&p["tokens"]),
            top: p["last_top20"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|t| (t["id"].as_u64().unwrap_or(u64::MAX) as u32, t["logit"].as_f64().unwrap_or(f64::NAN)))
                .collect(),
            greedy: ids(&p["greedy"]),
            margins: p["greedy_margin_top1_top2"].as_array().into_iter().flatten().filter_map(|x| x.as_f64()).collect(),
        })
        .collect()
}

fn check_exact(
    p: &Prompt,
    context: &mut Context,
    tokenizer: &greta_models::tokenizer::Tokenizer,
    bound: f64,
    margin: f64,
    failures: &mut Vec<String>,
) -> Result<(), Outcome> {
    let tokens = tokenizer.encode(&p.text, EncodeOptions { add_special: true, parse_special: true })?;
    if tokens != p.tokens {
        failures.push(format!("{}: tokens {tokens:?}, expected {:?}", p.name, p.tokens));
        return Ok(());
    }
    let Some(logits) = context.prefill(&tokens, &mut |_, _| true)? else { return Ok(()) };
    let worst = p.top.iter().map(|&(id, l)| (f64::from(logits[id as usize]) - l).abs()).fold(0.0, f64::max);
    // NaN first: it fails every comparison but the right one.
    if logits.iter().any(|l| l.is_nan()) || p.top.len() != 20 || !within(worst, bound) {
        failures.push(format!("{}: a top-20 logit is off by {worst:.3e}, the bound is {bound:.0e}", p.name));
    }
    let until = p.margins.iter().position(|&m| m < margin).unwrap_or(p.greedy.len());
    let options = GenerateOptions { max_tokens: Some(p.greedy.len()), ignore_eos: true };
    let mut greedy = Sampler::new(SamplerConfig::greedy())?;
    let got = context.generate(logits, &mut greedy, &options, &mut |_| true)?.tokens;
    if p.greedy.is_empty() || got[..until] != p.greedy[..until] {
        failures.push(format!("{}: greedy {got:?}, expected the first {until} of {:?}", p.name, p.greedy));
    }
    Ok(())
}

/// Root mean square over the prompts of (top-20 logit error − its mean over the prompt), against the exact weights.
pub fn spread(prompts: &[(TopLogits, Vec<f64>)]) -> f64 {
    let (mut sum, mut n) = (0.0, 0);
    for (top, got) in prompts {
        let errors: Vec<f64> = top.iter().zip(got).map(|((_, want), got)| got - want).collect();
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        sum += errors.iter().map(|e| (e - mean).powi(2)).sum::<f64>();
        n += errors.len();
    }
    (sum / n as f64).sqrt()
}

fn smollm2_int8(quant: &str) -> Result<(), Outcome> {
    let limit = if quant == "Q4_1" { 0.081 } else { 0.124 } * 1.15;
    let reference = prompts(&json(&golden(&format!("smollm2/{quant}.f32.json"))?)?);
    let engine = engine(&smollm2(quant)?, &cpu(2)?, &EngineOptions::default())?;
    let (mut failures, mut rows) = (Vec::new(), Vec::new());
    for p in &reference {
        let mut context = engine.context()?;
        let Some(logits) = context.prefill(&p.tokens, &mut |_, _| true)? else { continue };
        let top = greta_models::sampling::argmax(&logits)?;
        if top != p.top[0].0 {
            failures.push(format!("{}: top-1 is {top}, expected {}", p.name, p.top[0].0));
        }
        rows.push((p.top.clone(), p.top.iter().map(|&(id, _)| f64::from(logits[id as usize])).collect()));
    }
    let got = spread(&rows);
    eprintln!("smollm2 {quant} int8: spread of top-20 logit errors {got:.4}, limit {limit:.4}");
    if !within(got, limit) {
        failures.push(format!("spread of top-20 logit errors {got:.4}, limit {limit:.4}"));
    }
    all(failures)
}

fn score(quant: &str, arith: Arithmetic, want: f64, within: f64) -> Result<(), Outcome> {
    let text = std::fs::read_to_string(golden("text/licenses.txt")?)?;
    let options = EngineOptions { arith, max_rows: 128, ..EngineOptions::default() };
    let engine = engine(&smollm2(quant)?, &cpu(2)?, &options)?;
    let tokens =
        engine.model().tokenizer()?.encode(&text, EncodeOptions { add_special: false, parse_special: false })?;
    let got = perplexity(&mut engine.context()?, &tokens, None, 512, Some(40), &mut |_, _| true)?;
    eprintln!("smollm2 {quant} {arith}: perplexity {:.4} over {} tokens, expected {want}", got.perplexity, got.tokens);
    if (got.perplexity / want - 1.0).abs() <= within && got.chunks == 40 {
        Ok(())
    } else {
        Err(Outcome::Failed(format!("perplexity {:.4}, expected {want} within {within}", got.perplexity)))
    }
}
