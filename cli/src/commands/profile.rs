//! `greta profile`: what each kernel costs.

use crate::args::Common;
use crate::errors::Interrupted;
use crate::perfetto::{self, Span};
use crate::progress::{Progress, Unit};
use crate::taps::RouteFlags;
use crate::{interrupt, json, output};
use anyhow::Context as _;
use greta::backends::{Backend, DeviceRates, KernelProfile, RowsWanted};
use greta::{Context, EngineOptions};
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
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
///
/// On a GPU every launch lies between two of its events, by itself, so that times add up to more than a step takes otherwise.
/// `bytes` and operations are what a kernel has to move and to do at least; `of read` is their rate's share of what a kernel
/// that only reads reaches on this GPU, `of int8` of one that only multiplies 8-bit integers on the matrix units, both
/// measured first (`greta backends --bandwidth`). The larger of the two says how far a kernel is from its floor; what is in a
/// cache can be read faster than memory.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  greta profile -b hip:sim
  greta profile -b hip:sim -p 64 -n 0      # a prompt of 64 tokens alone
  greta profile -b hip:sim -p 0 -n 1 --depth 200 --route 'blk.*.attn=attention-tile'
  greta profile -b hip -p 0 -n 8 --perfetto decode.json    # open it on ui.perfetto.dev
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
    /// Also write every launch with its node, start and time to this file, for Perfetto or chrome://tracing
    #[arg(long, value_name = "FILE")]
    perfetto: Option<PathBuf>,
    /// Replace the file that --perfetto names
    #[arg(long, requires = "perfetto")]
    force: bool,
    #[command(flatten)]
    routes: RouteFlags,
    #[command(flatten)]
    common: Common,
}

impl ProfileCommand {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        anyhow::ensure!(self.prompt > 0 || self.decode > 0, "-p 0 -n 0: nothing to run");
        if let Some(file) = &self.perfetto {
            output::new_file(file, self.force)?;
        }
        let model = self.common.open()?;
        let options = EngineOptions {
            max_tokens: self.prompt.max(self.depth).clamp(1, 512),
            routes: self.routes.route.clone(),
            ..self.common.engine_options()
        };
        let mut loaded = self.common.load(&model, options)?;
        let (all, most) =
            (self.depth.saturating_add(self.prompt).saturating_add(self.decode), loaded.engine.context_size());
        anyhow::ensure!(
            all <= most,
            "-p, -n and --depth are {all} tokens together, the context is {most}; -c makes it larger, up to {}",
            model.context()
        );
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
        let rates = loaded.backend.rates().and_then(|measured| {
            let left_out = |e: &_| output::warn(&format!("what the device can do at best was not measured: {e}"));
            measured.inspect_err(left_out).ok()
        });
        loaded.backend.count(true);
        let before = loaded.backend.profile();
        let mut spans = Vec::new();
        let mut span = |name: String, backend: &dyn Backend, known: &mut usize| {
            if self.perfetto.is_some() {
                let runs = backend.timeline(*known);
                *known += runs.len();
                spans.push(Span { name, runs });
            }
        };
        let mut known = 0;
        if self.prompt > 0 {
            prefill(&mut loaded.context, self.depth + self.prompt)?;
            span("prefill".into(), &*loaded.backend, &mut known);
        }
        for n in self.depth + self.prompt..all {
            loaded.context.step(&tokens[n..=n], RowsWanted::Last)?;
            span(format!("decode {}", n - self.depth - self.prompt), &*loaded.backend, &mut known);
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
                "rates": rates.map(|r| json!({"copy": r.copy, "read": r.read, "matrix": r.matrix})),
                "prompt": self.prompt,
                "decode": self.decode,
                "depth": self.depth,
                "kernels": rows,
            }))?;
        } else {
            output::print(&table(&kernels, rates.as_ref()))?;
        }
        // What was measured is said in any case.
        if let Some(file) = &self.perfetto {
            let title = format!("{}, {}", loaded.backend.describe(), model.gguf().path().display());
            self.save(file, &perfetto::trace(&title, &spans))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn save(&self, file: &Path, trace: &serde_json::Value) -> anyhow::Result<()> {
        let write = || -> anyhow::Result<()> {
            let to = match self.force {
                true => File::create(file)?,
                false => File::create_new(file)?,
            };
            let mut to = std::io::BufWriter::new(to);
            serde_json::to_writer(&mut to, trace)?;
            Ok(to.flush()?)
        };
        write().with_context(|| format!("{}: the timeline can't be written", file.display()))
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
    let mut list: Vec<KernelProfile> = now.into_iter().map(less).filter(|k| k.launches > 0).collect();
    list.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    list
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
fn timed(kernels: &[KernelProfile], rates: Option<&DeviceRates>) -> String {
    let mut head = vec!["kernel", "module", "runs", "seconds", "share", "µs a run", "bytes", "GB/s", "Top/s"];
    head.extend(rates.iter().flat_map(|_| ["of read", "of int8"]));
    let mut rows = vec![head.into_iter().map(String::from).collect::<Vec<_>>()];
    let all = kernels.iter().map(|k| k.seconds).sum::<f64>();
    let mut line = |name: &str, module: &str, launches: u64, seconds: f64, bytes: u64, operations: u64| {
        let per = |n: f64, of: f64| if of > 0.0 { n / of } else { 0.0 };
        let (read, done) = (per(bytes as f64, seconds), per(operations as f64, seconds));
        let mut row = vec![
            name.into(),
            module.into(),
            launches.to_string(),
            format!("{seconds:.4}"),
            format!("{:.1} %", 100.0 * per(seconds, all)),
            format!("{:.2}", 1e6 * per(seconds, launches as f64)),
            output::bytes(bytes),
            format!("{:.0}", read / 1e9),
            format!("{:.2}", done / 1e12),
        ];
        let share = |rate: f64, best: f64| format!("{:.1} %", 100.0 * per(rate, best));
        row.extend(rates.iter().flat_map(|r| [share(read, r.read), share(done, r.matrix)]));
        rows.push(row);
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

fn table(kernels: &[KernelProfile], rates: Option<&DeviceRates>) -> String {
    if !kernels.iter().any(|k| k.counters.iter().any(|(n, _)| *n == "instructions")) {
        return timed(kernels, rates);
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
