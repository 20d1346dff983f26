//! What kernels took, by the device's own clock.

use crate::driver::Function;
use greta_backend::KernelProfile;
use std::collections::HashMap;

/// All launches of one kernel.
#[derive(Default)]
struct Cost {
    launches: u64,
    milliseconds: f64,
    bytes: u64,
    operations: u64,
}

/// What was timed, by kernel.
#[derive(Default)]
pub(super) struct Profile(HashMap<Function, Cost>);

impl Profile {
    pub fn add(&mut self, kernel: Function, milliseconds: f64) {
        let cost = self.0.entry(kernel).or_default();
        cost.launches += 1;
        cost.milliseconds += milliseconds;
    }

    /// What a launch has to move and to do at least.
    pub fn note(&mut self, kernel: Function, bytes: u64, operations: u64) {
        let cost = self.0.entry(kernel).or_default();
        cost.bytes += bytes;
        cost.operations += operations;
    }

    /// The costliest first; `name` gives module and kernel.
    pub fn named(&self, name: impl Fn(Function) -> Option<(String, String)>) -> Vec<KernelProfile> {
        let line = |(f, cost): (&Function, &Cost)| {
            let (module, kernel) = name(*f)?;
            let counters = vec![("bytes", cost.bytes), ("operations", cost.operations)];
            Some(KernelProfile { module, kernel, launches: cost.launches, seconds: cost.milliseconds / 1e3, counters })
        };
        let mut list: Vec<KernelProfile> = self.0.iter().filter_map(line).collect();
        list.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then_with(|| a.kernel.cmp(&b.kernel)));
        list
    }
}
