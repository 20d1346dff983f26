//! `greta profile`: what each kernel costs.

use crate::args::Common;
use crate::progress::{Progress, Unit};
use crate::{interrupt, json, output};
use greta::EngineOptions;
use greta::backends::KernelProfile;
use serde_json::json;
use std::process::ExitCode;

/// Show what each kernel costs: time, instructions, shared-memory conflicts, bytes
///
/// Runs a prompt and some decode steps on the backend and adds up, kernel by kernel, what its driver counts. On hip:sim these
/// are the instructions of the machine code that a gfx942 would execute, and the bytes its lanes ask memory for: a
/// kernel's cost without a GPU. Times there are the emulator's, not a GPU's.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  greta profile -b hip:sim
  greta profile -b hip:sim -p 64 -n 0      # a prompt of 64 tokens alone
  greta profile -b hip:sim -p 0 -n 1 --json | jq '.kernels[0]'")]
pub struct ProfileCommand {
    /// Tokens of the prompt
    #[arg(short, long, value_name = "N", default_value_t = 16)]
    prompt: usize,
    /// Decode steps after it
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1)]
    decode: usize,
    #[command(flatten)]
    common: Common,
}

impl ProfileCommand {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let steps = self.prompt + self.decode;
        anyhow::ensure!(steps > 0, "-p 0 -n 0: nothing to run");
        let model = self.common.open()?;
        let options = EngineOptions { max_tokens: self.prompt.clamp(1, 512), ..self.common.engine_options() };
        let mut loaded = self.common.load(&model, options)?;
        anyhow::ensure!(
            steps <= loaded.engine.context_size(),
            "-p and -n: the context is {}",
            loaded.engine.context_size()
        );
        loaded.backend.count(true);
        let guard = interrupt::Guard::arm();
        let progress = Progress::new("profiling", Unit::Things("tokens"));
        // Ids that any vocabulary has, different from each other as far as it goes.
        let vocab = u32::try_from(model.vocab()).unwrap_or(u32::MAX).max(1);
        let tokens: Vec<u32> = (0..steps as u32).map(|i| i.wrapping_mul(7919) % vocab).collect();
        let (prompt, decode) = tokens.split_at(self.prompt);
        let mut done = 0;
        for part in std::iter::once(prompt).chain(decode.chunks(1)).filter(|p| !p.is_empty()) {
            loaded.context.prefill(part, &mut |_, _| !guard.hit())?;
            done += part.len();
            progress.set(done as u64, steps as u64);
            if guard.hit() {
                return Ok(ExitCode::from(crate::errors::INTERRUPTED));
            }
        }
        drop(progress);
        let kernels = loaded.backend.profile();
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
                "kernels": rows,
            }))?;
        } else {
            output::print(&table(&kernels))?;
        }
        Ok(ExitCode::SUCCESS)
    }
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

fn table(kernels: &[KernelProfile]) -> String {
    let mut rows = vec![["kernel", "module", "runs", "seconds"].map(String::from).to_vec()];
    rows[0].extend(SHOWN.iter().map(|(_, title)| title.to_string()));
    let get = |k: &KernelProfile, name: &str| k.counters.iter().find(|(n, _)| *n == name).map_or(0, |(_, v)| *v);
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
        let values = SHOWN.map(|(name, _)| get(k, name));
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
