//! `greta inspect`: what a model file holds.

use crate::args::Common;
use crate::errors::Interrupted;
use crate::interrupt::Guard;
use crate::progress::{Progress, Unit};
use crate::{json, names, output};
use greta::Model;
use greta::gguf::{Array, Gguf, TensorInfo, Value};
use greta::ops::{DType, quant};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Print a model file's metadata and tensors
///
/// Works for any GGUF file whose tensor types greta reads, also of a model that greta can't run: it then says why. Long arrays are abbreviated.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  greta inspect -m model.gguf
  greta inspect -m model.gguf --check     # exit code 1 if a weight is NaN or infinite
  greta inspect --json | jq .types")]
pub struct Inspect {
    /// Read every tensor and report NaN and infinite values; exit code 1 if there are any
    #[arg(long)]
    check: bool,
    /// Model file, as -m
    #[arg(value_name = "FILE", conflicts_with = "model")]
    file: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// A tensor with a value that is no number.
struct Problem {
    tensor: String,
    dtype: DType,
    /// The first such block; of a plain type, the first such value.
    block: usize,
}

impl Inspect {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let threads = self.common.thread_count()?;
        let path = self.file.clone().map_or_else(|| self.common.model_path(), Ok)?;
        let gguf = Gguf::open(&path)?;
        // The header alone decides whether greta runs the model: its architecture, its shapes, its vocabulary.
        let runs = Model::open(&path).and_then(|m| {
            m.graph(self.common.kv.dtype())?;
            m.tokenizer().map(|_| ())
        });
        let why = runs.err().map(|e| e.to_string());
        let problems = if self.check { Some(check(&gguf, threads)?) } else { None };
        if self.common.json {
            json::print(&as_json(&gguf, why.as_deref(), problems.as_deref()))?;
        } else {
            output::print(&as_text(&gguf, why.as_deref(), problems.as_deref()))?;
        }
        Ok(if problems.is_some_and(|p| !p.is_empty()) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Reads every tensor on several threads; problems in the order of the file.
fn check(gguf: &Gguf, threads: usize) -> anyhow::Result<Vec<Problem>> {
    let (tensors, guard) = (gguf.tensors(), Guard::arm());
    let (next, read, found) = (AtomicUsize::new(0), AtomicU64::new(0), Mutex::new(BTreeMap::new()));
    let all: u64 = tensors.iter().map(|t| t.bytes).sum();
    let work = || {
        while let Some((i, t)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, tensors.get(i)?))) {
            if guard.hit() {
                break;
            }
            if let Some(block) = quant_first_non_finite(gguf, t) {
                let problem = Problem { tensor: t.name.clone(), dtype: t.dtype, block };
                found.lock().unwrap_or_else(|e| e.into_inner()).insert(i, problem);
            }
            gguf.release(t);
            read.fetch_add(t.bytes, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.clamp(1, 64)).map(|_| scope.spawn(work)).collect();
        let progress = Progress::new("checking", Unit::Bytes);
        while !workers.iter().all(|w| w.is_finished()) {
            progress.set(read.load(Ordering::Relaxed), all);
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    if guard.hit() {
        return Err(Interrupted.into());
    }
    Ok(found.into_inner().unwrap_or_else(|e| e.into_inner()).into_values().collect())
}

/// Integer tensors have nothing to check.
fn quant_first_non_finite(gguf: &Gguf, t: &TensorInfo) -> Option<usize> {
    if t.dtype.is_real() { quant::first_non_finite(t.dtype, gguf.bytes(t)) } else { None }
}

/// Tensors, values and bytes of each type, largest first.
fn types(gguf: &Gguf) -> Vec<(DType, usize, u64, u64)> {
    let mut sums: BTreeMap<DType, (usize, u64, u64)> = BTreeMap::new();
    for t in gguf.tensors() {
        let s = sums.entry(t.dtype).or_default();
        *s = (s.0 + 1, s.1 + t.cols() * t.rows(), s.2 + t.bytes);
    }
    let mut list: Vec<_> = sums.into_iter().map(|(t, (n, values, bytes))| (t, n, values, bytes)).collect();
    list.sort_by_key(|&(.., bytes)| std::cmp::Reverse(bytes));
    list
}

fn as_json(gguf: &Gguf, why: Option<&str>, problems: Option<&[Problem]>) -> serde_json::Value {
    let metadata =
        gguf.metadata().iter().map(|(k, v)| (k.to_owned(), value_json(v))).collect::<serde_json::Map<_, _>>();
    let tensors = gguf.tensors().iter().map(
        |t| json!({"name": t.name, "type": t.dtype.name(), "shape": t.dims, "offset": t.offset, "bytes": t.bytes}),
    );
    let types = types(gguf)
        .into_iter()
        .map(|(t, n, values, bytes)| json!({"type": t.name(), "tensors": n, "parameters": values, "bytes": bytes}));
    let mut out = json!({
        "file": gguf.path(),
        "bytes": gguf.file_len(),
        "version": gguf.version(),
        "alignment": gguf.alignment(),
        "model_type": names::model_type(gguf),
        "parameters": names::parameters(gguf),
        "runs": why.is_none(),
        "why_not": why,
        "metadata": metadata,
        "types": types.collect::<Vec<_>>(),
        "tensors": tensors.collect::<Vec<_>>(),
    });
    if let Some(problems) = problems {
        let list = problems.iter().map(|p| json!({"tensor": p.tensor, "type": p.dtype.name(), "block": p.block}));
        out["check"] = json!({"ok": problems.is_empty(), "problems": list.collect::<Vec<_>>()});
    }
    out
}

/// Elements of an array that are shown.
const SHOWN: usize = 8;

fn value_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Array(a) if a.len() > SHOWN => {
            json!({"array_of": a.element_name(), "length": a.len(), "first": elements(a)})
        }
        Value::Array(a) => elements(a).into(),
        Value::Bool(b) => (*b).into(),
        Value::String(s) => s.as_str().into(),
        Value::F32(v) => json!(v),
        Value::F64(v) => json!(v),
        other => match other.as_integer().map(|i| (u64::try_from(i), i64::try_from(i))) {
            Some((Ok(v), _)) => v.into(),
            Some((_, Ok(v))) => v.into(),
            _ => other.to_string().into(),
        },
    }
}

/// The first elements of an array.
fn elements(array: &Array) -> Vec<serde_json::Value> {
    macro_rules! take {
        ($($id:ident)*) => {
            match array {
                $(Array::$id(v) => v.iter().take(SHOWN).map(|x| json!(x)).collect(),)*
                Array::Bools(v) => v.iter().take(SHOWN).map(|x| json!(x)).collect(),
                Array::Strings(v) => v.iter().take(SHOWN).map(|x| json!(x)).collect(),
                Array::Arrays(v) => v.iter().take(SHOWN).map(|a| elements(a).into()).collect(),
            }
        };
    }
    take!(U8 I8 U16 I16 U32 I32 F32 U64 I64 F64)
}

fn as_text(gguf: &Gguf, why: Option<&str>, problems: Option<&[Problem]>) -> String {
    let mut out = format!("{}\n", gguf.path().display());
    let (size, parameters) = (output::bytes(gguf.file_len()), output::count(names::parameters(gguf)));
    out += &format!("GGUF version {}, {size}, {}, {parameters} parameters\n", gguf.version(), names::model_type(gguf));
    out += &why.map_or("greta runs it\n".into(), |why| format!("greta can't run it: {why}\n"));

    out += "\nmetadata\n";
    let rows: Vec<_> =
        gguf.metadata().iter().map(|(k, v)| vec![format!("  {k}"), v.type_name(), value_text(v)]).collect();
    out += &output::table(&rows, &[]);

    out += "\ntypes\n";
    let mut rows = vec![["  type", "tensors", "parameters", "bytes"].map(String::from).to_vec()];
    rows.extend(
        types(gguf)
            .into_iter()
            .map(|(t, n, values, bytes)| vec![format!("  {t}"), n.to_string(), values.to_string(), bytes.to_string()]),
    );
    out += &output::table(&rows, &[false, true, true, true]);

    out += "\ntensors\n";
    let mut rows = vec![["  name", "type", "shape", "bytes", "at byte"].map(String::from).to_vec()];
    rows.extend(gguf.tensors().iter().map(|t| {
        let shape = t.dims.iter().map(u64::to_string).collect::<Vec<_>>().join(" × ");
        vec![format!("  {}", t.name), t.dtype.to_string(), shape, t.bytes.to_string(), t.offset.to_string()]
    }));
    out += &output::table(&rows, &[false, false, true, true, true]);

    if let Some(problems) = problems {
        out += "\ncheck\n";
        for p in problems {
            let what = if p.dtype.is_quantized() { "block" } else { "value" };
            out += &format!("  {} ({}): NaN or infinite from {what} {} on\n", p.tensor, p.dtype, p.block);
        }
        if problems.is_empty() {
            out += "  every value is finite\n";
        }
    }
    out
}

/// A value in one line.
fn value_text(value: &Value) -> String {
    const LONGEST: usize = 100;
    let text = match value {
        Value::Array(a) => {
            let more = if a.len() > SHOWN { ", …" } else { "" };
            let list: Vec<_> = elements(a).iter().map(ToString::to_string).collect();
            format!("{}: [{}{more}]", a.len(), list.join(", "))
        }
        Value::String(s) => format!("{s:?}"),
        other => other.to_string(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
