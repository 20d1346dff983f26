//! Devices and targets by name.

use crate::support::{Outcome, all, synth_tiny};
use greta_hip::{Hip, HipOptions};
use greta_models::{Engine, EngineOptions, Model};

/// Devices and targets are chosen by name, and a wrong one is an error.
pub fn names() -> Result<(), Outcome> {
    let mut failures = Vec::new();
    for bad in [":abacus", ":gfx942:1", ":gfx906"] {
        if Hip::open(bad, HipOptions::threads(1)).is_ok() {
            failures.push(format!("hip{bad} was opened"));
        }
    }
    if let Ok(b) = Hip::open(":gfx942", HipOptions::threads(1)) {
        let model = Model::open(&synth_tiny("Q4_0")?)?;
        if Engine::new(std::sync::Arc::new(model), &b, &EngineOptions::default()).is_ok() {
            failures.push("a target was run on".into());
        }
    }
    all(failures)
}
