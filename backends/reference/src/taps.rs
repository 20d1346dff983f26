//! Taps: rows of a step's values, rounded to what a device would store.

use greta_backend::taps::{kept, row_cols, row_dim, sink_error, tapped_rows};
use greta_backend::{BackendError, Batch, RowData, StepAt, TapRow, TapSink};
use greta_graph::{Graph, NodeId, Value};
use greta_ops::{DType, Data, HostTensor, Stats};
use std::collections::HashMap;

/// Hands the rows one tap records to the sink.
pub(crate) fn deliver(
    g: &Graph,
    tap: NodeId,
    values: &HashMap<Value, HostTensor>,
    batch: &Batch,
    at: StepAt,
    sink: &mut dyn TapSink,
) -> Result<(), BackendError> {
    let Some((value, spec)) = g.tapped(tap) else { return Ok(()) };
    let Some(tensor) = values.get(&value) else { return Ok(()) };
    let (cols, dtype, state) = (row_cols(g, value), g.desc(value).dtype, g.is_state(value));
    let keep = kept(spec.detail, cols);
    let mut rows = Vec::new();
    tapped_rows(spec, row_dim(g, value), at, batch, &mut rows);
    for (row, token) in rows {
        let t = token as usize;
        let place = if state { batch.slots[t] as usize } else { row as usize };
        let span = place * cols..(place + 1) * cols;
        let (mut ints, mut reals) = (Vec::new(), Vec::new());
        match &tensor.data {
            Data::Int(v) => {
                ints.extend_from_slice(&v[span]);
                reals.extend(ints.iter().map(|&v| v as f32));
            }
            _ => reals.extend(tensor.reals()[span].iter().map(|&v| v as f32)),
        }
        let stats = Stats::of(&reals);
        let values = match dtype {
            DType::I32 | DType::I8 => RowData::Int(&ints[..keep]),
            _ => RowData::Real(&reals[..keep]),
        };
        let buffer = if state { "cache" } else { "host" };
        sink.row(&TapRow {
            value,
            row: row as usize,
            token_index: t,
            seq: batch.seqs[t] as u32,
            position: batch.positions[t] as u32,
            token: batch.tokens[t],
            at,
            dtype,
            cols,
            stats: &stats,
            values,
            route: "reference",
            buffer,
            offset: place as u64 * dtype.row_bytes(cols).unwrap_or(0) as u64,
        })
        .map_err(|e| sink_error(g, tap, e))?;
    }
    Ok(())
}
