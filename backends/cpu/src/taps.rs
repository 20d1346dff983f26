//! Taps: a stage that reads a value where it lies and keeps statistics and rows for the sink.

use crate::kernels::stats::{stats, stats_of_codes};
use crate::ops::{Kernel, Memory, Place};
use crate::simd::Level;
use greta_backend::taps::{kept, row_cols, row_dim, tapped_rows};
use greta_backend::{BackendError, Batch, RowData, StepAt, TapRow, TapSink};
use greta_graph::{Graph, Kind, NodeId, TapSpec, Value};
use greta_ops::{Bindings, DType, Dim, Stats};

/// A tap of the plan.
pub(crate) struct TapPoint {
    pub tap: NodeId,
    pub value: Value,
    pub spec: TapSpec,
    pub dim: Dim,
    pub cols: usize,
    pub dtype: DType,
    /// Values kept of a row.
    pub kept: usize,
    /// The buffer's name, and bytes from row to row in it.
    pub buffer: String,
    pub stride: usize,
    /// The stage that makes the value; `None` for an input.
    pub stage: Option<usize>,
}

impl TapPoint {
    pub fn new(g: &Graph, tap: NodeId, place: &Place, state: Option<String>) -> Option<TapPoint> {
        let (value, spec) = g.tapped(tap)?;
        let (cols, dtype) = (row_cols(g, value), g.desc(value).dtype);
        let buffer = match (place, state) {
            (Place::Slot(s), _) => format!("slot{}", s.0),
            (Place::Input(i), _) => format!("input:{}", i.name()),
            (_, Some(state)) => format!("cache:{state}"),
            _ => "weight".into(),
        };
        Some(TapPoint {
            tap,
            value,
            spec: spec.clone(),
            dim: row_dim(g, value),
            cols,
            dtype,
            kept: kept(spec.detail, cols),
            buffer,
            stride: dtype.row_bytes(cols).unwrap_or(0),
            stage: None,
        })
    }
}

/// What one tap recorded in a step.
#[derive(Default)]
pub(crate) struct TapBuffer {
    /// Row of the value, index of its token.
    pub rows: Vec<(u32, u32)>,
    /// Of each segment of each row.
    pub stats: Vec<Stats>,
    pub reals: Vec<f32>,
    pub ints: Vec<i32>,
}

impl TapBuffer {
    /// Makes room for the rows of a step.
    pub fn prepare(&mut self, point: &TapPoint, at: StepAt, batch: &Batch) {
        tapped_rows(&point.spec, point.dim, at, batch, &mut self.rows);
        self.stats.resize(self.rows.len() * segments(point.cols), Stats::default());
        let values = self.rows.len() * point.kept;
        match point.dtype {
            DType::I32 | DType::I8 => self.ints.resize(values, 0),
            _ => self.reals.resize(values, 0.0),
        }
    }

    pub fn clear(&mut self) {
        self.rows.clear();
    }

    /// What the tap's kernel writes through.
    pub fn view(&mut self) -> TapView {
        TapView {
            rows: self.rows.as_ptr(),
            len: self.rows.len(),
            stats: self.stats.as_mut_ptr(),
            reals: self.reals.as_mut_ptr(),
            ints: self.ints.as_mut_ptr(),
        }
    }

    /// Hands the rows over.
    pub fn deliver(
        &self,
        point: &TapPoint,
        g: &Graph,
        route: &str,
        at: StepAt,
        batch: &Batch,
        sink: &mut dyn TapSink,
    ) -> Result<(), BackendError> {
        let parts = segments(point.cols);
        for (i, &(row, token)) in self.rows.iter().enumerate() {
            let t = token as usize;
            let kept = i * point.kept..(i + 1) * point.kept;
            let values = match point.dtype {
                DType::I32 | DType::I8 => RowData::Int(&self.ints[kept]),
                _ => RowData::Real(&self.reals[kept]),
            };
            let place = if point.buffer.starts_with("cache:") { batch.slots[t] as u64 } else { u64::from(row) };
            sink.row(&TapRow {
                value: point.value,
                row: row as usize,
                token_index: t,
                seq: batch.seqs[t] as u32,
                position: batch.positions[t] as u32,
                token: batch.tokens[t],
                at,
                dtype: point.dtype,
                cols: point.cols,
                stats: &self.stats[i * parts..(i + 1) * parts].iter().fold(Stats::default(), |sum, s| sum.then(s)),
                values,
                route,
                buffer: &point.buffer,
                offset: place * point.stride as u64,
            })
            .map_err(|e| greta_backend::taps::sink_error(g, point.tap, e))?;
        }
        Ok(())
    }
}

/// A [`TapBuffer`] as the threads of a step share it.
#[derive(Clone, Copy)]
pub(crate) struct TapView {
    rows: *const (u32, u32),
    len: usize,
    stats: *mut Stats,
    reals: *mut f32,
    ints: *mut i32,
}

/// How many segments a row of `cols` values has.
fn segments(cols: usize) -> usize {
    cols.div_ceil(Stats::SEGMENT)
}

/// A tap's stage: a chunk is a segment of a row.
pub(crate) struct TapKernel {
    pub index: usize,
    pub level: Level,
    pub place: Place,
    pub dtype: DType,
    pub cols: usize,
    pub kept: usize,
}

impl Kernel for TapKernel {
    fn chunks(&self, m: &Memory) -> usize {
        m.tap(self.index).map_or(0, |v| v.len * segments(self.cols))
    }

    unsafe fn run(&self, m: &Memory, chunk: usize) {
        let Some(view) = m.tap(self.index) else { return };
        let (entry, part) = (chunk / segments(self.cols), chunk % segments(self.cols));
        // SAFETY: the session made room for `len` rows; the segment, its statistics and values are this chunk's alone.
        let row = unsafe { *view.rows.add(entry) }.0 as usize;
        let first = part * Stats::SEGMENT;
        let (at, len) = (row * self.cols + first, Stats::SEGMENT.min(self.cols - first));
        let (kept, to) = (self.kept.saturating_sub(first).min(len), entry * self.kept + first);
        let found = match (&self.place, self.dtype) {
            (Place::State(state), _) => {
                // The slot of the row's token; rows of a cache are tokens of the step.
                let slot = m.input(greta_graph::Input::Slots)[row] as usize;
                // SAFETY: no stage that writes this cache runs beside one that reads it.
                let wide = unsafe { m.cache_row(*state, slot) };
                let wide = &wide[first..][..len];
                // SAFETY: the session made room for the kept values of each row.
                unsafe { std::ptr::copy_nonoverlapping(wide.as_ptr(), view.reals.add(to), kept) };
                stats(self.level, wide, part)
            }
            (place, DType::F32) => {
                // SAFETY: the value is complete and has this row.
                let reals = unsafe { &m.read::<f32>(place, at + len)[at..] };
                // SAFETY: as above.
                unsafe { std::ptr::copy_nonoverlapping(reals.as_ptr(), view.reals.add(to), kept) };
                stats(self.level, reals, part)
            }
            (place, DType::I32) => {
                // SAFETY: as above.
                let ints = unsafe { &m.read::<i32>(place, at + len)[at..] };
                // SAFETY: as above.
                unsafe { std::ptr::copy_nonoverlapping(ints.as_ptr(), view.ints.add(to), kept) };
                let wide: Vec<f32> = ints.iter().map(|&v| v as f32).collect();
                stats(self.level, &wide, part)
            }
            (place, _) => {
                // SAFETY: as above; what is neither f32 nor i32 in a slot is the codes of activations.
                let codes = unsafe { &m.read::<i8>(place, at + len)[at..] };
                for (i, &v) in codes[..kept].iter().enumerate() {
                    // SAFETY: as above.
                    unsafe { *view.ints.add(to + i) = i32::from(v) };
                }
                stats_of_codes(self.level, codes, part)
            }
        };
        // SAFETY: as above.
        unsafe { *view.stats.add(chunk) = found };
    }

    fn route(&self, _: &Bindings) -> String {
        format!("stats.{}", self.level.name())
    }
}

/// Whether a node is a tap.
pub(crate) fn is_tap(g: &Graph, id: NodeId) -> bool {
    matches!(g.node(id).kind, Kind::Tap(_))
}
