//! `greta profile`: what each kernel costs.

use crate::args::Common;
use crate::errors::Interrupted;
use crate::progress::{Progress, Unit};
use crate::taps::RouteFlags;
use crate::{interrupt, json, output};
use greta::backends::{KernelProfile, RowsWanted};
use greta::{Context, EngineOptions};
use serde_json::json;
use std::process::ExitCode;

/// Show what each kernel costs: time, instructions, shared-memory conflicts, bytes
///
/// Runs a prompt and some decode steps on the backend and adds up, kernel by kernel, what its driver counts. On hip:sim these
/// are the instructions of the machine code that a gfx942 would execute, and the bytes its lanes ask memory for: a
/// kernel's cost without a GPU. Times there are the emulator's, not a GPU's.
///
/// Columns: `runs` are launches, `seconds` the time of the host, which says nothing of a GPU's. `instr` are instructions that
/// a wave of 64 lanes executed, all of them; then those of the vector unit (`valu`), the scalar unit (`salu`), the matrix
/// cores (`mfma`), integer dot products (`dot`) and shared memory (`lds`). `conflicts` are the cycles that lanes waited for
/// each other at banks of shared memory. `read` and `written` are the bytes lanes asked memory for, as if there were no cache.
/// --json has more counters.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  greta profile -b hip:sim
  greta profile -b hip:sim -p 64 -n 0      # a prompt of 64 tokens alone
  greta profile -b hip:sim -p 0 -n 1 --depth 200 --route 'blk.*.attn=attention-tile'
  greta profile -b hip:sim -p 0 -n 1 --json | jq '.kernels[0]'")]
pub struct ProfileCommand {
    /// Tokens of the prompt
    #[arg(short, long, value_name = "N", default_value_t = 16)]
    prompt: usize,
    /// Decode steps after it
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1)]
    decode: usize,
    /// Tokens of the sequence before all this; they are run, which takes its time, and not counted
    #[arg(long, value_name = "N", default_value_t = 0)]
    depth: usize,
    #[command(flatten)]
    routes: RouteFlags,
    #[command(flatten)]
    common: Common,
}

impl ProfileCommand {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        anyhow::ensure!(self.prompt + self.decode > 0, "-p 0 -n 0: nothing to run");
        let model = self.common.open()?;
        let options = EngineOptions {
            max_tokens: self.prompt.max(self.depth).clamp(1, 512),
            routes: self.routes.route.clone(),
            ..self.common.engine_options()
        };
        let mut loaded = self.common.load(&model, options)?;
        let (all, most) = (self.depth + self.prompt + self.decode, loaded.engine.context_size());
        anyhow::ensure!(all <= most, "-p, -n and --depth: the context is {most}");
        let guard = interrupt::Guard::arm();
        let progress = Progress::new("profiling", Unit::Things("tokens"));
        // Ids that any vocabulary has, different from each other as far as it goes.
        let vocab = u32::try_from(model.vocab()).unwrap_or(u32::MAX).max(1);
        let tokens: Vec<u32> = (0..all as u32).map(|i| i.wrapping_mul(7919) % vocab).collect();
        let prefill = |context: &mut Context, n: usize| -> anyhow::Result<()> {
            if n > 0 {
                // What the cache holds already is not run again.
                context.prefill(&tokens[..n], &mut |_, _| !guard.hit())?;
            }
            progress.set(n as u64, all as u64);
            if guard.hit() { Err(Interrupted.into()) } else { Ok(()) }
        };
        prefill(&mut loaded.context, self.depth)?;
        loaded.backend.count(true);
        let before = loaded.backend.profile();
        if self.prompt > 0 {
            prefill(&mut loaded.context, self.depth + self.prompt)?;
        }
        for n in self.depth + self.prompt..all {
            loaded.context.step(&tokens[n..=n], RowsWanted::Last)?;
            progress.set(n as u64 + 1, all as u64);
            if guard.hit() {
                return Err(Interrupted.into());
            }
        }
        drop(progress);
        let kernels = since(&before, loaded.backend.profile());
        anyhow::ensure!(
            !kernels.is_empty(),
            "backend `{}` counts nothing; use -b hip:sim, or `greta bench` for speed",
            loaded.backend.name()
        );
        if self.common.json {
            let rows: Vec<_> = kernels.iter().map(row_json).collect();
            json::print(&json!({
                "settings": loaded.settings(&self.common),
                "device": loaded.backend.describe(),
                "prompt": self.prompt,
                "decode": self.decode,
                "depth": self.depth,
                "kernels": rows,
            }))?;
        } else {
            output::print(&table(&kernels))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What was counted after `before`.
fn since(before: &[KernelProfile], now: Vec<KernelProfile>) -> Vec<KernelProfile> {
    let less = |mut k: KernelProfile| {
        if let Some(b) = before.iter().find(|b| (&b.module, &b.kernel) == (&k.module, &k.kernel)) {
            k.launches -= b.launches.min(k.launches);
            k.seconds = (k.seconds - b.seconds).max(0.0);
            for (name, n) in &mut k.counters {
                let was = b.counters.iter().find(|c| c.0 == *name).map_or(0, |c| c.1);
                *n -= was.min(*n);
            }
        }
        k
    };
    now.into_iter().map(less).filter(|k| k.launches > 0).collect()
}

fn row_json(k: &KernelProfile) -> serde_json::Value {
    let counters: serde_json::Map<_, _> = k.counters.iter().map(|(n, v)| (n.to_string(), json!(v))).collect();
    json!({"module": k.module, "kernel": k.kernel, "launches": k.launches, "seconds": k.seconds, "counters": counters})
}

/// Counters with a column of their own.
const SHOWN: [(&str, &str); 9] = [
    ("instructions", "instr"),
    ("valu", "valu"),
    ("salu", "salu"),
    ("mfma", "mfma"),
    ("dot", "dot"),
    ("lds", "lds"),
    ("lds_conflict_cycles", "conflicts"),
    ("bytes_read", "read"),
    ("bytes_written", "written"),
];

/// What a GPU's driver times: how long, and how fast that moves the bytes and does the operations there are at least.
fn timed(kernels: &[KernelProfile]) -> String {
    let head = ["kernel", "module", "runs", "seconds", "share", "µs a run", "bytes", "GB/s", "Top/s"];
    let mut rows = vec![head.map(String::from).to_vec()];
    let all = kernels.iter().map(|k| k.seconds).sum::<f64>();
    let mut line = |name: &str, module: &str, launches: u64, seconds: f64, bytes: u64, operations: u64| {
        let per = |n: f64, of: f64| if of > 0.0 { n / of } else { 0.0 };
        rows.push(vec![
            name.into(),
            module.into(),
            launches.to_string(),
            format!("{seconds:.4}"),
            format!("{:.1} %", 100.0 * per(seconds, all)),
            format!("{:.2}", 1e6 * per(seconds, launches as f64)),
            output::bytes(bytes),
            format!("{:.0}", per(bytes as f64, seconds) / 1e9),
            format!("{:.2}", per(operations as f64, seconds) / 1e12),
        ]);
    };
    for k in kernels {
        line(&k.kernel, &k.module, k.launches, k.seconds, count(k, "bytes"), count(k, "operations"));
    }
    let sum = |of: &dyn Fn(&KernelProfile) -> u64| kernels.iter().map(of).sum();
    line("all", "", sum(&|k| k.launches), all, sum(&|k| count(k, "bytes")), sum(&|k| count(k, "operations")));
    let right: Vec<bool> = (0..rows[0].len()).map(|i| i >= 2).collect();
    output::table(&rows, &right)
}

fn count(k: &KernelProfile, name: &str) -> u64 {
    k.counters.iter().find(|(n, _)| *n == name).map_or(0, |(_, v)| *v)
}

fn table(kernels: &[KernelProfile]) -> String {
    if !kernels.iter().any(|k| k.counters.iter().any(|(n, _)| *n == "instructions")) {
        return timed(kernels);
    }
    let mut rows = vec![["kernel", "module", "runs", "seconds"].map(String::from).to_vec()];
    rows[0].extend(SHOWN.iter().map(|(_, title)| title.to_string()));
    let mut sums = [0; SHOWN.len()];
    let line = |head: [String; 4], values: &[u64; SHOWN.len()]| {
        let mut row = head.to_vec();
        row.extend(values.iter().zip(SHOWN).map(
            |(&v, (name, _))| {
                if name.starts_with("bytes") { output::bytes(v) } else { short(v) }
            },
        ));
        row
    };
    for k in kernels {
        let values = SHOWN.map(|(name, _)| count(k, name));
        sums.iter_mut().zip(values).for_each(|(s, v)| *s += v);
        let seconds = format!("{:.3}", k.seconds);
        rows.push(line([k.kernel.clone(), k.module.clone(), k.launches.to_string(), seconds], &values));
    }
    let (launches, seconds) = kernels.iter().fold((0, 0.0), |(l, s), k| (l + k.launches, s + k.seconds));
    rows.push(line(["all".into(), String::new(), launches.to_string(), format!("{seconds:.3}")], &sums));
    let right: Vec<bool> = (0..rows[0].len()).map(|i| i >= 2).collect();
    output::table(&rows, &right)
}

/// A count in three or four digits.
fn short(n: u64) -> String {
    match n {
        10_000_000_000.. => format!("{:.1}G", n as f64 / 1e9),
        10_000_000.. => format!("{:.1}M", n as f64 / 1e6),
        10_000.. => format!("{:.1}k", n as f64 / 1e3),
        _ => n.to_string(),
    }
}
