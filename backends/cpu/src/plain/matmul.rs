//! `matmul`: for each output column the weight's row is decoded once, then every token's sum is made.
//!
//! Exact weights: [`sum::dot`] over the dequantised row. 8-bit activations, blocks of 32 in ascending order from 0:
//! `sum += xs · (d · dot)`, then `sum −= xs · (dmin · min)` with minima, where `dot` and `min` are sums of integers and
//! every other operation is rounded to f32.

use super::flaw::Flaw;
use super::kernel::Source;
use super::output::{Spread, TILE};
use super::step::Step;
use super::sum;
use super::table::{IntRow, Table};
use greta_backend::Fault;
use greta_ops::ACT_BLOCK;
use std::ops::Range;

pub(super) struct MatMul {
    pub flaw: Flaw,
    pub table: Table,
    /// Activations are codes (operand 1) with scales (operand 2).
    pub int8: bool,
}

impl Source for MatMul {
    fn fill(&self, s: &Step, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        if self.flaw.is(Fault::OperandsTransposed) && s.rows(1) > self.flaw.param(32) {
            self.transposed(s, rows, cols, out)
        } else if self.int8 && !self.table.is_transposed() {
            self.ints(s, rows, cols, out)
        } else {
            self.reals(s, rows, cols, out)
        }
    }

    fn spread(&self, s: &Step, _: usize) -> Spread {
        // Of K products of normal values, with sums in f32. Integer dots leave fewer roundings, but minima add large
        // terms that cancel.
        let factor = match self.int8 {
            false => 2.6,
            true if self.table.has_min() => 0.75,
            true => 0.125,
        };
        Spread::Row(factor * s.cols(1) as f32 * 2f32.powi(-24))
    }
}

impl MatMul {
    /// The activations as f32, whatever they are stored as.
    fn activations(&self, s: &Step) -> Vec<f32> {
        match self.int8 {
            false => s.reals(1).to_vec(),
            true => {
                let blocks = s.codes(1).chunks_exact(ACT_BLOCK).zip(s.reals(2));
                blocks.flat_map(|(codes, scale)| codes.iter().map(move |&c| f32::from(c) * scale)).collect()
            }
        }
    }

    /// Row `n` of the weight as f32.
    fn row(&self, s: &Step, n: usize, out: &mut [f32]) {
        if self.table.is_transposed() {
            self.table.transposed_row(s, n, out)
        } else {
            self.table.row(s, n, out)
        }
        sum::mask(self.flaw, out);
    }

    fn reals(&self, s: &Step, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let (k, width) = (self.table.cols, cols.len());
        let own;
        let x = if self.int8 {
            own = self.activations(s);
            &own
        } else {
            s.reals(1)
        };
        let mut w = vec![0.0; k];
        for (j, n) in cols.enumerate() {
            self.row(s, n, &mut w);
            if self.flaw.is(Fault::F16Accumulate) {
                sum::dots_f16(&w, &x[rows.start * k..rows.end * k], |i, sum| out[i * width + j] = sum);
                continue;
            }
            for (i, t) in rows.clone().enumerate() {
                out[i * width + j] = sum::dot(&w, &x[t * k..][..k]);
            }
        }
    }

    fn ints(&self, s: &Step, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let (k, width, half) = (self.table.cols, cols.len(), self.flaw.is(Fault::F16Accumulate));
        let (codes, scales) = (s.codes(1), s.reals(2));
        let mut w = IntRow::default();
        for (j, n) in cols.enumerate() {
            self.table.int_row(s, n, &mut w);
            sum::mask(self.flaw, &mut w.levels);
            sum::mask(self.flaw, &mut w.mins);
            for (i, t) in rows.clone().enumerate() {
                let (codes, scales) = (&codes[t * k..][..k], &scales[t * k / ACT_BLOCK..][..k / ACT_BLOCK]);
                let mut sum = 0f32;
                for (b, (x, xs)) in codes.as_chunks::<ACT_BLOCK>().0.iter().zip(scales).enumerate() {
                    let at = b * ACT_BLOCK..(b + 1) * ACT_BLOCK;
                    sum += xs * (w.d[b] * int_dot(&w.levels[at.clone()], x) as f32);
                    if !w.mins.is_empty() {
                        sum -= xs * (w.dmin[b] * int_dot(&w.mins[at], x) as f32);
                    }
                    if half {
                        sum = sum::to_f16(sum);
                    }
                }
                out[i * width + j] = sum;
            }
        }
    }

    /// Every 16×16 fragment of both operands is taken for its transpose.
    fn transposed(&self, s: &Step, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let (k, width, all) = (self.table.cols, cols.len(), s.rows(1));
        let x = transposed_fragments(&self.activations(s), all, k);
        for first in cols.clone().step_by(TILE) {
            let count = TILE.min(cols.end - first);
            let mut w = vec![0.0; count * k];
            w.chunks_exact_mut(k).enumerate().for_each(|(i, w)| self.row(s, first + i, w));
            // Columns that fill no fragment are right.
            let w = if count == TILE { transposed_fragments(&w, count, k) } else { w };
            for (i, t) in rows.clone().enumerate() {
                for j in 0..count {
                    out[i * width + first - cols.start + j] = sum::dot(&w[j * k..][..k], &x[t * k..][..k]);
                }
            }
        }
    }
}

fn int_dot(w: &[i16], x: &[i8; ACT_BLOCK]) -> i32 {
    w.iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum()
}

/// A matrix of rows of `k` values with its 16×16 parts transposed, each in its place; the last rows are filled up with
/// zeros, values that fill no part are right.
fn transposed_fragments(x: &[f32], rows: usize, k: usize) -> Vec<f32> {
    let mut out = x.to_vec();
    for t in (0..rows).step_by(TILE) {
        let height = TILE.min(rows - t);
        for c in (0..k / TILE * TILE).step_by(TILE) {
            for i in 0..height {
                for j in 0..TILE {
                    out[(t + i) * k + c + j] = if j < height { x[(t + j) * k + c + i] } else { 0.0 };
                }
            }
        }
    }
    out
}
