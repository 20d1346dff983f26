//! Small model files: one that is whole, and what becomes of it.

use greta::gguf::{Gguf, GgufWriter, Value};
use greta::ops::DType;
use greta::synth::{self, Mix, SynthSpec};
use libtest_mimic::Failed;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Files that every test of this module reads and none changes.
pub struct Models {
    /// Where they lie; tests put files of their own here too.
    pub folder: PathBuf,
    /// A whole model.
    pub whole: PathBuf,
}

/// Tokens the whole model's context holds.
pub const CONTEXT: usize = 256;

/// The models, made when first asked for.
pub fn models() -> Result<&'static Models, Failed> {
    static MADE: OnceLock<Result<Models, String>> = OnceLock::new();
    MADE.get_or_init(|| make().map_err(|e| e.to_string())).as_ref().map_err(|e| Failed::from(e.as_str()))
}

fn make() -> Result<Models, Box<dyn std::error::Error>> {
    // Kept after the run, where cargo keeps what tests leave; the next run of the same process id replaces it.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let whole = folder.join("whole.gguf");
    let tiny = SynthSpec::preset("tiny").ok_or("no preset `tiny`")?;
    synth::write(&SynthSpec { context: CONTEXT as u32, mix: Mix::Q8_0, ..tiny }, &whole, &mut |_, _| true)?;
    Ok(Models { folder, whole })
}

impl Models {
    /// A file with these bytes.
    pub fn file(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, Failed> {
        let path = self.folder.join(name);
        fs::write(&path, bytes)?;
        Ok(path)
    }

    /// The whole model with its bytes changed.
    pub fn patched(&self, name: &str, patch: impl FnOnce(&mut Vec<u8>)) -> Result<PathBuf, Failed> {
        let mut bytes = fs::read(&self.whole)?;
        patch(&mut bytes);
        self.file(name, &bytes)
    }

    /// The whole model with its metadata changed, and without the tensors whose names `keep` refuses.
    pub fn rewritten(
        &self,
        name: &str,
        mut meta: impl FnMut(&str, &Value) -> Option<Value>,
        keep: impl Fn(&str) -> bool,
    ) -> Result<PathBuf, Failed> {
        let path = self.folder.join(name);
        let old = Gguf::open(&self.whole)?;
        let mut new = GgufWriter::create(&path)?;
        for (key, value) in old.metadata().iter() {
            if let Some(value) = meta(key, value) {
                new.add_metadata(key, value)?;
            }
        }
        let kept: Vec<_> = old.tensors().iter().filter(|t| keep(&t.name)).collect();
        for t in &kept {
            new.add_tensor(&t.name, &t.dims, t.dtype)?;
        }
        new.write_header()?;
        for t in &kept {
            new.write_data(&t.name, old.bytes(t))?;
        }
        new.finish()?;
        Ok(path)
    }

    /// The whole model without a vocabulary.
    pub fn without_vocabulary(&self, name: &str) -> Result<PathBuf, Failed> {
        self.rewritten(name, |key, value| (!key.starts_with("tokenizer.")).then(|| value.clone()), |_| true)
    }

    /// The whole model with a NaN in the `at`-th value of its first plain tensor, and that tensor's name.
    pub fn with_nan(&self, name: &str, at: usize) -> Result<(PathBuf, String), Failed> {
        let gguf = Gguf::open(&self.whole)?;
        let t = gguf.tensors().iter().find(|t| t.dtype == DType::F32).ok_or("no F32 tensor")?;
        let start = t.offset as usize + 4 * at;
        let path = self.patched(name, |bytes| bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes()))?;
        Ok((path, t.name.clone()))
    }
}
