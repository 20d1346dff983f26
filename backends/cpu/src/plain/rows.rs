//! The ops that work row by row: embed, dequant, rmsnorm, rope, swiglu, add, and the copy that quantize and cache_write
//! begin with.

use super::flaw::Flaw;
use super::kernel::Source;
use super::output::Spread;
use super::step::Step;
use super::sum;
use super::table::Table;
use greta_backend::Fault;
use std::ops::Range;

/// Calls `f(t, row)` for the rows of `out`.
fn each(rows: Range<usize>, width: usize, out: &mut [f32], mut f: impl FnMut(usize, &mut [f32])) {
    rows.zip(out.chunks_exact_mut(width.max(1))).for_each(|(t, row)| f(t, row));
}

/// Rows of operand `.0`.
pub(super) struct Copy(pub usize);

impl Source for Copy {
    fn fill(&self, s: &Step, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let n = cols.len();
        out.copy_from_slice(&s.reals(self.0)[rows.start * n..rows.end * n]);
    }
}

pub(super) struct Dequant(pub Table);

impl Source for Dequant {
    fn fill(&self, s: &Step, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        each(rows, cols.len(), out, |i, row| self.0.row(s, i, row));
    }
}

pub(super) struct Embed {
    pub flaw: Flaw,
    pub table: Table,
}

impl Embed {
    /// The row that is read for id number `i` of `ids`.
    fn id(&self, ids: &[i32], i: usize, rows: usize) -> i32 {
        let id = ids[i];
        match self.flaw.fault() {
            Some(Fault::InputToken) if i + 1 == ids.len() => {
                let next = usize::try_from(id).map_or(0, |id| id + 1);
                (self.flaw.param(next) % rows.max(1)) as i32
            }
            Some(Fault::LogitsRow) if id > 0 => id - 1,
            Some(Fault::LogitsRow) if rows > 1 => id + 1,
            _ => id,
        }
    }
}

impl Source for Embed {
    fn fill(&self, s: &Step, at: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let (ids, rows) = (s.ints(1), s.rows(0));
        each(at, cols.len(), out, |i, row| match usize::try_from(self.id(ids, i, rows)).ok().filter(|&id| id < rows) {
            Some(id) if self.table.is_transposed() => self.table.transposed_row_by_blocks(s, id, row),
            Some(id) => self.table.row(s, id, row),
            None => row.fill(f32::NAN),
        });
    }
}

/// `inv = 1 / √(Σx² / n + eps)`, `out = (x · inv) · weight`; the sum is [`sum::dot`]'s.
pub(super) struct RmsNorm {
    pub flaw: Flaw,
    pub eps: f32,
}

impl Source for RmsNorm {
    fn fill(&self, s: &Step, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let (n, x, dot) = (cols.len(), s.reals(0), sum::dot_of(self.flaw));
        let mut weight = s.reals(1).to_vec();
        if self.flaw.is(Fault::WeightPlusOne) {
            weight.iter_mut().for_each(|w| *w += 1.0);
        }
        let eps = if self.flaw.is(Fault::Eps) { self.eps * self.flaw.param(100) as f32 } else { self.eps };
        each(rows, n, out, |t, row| {
            row.copy_from_slice(&x[t * n..][..n]);
            if self.flaw.is(Fault::LayerNorm) {
                let mean = row.iter().sum::<f32>() / n as f32;
                row.iter_mut().for_each(|x| *x -= mean);
            }
            let mut terms = row.to_vec();
            sum::mask(self.flaw, &mut terms);
            let inv = 1.0 / (dot(&terms, &terms) / n as f32 + eps).sqrt();
            row.iter_mut().zip(&weight).for_each(|(x, w)| *x = (*x * inv) * w);
        });
    }

    fn spread(&self, s: &Step, _: usize) -> Spread {
        Spread::Value((2.0 * (s.cols(0) as f32).sqrt() + 5.0) * 2f32.powi(-24))
    }
}

/// `a' = a · cos − b · sin`, `b' = a · sin + b · cos`, angles and their sine and cosine in f64 before they are rounded.
pub(super) struct Rope {
    pub flaw: Flaw,
    pub op: greta_ops::Rope,
    /// Whether pairs are neighbours.
    pub adjacent: bool,
    pub factors: bool,
}

impl Source for Rope {
    fn fill(&self, s: &Step, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let (n, half, x, positions) = (cols.len(), self.op.dims / 2, s.reals(0), s.ints(1));
        let factors = if self.factors { s.reals(2) } else { &[] };
        let turns: Vec<f64> = (0..half)
            .map(|i| {
                let power = -2.0 * i as f64 / self.op.dims as f64;
                f64::from(self.op.theta).powf(power) / factors.get(i).map_or(1.0, |&f| f64::from(f))
            })
            .collect();
        let count = if self.flaw.is(Fault::PairSkipped) { half - 1 } else { half };
        let shift = i32::from(self.flaw.is(Fault::RopePosPlus1));
        each(rows, n, out, |t, row| {
            row.copy_from_slice(&x[t * n..][..n]);
            let position = f64::from(positions[t] + shift);
            for (i, turn) in turns[..count].iter().enumerate() {
                let (sin, cos) = (position * turn).sin_cos();
                let (sin, cos) = (sin as f32, cos as f32);
                let (a, b) = if self.adjacent { (2 * i, 2 * i + 1) } else { (i, i + half) };
                for head in row.chunks_exact_mut(self.op.head_dim) {
                    (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
                }
            }
        });
    }

    fn spread(&self, s: &Step, t: usize) -> Spread {
        Spread::Row((3.0 + 2.0 * s.ints(1)[t].max(0) as f32) * 2.0 * 2f32.powi(-24))
    }
}

/// `g / (1 + e^−g) · up`.
pub(super) struct Swiglu(pub Flaw);

impl Source for Swiglu {
    fn fill(&self, s: &Step, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let at = rows.start * cols.len()..rows.end * cols.len();
        let silu = match self.0.is(Fault::HardSilu) {
            true => |g: f32| g * (g / 6.0 + 0.5).clamp(0.0, 1.0),
            false => |g: f32| g / (1.0 + (-g).exp()),
        };
        let (gate, up) = (&s.reals(0)[at.clone()], &s.reals(1)[at]);
        out.iter_mut().zip(gate).zip(up).for_each(|((out, &g), u)| *out = silu(g) * u);
    }

    fn spread(&self, _: &Step, _: usize) -> Spread {
        Spread::Value(7.0 * 2f32.powi(-24))
    }
}

pub(super) struct Add(pub Flaw);

impl Source for Add {
    fn fill(&self, s: &Step, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let at = rows.start * cols.len()..rows.end * cols.len();
        let twice = self.0.is(Fault::ResidualTwice);
        let (a, b) = (&s.reals(0)[at.clone()], &s.reals(1)[at]);
        out.iter_mut().zip(a).zip(b).for_each(|((out, a), b)| *out = if twice { a + 2.0 * b } else { a + b });
    }
}
