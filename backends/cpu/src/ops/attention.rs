//! `attention`: a chunk is some tokens of one sequence and one key-value head.

use super::{Kernel, Lowering, Memory, Place};
use crate::kernels::attention::{Cache, Queries, attention};
use crate::kv::StateShape;
use crate::simd::Level;
use greta_ops::{Bindings, Dim, PAGE_TOKENS, TensorDesc};
use std::ops::Range;

/// Query rows (tokens · heads of a group) of a chunk: enough to use a page well while it is in the first-level cache.
const TILE: usize = 96;

pub(super) struct Attention {
    level: Level,
    op: greta_ops::Attention,
    shape: StateShape,
    ins: Vec<Place>,
    out: Place,
    rows: Dim,
    table: TensorDesc,
}

impl Attention {
    pub fn new(op: &greta_ops::Attention, l: Lowering) -> Attention {
        let Place::State(state) = l.ins[1] else { unreachable!("infer takes a cache alone") };
        Attention {
            level: l.level,
            op: op.clone(),
            shape: l.states[state],
            out: l.outs[0].clone(),
            rows: l.descs[0].rows(),
            table: l.descs[5].clone(),
            ins: l.ins,
        }
    }

    /// Runs of tokens of one sequence, cut to tiles.
    fn tiles<'s>(&self, seqs: &'s [i32]) -> impl Iterator<Item = Range<usize>> + 's {
        let most = (TILE / (self.op.heads / self.op.kv_heads)).max(1);
        let mut at = 0;
        std::iter::from_fn(move || {
            let seq = *seqs.get(at)?;
            let start = at;
            while at < seqs.len() && seqs[at] == seq && at - start < most {
                at += 1;
            }
            Some(start..at)
        })
    }

    fn seqs<'m>(&self, m: &'m Memory) -> &'m [i32] {
        // SAFETY: an input of the step or a constant, with an element a row.
        unsafe { m.read(&self.ins[4], self.rows.at(&m.at)) }
    }
}

impl Kernel for Attention {
    fn chunks(&self, m: &Memory) -> usize {
        self.tiles(self.seqs(m)).count() * self.op.kv_heads
    }

    unsafe fn run(&self, m: &Memory, chunk: usize) {
        let (rows, width) = (self.rows.at(&m.at), self.op.heads * self.op.head_dim);
        // The last tiles of a sequence see the most keys; they go first, so that no thread is left with one at the end.
        let tiles = self.tiles(self.seqs(m)).count();
        let Some(tokens) = self.tiles(self.seqs(m)).nth(tiles - 1 - chunk / self.op.kv_heads) else { return };
        let table_width = self.table.cols().at(&m.at);
        // SAFETY: the operands have these sizes. Positions are not negative (the session checks), so they may be read as
        // unsigned.
        let (q, positions, table) = unsafe {
            let table: &[i32] = m.read(&self.ins[5], self.table.elements(&m.at));
            (m.read(&self.ins[0], rows * width), m.read::<u32>(&self.ins[3], rows), table)
        };
        let last = positions[tokens.clone()].iter().max().map_or(0, |&p| p as usize);
        let seq = self.seqs(m)[tokens.start] as usize;
        let numbers = &table[seq * table_width..][..last / PAGE_TOKENS + 1];
        let bases = |place: &Place| -> Vec<*const u8> {
            let pages = m.pages(place);
            numbers.iter().map(|&p| pages[p as usize].cast_const()).collect()
        };
        let (keys, values) = (bases(&self.ins[1]), bases(&self.ins[2]));
        let cache = Cache { shape: self.shape.page, keys: &keys, values: &values };
        let queries = Queries { q, heads: self.op.heads, positions, scale: self.op.scale };
        // SAFETY: pages are whole, aligned, and written before this stage; the tokens' values of these heads are this
        // chunk's.
        unsafe { attention(self.level, &cache, &queries, tokens, chunk % self.op.kv_heads, m.out(&self.out), width) };
    }

    fn route(&self, at: &Bindings) -> String {
        let shape = if self.rows.at(at) == 1 { "decode" } else { "prefill" };
        format!("attention.{shape}.{}", self.level.name())
    }
}
