//! A folder of one array a point: `.npy` and `.safetensors` files named after the point, and an optional `meta.json`.
//!
//! A file's name (a tensor's, in a `.safetensors` of several) is a node, or a point of any vocabulary of
//! [`crate::names`], with its layer where it needs one. Arrays are `[cols]`, one row, or `[tokens, cols]`; leading
//! dimensions of 1 are dropped. `meta.json` (or `run.json`):
//!
//! ```text
//! {"engine", "arith", "model", "prompt_id", "phase", "tokens": [ids], "positions": [of the rows],
//!  "layout": "hf" or "gguf", "heads", "kv_heads"}
//! ```
//! every key optional. As many rows as tokens are the whole prompt, one row is its last token; any other number needs
//! `positions`. Without tokens, ops that read tokens or positions can't be judged.

use super::collect::{Collector, Given};
use super::layout::{self, Heads, Layout};
use super::npy::{self, Array};
use super::{ImportOptions, NO_POSITION, format_error};
use crate::error::io;
use crate::{At, ModelInfo, PromptInfo, Recording, RunInfo, SCHEMA, Status, TraceError, names};
use greta_backend::Phase;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Default, Deserialize)]
struct Meta {
    engine: Option<String>,
    arith: Option<String>,
    model: Option<String>,
    prompt_id: Option<String>,
    phase: Option<String>,
    tokens: Option<Vec<u32>>,
    positions: Option<Vec<u32>>,
    layout: Option<Layout>,
    heads: Option<usize>,
    kv_heads: Option<usize>,
}

/// An array and where it was read.
struct Point {
    path: PathBuf,
    name: String,
    array: Array,
}

pub(super) fn read(folder: &Path, options: &ImportOptions) -> Result<Recording, TraceError> {
    let (meta_path, meta) = meta(folder)?;
    let mut points = points(folder)?;
    if points.is_empty() {
        return Err(format_error(folder, "holds no .npy and no .safetensors file"));
    }
    let ids = points.iter().position(|p| ["tokens", "input_ids"].contains(&p.name.as_str()));
    let ids = ids.map(|i| points.remove(i));
    let tokens = match (&meta.tokens, ids) {
        (Some(t), _) => t.clone(),
        (None, Some(p)) => token_ids(&p)?,
        (None, None) => Vec::new(),
    };
    for p in &mut points {
        flatten(p)?;
    }
    let (phase, step) = phase(meta.phase.as_deref()).map_err(|e| format_error(&meta_path, e))?;
    let most = points.iter().map(rows_of).max().unwrap_or(0);
    let info = RunInfo {
        schema: SCHEMA,
        engine: meta.engine.clone().unwrap_or_else(|| "unknown".into()),
        status: Status::Complete,
        model: ModelInfo { path: meta.model.clone().unwrap_or_default().into(), ..ModelInfo::default() },
        arith: meta.arith.clone().unwrap_or_else(|| "unknown".into()),
        prompts: vec![PromptInfo {
            id: options.prompt_id.clone().or(meta.prompt_id.clone()).unwrap_or_else(|| "prompt".into()),
            text: None,
            tokens: tokens.clone(),
            decoded: Vec::new(),
        }],
        ..RunInfo::default()
    };
    let layout = options.layout.or(meta.layout).unwrap_or_default();
    let heads = options.heads.or(meta.heads.map(|h| Heads { heads: h, kv_heads: meta.kv_heads.unwrap_or(h) }));
    points.sort_by_key(|p| names::order(&names::any(&p.name).unwrap_or_else(|| p.name.clone())));
    let mut c = Collector::new(info);
    for p in &points {
        let name = names::any(&p.name).unwrap_or_else(|| p.name.clone());
        let n = rows_of(p);
        let cols = p.array.values.len() / n.max(1);
        let positions = positions(n, most, tokens.len(), meta.positions.as_deref());
        let positions = positions.map_err(|e| format_error(&p.path, format!("`{}` {e}", p.name)))?;
        for (r, (row, position)) in p.array.values.chunks_exact(cols).zip(positions).enumerate() {
            let mut values: Vec<f32> = row.iter().map(|&v| v as f32).collect();
            if layout == Layout::Hf {
                layout::to_gguf(&name, heads, &mut values).map_err(|e| format_error(&p.path, e))?;
            }
            let token = tokens.get(position as usize).and_then(|&t| i32::try_from(t).ok()).unwrap_or(-1);
            let order = if phase == Phase::Prefill { 0 } else { 1 + step };
            let at = At { prompt: 0, order, phase, step, seq: 0, position, token };
            let offset = 4 * (r * cols) as u64;
            let given = Given {
                name: name.clone(),
                op: "",
                from: &p.name,
                offset,
                cols: Some(cols),
                at,
                row: r as u32,
                values: &values,
                stats: None,
            };
            c.add(given).map_err(|e| format_error(&p.path, e))?;
        }
    }
    Ok(c.rec)
}

fn meta(folder: &Path) -> Result<(PathBuf, Meta), TraceError> {
    for name in ["meta.json", "run.json"] {
        let path = folder.join(name);
        if path.exists() {
            let text = std::fs::read_to_string(&path).map_err(io(&path, "reading"))?;
            let meta = serde_json::from_str(&text).map_err(|e| format_error(&path, e.to_string()))?;
            return Ok((path, meta));
        }
    }
    Ok((folder.join("meta.json"), Meta::default()))
}

fn points(folder: &Path) -> Result<Vec<Point>, TraceError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io(folder, "listing"))? {
        files.push(entry.map_err(io(folder, "listing"))?.path());
    }
    files.sort();
    let mut all = Vec::new();
    for path in files {
        let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let kind = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        if !["npy", "safetensors"].contains(&kind.as_str()) {
            continue;
        }
        let bytes = std::fs::read(&path).map_err(io(&path, "reading"))?;
        if kind == "npy" {
            let array = npy::parse(&bytes).map_err(|e| format_error(&path, e))?;
            all.push(Point { path, name: stem, array });
            continue;
        }
        let file = SafeTensors::deserialize(&bytes).map_err(|e| format_error(&path, e.to_string()))?;
        let mut tensors = file.tensors();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        for (tensor, view) in &tensors {
            let values = decode(view.dtype(), view.data())
                .ok_or_else(|| format_error(&path, format!("`{tensor}` is of type {:?}", view.dtype())))?;
            // A lone tensor is often called `x` or `tensor`; then the file's name says the point.
            let named = tensors.len() > 1 || names::any(tensor).is_some();
            let name = if named { tensor.clone() } else { stem.clone() };
            all.push(Point { path: path.clone(), name, array: Array { shape: view.shape().into(), values } });
        }
    }
    Ok(all)
}

fn decode(dtype: Dtype, data: &[u8]) -> Option<Vec<f64>> {
    fn list<const N: usize>(data: &[u8], f: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        data.as_chunks::<N>().0.iter().map(|c| f(*c)).collect()
    }
    Some(match dtype {
        Dtype::F32 => list(data, |c| f64::from(f32::from_le_bytes(c))),
        Dtype::F64 => list(data, f64::from_le_bytes),
        Dtype::F16 => list(data, |c| half::f16::from_le_bytes(c).to_f64()),
        Dtype::BF16 => list(data, |c| half::bf16::from_le_bytes(c).to_f64()),
        Dtype::I32 => list(data, |c| f64::from(i32::from_le_bytes(c))),
        Dtype::I64 => list(data, |c| i64::from_le_bytes(c) as f64),
        _ => return None,
    })
}

fn token_ids(p: &Point) -> Result<Vec<u32>, TraceError> {
    let id = |&v: &f64| if v >= 0.0 && v.fract() == 0.0 && v < 2e9 { Ok(v as u32) } else { Err(v) };
    let ids: Result<Vec<u32>, f64> = p.array.values.iter().map(id).collect();
    ids.map_err(|v| format_error(&p.path, format!("`{}` holds {v}, which is no token id", p.name)))
}

/// Drops leading dimensions of 1 and holds the rest to one row or a matrix.
fn flatten(p: &mut Point) -> Result<(), TraceError> {
    let given = p.array.shape.clone();
    while p.array.shape.len() > 2 && p.array.shape[0] == 1 {
        p.array.shape.remove(0);
    }
    match p.array.shape.as_slice() {
        [] => Err(format_error(&p.path, format!("`{}` is a single number, not a row", p.name))),
        s if s.contains(&0) => Err(format_error(&p.path, format!("`{}` of shape {given:?} is empty", p.name))),
        [_] | [_, _] => Ok(()),
        _ => Err(format_error(
            &p.path,
            format!("`{}` has shape {given:?}; expected [cols] or [tokens, cols], of one sequence", p.name),
        )),
    }
}

fn rows_of(p: &Point) -> usize {
    if p.array.shape.len() < 2 { 1 } else { p.array.shape[0] }
}

fn phase(name: Option<&str>) -> Result<(Phase, u32), String> {
    match name {
        None | Some("prefill" | "prefill_last") => Ok((Phase::Prefill, 0)),
        Some(other) => {
            let step = other.strip_prefix("decode").map(|n| if n.is_empty() { "0" } else { n });
            let step = step.and_then(|n| n.parse().ok());
            step.map(|n| (Phase::Decode, n))
                .ok_or_else(|| format!("`phase` is `{other}`; known: prefill, prefill_last, decode0, decode1 …"))
        }
    }
}

/// The positions of `rows` rows.
fn positions(rows: usize, most: usize, tokens: usize, given: Option<&[u32]>) -> Result<Vec<u32>, String> {
    if let Some(list) = given.filter(|l| l.len() == rows) {
        return match list.iter().find(|&&p| tokens > 0 && p as usize >= tokens) {
            Some(p) => Err(format!("is given position {p}; there are {tokens} tokens")),
            None => Ok(list.to_vec()),
        };
    }
    // The last row wanted, as logits often are.
    if let (1, Some(&last)) = (rows, given.and_then(|l| l.last())) {
        return Ok(vec![last]);
    }
    let all = if tokens > 0 { tokens } else { most };
    match rows {
        1 if all == 1 && tokens == 0 => Ok(vec![NO_POSITION]),
        n if n == all => Ok((0..n as u32).collect()),
        1 => Ok(vec![all as u32 - 1]),
        n => {
            let what =
                if tokens > 0 { "the prompt has tokens".into() } else { format!("other points have {most} rows") };
            let count = if tokens > 0 { format!(" ({tokens})") } else { String::new() };
            Err(format!("has {n} rows, but {what}{count}; say which in meta.json's `positions`"))
        }
    }
}
