//! Identical runs held against a judged one, to the bit.
//!
//! Runs are compared by the hashes of their rows, which cover every bit of a row whatever was kept of it. A process that makes
//! a run for another one to compare hands over these alone.

use crate::judge::{Class, Culprit};
use crate::recording::Row;
use crate::{Recording, TraceError};
use serde::{Deserialize, Serialize};

/// What a run is compared by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    /// Fingerprint of the executed plan.
    pub plan: String,
    /// The recorded values, in the graph's order.
    pub values: Vec<ValueHashes>,
}

/// The rows of one value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueHashes {
    /// Its name.
    pub name: String,
    /// Its rows, in the order of recording.
    pub rows: Vec<RowHash>,
}

/// One row. A tuple, because there are many: prompt, order, sequence, position, token, hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowHash(pub u32, pub u32, pub u32, pub u32, pub i32, pub u64);

impl RowHash {
    /// Whether another run's row has other values, or was made for another token. Rows of unlike places are not compared.
    fn parts(&self, other: &RowHash) -> bool {
        let place = |r: &RowHash| (r.0, r.1, r.2, r.3);
        place(self) == place(other) && self != other
    }
}

impl From<&Row> for RowHash {
    fn from(r: &Row) -> Self {
        RowHash(r.at.prompt, r.at.order, r.at.seq, r.at.position, r.at.token, r.stats.hash)
    }
}

impl Hashes {
    /// Those of a run.
    pub fn of(recording: &Recording) -> Hashes {
        let values = recording.series.iter();
        let values =
            values.map(|s| ValueHashes { name: s.name.clone(), rows: s.rows.iter().map(RowHash::from).collect() });
        Hashes { plan: recording.info.plan.clone(), values: values.collect() }
    }
}

/// Where two runs part: the value's index in the judged run, and its row.
#[derive(Clone, Copy, Debug)]
struct Parting {
    value: usize,
    row: usize,
}

impl Parting {
    /// Within a run what was computed earlier comes first: later steps read what it left.
    fn first(judged: &Recording, run: &Hashes) -> Option<Parting> {
        let mut first: Option<((u32, u32, usize), Parting)> = None;
        for (value, s) in judged.series.iter().enumerate() {
            // Mostly both have the same values in the same order.
            let there = run.values.get(value).filter(|v| v.name == s.name);
            let Some(other) = there.or_else(|| run.values.iter().find(|v| v.name == s.name)) else { continue };
            let Some(row) = s.rows.iter().zip(&other.rows).position(|(a, b)| RowHash::from(a).parts(b)) else {
                continue;
            };
            let at = &s.rows[row].at;
            let key = (at.prompt, at.order, value);
            if first.is_none_or(|(k, _)| key < k) {
                first = Some((key, Parting { value, row }));
            }
        }
        first.map(|(_, parting)| parting)
    }

    /// Across runs the earliest node: each run's own parting is where something went wrong in it.
    fn key(self, judged: &Recording) -> (usize, u32, u32) {
        let at = &judged.series[self.value].rows[self.row].at;
        (self.value, at.prompt, at.order)
    }

    fn culprit(self, judged: &Recording, runs: &str) -> Culprit {
        let series = &judged.series[self.value];
        let row = &series.rows[self.row];
        let phase = row.at.phase_name();
        let text = format!("{runs} gave different values at position {} of {phase}", row.at.position);
        let mut c = Culprit::whole(&series.node, Class::GStaleData, "value differs between repeats", text);
        c.phase = phase;
        c.route = row.route.to_string();
        c.prompt = judged.info.prompts.get(row.at.prompt as usize).map_or(String::new(), |p| p.id.clone());
        c
    }
}

/// The first value that two identical runs gave different bits of. What one of them did not record is not compared.
pub fn differs(judged: &Recording, other: &Recording) -> Option<Culprit> {
    Parting::first(judged, &Hashes::of(other)).map(|p| p.culprit(judged, "two identical runs"))
}

/// Further runs, counted.
#[derive(Clone, Debug)]
pub struct Repeats<'a> {
    judged: &'a Recording,
    runs: u32,
    differing: u32,
    first: Option<Parting>,
}

impl<'a> Repeats<'a> {
    /// Only the judged run so far.
    pub fn new(judged: &'a Recording) -> Repeats<'a> {
        Repeats { judged, runs: 1, differing: 0, first: None }
    }

    /// Counts a further run; whether it differs from the judged one.
    pub fn add(&mut self, run: &Hashes) -> Result<bool, TraceError> {
        self.runs += 1;
        self.alike(run)?;
        let Some(parting) = Parting::first(self.judged, run) else { return Ok(false) };
        self.differing += 1;
        if self.first.is_none_or(|first| parting.key(self.judged) < first.key(self.judged)) {
            self.first = Some(parting);
        }
        Ok(true)
    }

    /// A run of something else would be no repetition, and its bits would say nothing.
    fn alike(&self, run: &Hashes) -> Result<(), TraceError> {
        let unlike = |what: &str| Err(TraceError::Mismatch(format!("run {} {what}", self.runs)));
        if run.plan != self.judged.info.plan {
            return unlike("had another plan than the judged one: did the model or this program change meanwhile?");
        }
        let of = |name: &str, rows: usize| (name.to_owned(), rows);
        let mine = self.judged.series.iter().map(|s| of(&s.name, s.rows.len()));
        match mine.eq(run.values.iter().map(|v| of(&v.name, v.rows.len()))) {
            true => Ok(()),
            false => unlike("recorded other values than the judged one"),
        }
    }

    /// Runs made, the judged one among them.
    pub fn runs(&self) -> u32 {
        self.runs
    }

    /// Runs that differ from the judged one.
    pub fn differing(&self) -> u32 {
        self.differing
    }

    /// The earliest node, in the graph's order, at which a run parts from the judged one.
    pub fn culprit(&self) -> Option<Culprit> {
        let runs = format!("differs in {} of {} runs: identical runs", self.differing, self.runs);
        self.first.map(|p| p.culprit(self.judged, &runs))
    }
}
