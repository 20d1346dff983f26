//! What a run's taps recorded, in memory: every comparison and every verdict reads this.

use crate::facts::Facts;
use crate::{RunInfo, TraceError};
use greta_backend::{Phase, RowData, StepAt, TapRow, TapSink};
use greta_graph::{Graph, Kind, Value};
use greta_ops::{DType, Stats};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Where in a run a row belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct At {
    /// Index of the prompt in [`RunInfo::prompts`].
    pub prompt: u32,
    /// The step, counted over the whole prompt: prefill chunks, then decode steps. Later steps have larger numbers.
    pub order: u32,
    /// What the step does.
    pub phase: Phase,
    /// Its number within the phase.
    pub step: u32,
    /// The sequence.
    pub seq: u32,
    /// Logical position in the sequence.
    pub position: u32,
    /// The token at that position.
    pub token: i32,
}

impl At {
    /// The position of a row whose own a foreign run does not tell.
    pub const NO_POSITION: u32 = u32::MAX;
    /// The token of a row whose own a foreign run does not tell; any negative id is none.
    pub const NO_TOKEN: i32 = -1;

    /// `prefill` or `decode0`, `decode1` …
    pub fn phase_name(&self) -> String {
        phase_name(self.phase, self.step)
    }
}

/// `prefill`, or `decode` and the step's number.
pub fn phase_name(phase: Phase, step: u32) -> String {
    match phase {
        Phase::Prefill => "prefill".into(),
        Phase::Decode => format!("decode{step}"),
    }
}

/// One recorded row, without its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Where it belongs.
    pub at: At,
    /// Row of the value within its step.
    pub row: u32,
    /// The kernel that made it.
    pub route: Arc<str>,
    /// The buffer it lay in.
    pub buffer: Arc<str>,
    /// Byte offset in the buffer.
    pub offset: u64,
    /// Statistics of the whole row.
    pub stats: Stats,
    /// Its values within [`Series::reals`] or [`Series::ints`].
    pub data: Range<usize>,
    /// What its op adds: a norm's sums, a product's weight, the pages that attention read.
    pub facts: Option<Arc<Facts>>,
}

/// Every recorded row of one value, in the order of recording.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// The value's name: its node's, with `.1` for a second output.
    pub name: String,
    /// The node's name.
    pub node: String,
    /// Which output of the node.
    pub out: u8,
    /// The op's name, `input` for an input, empty where a foreign run does not say.
    pub op: String,
    /// How the value is stored.
    pub dtype: Option<DType>,
    /// Values in a whole row.
    pub cols: usize,
    /// The rows.
    pub rows: Vec<Row>,
    /// Values of the rows, for real types.
    pub reals: Vec<f32>,
    /// Values of the rows, for integer types.
    pub ints: Vec<i32>,
}

impl Series {
    /// Whether the value is of integers.
    pub fn is_int(&self) -> bool {
        matches!(self.dtype, Some(DType::I32 | DType::I8))
    }

    /// How many values of a row were kept.
    pub fn kept(&self, row: &Row) -> usize {
        row.data.len()
    }

    /// Whether the whole row was kept.
    pub fn is_whole(&self, row: &Row) -> bool {
        row.data.len() == self.cols
    }

    /// The kept values of a row as reals.
    pub fn values(&self, row: &Row) -> Vec<f64> {
        match self.is_int() {
            true => self.ints[row.data.clone()].iter().map(|&v| f64::from(v)).collect(),
            false => self.reals[row.data.clone()].iter().map(|&v| f64::from(v)).collect(),
        }
    }

    /// Adds a row.
    pub fn push(&mut self, at: At, row: u32, source: Origin, stats: Stats, values: RowData<'_>) {
        let data = match values {
            RowData::Real(v) => {
                let start = self.reals.len();
                self.reals.extend_from_slice(v);
                start..self.reals.len()
            }
            RowData::Int(v) => {
                let start = self.ints.len();
                self.ints.extend_from_slice(v);
                start..self.ints.len()
            }
        };
        let Origin { route, buffer, offset } = source;
        self.rows.push(Row { at, row, route, buffer, offset, stats, data, facts: None });
    }

    /// The row of this step, sequence and position.
    pub fn find(&self, prompt: u32, order: u32, seq: u32, position: u32) -> Option<&Row> {
        let key = (prompt, order, seq, position);
        // Rows come step by step; within a step in the order of the batch.
        let sort = |r: &Row| (r.at.prompt, r.at.order, r.at.seq, r.at.position);
        let i = self.rows.partition_point(|r| (r.at.prompt, r.at.order) < (prompt, order));
        self.rows[i..].iter().take_while(|r| (r.at.prompt, r.at.order) == (prompt, order)).find(|r| sort(r) == key)
    }

    /// Every row of a step.
    pub fn of_step(&self, prompt: u32, order: u32) -> &[Row] {
        let from = self.rows.partition_point(|r| (r.at.prompt, r.at.order) < (prompt, order));
        let to = self.rows.partition_point(|r| (r.at.prompt, r.at.order) <= (prompt, order));
        &self.rows[from..to]
    }

    /// The row of this step's batch.
    pub fn at_row(&self, prompt: u32, order: u32, row: u32) -> Option<&Row> {
        self.of_step(prompt, order).iter().find(|r| r.row == row)
    }

    /// The latest row of a sequence and position that was recorded in this step or before it.
    pub fn latest(&self, prompt: u32, order: u32, seq: u32, position: u32) -> Option<&Row> {
        let i = self.rows.partition_point(|r| (r.at.prompt, r.at.order) <= (prompt, order));
        let rows = self.rows[..i].iter().rev().take_while(|r| r.at.prompt == prompt);
        rows.into_iter().find(|r| r.at.seq == seq && r.at.position == position)
    }
}

/// Where a row came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// The kernel.
    pub route: Arc<str>,
    /// The buffer.
    pub buffer: Arc<str>,
    /// Byte offset in it.
    pub offset: u64,
}

/// A run, recorded.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// What was run, and how.
    pub info: RunInfo,
    /// The executed graph, without taps; a foreign run has none.
    pub graph: Option<Arc<Graph>>,
    /// The values, in the graph's order.
    pub series: Vec<Series>,
    by_name: HashMap<String, usize>,
}

impl Recording {
    /// An empty recording.
    pub fn new(info: RunInfo, graph: Option<Arc<Graph>>) -> Recording {
        Recording { info, graph, series: Vec::new(), by_name: HashMap::new() }
    }

    /// A recording of these values.
    pub fn of(info: RunInfo, graph: Option<Arc<Graph>>, series: Vec<Series>) -> Recording {
        let by_name = series.iter().enumerate().map(|(i, s)| (s.name.clone(), i)).collect();
        Recording { info, graph, series, by_name }
    }

    /// The rows of a value.
    pub fn get(&self, name: &str) -> Option<&Series> {
        self.by_name.get(name).map(|&i| &self.series[i])
    }

    /// The rows of a value, made by `new` if there are none yet.
    pub fn entry(&mut self, name: &str, new: impl FnOnce() -> Series) -> &mut Series {
        let i = match self.by_name.get(name) {
            Some(&i) => i,
            None => {
                self.series.push(new());
                self.by_name.insert(name.into(), self.series.len() - 1);
                self.series.len() - 1
            }
        };
        &mut self.series[i]
    }

    /// All rows recorded.
    pub fn rows(&self) -> usize {
        self.series.iter().map(|s| s.rows.len()).sum()
    }
}

/// What a value's records say about it, whatever the row.
pub fn describe(g: &Graph, v: Value) -> Series {
    let node = g.node(v.node);
    let op = match &node.kind {
        Kind::Op(op) => op.spec().name(),
        Kind::Input { .. } => "input",
        _ => "",
    };
    Series {
        name: g.value_name(v),
        node: node.name.clone(),
        out: v.out,
        op: op.into(),
        dtype: Some(g.desc(v).dtype),
        cols: greta_backend::taps::row_cols(g, v),
        ..Series::default()
    }
}

/// A step that is about to run.
#[derive(Clone, Copy, Debug)]
pub struct StepBegin<'a> {
    /// The prompt's index.
    pub prompt: u32,
    /// The step's number over the whole prompt.
    pub order: u32,
    /// What it does.
    pub at: StepAt,
    /// The cache pages of the sequence, by position.
    pub pages: &'a [usize],
}

/// Where a tracer puts rows: memory, a folder, or both.
pub trait RowSink {
    /// A step begins; its rows follow.
    fn begin(&mut self, _step: &StepBegin<'_>) -> Result<(), TraceError> {
        Ok(())
    }

    /// The step is over; all its rows were handed in.
    fn end(&mut self) -> Result<(), TraceError> {
        Ok(())
    }

    /// A row of a value of `graph`.
    fn row(&mut self, graph: &Graph, at: At, row: &TapRow<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

impl RowSink for Recording {
    fn row(&mut self, graph: &Graph, at: At, row: &TapRow<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let name = graph.value_name(row.value);
        let series = self.entry(&name, || describe(graph, row.value));
        // Rows of one step share their route and buffer.
        let share =
            |old: Option<&Arc<str>>, text: &str| old.filter(|o| &***o == text).cloned().unwrap_or_else(|| text.into());
        let last = series.rows.last();
        let origin = Origin {
            route: share(last.map(|r| &r.route), row.route),
            buffer: share(last.map(|r| &r.buffer), row.buffer),
            offset: row.offset,
        };
        series.push(at, row.row as u32, origin, *row.stats, row.values);
        Ok(())
    }
}

/// Hands everything to two sinks.
pub struct Tee<'a>(pub &'a mut dyn RowSink, pub &'a mut dyn RowSink);

impl RowSink for Tee<'_> {
    fn begin(&mut self, step: &StepBegin<'_>) -> Result<(), TraceError> {
        self.0.begin(step)?;
        self.1.begin(step)
    }

    fn end(&mut self) -> Result<(), TraceError> {
        self.0.end()?;
        self.1.end()
    }

    fn row(&mut self, graph: &Graph, at: At, row: &TapRow<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.0.row(graph, at, row)?;
        self.1.row(graph, at, row)
    }
}

/// A step's taps on their way to a [`RowSink`].
pub struct StepSink<'a> {
    /// The graph that runs.
    pub graph: &'a Graph,
    /// The prompt's index.
    pub prompt: u32,
    /// The step's number over the whole prompt.
    pub order: u32,
    /// Where rows go.
    pub sink: &'a mut dyn RowSink,
}

impl TapSink for StepSink<'_> {
    fn row(&mut self, row: &TapRow<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let at = At {
            prompt: self.prompt,
            order: self.order,
            phase: row.at.phase,
            step: row.at.step,
            seq: row.seq,
            position: row.position,
            token: row.token,
        };
        self.sink.row(self.graph, at, row)
    }
}
