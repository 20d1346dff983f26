//! What taps hand out: rows of values, each with where it comes from.

use crate::{BackendError, Batch};
use greta_graph::{Detail, Graph, NodeId, PhaseFilter, TapRows, TapSpec, Value};
use greta_ops::{DType, Dim, Stats};
use serde::{Deserialize, Serialize};

/// What a step does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Runs a prompt, or a chunk of one.
    #[default]
    Prefill,
    /// Runs one token after a prompt.
    Decode,
}

impl Phase {
    /// `prefill` or `decode`.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Prefill => "prefill",
            Phase::Decode => "decode",
        }
    }
}

/// Which step of a run this is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepAt {
    /// What it does.
    pub phase: Phase,
    /// Its number within the phase: the chunk of a prompt, or the decode step.
    pub step: u32,
    /// Whether it ends the prompt.
    pub ends_prompt: bool,
}

impl StepAt {
    /// What a batch looks like from outside: one token a sequence, none at the start of one, is a decode step.
    pub fn of(batch: &Batch) -> StepAt {
        let alone = batch.seqs.iter().enumerate().all(|(i, s)| !batch.seqs[..i].contains(s));
        let decode = alone && batch.positions.iter().all(|&p| p > 0);
        StepAt {
            phase: if decode { Phase::Decode } else { Phase::Prefill },
            step: 0,
            ends_prompt: !batch.rows.is_empty(),
        }
    }
}

/// Values of a tapped row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RowData<'a> {
    /// Reals; a half-precision cache's are widened.
    Real(&'a [f32]),
    /// Integers: graph inputs, and the codes of quantised activations.
    Int(&'a [i32]),
}

impl RowData<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            RowData::Real(v) => v.len(),
            RowData::Int(v) => v.len(),
        }
    }

    /// Whether only statistics were kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One row of one tapped value.
#[derive(Clone, Copy, Debug)]
pub struct TapRow<'a> {
    /// The value; its node has the name that records bear.
    pub value: Value,
    /// Row of the value.
    pub row: usize,
    /// Index of the token in the step's batch.
    pub token_index: usize,
    /// Sequence, position and id of the token.
    pub seq: u32,
    /// Logical position in the sequence.
    pub position: u32,
    /// The token's id.
    pub token: i32,
    /// The step.
    pub at: StepAt,
    /// Type of the stored value.
    pub dtype: DType,
    /// Values in the whole row, kept or not.
    pub cols: usize,
    /// Statistics of the whole row.
    pub stats: &'a Stats,
    /// The first values of the row, as many as the tap keeps.
    pub values: RowData<'a>,
    /// The kernel that made the value.
    pub route: &'a str,
    /// The buffer it lies in: `slot3`, `input`, or a cache's name.
    pub buffer: &'a str,
    /// Byte offset of the row in the buffer.
    pub offset: u64,
}

/// Where tapped rows go. Rows come after the step, tap by tap in the graph's order.
pub trait TapSink {
    /// Whether rows are wanted at all; a backend skips its taps where they are not.
    fn active(&self) -> bool {
        true
    }

    /// Takes a row. An error ends the run.
    fn row(&mut self, row: &TapRow<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// Takes no rows.
pub struct NoTaps;

impl TapSink for NoTaps {
    fn active(&self) -> bool {
        false
    }

    fn row(&mut self, _: &TapRow<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }
}

/// Rows of a value that a tap records in a step: `(row of the value, index of its token in the batch)`.
pub fn tapped_rows(spec: &TapSpec, rows: Dim, at: StepAt, batch: &Batch, out: &mut Vec<(u32, u32)>) {
    out.clear();
    let passes = |last: bool| {
        spec.phases.iter().any(|p| match p {
            PhaseFilter::Every => true,
            PhaseFilter::Prefill => at.phase == Phase::Prefill,
            PhaseFilter::PrefillLast => at.phase == Phase::Prefill && at.ends_prompt && last,
            PhaseFilter::Decode => at.phase == Phase::Decode,
            PhaseFilter::DecodeStep(n) => at.phase == Phase::Decode && at.step == *n,
        })
    };
    if !passes(true) {
        return;
    }
    let n = batch.tokens.len();
    let last = |i: usize| (i + 1..n).all(|j| batch.seqs[j] != batch.seqs[i]);
    let takes = |i: usize| match &spec.rows {
        TapRows::All => passes(false) || last(i),
        TapRows::Last => last(i),
        TapRows::Positions(list) => list.contains(&(batch.positions[i] as u32)) && (passes(false) || last(i)),
    };
    match rows {
        Dim::Tokens => out.extend((0..n).filter(|&i| takes(i)).map(|i| (i as u32, i as u32))),
        Dim::Rows => {
            let wanted = batch.rows.iter().enumerate().filter(|(_, t)| takes(**t as usize));
            out.extend(wanted.map(|(r, &t)| (r as u32, t as u32)));
        }
        // A value that no token decides: recorded once, with the step's last token.
        _ if n > 0 => out.push((0, n as u32 - 1)),
        _ => {}
    }
}

/// Values a tap keeps of a row of `cols`.
pub fn kept(detail: Detail, cols: usize) -> usize {
    match detail {
        Detail::Stats => 0,
        Detail::Sample(n) => cols.min(n as usize),
        Detail::Full => cols,
    }
}

/// Which dimension tells a value's rows apart: a cache has a row a token, a list of integers has one value a row.
pub fn row_dim(g: &Graph, v: Value) -> Dim {
    let d = g.desc(v);
    match d.dims.first() {
        Some(Dim::Slots) => Dim::Tokens,
        Some(d @ (Dim::Tokens | Dim::Rows)) => *d,
        _ => Dim::Const(1),
    }
}

/// Values in a row of a value as taps see it.
pub fn row_cols(g: &Graph, v: Value) -> usize {
    let d = g.desc(v);
    match (d.dims.len(), d.dims.first()) {
        (1, Some(Dim::Tokens | Dim::Rows)) => 1,
        _ => d.cols().constant().unwrap_or(0),
    }
}

/// The error of a sink.
pub fn sink_error(g: &Graph, tap: NodeId, source: Box<dyn std::error::Error + Send + Sync>) -> BackendError {
    BackendError::Tap { tap: g.node(tap).name.clone(), source }
}
