//! In which layout a weight was read.

use crate::TraceError;
use greta_backend::Weights;
use greta_ops::HostTensor;
use serde_json::{Value, json};

/// The share of a row's mean magnitude that a layout may be off and still be called the right one.
const LIMIT: f64 = 0.05;

/// Mean absolute error of a product's row `y` on the row `x` with the weight as the file says, `[n, k]` row by row
/// (`mae_row`), and with the same values taken column by column (`mae_col`); the better one is named only if its error is
/// within the limit, else `layout_best` is `none`.
pub(super) fn layouts(weights: &dyn Weights, tensor: &str, x: &[f32], y: &[f32]) -> Result<Value, TraceError> {
    let view = weights.tensor(tensor)?;
    let shape: Vec<usize> = view.desc.dims.iter().filter_map(|d| d.constant()).collect();
    let weight = HostTensor::from_bytes(&shape, view.desc.dtype, view.bytes);
    let (n, k) = (weight.rows(), weight.cols());
    if x.len() != k || y.len() != n {
        let what = format!("`{tensor}` is [{n}, {k}], the rows have {} and {} values", x.len(), y.len());
        return Err(TraceError::Mismatch(what));
    }
    let flat: Vec<f64> = (0..n).flat_map(|r| weight.row(r).into_owned()).collect();
    let mae = |at: &dyn Fn(usize, usize) -> usize| {
        let error = |r: usize| {
            let dot: f64 = (0..k).map(|i| flat[at(r, i)] * f64::from(x[i])).sum();
            (dot - f64::from(y[r])).abs()
        };
        (0..n).map(error).sum::<f64>() / n as f64
    };
    let (row, col) = (mae(&|r, i| r * k + i), mae(&|r, i| i * n + r));
    let limit = LIMIT * y.iter().map(|v| f64::from(v.abs())).sum::<f64>() / n as f64;
    let best = match (row <= col, row.min(col) <= limit) {
        (_, false) => "none",
        (true, true) => "row",
        (false, true) => "col",
    };
    Ok(json!({ "layout_best": best, "mae_row": row, "mae_col": col, "limit": limit }))
}
