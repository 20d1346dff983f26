//! Whole rows of every llama.cpp op: a JSON list of ops and, beside it, `.rows.f32` with the last token's row of each.
//!
//! ```text
//! {"model": FILE, "engine": "llama.cpp …", "tokens": [ids],
//!  "ops": [{"name", "op", "ne": [4], "src": [[name, type], …], "min", "max", "row_offset", "row_len"}, …]}
//! ```
//! Offsets and lengths count little-endian f32 values; `min` and `max` are those of the whole tensor.

use super::collect::{Collector, Given, fresh};
use super::{ImportOptions, format_error};
use crate::error::io;
use crate::{At, ModelInfo, PromptInfo, Recording, RunInfo, SCHEMA, Status, TraceError, names};
use greta_backend::Phase;
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    model: String,
    engine: String,
    tokens: Vec<u32>,
    ops: Vec<OpRow>,
}

#[derive(Deserialize)]
struct OpRow {
    name: String,
    op: String,
    #[serde(default)]
    src: Vec<(String, String)>,
    min: Option<f64>,
    max: Option<f64>,
    row_offset: usize,
    row_len: usize,
}

pub(super) fn read(path: &Path, options: &ImportOptions) -> Result<Recording, TraceError> {
    let text = std::fs::read_to_string(path).map_err(io(path, "reading"))?;
    let file: File = serde_json::from_str(&text).map_err(|e| format_error(path, e.to_string()))?;
    let rows_path = path.with_extension("rows.f32");
    let rows = std::fs::read(&rows_path).map_err(io(&rows_path, "reading the rows"))?;
    let Some(&last) = file.tokens.last() else { return Err(format_error(path, "`tokens` is empty")) };
    let at = At {
        prompt: 0,
        order: 0,
        phase: Phase::Prefill,
        step: 0,
        seq: 0,
        position: file.tokens.len() as u32 - 1,
        token: i32::try_from(last).map_err(|_| format_error(path, format!("token {last} is no token id")))?,
    };
    let id = options.prompt_id.clone().unwrap_or_else(|| prompt_id(path));
    let info = RunInfo {
        schema: SCHEMA,
        engine: file.engine.clone(),
        status: Status::Complete,
        model: ModelInfo { path: file.model.clone().into(), ..ModelInfo::default() },
        arith: arith(&file.ops).into(),
        prompts: vec![PromptInfo { id, text: None, tokens: file.tokens.clone(), decoded: Vec::new() }],
        ..RunInfo::default()
    };
    let mut c = Collector::new(info);
    for o in &file.ops {
        let bytes = o.row_offset.checked_mul(4).zip(o.row_len.checked_mul(4));
        let bytes = bytes.and_then(|(from, len)| rows.get(from..from.checked_add(len)?));
        let bytes = bytes.filter(|b| !b.is_empty()).ok_or_else(|| {
            let what = format!("`{}` ({}): values {} to {} are not in it", o.name, o.op, o.row_offset, o.row_len);
            format_error(&rows_path, format!("{what}; it has {}", rows.len() / 4))
        })?;
        let values: Vec<f32> = bytes.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
        inside(o, &values).map_err(|e| format_error(&rows_path, e))?;
        let name = names::llama_cpp(&o.name, &o.op).unwrap_or_else(|| fresh(&c.rec, &o.name, at));
        let given = Given {
            name,
            op: &o.op,
            from: &o.name,
            offset: 4 * o.row_offset as u64,
            cols: Some(values.len()),
            at,
            row: at.position,
            values: &values,
            stats: None,
        };
        c.add(given).map_err(|e| format_error(path, e))?;
    }
    Ok(c.rec)
}

/// Rows of another file would lie outside what the tensor's own extremes allow.
fn inside(o: &OpRow, values: &[f32]) -> Result<(), String> {
    let (min, max) = (o.min.unwrap_or(f64::NEG_INFINITY), o.max.unwrap_or(f64::INFINITY));
    // Decimal digits may have lost the last bit.
    let near = |v: f64| if v.is_finite() { 1e-6 * v.abs() } else { 0.0 };
    match values.iter().find(|&&v| f64::from(v) < min - near(min) || f64::from(v) > max + near(max)) {
        Some(v) => Err(format!(
            "`{}` ({}) holds {v}, but its tensor lies between {min} and {max}: these rows belong to another run",
            o.name, o.op
        )),
        None => Ok(()),
    }
}

/// Products with weights that are not f32 are made on 8-bit or half-precision activations.
fn arith(ops: &[OpRow]) -> &'static str {
    let mut weights = ops.iter().filter(|o| o.op == "MUL_MAT").filter_map(|o| o.src.first());
    match weights.any(|(name, ty)| name.ends_with(".weight") && ty != "f32") {
        true => "llama-q8",
        false => "f32",
    }
}

/// `p4_sys` of `trace.p4_sys.Q4_1.json`.
fn prompt_id(path: &Path) -> String {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let mut parts = stem.split('.');
    match (parts.next(), parts.next()) {
        (Some("trace"), Some(id)) => id.into(),
        _ => stem.clone(),
    }
}
