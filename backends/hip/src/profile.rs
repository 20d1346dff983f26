//! What each kernel cost.

use greta_gfx942::Counts;
use std::collections::BTreeMap;
use std::time::Duration;

/// What all launches of one kernel cost.
#[derive(Clone, Debug, Default)]
pub struct KernelCost {
    /// How often it ran.
    pub launches: u64,
    /// Time, on the host for the emulator.
    pub time: Duration,
    /// What the emulator counted.
    pub counts: Counts,
}

/// Costs by module and kernel.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// The kernels.
    pub kernels: BTreeMap<(String, String), KernelCost>,
}

impl Profile {
    /// Adds a launch.
    pub fn add(&mut self, module: &str, kernel: &str, time: Duration, counts: &Counts) {
        let cost = self.kernels.entry((module.into(), kernel.into())).or_default();
        cost.launches += 1;
        cost.time += time;
        cost.counts += *counts;
    }
}
