//! `attention`: for a token's head all scores, their largest, the exponentials, their sum, the weighted values.
//!
//! Scores are [`sum::dot`]'s times the scale; weights, their sum and the weighted values are taken in ascending order
//! of the position, each operation rounded to f32; the quotient comes last.

use super::flaw::Flaw;
use super::kernel::Source;
use super::output::Spread;
use super::step::Step;
use super::sum;
use crate::kernels::cache::cache_read;
use crate::kv::StateShape;
use crate::ops::Place;
use greta_backend::Fault;
use greta_ops::PAGE_TOKENS;
use std::ops::Range;

pub(super) struct Attention {
    pub flaw: Flaw,
    pub op: greta_ops::Attention,
    /// Keys, then values.
    pub caches: [(Place, StateShape); 2],
}

/// Keys and values of some slots, row after row.
struct Rows {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Attention {
    /// Reads slots of both caches.
    fn read(&self, s: &Step, slots: &[usize]) -> Rows {
        let rows = |(place, shape): &(Place, StateShape)| {
            let (pages, width) = (s.m.pages(place), shape.width());
            let mut out = vec![0.0; slots.len() * width];
            for (slot, row) in slots.iter().zip(out.chunks_exact_mut(width)) {
                let page = pages[slot / PAGE_TOKENS];
                // SAFETY: pages are whole, aligned and zeroed when made, and no stage writes to them beside this one.
                unsafe { cache_read(&shape.page, shape.side, page, slot % PAGE_TOKENS, row) };
            }
            out
        };
        Rows { keys: rows(&self.caches[0]), values: rows(&self.caches[1]) }
    }

    /// How many positions, from 0 on, the token at position `p` attends to.
    fn sees(&self, p: usize) -> usize {
        match self.flaw.fault() {
            Some(Fault::SeqLenMinus1) => p.max(1),
            Some(Fault::CtxBoundary) => (p + 1).min(self.flaw.param(64).max(1)),
            _ => p + 1,
        }
    }

    /// The slot after position `p` that the token sees too; `last` is the last position its sequence has a page for.
    fn extra(&self, p: usize, last: usize, several: bool, slot: impl Fn(usize) -> usize) -> Option<usize> {
        match self.flaw.fault() {
            Some(Fault::MaskPlus1) => (several && p < last).then(|| slot(p + 1)),
            // Past the sequence's last page the kernel comes back to the page's own first slot.
            Some(Fault::SeqLenPlus1) if (p + 1) / PAGE_TOKENS > last / PAGE_TOKENS => {
                Some(slot(p) / PAGE_TOKENS * PAGE_TOKENS)
            }
            Some(Fault::SeqLenPlus1) => Some(slot(p + 1)),
            _ => None,
        }
    }

    /// One head of one token.
    fn head(&self, q: &[f32], keys: &[&[f32]], values: &[&[f32]], out: &mut [f32]) {
        let dot = sum::dot_of(self.flaw);
        let scale = if self.flaw.is(Fault::NoSqrtD) { 1.0 } else { self.op.scale };
        let mut weights: Vec<f32> = keys.iter().map(|k| dot(q, k) * scale).collect();
        let max = weights.iter().fold(f32::MIN, |m, &s| m.max(s));
        let exp = match self.flaw.is(Fault::CoarseExp) {
            true => |x: f32| (1.0 + x / 64.0).max(0.0).powi(64),
            false => |x: f32| x.exp(),
        };
        let mut total = 0f32;
        for w in &mut weights {
            *w = exp(*w - max);
            total += *w;
        }
        out.fill(0.0);
        for (w, v) in weights.iter().zip(values) {
            out.iter_mut().zip(*v).for_each(|(o, v)| *o += w * v);
        }
        out.iter_mut().for_each(|o| *o /= total);
    }
}

/// The same columns of every row.
fn parts<'r>(rows: &'r [f32], more: &'r [f32], width: usize, cols: Range<usize>) -> Vec<&'r [f32]> {
    rows.chunks_exact(width).chain(more.chunks_exact(width)).map(|row| &row[cols.clone()]).collect()
}

impl Source for Attention {
    fn fill(&self, s: &Step, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let (q, positions, seqs) = (s.reals(0), s.ints(3), s.ints(4));
        let (table, pages) = (s.ints(5), s.cols(5));
        let (n, d) = (cols.len(), self.op.head_dim);
        let width = self.op.kv_heads * d;
        let mut at = rows.start;
        while at < rows.end {
            let seq = seqs[at];
            let run = at..(at..rows.end).find(|&t| seqs[t] != seq).unwrap_or(rows.end);
            let slot =
                |p: usize| table[seq as usize * pages + p / PAGE_TOKENS] as usize * PAGE_TOKENS + p % PAGE_TOKENS;
            let top = positions[run.clone()].iter().max().map_or(0, |&p| p.max(0) as usize);
            let last = seqs.iter().zip(positions).filter(|(s, _)| **s == seq).map(|(_, &p)| p.max(0) as usize).max();
            let cache = self.read(s, &(0..=top).map(slot).collect::<Vec<_>>());
            for t in run.clone() {
                let p = positions[t].max(0) as usize;
                let extra = self.extra(p, last.unwrap_or(p), seqs.len() > 1, slot);
                let more = self.read(s, &extra.into_iter().collect::<Vec<_>>());
                for h in 0..self.op.heads {
                    let kv = match self.flaw.is(Fault::GqaMap) {
                        true => h % self.op.kv_heads,
                        false => h / (self.op.heads / self.op.kv_heads),
                    };
                    let mut query = q[t * n + h * d..][..d].to_vec();
                    sum::mask(self.flaw, &mut query);
                    let (seen, head) = (self.sees(p) * width, kv * d..(kv + 1) * d);
                    let keys = parts(&cache.keys[..seen], &more.keys, width, head.clone());
                    let values = parts(&cache.values[..seen], &more.values, width, head);
                    let at = (t - rows.start) * n + h * d;
                    self.head(&query, &keys, &values, &mut out[at..][..d]);
                }
            }
            at = run.end;
        }
    }

    fn spread(&self, _: &Step, _: usize) -> Spread {
        // Scores of a few units over heads of 64 or 128 values.
        Spread::Row(3000.0 * 2f32.powi(-24))
    }
}
