//! Rows on their way into a recording: widths that agree, one row a place.

use crate::recording::Origin;
use crate::{At, Recording, RunInfo, Series};
use greta_backend::RowData;
use greta_ops::{DType, Stats};

/// A point and a row of it, as a foreign file gives them.
pub(super) struct Given<'a> {
    /// The series' name: a node, or the foreign name where no node is known.
    pub name: String,
    /// The foreign op; empty where unknown.
    pub op: &'a str,
    /// The foreign name, for messages and the record's buffer.
    pub from: &'a str,
    /// Byte offset in the foreign file, where that means something.
    pub offset: u64,
    /// Values in the whole row; `None`: nothing says how many, so that the row is a sample.
    pub cols: Option<usize>,
    /// Where it belongs.
    pub at: At,
    /// Row of the value within its step.
    pub row: u32,
    /// The values kept.
    pub values: &'a [f32],
    /// Statistics the file itself states; else they are taken of the values.
    pub stats: Option<Stats>,
}

pub(super) struct Collector {
    pub rec: Recording,
}

impl Collector {
    pub fn new(info: RunInfo) -> Collector {
        Collector { rec: Recording::new(info, None) }
    }

    /// Adds a row. The very same row a second time is left out; another one at its place is an error.
    pub fn add(&mut self, g: Given<'_>) -> Result<(), String> {
        let Given { name, op, from, offset, cols, at, row, values, stats } = g;
        let width = cols.unwrap_or(values.len());
        if values.len() > width {
            return Err(format!("`{from}` has {} values in a row said to have {width}", values.len()));
        }
        let series = self.rec.entry(&name, || Series {
            name: name.clone(),
            node: name.clone(),
            op: op.into(),
            dtype: cols.map(|_| DType::F32),
            cols: width,
            ..Series::default()
        });
        match (series.dtype, cols) {
            // A sample says no width; of several the longest is the best guess.
            (None, None) => series.cols = series.cols.max(width),
            (None, Some(n)) => (series.dtype, series.cols) = (Some(DType::F32), n.max(series.cols)),
            (Some(_), Some(n)) if n != series.cols => {
                let had = series.cols;
                return Err(format!("`{from}` has rows of {n} values, but `{name}` was given with rows of {had}"));
            }
            _ => {}
        }
        if let Some(old) = series.find(at.prompt, at.order, at.seq, at.position) {
            let same = series.reals[old.data.clone()].iter().zip(values).all(|(a, b)| a.to_bits() == b.to_bits());
            return match same && old.data.len() == values.len() {
                true => Ok(()),
                false => Err(format!(
                    "`{from}` gives `{name}` a second, different row at position {} of {} (the first came from `{}`)",
                    at.position,
                    at.phase_name(),
                    old.buffer
                )),
            };
        }
        let last = series.rows.last();
        if last.is_some_and(|r| (r.at.prompt, r.at.order) > (at.prompt, at.order)) {
            return Err(format!("`{from}` goes back to {} after a later step", at.phase_name()));
        }
        let shared = last.map(|r| r.buffer.clone()).filter(|b| &**b == from);
        let route = last.map_or_else(|| "foreign".into(), |r| r.route.clone());
        let origin = Origin { route, buffer: shared.unwrap_or_else(|| from.into()), offset };
        series.push(at, row, origin, stats.unwrap_or_else(|| Stats::of(values)), RowData::Real(values));
        Ok(())
    }

    /// Adds a sample of a row that is there already: of two samples of one row the longer stays. Samples that differ where
    /// both have values are of two rows, and the second keeps a name of its own.
    pub fn merge(&mut self, g: Given<'_>) -> Result<(), String> {
        let place = (g.at.prompt, g.at.order, g.at.seq, g.at.position);
        let found = self.rec.get(&g.name).and_then(|s| s.find(place.0, place.1, place.2, place.3).cloned());
        let Some(old) = found else { return self.add(g) };
        let Some(series) = self.rec.series.iter_mut().find(|s| s.name == g.name) else { return Ok(()) };
        let same = series.reals[old.data.clone()].iter().zip(g.values).all(|(a, b)| a.to_bits() == b.to_bits());
        if !same {
            let name = fresh(&self.rec, &format!("{}.as_{}", g.name, g.from), g.at);
            return self.add(Given { name, ..g });
        }
        let start = series.reals.len();
        if let Some(row) = series.rows.iter_mut().find(|r| r.at == old.at) {
            if g.values.len() > old.data.len() {
                series.reals.extend_from_slice(g.values);
                row.data = start..series.reals.len();
            }
            row.stats = g.stats.filter(|s| s.count > old.stats.count).unwrap_or(old.stats);
        }
        match g.cols {
            Some(n) => (series.dtype, series.cols) = (Some(DType::F32), n),
            None if series.dtype.is_none() => series.cols = series.cols.max(g.values.len()),
            None => {}
        }
        Ok(())
    }
}

/// A name no series has yet: the name itself, else `name#2`, `name#3` …
pub(super) fn fresh(rec: &Recording, name: &str, at: At) -> String {
    let taken = |n: &str| rec.get(n).is_some_and(|s| s.find(at.prompt, at.order, at.seq, at.position).is_some());
    if !taken(name) {
        return name.into();
    }
    (2..).map(|i| format!("{name}#{i}")).find(|n| !taken(n)).unwrap_or_default()
}
