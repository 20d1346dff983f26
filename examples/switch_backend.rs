//! One model on two backends. Which one is a string; everything else stays as it is.
//!
//! `cargo run --release --example switch_backend [BACKEND BACKEND]`

use greta::ops::DType;
use greta::synth::{self, SynthSpec};
use greta::{Arithmetic, Engine, EngineOptions, Model};
use std::error::Error;
use std::sync::Arc;

/// The logits after a prompt, on the backend of this name.
fn logits(model: &Arc<Model>, backend: &str, prompt: &[u32]) -> Result<Vec<f32>, Box<dyn Error>> {
    let backend = greta::backend(backend, &Default::default())?;
    println!("{:<10} {}", backend.name(), backend.describe());
    let options = EngineOptions { arith: Arithmetic::Exact, kv: DType::F32, ..EngineOptions::default() };
    let engine = Engine::new(model.clone(), &*backend, &options)?;
    let row = engine.context()?.prefill(prompt, &mut |_done, _all| true)?;
    row.ok_or_else(|| "stopped".into())
}

/// Ids of the five largest.
fn top(row: &[f32]) -> Vec<usize> {
    let mut ids: Vec<usize> = (0..row.len()).collect();
    ids.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
    ids.truncate(5);
    ids
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut names = std::env::args().skip(1);
    let (first, second) = (names.next().unwrap_or("cpu".into()), names.next().unwrap_or("reference".into()));

    // A small model of random weights, made on the spot.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("tiny.gguf");
    synth::write(&SynthSpec::preset("tiny").ok_or("no such preset")?, &file, &mut |_done, _all| true)?;
    let model = Arc::new(Model::open(&file)?);

    let prompt: Vec<u32> = (1..=12).collect();
    let (a, b) = (logits(&model, &first, &prompt)?, logits(&model, &second, &prompt)?);
    println!("{first} says {:?}", top(&a));
    println!("{second} says {:?}", top(&b));
    let apart = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("their logits are at most {apart:.1e} apart");
    if apart > 1e-3 {
        return Err("the backends disagree".into());
    }
    Ok(())
}
