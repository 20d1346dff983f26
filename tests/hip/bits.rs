//! Every HIP device gives the same bits: the order of each sum and every function are the kernels' own, whoever compiles them.
//!
//! The hashes were made by the emulator, from gfx942 code; NVIDIA's GPUs give them too. They change when a kernel's order does.

use crate::p1::MIXES;
use crate::support::{Outcome, all, engine, synth_tiny};
use greta_backend::RowsWanted;
use greta_hip::Hip;
use greta_models::{Arithmetic, EngineOptions};
use greta_ops::Stats;
use std::fmt::Write as _;

/// A prompt that takes matrix cores and two tiles of attention, then decode steps.
pub fn same(hip: &Hip) -> Result<(), Outcome> {
    let mut lines = String::new();
    for mix in MIXES {
        for arith in [Arithmetic::Exact, Arithmetic::Int8] {
            let engine = engine(&synth_tiny(mix)?, hip, &EngineOptions { arith, ..EngineOptions::default() })?;
            let mut context = engine.context()?;
            let tokens: Vec<u32> = (0..70).map(|i| i * 37 % 1000).collect();
            let mut rows = context.prefill(&tokens, &mut |_, _| true)?.unwrap_or_default();
            for token in [5, 900] {
                rows.extend(context.step(&[token], RowsWanted::Last)?.logits);
            }
            // A fused plan's logits: nothing is tapped.
            let _ = writeln!(lines, "{mix} {arith} {:016x}", Stats::hash_of(&rows));
        }
    }
    let known = include_str!("bits.txt");
    if std::env::var_os("GRETA_UPDATE_BITS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hip/bits.txt"), &lines)?;
        return Ok(());
    }
    let differ = lines.lines().filter(|l| !known.lines().any(|k| k == *l));
    let mut failures: Vec<String> = differ.map(|l| format!("{l}, which is not what is known")).collect();
    if lines.lines().count() != known.lines().count() {
        failures.push("the list of models is another".into());
    }
    all(failures)
}
