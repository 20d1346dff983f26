//! Flags that several commands share.

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use greta::sampling::{Sampler, SamplerConfig};
use greta::{Arithmetic, GenerateOptions, Launching, ModelError};
use std::hash::{BuildHasher, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Which model, and how it is run.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Model and backend")]
pub struct Common {
    /// Model file (GGUF) [default: $GRETA_MODEL, else SmolLM2-135M-Instruct, downloaded once]
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Backend; `greta backends` lists them
    #[arg(short, long, value_name = "NAME", default_value = greta::BACKENDS[0].name)]
    pub backend: String,
    /// Arithmetic: int8 quantises activations, exact keeps them f32
    #[arg(long, value_enum, default_value_t = Arith::Int8)]
    pub arith: Arith,
    /// Type of the KV cache
    #[arg(long, value_enum, default_value_t = Kv::F16)]
    pub kv: Kv,
    /// Most tokens of a sequence [default: the smaller of the model's and 4096]
    #[arg(
        short,
        long,
        value_name = "TOKENS",
        env = "GRETA_MAX_SEQ_LEN",
        hide_env_values = true,
        allow_negative_numbers = true
    )]
    pub context: Option<usize>,
    /// Threads [default: physical cores]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    pub threads: Option<usize>,
    #[command(flatten)]
    pub launch: LaunchFlag,
    /// Passes over the graph to switch off; `greta graph --passes` lists them
    #[arg(long, value_name = "PASS", value_delimiter = ',')]
    pub without: Vec<String>,
    /// Print one JSON value on standard output and nothing else
    #[arg(long)]
    pub json: bool,
}

/// How a GPU's kernels are launched.
#[derive(Args, Clone, Debug)]
pub struct LaunchFlag {
    /// Launch every kernel of every step, where a GPU would replay a captured decode step; `--eager=wait` also waits
    /// after each, so that a device's error names its kernel; `--eager=log` names each before, for errors that end the process
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "launch")]
    pub eager: Option<Eager>,
}

/// `--eager`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Eager {
    /// One launch after the other
    Launch,
    /// The same, each waited for
    Wait,
    /// The same, each named on standard error before
    Log,
}

impl LaunchFlag {
    /// What it asks of a backend.
    pub fn launching(&self) -> Launching {
        match self.eager {
            None => Launching::Replayed,
            Some(Eager::Launch) => Launching::Eager,
            Some(Eager::Wait) => Launching::Waited,
            Some(Eager::Log) => Launching::Named,
        }
    }
}

impl Common {
    /// These flags for another greta: all but the model, which is another path elsewhere, and `--json`, which is this
    /// command's own. Taken apart field by field, so that none is forgotten.
    pub fn flags(&self) -> Vec<String> {
        let Common { model: _, backend, arith, kv, context, threads, launch, without, json: _ } = self;
        let mut args = vec![
            format!("--backend={backend}"),
            format!("--arith={}", value_name(arith)),
            format!("--kv={}", value_name(kv)),
        ];
        args.extend(context.map(|n| format!("--context={n}")));
        args.extend(threads.map(|n| format!("--threads={n}")));
        args.extend(launch.eager.map(|how| format!("--eager={}", value_name(&how))));
        args.extend(without.iter().map(|p| format!("--without={p}")));
        args
    }
}

/// A value of an enumeration as the command line has it.
pub fn value_name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or(String::new(), |v| v.get_name().to_string())
}

/// `--arith`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arith {
    /// Dequantised weights, f32 products in a fixed order
    Exact,
    /// Activations quantised to 8 bits before products with quantised weights
    Int8,
}

impl From<Arith> for Arithmetic {
    fn from(a: Arith) -> Self {
        match a {
            Arith::Exact => Arithmetic::Exact,
            Arith::Int8 => Arithmetic::Int8,
        }
    }
}

/// `--kv`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kv {
    /// Half precision
    F16,
    /// Single precision
    F32,
}

impl Kv {
    /// The type.
    pub fn dtype(self) -> greta::ops::DType {
        match self {
            Kv::F16 => greta::ops::DType::F16,
            Kv::F32 => greta::ops::DType::F32,
        }
    }
}

/// A prompt from one of three places.
#[derive(Args, Clone, Debug)]
#[group(id = "source", required = true, multiple = false)]
pub struct Prompt {
    /// The prompt; `-` reads it from standard input
    #[arg(value_name = "PROMPT")]
    pub prompt: Option<String>,
    /// Read the prompt from a file; every byte counts, a final newline too
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

impl Prompt {
    /// The text; empty if no place was named, which clap allows only where another flag stands in.
    pub fn read(&self) -> anyhow::Result<String> {
        match (&self.prompt, &self.file) {
            (Some(p), _) if p == "-" => read_stdin(),
            (Some(p), _) => Ok(p.clone()),
            (None, Some(file)) => read_text(file),
            (None, None) => Ok(String::new()),
        }
    }
}

/// A text file, whole.
pub fn read_text(path: &Path) -> anyhow::Result<String> {
    if path.as_os_str() == "-" {
        return read_stdin();
    }
    let name = path.display().to_string();
    let file = std::fs::File::open(path).with_context(|| format!("{name}: the file can't be read"))?;
    utf8(read_all(file, &name)?, &name)
}

/// Devices never end, and no text is this long.
const LONGEST_TEXT: u64 = 1 << 30;

fn read_all(from: impl Read, name: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(LONGEST_TEXT + 1).read_to_end(&mut bytes).with_context(|| format!("{name}: can't be read"))?;
    anyhow::ensure!(bytes.len() as u64 <= LONGEST_TEXT, "{name}: longer than 1 GiB, which no prompt is");
    Ok(bytes)
}

fn read_stdin() -> anyhow::Result<String> {
    utf8(read_all(std::io::stdin().lock(), "standard input")?, "standard input")
}

fn utf8(bytes: Vec<u8>, place: &str) -> anyhow::Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let byte = e.as_bytes().get(at).copied().unwrap_or_default();
        anyhow::anyhow!("{place}: not valid UTF-8 at byte {at} (0x{byte:02x}); save the text as UTF-8")
    })
}

/// How tokens are chosen, and when to stop. Names and defaults are llama.cpp's.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Generation")]
pub struct Generation {
    /// Temperature; 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.8, allow_negative_numbers = true)]
    pub temp: f32,
    /// Choose among the K likeliest tokens; 0 or less: all
    #[arg(long, value_name = "K", default_value_t = 40, allow_negative_numbers = true)]
    pub top_k: i64,
    /// Choose among the likeliest tokens that together have this probability; 1: all
    #[arg(long, value_name = "P", default_value_t = 0.95, allow_negative_numbers = true)]
    pub top_p: f32,
    /// Drop tokens less likely than this share of the likeliest; 0: none
    #[arg(long, value_name = "P", default_value_t = 0.05, allow_negative_numbers = true)]
    pub min_p: f32,
    /// Penalty on tokens seen lately; 1: none
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    pub repeat_penalty: f32,
    /// How many tokens back the penalty looks; 0: none, -1: all
    #[arg(long, value_name = "N", default_value_t = 64, allow_negative_numbers = true)]
    pub repeat_last_n: i64,
    /// Start of the random numbers; -1: another each time
    #[arg(
        long,
        value_name = "SEED",
        default_value = "-1",
        env = "GRETA_SEED",
        hide_env_values = true,
        allow_negative_numbers = true
    )]
    pub seed: Seed,
    /// Go on past end-of-generation tokens
    #[arg(long)]
    pub ignore_eos: bool,
}

/// `--seed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(Option<u64>);

impl FromStr for Seed {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "-1" => Ok(Seed(None)),
            _ => s.parse().map(|n| Seed(Some(n))).map_err(|_| "expected a whole number from 0 to 2^64-1, or -1".into()),
        }
    }
}

impl Generation {
    /// The sampler these flags describe.
    pub fn sampler(&self) -> Result<Sampler, ModelError> {
        let repeat_last_n = match self.repeat_last_n {
            -1 => usize::MAX,
            n => usize::try_from(n).map_err(|_| {
                ModelError::Options(format!("--repeat-last-n {n} makes no sense; give 0 or more, or -1 for all"))
            })?,
        };
        Ok(Sampler::new(SamplerConfig {
            temperature: self.temp,
            top_k: usize::try_from(self.top_k).unwrap_or(0),
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            repeat_last_n,
            seed: Some(self.seed.0.unwrap_or_else(fresh_seed)),
        })?)
    }

    /// When to stop, given `-n`.
    pub fn options(&self, n: i64) -> Result<GenerateOptions, ModelError> {
        let max_tokens = match n {
            -1 => None,
            _ => Some(usize::try_from(n).map_err(|_| {
                ModelError::Options(format!(
                    "-n {n} makes no sense; give 0 or more, or -1 to go on until the model ends"
                ))
            })?),
        };
        Ok(GenerateOptions { max_tokens, ignore_eos: self.ignore_eos })
    }
}

/// A seed nobody chose. 32 bits: every JSON reader keeps them, and people can type them again.
fn fresh_seed() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish() >> 32
}
