//! What kernels took, by the device's own clock.

use crate::driver::Function;
use greta_backend::KernelProfile;
use std::collections::HashMap;

/// Launches and milliseconds of each kernel.
#[derive(Default)]
pub(super) struct Profile(HashMap<Function, (u64, f64)>);

impl Profile {
    pub fn add(&mut self, kernel: Function, milliseconds: f64) {
        let cost = self.0.entry(kernel).or_default();
        cost.0 += 1;
        cost.1 += milliseconds;
    }

    /// The costliest first; `name` gives module and kernel.
    pub fn named(&self, name: impl Fn(Function) -> Option<(String, String)>) -> Vec<KernelProfile> {
        let line = |(f, (launches, ms)): (&Function, &(u64, f64))| {
            let (module, kernel) = name(*f)?;
            Some(KernelProfile { module, kernel, launches: *launches, seconds: ms / 1e3, counters: Vec::new() })
        };
        let mut list: Vec<KernelProfile> = self.0.iter().filter_map(line).collect();
        list.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then_with(|| a.kernel.cmp(&b.kernel)));
        list
    }
}
