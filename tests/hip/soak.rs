//! Many prompts in a row: no leak, no drift, the same bits twice.

use crate::support::{Outcome, all, engine, synth_tiny};
use greta_hip::Hip;
use greta_models::EngineOptions;

/// Runs `prompts` prompts of random length, each with some decode steps after it; a new context every 50.
pub fn soak(hip: &Hip, prompts: usize, longest: usize) -> Result<(), Outcome> {
    let options = EngineOptions { context: Some(longest + 8), ..EngineOptions::default() };
    let engine = engine(&synth_tiny("Q4_K_M")?, hip, &options)?;
    let mut context = engine.context()?;
    let (mut failures, mut used, mut random) = (Vec::new(), Vec::new(), 1u64);
    let (mut seen, mut lengths) = (Vec::<Vec<u32>>::new(), Vec::new());
    for i in 0..prompts {
        if i % 50 == 49 {
            context = engine.context()?;
            used.push(hip.memory_used());
        }
        // Knuth's MMIX generator.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let length = 1 + (random >> 33) as usize % longest;
        // Every other prompt is one of those before.
        let again = (i % 2 == 1).then(|| (random >> 40) as usize % seen.len());
        let (which, length) = again.map_or((seen.len(), length), |n: usize| (n, lengths[n]));
        let tokens: Vec<u32> = (0..length).map(|t| ((t * 37 + which * 101) % 1000) as u32).collect();
        context.truncate(0)?;
        let row = context.prefill(&tokens, &mut |_, _| true)?.unwrap_or_default();
        let mut bits: Vec<u32> = row.iter().map(|x| x.to_bits()).collect();
        for t in 0..3u32 {
            bits.extend(context.step(&[t], greta_backend::RowsWanted::Last)?.logits.iter().map(|x| x.to_bits()));
        }
        if row.iter().any(|x| !x.is_finite()) || row.is_empty() {
            failures.push(format!("prompt {i} of {length} tokens gave no numbers"));
        }
        match again {
            None => {
                seen.push(bits);
                lengths.push(length);
            }
            Some(n) if seen[n] != bits => {
                failures.push(format!("prompt {i} of {length} tokens gave other bits than when it ran first"));
            }
            Some(_) => {}
        }
        if failures.len() > 5 {
            break;
        }
    }
    used.dedup();
    if used.len() > 1 {
        failures.push(format!("bytes on the device after each 50 prompts: {used:?}"));
    }
    all(failures)
}
