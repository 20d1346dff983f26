//! Judging a run that another engine made, under that engine's own arithmetic.
//!
//! An imported run brings no graph and no arithmetic of greta's. It is judged by the model's graph without greta's
//! arithmetic passes, op by op, each on the operands the run itself recorded. Ops whose operands are not in it are
//! `NOT_JUDGED`, with the reason, never passed.
//!
//! Two arithmetics are known:
//! - `f32`: f32 products and sums, in an order nobody states. The ops' own references and bounds hold.
//! - `llama-q8`: llama.cpp's CPU backend. An activation row is quantised to 8 bits before a product with a quantised
//!   weight, to half precision before one with a half-precision weight: see [`blocks`] for the formats and [`llama`] for
//!   reference and bound.

pub mod blocks;
pub mod llama;

use crate::judge::{Arithmetic, Judge, JudgeOptions, Progress, Verdict};
use crate::{Recording, TraceError};
use greta_backend::taps::row_cols;
use greta_graph::{Graph, Pipeline, Value};
use greta_models::Model;
use greta_ops::DType;
use std::sync::Arc;

/// A foreign engine's arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignArith {
    /// f32 products and sums.
    F32,
    /// llama.cpp's CPU backend.
    LlamaQ8,
}

impl ForeignArith {
    /// Every one, by name.
    pub const ALL: [(&'static str, ForeignArith); 2] =
        [("f32", ForeignArith::F32), ("llama-q8", ForeignArith::LlamaQ8)];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            ForeignArith::F32 => "f32",
            ForeignArith::LlamaQ8 => "llama-q8",
        }
    }
}

impl std::str::FromStr for ForeignArith {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(name, _)| *name == s).map(|(_, a)| *a);
        found.ok_or_else(|| format!("unknown foreign arithmetic `{s}`; known: f32, llama-q8"))
    }
}

/// What to judge, and by which arithmetic.
#[derive(Clone, Debug, Default)]
pub struct ForeignOptions {
    /// The arithmetic; `None`: the one the run names.
    pub arith: Option<ForeignArith>,
    /// Which nodes and rows.
    pub judge: JudgeOptions,
}

/// The graph a foreign run is held against: the model's own, its dequantisations fused, with a KV cache in f32.
pub fn graph(model: &Model) -> Result<Graph, TraceError> {
    Ok(Pipeline::exact().run(&model.graph(DType::F32)?)?.0)
}

/// The arithmetic to judge a run by.
pub fn arithmetic(recording: &Recording, options: &ForeignOptions) -> Result<ForeignArith, TraceError> {
    let named = &recording.info.arith;
    options.arith.map_or_else(
        || {
            named.parse().map_err(|_| {
                let known = ForeignArith::ALL.map(|(n, _)| n).join(" or ");
                TraceError::NotJudged(format!("the run's arithmetic is `{named}`; import it again and say which to judge it by (`greta import --arith`): {known}"))
            })
        },
        Ok,
    )
}

/// Judges every op of an imported run whose operands are in it.
///
/// A run whose rows have other widths than the model's is of another model: `TRACE_MISMATCH`.
pub fn judge(
    recording: &Recording,
    model: &Model,
    options: &ForeignOptions,
    progress: Progress<'_>,
) -> Result<Verdict, TraceError> {
    let graph = Arc::new(graph(model)?);
    same_widths(recording, &graph)?;
    let arithmetic: &dyn Arithmetic = match arithmetic(recording, options)? {
        ForeignArith::F32 => &llama::Plain,
        ForeignArith::LlamaQ8 => &llama::Llama,
    };
    let weights = model.weights();
    let mut judge = Judge::of(recording, graph, &*weights, options.judge.clone());
    judge.arithmetic = Some(arithmetic);
    judge.run(progress)
}

fn same_widths(recording: &Recording, graph: &Graph) -> Result<(), TraceError> {
    for series in &recording.series {
        let Some(node) = graph.find(&series.name) else { continue };
        let cols = row_cols(graph, Value { node, out: 0 });
        // Samples do not say how wide their rows are, but no sample is wider than its row.
        let fits = if series.dtype.is_some() { series.cols == cols } else { series.cols <= cols };
        if !fits {
            return Err(TraceError::Mismatch(format!(
                "`{}` has rows of {} values in this run and of {cols} in the model: they are not of one model",
                series.name, series.cols
            )));
        }
    }
    Ok(())
}
