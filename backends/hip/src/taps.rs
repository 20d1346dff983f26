//! Taps: where in the step's side buffer each tap's rows go, and how they are handed over.

use crate::executable::place;
use crate::lower::{self, Buffer, Launch, STATS_BYTES};
use greta_backend::taps::{kept, row_cols, row_dim, sink_error, tapped_rows};
use greta_backend::{BackendError, Batch, RowData, StepAt, TapRow, TapSink};
use greta_graph::{Graph, NodeId, Plan, TapSpec, Value};
use greta_ops::{DType, Dim, Stats};

/// A tap of the plan.
pub(crate) struct TapPoint {
    pub tap: NodeId,
    pub value: Value,
    spec: TapSpec,
    place: Buffer,
    dim: Dim,
    cols: usize,
    dtype: DType,
    /// Values kept of a row.
    kept: usize,
    /// The buffer's name in records, and bytes from row to row in it.
    buffer: String,
    stride: usize,
}

/// A row of a tapped value, and the index of its token.
pub(crate) type Row = (u32, u32);

/// Where a tap's rows go in the step's side buffer: the list of them, their statistics, the values kept of them.
pub(crate) struct Room {
    pub list: u64,
    pub stats: u64,
    pub values: u64,
}

impl TapPoint {
    pub fn new(plan: &Plan, tap: NodeId) -> Option<TapPoint> {
        let g = plan.graph();
        let (value, spec) = g.tapped(tap)?;
        let (place, cols, dtype) = (place(plan, value), row_cols(g, value), g.desc(value).dtype);
        let buffer = match place {
            Buffer::Slot(s) => format!("slot{}", s.0),
            Buffer::Input(i) => format!("input:{}", i.name()),
            Buffer::State(s) => format!("cache:{}", g.node(s).name),
            _ => "weight".into(),
        };
        Some(TapPoint {
            tap,
            value,
            spec: spec.clone(),
            place,
            dim: row_dim(g, value),
            cols,
            dtype,
            kept: kept(spec.detail, cols),
            buffer,
            stride: dtype.row_bytes(cols).unwrap_or(0),
        })
    }

    /// The rows of a step.
    pub fn rows(&self, at: StepAt, batch: &Batch) -> Vec<Row> {
        let mut rows = Vec::new();
        tapped_rows(&self.spec, self.dim, at, batch, &mut rows);
        rows
    }

    /// Bytes of a row where it lies.
    pub fn row_bytes(&self) -> u64 {
        self.stride as u64
    }

    /// Bytes of what is kept of a row's values.
    pub fn kept_bytes(&self) -> u64 {
        self.kept as u64 * 4
    }

    /// The kernel that looks at so many rows, if there are any. The value has `bytes` in this step.
    pub fn launch(&self, rows: usize, room: &Room, bytes: usize) -> Option<Launch> {
        let side = [room.stats, room.values, room.list];
        (rows > 0).then(|| lower::stats((self.place, bytes), self.dtype, self.cols, self.kept, rows, side))
    }

    /// Adds the rows, as the kernel counts them, to the lists of a step.
    pub fn list(&self, rows: &[Row], batch: &Batch, lists: &mut Vec<u8>) {
        lists.extend(rows.iter().flat_map(|&(row, token)| self.stored_row(row, token, batch).to_le_bytes()));
    }

    /// Where the row lies: a cache's in the slot of its token.
    fn stored_row(&self, row: u32, token: u32, batch: &Batch) -> u32 {
        match self.place {
            Buffer::State(_) => batch.slots[token as usize] as u32,
            _ => row,
        }
    }

    /// Hands the rows over. `found`: what the kernel left, from byte `start` of the side buffer on.
    pub fn deliver(
        &self,
        (rows, room): (&[Row], &Room),
        (found, start): (&[u8], u64),
        (g, route): (&Graph, &str),
        at: StepAt,
        batch: &Batch,
        sink: &mut dyn TapSink,
    ) -> Result<(), BackendError> {
        for (i, &(row, token)) in rows.iter().enumerate() {
            let t = token as usize;
            let words = &found[(room.values - start) as usize + i * self.kept * 4..][..self.kept * 4];
            let words = words.as_chunks::<4>().0.iter().map(|w| u32::from_le_bytes(*w));
            let (mut reals, mut ints) = (Vec::new(), Vec::new());
            let values = match self.dtype {
                DType::I32 | DType::I8 => {
                    ints.extend(words.map(|w| w as i32));
                    RowData::Int(&ints)
                }
                _ => {
                    reals.extend(words.map(f32::from_bits));
                    RowData::Real(&reals)
                }
            };
            let stats = read_stats(&found[(room.stats - start) as usize + i * STATS_BYTES as usize..]);
            sink.row(&TapRow {
                value: self.value,
                row: row as usize,
                token_index: t,
                seq: batch.seqs[t] as u32,
                position: batch.positions[t] as u32,
                token: batch.tokens[t],
                at,
                dtype: self.dtype,
                cols: self.cols,
                stats: &stats,
                values,
                route,
                buffer: &self.buffer,
                offset: u64::from(self.stored_row(row, token, batch)) * self.stride as u64,
            })
            .map_err(|e| sink_error(g, self.tap, e))?;
        }
        Ok(())
    }
}

/// The kernel's `Stats`.
fn read_stats(b: &[u8]) -> Stats {
    let word = |i: usize| u32::from_le_bytes([b[4 * i], b[4 * i + 1], b[4 * i + 2], b[4 * i + 3]]);
    let wide = |i: usize| u64::from(word(i)) | u64::from(word(i + 1)) << 32;
    Stats {
        count: word(0),
        min: f32::from_bits(word(1)),
        max: f32::from_bits(word(2)),
        nan: word(3),
        inf: word(4),
        zeros: word(5),
        hash: wide(6),
        sum: f64::from_bits(wide(8)),
        abs_sum: f64::from_bits(wide(10)),
        sum_sq: f64::from_bits(wide(12)),
    }
}
