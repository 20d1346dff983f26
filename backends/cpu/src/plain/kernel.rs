//! The frame of a plain kernel: a source computes rows of f32, faults of whole rows change them, a sink stores them.

use super::flaw::Flaw;
use super::history::{History, Kept};
use super::output::{self, Spread};
use super::sink::Sink;
use super::step::{Operand, Step};
use crate::ops::{Cut, Kernel, Memory};
use greta_backend::Fault;
use greta_ops::{Bindings, Dim};
use std::ops::Range;
use std::sync::Arc;

/// Columns that are worked on together where work is cut by columns.
pub(super) const PANEL: usize = 16;

/// What computes an op's rows.
pub(super) trait Source: Send + Sync {
    /// Fills `out` with the columns `cols` of the rows `rows`, row after row.
    fn fill(&self, s: &Step, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]);

    /// How far a right kernel's values of row `t` may lie from the exact ones, roughly.
    fn spread(&self, _: &Step, _t: usize) -> Spread {
        Spread::Value(2f32.powi(-24))
    }
}

/// A plain kernel.
pub(super) struct Plain {
    pub name: &'static str,
    pub flaw: Flaw,
    pub ins: Vec<Operand>,
    /// The operands that [`History`] keeps.
    pub activations: Vec<usize>,
    pub history: Arc<History>,
    pub source: Box<dyn Source>,
    pub sink: Sink,
    pub rows: Dim,
    pub cols: usize,
    pub cut: Cut,
    /// Chunks are panels of columns, not rows.
    pub by_cols: bool,
}

impl Plain {
    /// Faults of whole buffers are made in one piece.
    fn whole(&self) -> bool {
        self.flaw.in_output() || self.flaw.remembers()
    }

    fn units(&self, m: &Memory) -> usize {
        match (self.rows.at(&m.at), self.by_cols) {
            (0, _) => 0,
            (_, true) => self.cols.div_ceil(PANEL),
            (rows, false) => rows,
        }
    }

    /// Swaps operands for what the fault reads in their place.
    fn swap(&self, s: &mut Step) {
        let kept = self.history.exchange(s, &self.ins, &self.activations);
        // An input row is one of operand 0 or of the activations of a matmul; what a stale buffer holds is all of it.
        for (n, &i) in self.activations.iter().enumerate() {
            let image = kept.as_ref().map(|k| &k.images[n][..]);
            let bytes = match self.flaw.is(Fault::StaleBuffer) {
                true => stale(s, i, image),
                false => other_rows(s, i, kept.as_ref(), image),
            };
            s.swap(i, bytes);
        }
    }
}

/// The operand as the step before left its buffer; where that has never been written, as it is.
fn stale(s: &Step, i: usize, image: Option<&[u32]>) -> Vec<u32> {
    let mut now = super::history::words(s.bytes(i));
    if let Some(image) = image {
        now.iter_mut().zip(image).for_each(|(now, old)| *now = *old);
    }
    now
}

/// The operand with every row replaced by the one before it. The first row of several stays; a row that is alone is
/// replaced by one of the step before: the last but one, because the last may be this very token's.
fn other_rows(s: &Step, i: usize, kept: Option<&Kept>, image: Option<&[u32]>) -> Vec<u32> {
    let mut now = super::history::words(s.bytes(i));
    let (rows, all) = (s.rows(i).max(1), now.len());
    let width = all / rows;
    match (rows, kept, image) {
        (1, Some(kept), Some(image)) => {
            let from = kept.rows.saturating_sub(2) * width;
            now.iter_mut().zip(image.get(from..).unwrap_or(&[])).for_each(|(now, old)| *now = *old);
        }
        (1, ..) => now.fill(0),
        _ => now.copy_within(..all - width, width),
    }
    now
}

impl Kernel for Plain {
    fn chunks(&self, m: &Memory) -> usize {
        let units = self.units(m);
        if self.whole() { units.min(1) } else { self.cut.chunks(units) }
    }

    unsafe fn run(&self, m: &Memory, chunk: usize) {
        let (rows, units) = (self.rows.at(&m.at), self.units(m));
        let part = if self.whole() { 0..units } else { self.cut.range(units, chunk) };
        let (rows, cols) = match self.by_cols {
            true => (0..rows, part.start * PANEL..(part.end * PANEL).min(self.cols)),
            false => (part, 0..self.cols),
        };
        // SAFETY: the caller's promise.
        let mut step = unsafe { Step::new(m, &self.ins) };
        if self.flaw.remembers() {
            self.swap(&mut step);
        }
        let mut out = vec![0.0; rows.len() * cols.len()];
        self.source.fill(&step, rows.clone(), cols.clone(), &mut out);
        if self.flaw.in_output() {
            output::change(self.flaw, |t| self.source.spread(&step, t), self.cols, &mut out);
        }
        // SAFETY: the rows and columns are this chunk's.
        unsafe { self.sink.put(&step, rows, cols, self.cols, &out) };
    }

    fn route(&self, _: &Bindings) -> String {
        format!("plain.{}", self.name)
    }

    fn opened(&self) {
        self.history.clear();
    }
}
