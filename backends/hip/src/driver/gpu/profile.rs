//! What kernels took, by the device's own clock.

use crate::driver::{Function, Note};
use greta_backend::{KernelProfile, KernelRun};
use std::collections::HashMap;

/// A launch that was timed.
struct Run {
    kernel: Function,
    note: Note,
    /// Milliseconds from the first launch.
    start: f64,
    milliseconds: f64,
}

/// What was timed, in order.
#[derive(Default)]
pub(super) struct Profile(Vec<Run>);

impl Profile {
    pub fn add(&mut self, kernel: Function, note: Note, start: f64, milliseconds: f64) {
        self.0.push(Run { kernel, note, start, milliseconds });
    }

    /// All launches of each kernel, the costliest first; `name` gives module and kernel.
    pub fn kernels(&self, name: impl Fn(Function) -> Option<(String, String)>) -> Vec<KernelProfile> {
        let mut all: HashMap<Function, KernelProfile> = HashMap::new();
        for run in &self.0 {
            let k = all.entry(run.kernel).or_insert_with(|| {
                let (module, kernel) = name(run.kernel).unwrap_or_default();
                KernelProfile { module, kernel, counters: vec![("bytes", 0), ("operations", 0)], ..Default::default() }
            });
            k.launches += 1;
            k.seconds += run.milliseconds / 1e3;
            k.counters[0].1 += run.note.bytes;
            k.counters[1].1 += run.note.operations;
        }
        let mut list: Vec<KernelProfile> = all.into_values().collect();
        list.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then_with(|| a.kernel.cmp(&b.kernel)));
        list
    }

    /// Each launch but the first `known`.
    pub fn timeline(&self, known: usize, name: impl Fn(Function) -> Option<(String, String)>) -> Vec<KernelRun> {
        let first = self.0.first().map_or(0.0, |r| r.start);
        let named = |run: &Run| {
            let (module, kernel) = name(run.kernel).unwrap_or_default();
            let Note { node, bytes, operations } = run.note.clone();
            let (start, seconds) = ((run.start - first) / 1e3, run.milliseconds / 1e3);
            KernelRun { node, module, kernel, start, seconds, bytes, operations }
        };
        self.0.iter().skip(known).map(named).collect()
    }
}
