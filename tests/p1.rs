//! P1: every value of a token's row depends on the tokens at or before it alone — to the bit, whatever the chunks, the
//! other sequences of the batch, or the threads.

use crate::support::{Outcome, all, cpu, engine, hips, synth_tiny, trial};
use greta_backend::{Backend, Batch, Executable, KvConfig, RowsWanted, SeqId, Want};
use greta_cpu::simd::Level;
use greta_cpu::{Cpu, CpuOptions};
use greta_models::{Arithmetic, EngineOptions};
use greta_ops::DType;
use libtest_mimic::Trial;
use std::sync::Arc;

pub const MIXES: [&str; 13] =
    ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K"];

/// Values inside the model that are compared too: behind the attention, and what leaves a block.
const INSIDE: [&str; 3] = ["blk.0.attn", "blk.0.out", "blk.1.out"];

pub fn trials() -> Vec<Trial> {
    let mut list = Vec::new();
    for mix in MIXES {
        for arith in [Arithmetic::Exact, Arithmetic::Int8] {
            list.push(trial(format!("p1/{mix}/{arith}"), move || prefill_is_decode(mix, arith, &CPU, &on_cpu()?)));
            // Weights that are not quantised have one arithmetic.
            if arith == Arithmetic::Exact || mix.starts_with('Q') {
                for (label, open) in hips() {
                    // In the emulator tokens are few, for each instruction of each wave is executed.
                    let runs = if label == "hip-sim" { &SHORT } else { &CPU };
                    let test = move || prefill_is_decode(mix, arith, runs, &[Box::new(open()?)]);
                    list.push(trial(format!("p1/{label}/{mix}/{arith}"), test));
                }
            }
        }
    }
    // Longer than the largest chunk, so that chunks of 512 are cut as well.
    list.push(trial("p1/long", || prefill_is_decode("Q4_K_M", Arithmetic::Int8, &LONG, &on_cpu()?)));
    for mix in MIXES {
        list.push(trial(format!("p1/instruction_sets/{mix}"), move || instruction_sets(mix)));
    }
    list
}

/// A whole model gives the same logits, to the bit, on every instruction set of this CPU.
fn instruction_sets(mix: &str) -> Result<(), Outcome> {
    let model = synth_tiny(mix)?;
    let tokens: Vec<u32> = (0..67).map(|i| i * 31 % 1000).collect();
    let mut failures = Vec::new();
    for arith in [Arithmetic::Exact, Arithmetic::Int8] {
        let mut first: Option<Vec<u32>> = None;
        for level in Level::available() {
            let backend = Cpu::new(CpuOptions { threads: Some(2), level: Some(level), guard: true })?;
            let options = EngineOptions { arith, ..EngineOptions::default() };
            let row = engine(&model, &backend, &options)?.context()?.prefill(&tokens, &mut |_, _| true)?;
            let bits: Vec<u32> = row.unwrap_or_default().iter().map(|x| x.to_bits()).collect();
            let want = first.get_or_insert_with(|| bits.clone());
            if bits != *want || bits.is_empty() {
                let n = bits.iter().zip(want.iter()).filter(|(a, b)| a != b).count();
                failures.push(format!("{arith}, {}: {n} of {} logits differ", level.name(), bits.len()));
            }
        }
    }
    all(failures)
}

/// What a sequence's rows gave: `[row][name] = bits`.
type Rows = Vec<Vec<Vec<u64>>>;

/// Any number of threads.
fn on_cpu() -> Result<Vec<Box<dyn Backend>>, Outcome> {
    Ok(vec![Box::new(cpu(1)?), Box::new(cpu(2)?)])
}

/// How prompts are cut in what is compared.
struct Runs {
    /// Tokens of each sequence.
    lengths: &'static [usize],
    /// Chunk sizes, of which the last repeats: each sequence alone.
    alone: &'static [&'static [usize]],
    /// The same with all sequences in one batch.
    together: &'static [&'static [usize]],
}

const CPU: Runs =
    Runs { lengths: &[75, 72, 69, 66], alone: &[&[1], &[7], &[32], &[512]], together: &[&[1], &[7], &[32], &[128]] };

const LONG: Runs =
    Runs { lengths: &[560, 557, 554, 551], alone: &[&[7], &[32], &[512]], together: &[&[7], &[32], &[128]] };

/// Steps on either side of where kernels change (16 tokens), positions on either side of where attention's segments do
/// (128).
const SHORT: Runs = Runs { lengths: &[134, 20], alone: &[&[512]], together: &[&[17], &[126, 1]] };

fn prefill_is_decode(mix: &str, arith: Arithmetic, runs: &Runs, backends: &[Box<dyn Backend>]) -> Result<(), Outcome> {
    let model = synth_tiny(mix)?;
    let token = |s: usize, i: usize| ((i * 7919 + s * 104_729 + i * i) % 1000) as u32;
    let lengths = runs.lengths.iter().enumerate();
    let sequences: Vec<Vec<u32>> = lengths.map(|(s, &n)| (0..n).map(|i| token(s, i)).collect()).collect();
    let mut failures = Vec::new();
    let mut first: Option<Vec<Rows>> = None;
    for (i, backend) in backends.iter().enumerate() {
        let outputs = INSIDE.iter().map(|s| s.to_string()).collect();
        let options = EngineOptions {
            arith,
            kv: DType::F16,
            max_tokens: 512,
            max_rows: 512,
            outputs,
            ..EngineOptions::default()
        };
        let engine = engine(&model, &**backend, &options)?;
        let each = |cuts: &[usize]| -> Result<Vec<Rows>, Outcome> {
            let alone = |s: &Vec<u32>| run(engine.executable(), std::slice::from_ref(s), cuts).map(|mut r| r.remove(0));
            sequences.iter().map(alone).collect()
        };
        let alone = runs.alone.iter().map(|cuts| ("alone", *cuts, each(cuts)));
        let together =
            runs.together.iter().map(|cuts| ("in a batch", *cuts, run(engine.executable(), &sequences, cuts)));
        for (what, cuts, got) in alone.chain(together) {
            let got = got?;
            let want = first.get_or_insert_with(|| got.clone());
            if let Some(at) = difference(want, &got) {
                failures.push(format!("chunks of {cuts:?}, {what}, {} {}: {at}", backend.name(), i + 1));
            }
        }
    }
    all(failures)
}

fn difference(want: &[Rows], got: &[Rows]) -> Option<String> {
    for (s, (w, g)) in want.iter().zip(got).enumerate() {
        if w.len() != g.len() || w.is_empty() {
            return Some(format!("sequence {s} has {} rows, expected {}", g.len(), w.len()));
        }
        for (t, (w, g)) in w.iter().zip(g).enumerate() {
            for (v, (w, g)) in w.iter().zip(g).enumerate() {
                if w != g {
                    let name = INSIDE.get(v).unwrap_or(&"logits");
                    let n = w.iter().zip(g).filter(|(a, b)| a != b).count();
                    return Some(format!("sequence {s}, position {t}, `{name}`: {n} of {} values differ", w.len()));
                }
            }
        }
    }
    None
}

/// Runs sequences side by side, so many tokens of each a step, and gives every row's values.
fn run(exe: &Arc<dyn Executable>, sequences: &[Vec<u32>], chunks: &[usize]) -> Result<Vec<Rows>, Outcome> {
    let mut session = exe.clone().session(KvConfig { context: 600, sequences: sequences.len() })?;
    let mut rows: Vec<Rows> = vec![Vec::new(); sequences.len()];
    let (mut at, mut chunks) = (0, chunks.iter().copied());
    let mut chunk = 1;
    while sequences.iter().any(|s| at < s.len()) {
        chunk = chunks.next().unwrap_or(chunk);
        let mut batch = Batch::default();
        let mut owners = Vec::new();
        for (s, tokens) in sequences.iter().enumerate() {
            let part = &tokens[at.min(tokens.len())..(at + chunk).min(tokens.len())];
            batch.append(session.kv(), SeqId(s), part, RowsWanted::All)?;
            owners.extend(part.iter().map(|_| s));
        }
        let out = session.run(&batch, Want::Logits)?;
        for (i, &s) in owners.iter().enumerate() {
            let mut values: Vec<Vec<u64>> =
                out.values.iter().map(|(_, t)| t.row(i).iter().map(|x| x.to_bits()).collect()).collect();
            values.push(out.row(i).iter().map(|x| u64::from(x.to_bits())).collect());
            rows[s].push(values);
        }
        at += chunk;
    }
    Ok(rows)
}
