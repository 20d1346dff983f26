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

/// What a tap takes in a step: its rows, and where they go.
pub(crate) struct Taken {
    /// Row of the value, index of its token.
    rows: Vec<(u32, u32)>,
    stats: u64,
    values: u64,
    list: u64,
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

    /// The rows of a step, with room for them from `end` on, which moves.
    pub fn take(&self, at: StepAt, batch: &Batch, end: &mut u64) -> Taken {
        let mut rows = Vec::new();
        tapped_rows(&self.spec, self.dim, at, batch, &mut rows);
        let n = rows.len() as u64;
        let mut room = |bytes: u64| {
            let here = *end;
            *end = (here + bytes).next_multiple_of(64);
            here
        };
        let (stats, values, list) = (room(n * STATS_BYTES), room(n * self.kept as u64 * 4), room(n * 4));
        Taken { rows, stats, values, list }
    }

    /// The kernel that looks, if there are rows to look at. The value has `bytes` in this step.
    pub fn launch(&self, taken: &Taken, bytes: usize) -> Option<Launch> {
        let side = [taken.stats, taken.values, taken.list];
        let n = taken.rows.len();
        (n > 0).then(|| lower::stats((self.place, bytes), self.dtype, self.cols, self.kept, n, side))
    }

    /// Writes the list of rows, as the kernel counts them, into a copy of the side buffer.
    pub fn list(&self, taken: &Taken, batch: &Batch, side: &mut [u8]) {
        let to = side[taken.list as usize..].chunks_exact_mut(4);
        for (&(row, token), to) in taken.rows.iter().zip(to) {
            to.copy_from_slice(&self.stored_row(row, token, batch).to_le_bytes());
        }
    }

    /// Where the row lies: a cache's in the slot of its token.
    fn stored_row(&self, row: u32, token: u32, batch: &Batch) -> u32 {
        match self.place {
            Buffer::State(_) => batch.slots[token as usize] as u32,
            _ => row,
        }
    }

    /// Hands the rows over, from the side buffer as it was after the step.
    pub fn deliver(
        &self,
        taken: &Taken,
        side: &[u8],
        (g, route): (&Graph, &str),
        at: StepAt,
        batch: &Batch,
        sink: &mut dyn TapSink,
    ) -> Result<(), BackendError> {
        for (i, &(row, token)) in taken.rows.iter().enumerate() {
            let t = token as usize;
            let words = &side[taken.values as usize + i * self.kept * 4..][..self.kept * 4];
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
            let stats = read_stats(&side[taken.stats as usize + i * STATS_BYTES as usize..]);
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
