//! Launches as a file that Perfetto and chrome://tracing show: Chrome's trace event format.
//!
//! Source: "Trace Event Format", the Chromium project: complete events (`ph: X`) with `ts` and `dur` in microseconds.

use greta::backends::KernelRun;
use serde_json::{Value, json};

/// A step and its launches.
pub struct Span {
    /// `prefill`, `decode 0`.
    pub name: String,
    /// In order.
    pub runs: Vec<KernelRun>,
}

/// Threads of the shown process: what was asked for, and what the device did.
const STEPS: u32 = 1;
const KERNELS: u32 = 2;

/// The file's content. `title` names the device and the model.
pub fn trace(title: &str, spans: &[Span]) -> Value {
    let mut events = vec![
        json!({"ph": "M", "name": "process_name", "pid": 1, "args": {"name": title}}),
        json!({"ph": "M", "name": "thread_name", "pid": 1, "tid": STEPS, "args": {"name": "steps"}}),
        json!({"ph": "M", "name": "thread_name", "pid": 1, "tid": KERNELS, "args": {"name": "kernels"}}),
    ];
    let event = |name: &str, category: &str, thread: u32, start: f64, seconds: f64, args: Value| {
        json!({
            "ph": "X", "name": name, "cat": category, "pid": 1, "tid": thread,
            "ts": start * 1e6, "dur": seconds * 1e6, "args": args,
        })
    };
    for Span { name, runs } in spans {
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else { continue };
        let seconds = last.start + last.seconds - first.start;
        let kernels: f64 = runs.iter().map(|r| r.seconds).sum();
        let args = json!({"launches": runs.len(), "seconds_in_kernels": kernels});
        events.push(event(name, "step", STEPS, first.start, seconds, args));
        events.extend(runs.iter().map(|run| {
            let args = json!({
                "kernel": run.kernel, "module": run.module, "bytes": run.bytes, "operations": run.operations,
            });
            event(&run.node, "kernel", KERNELS, run.start, run.seconds, args)
        }));
    }
    json!({"displayTimeUnit": "ns", "traceEvents": events})
}
