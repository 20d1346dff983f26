//! The operands the graph gives an op, for some rows of a step.

use super::Judge;
use crate::{At, Series};
use greta_graph::{Input, Kind, NodeId, Value};
use greta_ops::{Data, HostTensor, Op, PAGE_TOKENS};
use std::sync::Arc;

/// Why an op can't be judged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The op itself was not recorded, so there is nothing to judge.
    #[error("it was not recorded")]
    NotRecorded,
    /// An operand's row was not recorded.
    #[error("its operand `{0}` is not recorded at {1}")]
    Operand(String, String),
    /// An operand was not recorded at all.
    #[error("its operand `{0}` is not recorded at any row")]
    NoRows(String),
    /// Only a part of a row was kept.
    #[error("`{0}` was recorded as statistics or a sample, not whole")]
    Partial(String),
    /// Another engine's run does not say what an input held.
    #[error("its operand `{0}` is not recorded at any row: the run does not tell")]
    Untold(String),
    /// A weight can't be had.
    #[error("{0}")]
    Weight(String),
}

impl Missing {
    /// What `greta trace` must be told for the op to be judged.
    pub(super) fn flag(&self) -> Option<&'static str> {
        match self {
            Missing::Operand(..) => Some("--rows all"),
            Missing::NoRows(_) => Some("--taps all"),
            Missing::Partial(_) => Some("--detail full"),
            Missing::NotRecorded | Missing::Untold(_) | Missing::Weight(_) => None,
        }
    }
}

/// The operands of a node, stacked over `rows`; every row is of one prompt, step and sequence.
pub(super) fn gather(j: &Judge<'_>, id: NodeId, rows: &[At]) -> Result<Vec<HostTensor>, Missing> {
    let Kind::Op(op) = &j.graph.node(id).kind else { return Err(Missing::NotRecorded) };
    let ins = j.graph.operands(id);
    match op {
        Op::CacheWrite(_) => {
            let stored = stacked(j, ins[1], rows)?;
            let cache = HostTensor::real(&stored.shape, vec![0.0; stored.reals().len()]);
            Ok(vec![cache, stored, count(rows.len())])
        }
        Op::Attention(_) => {
            let last = rows.iter().map(|r| r.position).max().unwrap_or(0);
            let pages = (last as usize / PAGE_TOKENS) + 1;
            Ok(vec![
                stacked(j, ins[0], rows)?,
                cached(j, ins[1], rows[0], last)?,
                cached(j, ins[2], rows[0], last)?,
                ints(rows.iter().map(|r| r.position as i32)),
                ints(rows.iter().map(|_| 0)),
                HostTensor::int(&[1, pages], (0..pages as i32).collect()),
            ])
        }
        // A gather of computed rows: the row wanted is the token's own.
        Op::Embed(_) if !of_weight(j, ins[0]) => Ok(vec![stacked(j, ins[0], rows)?, count(rows.len())]),
        _ => ins.iter().map(|&v| operand(j, v, rows)).collect(),
    }
}

fn operand(j: &Judge<'_>, v: Value, rows: &[At]) -> Result<HostTensor, Missing> {
    match &j.graph.node(v.node).kind {
        Kind::Weight { .. } => weight(j, v.node),
        // A foreign run may not say which tokens it was fed (a negative id), or where (no position).
        Kind::Input { input: Input::Tokens } if rows.iter().any(|r| r.token < 0) => Err(untold(j, v)),
        Kind::Input { input: Input::Positions } if rows.iter().any(|r| r.position == u32::MAX) => Err(untold(j, v)),
        Kind::Input { input } => Ok(input_rows(j, *input, rows)),
        Kind::Op(Op::Dequant(_)) => {
            let packed = weight(j, j.graph.operands(v.node)[0].node)?;
            Ok(HostTensor::real(
                &packed.shape.clone(),
                (0..packed.rows()).flat_map(|r| packed.row(r).into_owned()).collect(),
            ))
        }
        _ => stacked(j, v, rows),
    }
}

fn untold(j: &Judge<'_>, v: Value) -> Missing {
    Missing::Untold(j.graph.value_name(v))
}

/// What the graph's inputs are by the run's own record of its prompt.
fn input_rows(j: &Judge<'_>, input: Input, rows: &[At]) -> HostTensor {
    let prompt = |r: &At| j.recording.info.prompts.get(r.prompt as usize);
    match input {
        Input::Tokens => {
            let token = |r: &At| prompt(r).and_then(|p| p.token(r.position as usize)).map_or(r.token, |t| t as i32);
            ints(rows.iter().map(token))
        }
        Input::Positions => ints(rows.iter().map(|r| r.position as i32)),
        Input::Seqs => ints(rows.iter().map(|_| 0)),
        _ => count(rows.len()),
    }
}

fn ints(list: impl Iterator<Item = i32>) -> HostTensor {
    let list: Vec<i32> = list.collect();
    HostTensor::int(&[list.len()], list)
}

fn count(n: usize) -> HostTensor {
    ints(0..n as i32)
}

/// A weight as the file stores it.
pub fn weight(j: &Judge<'_>, id: NodeId) -> Result<HostTensor, Missing> {
    let node = j.graph.node(id);
    let Kind::Weight { tensor, rows } = &node.kind else {
        return Err(Missing::Weight(format!("`{}` is no weight", node.name)));
    };
    let view = j.weights.tensor(tensor).map_err(|e| Missing::Weight(e.to_string()))?;
    let shape: Vec<usize> = node.outs[0].dims.iter().filter_map(|d| d.constant()).collect();
    let cols = shape.last().copied().unwrap_or(0);
    let row = node.outs[0].dtype.row_bytes(cols).unwrap_or(0);
    let from = rows.as_ref().map_or(0, |r| r.start as usize) * row;
    let len = node.outs[0].bytes(&Default::default());
    match view.bytes.get(from..from + len).filter(|_| view.desc.dtype == node.outs[0].dtype) {
        Some(bytes) if node.outs[0].dtype.is_quantized() || shape.len() == 2 => {
            let bytes: Arc<[u8]> = bytes.into();
            Ok(HostTensor { shape: shape.as_slice().into(), data: Data::Packed(node.outs[0].dtype, bytes) })
        }
        Some(bytes) => Ok(HostTensor::from_bytes(&shape, node.outs[0].dtype, bytes)),
        None => {
            Err(Missing::Weight(format!("`{tensor}` is {} in this model, the run had {}", view.desc, node.outs[0])))
        }
    }
}

/// Recorded rows of a value at the same step, sequence and position as `rows`.
pub fn stacked(j: &Judge<'_>, v: Value, rows: &[At]) -> Result<HostTensor, Missing> {
    let name = j.graph.value_name(v);
    let series = match j.recording.get(&name) {
        Some(s) => s,
        // A gather of computed rows changes none: where it was not recorded, its source's rows are the same.
        None if matches!(j.graph.node(v.node).kind, Kind::Op(Op::Embed(_))) => {
            let source = j.graph.operands(v.node)[0];
            let computed = matches!(j.graph.node(source.node).kind, Kind::Op(_)) && !of_weight(j, source);
            let missing = || Missing::NoRows(name.clone());
            return if computed { stacked(j, source, rows) } else { Err(missing()) };
        }
        None => return Err(Missing::NoRows(name)),
    };
    let whole = greta_backend::taps::row_cols(&j.graph, v);
    if series.cols != whole {
        return Err(Missing::Partial(name));
    }
    let find = |r: &At| {
        let row = series.find(r.prompt, r.order, r.seq, r.position);
        row.ok_or_else(|| Missing::Operand(name.clone(), format!("{}, position {}", r.phase_name(), r.position)))
    };
    collect(series, rows.iter().map(find))
}

/// The recorded rows of a cache for positions `0..=last`, each as it was last written by the time of `at`.
pub fn cached(j: &Judge<'_>, v: Value, at: At, last: u32) -> Result<HostTensor, Missing> {
    let name = j.graph.value_name(v);
    let series = j.recording.get(&name).ok_or_else(|| Missing::NoRows(name.clone()))?;
    let find = |p: u32| {
        let row = series.latest(at.prompt, at.order, at.seq, p);
        row.ok_or_else(|| Missing::Operand(name.clone(), format!("position {p}")))
    };
    collect(series, (0..=last).map(find))
}

fn of_weight(j: &Judge<'_>, v: Value) -> bool {
    matches!(j.graph.node(v.node).kind, Kind::Weight { .. } | Kind::Op(Op::Dequant(_)))
}

fn collect<'s>(
    series: &Series,
    rows: impl Iterator<Item = Result<&'s crate::Row, Missing>>,
) -> Result<HostTensor, Missing> {
    let (mut reals, mut ints, mut n) = (Vec::new(), Vec::new(), 0);
    for row in rows {
        let row = row?;
        if !series.is_whole(row) {
            return Err(Missing::Partial(series.name.clone()));
        }
        match series.is_int() {
            true => ints.extend_from_slice(&series.ints[row.data.clone()]),
            false => reals.extend(series.reals[row.data.clone()].iter().map(|&v| f64::from(v))),
        }
        n += 1;
    }
    Ok(match series.is_int() {
        true => HostTensor::int(&[n, series.cols], ints),
        false => HostTensor::real(&[n, series.cols], reals),
    })
}
