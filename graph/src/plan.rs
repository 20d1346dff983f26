//! Where every value lives: one plan for every step, whatever its size.

use crate::{Graph, Kind, NodeId, Value};
use greta_ops::{Bindings, Cost, Dim, TensorDesc};
use serde::Serialize;
use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;

/// Bytes as `a·Tokens + b·Rows + c`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Bytes per token of the step.
    pub per_token: usize,
    /// Bytes per row wanted.
    pub per_row: usize,
    /// Bytes in any case.
    pub fixed: usize,
}

impl Size {
    /// Bytes for at most this many tokens and rows.
    pub fn at(&self, tokens: usize, rows: usize) -> usize {
        self.per_token * tokens + self.per_row * rows + self.fixed
    }

    /// The smallest size that holds either.
    fn max(self, o: Size) -> Size {
        Size {
            per_token: self.per_token.max(o.per_token),
            per_row: self.per_row.max(o.per_row),
            fixed: self.fixed.max(o.fixed),
        }
    }

    fn of(d: &TensorDesc) -> Size {
        let one =
            TensorDesc { dtype: d.dtype, dims: d.dims.iter().map(|d| Dim::Const(d.constant().unwrap_or(1))).collect() };
        let bytes = one.bytes(&Bindings::default());
        match d.dims.first() {
            Some(Dim::Tokens) => Size { per_token: bytes, ..Size::default() },
            Some(Dim::Rows) => Size { per_row: bytes, ..Size::default() },
            _ => Size { fixed: bytes, ..Size::default() },
        }
    }
}

/// A buffer of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct SlotId(pub u32);

/// A buffer and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Slot {
    /// Enough for every value that ever lies in it.
    pub size: Size,
}

/// A graph with a place for every op's outputs.
///
/// Two values share a slot only if the last reader of one comes before the other's producer.
#[derive(Clone, Debug)]
pub struct Plan {
    graph: Arc<Graph>,
    slots: Vec<Slot>,
    places: Vec<SmallVec<[Option<SlotId>; 2]>>,
    last_use: Vec<usize>,
}

impl Plan {
    /// Plans a verified graph: liveness from index order, then the free slot that grows least.
    pub fn new(graph: Graph) -> Plan {
        let last_use = last_uses(&graph);
        let (mut slots, mut free): (Vec<Slot>, Vec<SlotId>) = Default::default();
        let mut places: Vec<SmallVec<[Option<SlotId>; 2]>> = Vec::with_capacity(graph.len());
        for (id, node) in graph.nodes() {
            let mut here = SmallVec::new();
            for (out, d) in node.outs.iter().enumerate() {
                let value = Value { node: id, out: out as u8 };
                let stored = matches!(node.kind, Kind::Op(_)) && !graph.is_state(value);
                here.push(stored.then(|| take(&mut slots, &mut free, Size::of(d))));
            }
            places.push(here);
            // What this node was the last to read is free for the next one, not for its own outputs.
            for (i, p) in places.iter().enumerate() {
                if last_use[i] == id.index() {
                    free.extend(p.iter().flatten());
                }
            }
        }
        Plan { graph: Arc::new(graph), slots, places, last_use }
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The buffers.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Where a value lies; `None` for inputs, weights and caches.
    pub fn place(&self, v: Value) -> Option<SlotId> {
        self.places[v.node.index()][v.out as usize]
    }

    /// The last node that reads one of `id`'s outputs; the graph's end for an output, `id` itself if none does.
    pub fn last_use(&self, id: NodeId) -> usize {
        self.last_use[id.index()]
    }

    /// Bytes of all slots for steps of at most this size.
    pub fn buffer_bytes(&self, tokens: usize, rows: usize) -> usize {
        self.slots.iter().map(|s| s.size.at(tokens, rows)).sum()
    }

    /// The most bytes alive at once, if every value had its own buffer: what no plan can go below.
    pub fn live_bytes(&self, tokens: usize, rows: usize) -> usize {
        let mut peak = 0;
        for (at, _) in self.graph.nodes() {
            let alive = self.graph.nodes().take(at.index() + 1).filter(|(i, _)| self.last_use[i.index()] >= at.index());
            let bytes = alive
                .flat_map(|(i, n)| n.outs.iter().enumerate().map(move |(o, d)| (Value { node: i, out: o as u8 }, d)));
            peak = peak
                .max(bytes.filter(|(v, _)| self.place(*v).is_some()).map(|(_, d)| Size::of(d).at(tokens, rows)).sum());
        }
        peak
    }

    /// Work of one step, op by op; `at.slots` are the tokens of the sequence once the step is done.
    pub fn costs(&self, at: &Bindings) -> Vec<(NodeId, Cost)> {
        let ops = self.graph.nodes().filter_map(|(id, n)| match &n.kind {
            Kind::Op(op) => Some((id, n, op)),
            _ => None,
        });
        ops.map(|(id, n, op)| {
            let ins = self.graph.operands(id);
            let descs: Vec<_> = ins.iter().map(|&v| self.graph.desc(v)).collect();
            (id, op.spec().cost(&descs, &n.outs, at))
        })
        .collect()
    }
}

fn last_uses(g: &Graph) -> Vec<usize> {
    let mut last: Vec<usize> = (0..g.len()).collect();
    for (id, _) in g.nodes() {
        g.operands(id).iter().for_each(|v| last[v.node.index()] = id.index());
    }
    g.outputs().iter().for_each(|v| last[v.node.index()] = g.len());
    last
}

/// Takes the free slot that this size makes grow least, at a step of 64 tokens and one row; a new one if none is free.
fn take(slots: &mut Vec<Slot>, free: &mut Vec<SlotId>, size: Size) -> SlotId {
    let waste = |s: &SlotId| {
        let now = slots[s.0 as usize].size;
        let grown = now.max(size).at(64, 1) - now.at(64, 1);
        let unused = now.max(size).at(64, 1) - size.at(64, 1);
        (grown, unused, s.0)
    };
    if let Some(i) = (0..free.len()).min_by_key(|&i| waste(&free[i])) {
        let id = free.swap_remove(i);
        let slot = &mut slots[id.0 as usize];
        slot.size = slot.size.max(size);
        return id;
    }
    slots.push(Slot { size });
    SlotId(slots.len() as u32 - 1)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, node) in self.graph.nodes().filter(|(_, n)| matches!(n.kind, Kind::Op(_))) {
            let places: Vec<_> = self.places[id.index()]
                .iter()
                .map(|p| p.map_or("in place".into(), |s| format!("slot {}", s.0)))
                .collect();
            let until = match self.last_use[id.index()] {
                n if n == self.graph.len() => "the end".into(),
                n => format!("`{}`", self.graph.node(NodeId(n as u32)).name),
            };
            writeln!(f, "{:<28} {:<16} until {until}", node.name, places.join(" + "))?;
        }
        for (i, s) in self.slots.iter().enumerate() {
            writeln!(f, "slot {i}: {}·T + {}·R + {} bytes", s.size.per_token, s.size.per_row, s.size.fixed)?;
        }
        Ok(())
    }
}
