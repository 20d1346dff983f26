//! What several test modules use: skips, data files, models and backends.

use greta_backend::Backend;
use greta_cpu::{Cpu, CpuOptions};
use greta_hip::compile::Clang;
use greta_hip::{Hip, HipOptions};
use greta_models::synth::{self, Mix, SynthSpec};
use greta_models::{Engine, EngineOptions, Model};
use libtest_mimic::{Completion, Failed, Trial};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Something a test may lack.
#[derive(Clone, Copy)]
pub struct Need {
    /// The word in `GRETA_REQUIRE`.
    pub key: &'static str,
    /// What gets it.
    pub install: &'static str,
}

pub const GOLDEN: Need = Need {
    key: "golden",
    install: "it is made with llama.cpp and not in this repository: export GRETA_GOLDEN=FOLDER (with tiny/, smollm2/, text/)",
};
pub const SMOLLM2: Need =
    Need { key: "smollm2", install: "run .ci/models (about 5 minutes, needs Python and a C++ compiler)" };

pub const CLANG: Need =
    Need { key: "clang", install: "apt-get install clang-22 lld-22 llvm-22, or export GRETA_CLANG=PROGRAM" };

pub const CHROMIUM: Need = Need { key: "chromium", install: "apt-get install chromium, or export CHROMIUM=PROGRAM" };

/// Nothing installs one, so that `GRETA_REQUIRE=all` does not ask for it.
pub const GPU: Need =
    Need { key: "gpu", install: "run the tests on a machine with an AMD or NVIDIA GPU and its driver" };

/// Why a test did not run, or why it failed.
pub enum Outcome {
    Lacks(Need, PathBuf),
    Failed(String),
}

impl<E: std::error::Error> From<E> for Outcome {
    fn from(e: E) -> Self {
        Outcome::Failed(e.to_string())
    }
}

/// A test that may lack something.
pub fn trial(name: impl Into<String>, run: impl FnOnce() -> Result<(), Outcome> + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || match run() {
        Ok(()) => Ok(Completion::Completed),
        Err(Outcome::Failed(text)) => Err(Failed::from(text)),
        Err(Outcome::Lacks(need, path)) => {
            let text = format!("{} is not there; {}", path.display(), need.install);
            let required = std::env::var("GRETA_REQUIRE").unwrap_or_default();
            match required.split(',').any(|r| r == need.key || r == "all" && need.key != GPU.key) {
                true => Err(Failed::from(format!("required by GRETA_REQUIRE: {text}"))),
                false => Ok(Completion::ignored_with(format!("SKIP: {text}"))),
            }
        }
    })
}

/// Fails with every line of a table that failed.
pub fn all(failures: Vec<String>) -> Result<(), Outcome> {
    if failures.is_empty() {
        Ok(())
    } else {
        Err(Outcome::Failed(format!("{} failed:\n{}", failures.len(), failures.join("\n"))))
    }
}

/// Whether an error is no larger than its bound; NaN is not.
pub fn within(error: f64, bound: f64) -> bool {
    error <= bound
}

/// A file that must be there.
pub fn file(need: Need, path: PathBuf) -> Result<PathBuf, Outcome> {
    if path.exists() { Ok(path) } else { Err(Outcome::Lacks(need, path)) }
}

/// A reference file: `GRETA_GOLDEN`, or the folder `shared/golden` beside the checkout, or the few kept in `tests/data`.
pub fn golden(name: &str) -> Result<PathBuf, Outcome> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kept = root.join("tests/data/golden").join(name);
    if kept.exists() {
        return Ok(kept);
    }
    let base = std::env::var_os("GRETA_GOLDEN").map_or_else(|| root.join("../shared/golden"), PathBuf::from);
    file(GOLDEN, base.join(name))
}

/// A SmolLM2 file: `GRETA_MODELS`, or where `.ci/models` puts them.
pub fn smollm2(quant: &str) -> Result<PathBuf, Outcome> {
    let base = std::env::var_os("GRETA_MODELS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/models"), PathBuf::from);
    file(SMOLLM2, base.join(format!("SmolLM2-135M-Instruct.{quant}.gguf")))
}

/// The CPU backend with guards.
pub fn cpu(threads: usize) -> Result<Cpu, Outcome> {
    Ok(Cpu::new(CpuOptions { threads: Some(threads), guard: true, ..CpuOptions::default() })?)
}

/// The HIP backend in the emulator.
pub fn hip_sim(threads: usize) -> Result<Hip, Outcome> {
    if let Err(e) = Clang::get() {
        return Err(Outcome::Lacks(CLANG, PathBuf::from(format!("clang for gfx942 ({e})"))));
    }
    Ok(Hip::open(":sim", HipOptions::threads(threads))?)
}

/// What the HIP backend is tested on: a label, and how it is opened.
pub type HipKind = (&'static str, fn() -> Result<Hip, Outcome>);

/// The emulator, and the GPU of this machine if it has one; that it has none is said by `hip/gpu`.
pub fn hips() -> Vec<HipKind> {
    let mut list: Vec<HipKind> = vec![("hip-sim", || hip_sim(1))];
    if gpu().is_ok() {
        list.push(("hip-gpu", gpu));
    }
    list
}

/// The HIP backend on the GPU of this machine.
pub fn gpu() -> Result<Hip, Outcome> {
    let mut why = String::new();
    for which in [":amd", ":nvidia"] {
        match Hip::open(which, HipOptions::threads(1)) {
            Ok(hip) => return Ok(hip),
            Err(e) => why += &format!("{e}; "),
        }
    }
    Err(Outcome::Lacks(GPU, PathBuf::from(format!("a GPU ({})", why.trim_end_matches("; ")))))
}

/// Opens and compiles a model.
pub fn engine(path: &Path, backend: &dyn Backend, options: &EngineOptions) -> Result<Engine, Outcome> {
    Ok(Engine::new(Arc::new(Model::open(path)?), backend, options)?)
}

/// A JSON file.
pub fn json(path: &Path) -> Result<serde_json::Value, Outcome> {
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

/// A tiny model with random weights of this mix, made once.
pub fn synth_tiny(mix: &str) -> Result<PathBuf, Outcome> {
    static MADE: Mutex<()> = Mutex::new(());
    let _one = MADE.lock().unwrap_or_else(|e| e.into_inner());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tiny-{mix}-{}.gguf", std::process::id()));
    if !path.exists() {
        let bad = || Outcome::Failed(format!("no such preset or mix: tiny, {mix}"));
        let mut spec = SynthSpec::preset("tiny").ok_or_else(bad)?;
        spec.mix = Mix::from_name(mix).ok_or_else(bad)?;
        synth::write(&spec, &path, &mut |_, _| true)?;
    }
    Ok(path)
}
