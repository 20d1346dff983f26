//! What a run was: the contents of `run.json`.

use greta_graph::{TapMode, TapRequest};
use greta_models::{Arithmetic, Engine, EngineOptions, Model};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// Version of the run folder; raised when a reader of the old one would misread the new.
pub const SCHEMA: u32 = 1;

/// How far a run got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Still going on, or killed.
    #[default]
    Incomplete,
    /// All steps were run.
    Complete,
    /// Ended by an error, which this is.
    Failed(String),
}

/// A run, described so that it can be repeated and so that unlike runs are not compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What wrote it: `greta 0.1.0`, `llama.cpp …`.
    pub engine: String,
    /// How far it got.
    pub status: Status,
    /// The condition this run stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The model.
    pub model: ModelInfo,
    /// SHA-256 of the graph's text before passes, and of the executed plan without taps.
    pub graph: String,
    /// See `graph`.
    pub plan: String,
    /// The backend's name.
    pub backend: String,
    /// Its device.
    pub device: String,
    /// `exact`, `int8`, or a foreign engine's name for its own.
    pub arith: String,
    /// Type of the KV cache.
    pub kv: String,
    /// Tokens a sequence may have.
    pub context: usize,
    /// Most tokens of a step.
    pub chunk: usize,
    /// Passes switched off.
    #[serde(default)]
    pub without: Vec<String>,
    /// Which values taps saw.
    #[serde(default)]
    pub tap_mode: TapMode,
    /// Patterns, with rows, phases and detail.
    #[serde(default)]
    pub taps: Vec<TapInfo>,
    /// Kernels forced, as given.
    #[serde(default)]
    pub routes: Vec<String>,
    /// Faults injected, as text; only `greta faults` and `greta gate` make any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// The prompts, and the tokens that were to be run.
    pub prompts: Vec<PromptInfo>,
    /// Decode steps after each prompt; the first runs its last token again.
    pub decode_steps: u32,
    /// The `GRETA_*` variables that were set.
    #[serde(default)]
    pub flags: Vec<(String, String)>,
    /// The command line.
    #[serde(default)]
    pub command: Vec<String>,
    /// Operating system, processor family and threads.
    #[serde(default)]
    pub host: String,
    /// When it began, in seconds since 1970.
    #[serde(default)]
    pub started: u64,
    /// Steps with their times.
    #[serde(default)]
    pub steps: Vec<StepInfo>,
}

/// The model a run used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Where it was.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// SHA-256 of the file; empty where it was not computed.
    #[serde(default)]
    pub sha256: String,
    /// Its architecture.
    #[serde(default)]
    pub architecture: String,
}

/// A prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptInfo {
    /// Its name, such as `p4_sys`.
    pub id: String,
    /// Its text, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The tokens of the prompt.
    pub tokens: Vec<u32>,
    /// The tokens that decode steps after the first were fed.
    #[serde(default)]
    pub decoded: Vec<u32>,
}

impl PromptInfo {
    /// The token that belongs at a position, prompt first, then what was decoded.
    pub fn token(&self, position: usize) -> Option<u32> {
        self.tokens.iter().chain(&self.decoded).nth(position).copied()
    }
}

/// A pattern of taps, as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapInfo {
    /// Node names.
    pub pattern: String,
    /// Rows.
    pub rows: String,
    /// Phases.
    pub phases: Vec<String>,
    /// Detail.
    pub detail: String,
}

impl From<&TapRequest> for TapInfo {
    fn from(r: &TapRequest) -> Self {
        TapInfo {
            pattern: r.pattern.to_string(),
            rows: r.spec.rows.to_string(),
            phases: r.spec.phases.iter().map(|p| p.to_string()).collect(),
            detail: r.spec.detail.to_string(),
        }
    }
}

/// A step and what it took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepInfo {
    /// The prompt's index.
    pub prompt: u32,
    /// `prefill` or `decode0` …
    pub phase: String,
    /// Tokens.
    pub tokens: usize,
    /// Seconds.
    pub seconds: f64,
}

impl RunInfo {
    /// Describes what an engine is about to run.
    pub fn of(engine: &Engine, model: &Model, backend: (&str, String), o: &EngineOptions<'_>) -> RunInfo {
        let bytes = std::fs::metadata(model.gguf().path()).map_or(0, |m| m.len());
        let raw = model.graph(o.kv).map(|g| fingerprint(&g.to_string())).unwrap_or_default();
        let plan = engine.executable().plan().graph().without_taps();
        RunInfo {
            schema: SCHEMA,
            engine: format!("greta {}", env!("CARGO_PKG_VERSION")),
            status: Status::Incomplete,
            model: ModelInfo {
                path: model.gguf().path().into(),
                bytes,
                sha256: String::new(),
                architecture: model.architecture().into(),
            },
            graph: raw,
            plan: plan.map(|g| fingerprint(&g.to_string())).unwrap_or_default(),
            backend: backend.0.into(),
            device: backend.1,
            arith: engine.arithmetic().to_string(),
            kv: o.kv.name().to_lowercase(),
            context: engine.context_size(),
            chunk: o.max_tokens,
            without: o.without.clone(),
            tap_mode: o.tap_mode,
            taps: o.taps.iter().map(TapInfo::from).collect(),
            routes: o.routes.iter().map(|r| r.to_string()).collect(),
            faults: o.faults.iter().map(|f| f.to_string()).collect(),
            flags: std::env::vars().filter(|(k, _)| k.starts_with("GRETA_")).collect(),
            host: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            started: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            ..RunInfo::default()
        }
    }

    /// Whether the run was made by greta, whose bits can be compared.
    pub fn is_greta(&self) -> bool {
        self.engine.starts_with("greta ")
    }

    /// The arithmetic, if it is one of greta's.
    pub fn arithmetic(&self) -> Option<Arithmetic> {
        self.arith.parse().ok().filter(|_| self.is_greta())
    }
}

/// SHA-256 of a text, in hexadecimal.
pub fn fingerprint(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// SHA-256 of bytes read to their end, in hexadecimal.
pub fn sha256(mut from: impl std::io::Read) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
