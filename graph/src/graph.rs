//! Nodes and edges. petgraph stays inside this file.

use greta_ops::{DType, Descs, Dim, Op, TensorDesc};
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::ops::Range;

/// A node's place; execution runs in the order of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub u32);

impl NodeId {
    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One output of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Value {
    /// The node.
    pub node: NodeId,
    /// Which of its outputs.
    pub out: u8,
}

impl Value {
    /// The same node's output `out`.
    pub fn output(self, out: u8) -> Value {
        Value { out, ..self }
    }
}

/// What a step brings with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Token ids.
    Tokens,
    /// Position of each token in its sequence.
    Positions,
    /// Sequence of each token: a row of the block table.
    Seqs,
    /// Cache slot each token's keys and values go to.
    Slots,
    /// Rows (tokens of the step) whose logits are wanted.
    RowsWanted,
    /// Pages of each sequence, in order of position.
    BlockTable,
}

impl Input {
    /// Every input.
    pub const ALL: [Input; 6] =
        [Input::Tokens, Input::Positions, Input::Seqs, Input::Slots, Input::RowsWanted, Input::BlockTable];

    /// The node's name.
    pub fn name(self) -> &'static str {
        match self {
            Input::Tokens => "tokens",
            Input::Positions => "positions",
            Input::Seqs => "seqs",
            Input::Slots => "slots",
            Input::RowsWanted => "rows_wanted",
            Input::BlockTable => "block_table",
        }
    }

    /// Its type and shape.
    pub fn desc(self) -> TensorDesc {
        match self {
            Input::RowsWanted => TensorDesc::vector(DType::I32, Dim::Rows),
            Input::BlockTable => TensorDesc::matrix(DType::I32, Dim::Seqs, Dim::Pages),
            _ => TensorDesc::vector(DType::I32, Dim::Tokens),
        }
    }
}

/// What a state holds; a backend lays keys and values out as its attention kernel wants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateRole {
    /// Keys of one layer.
    Keys,
    /// Values of one layer.
    Values,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    /// Brought by each step.
    Input {
        /// Which.
        input: Input,
    },
    /// A tensor of the model file, or some of its rows.
    Weight {
        /// The tensor's name in the file.
        tensor: String,
        /// Rows taken; all if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rows: Option<Range<u32>>,
    },
    /// A KV cache, kept from step to step.
    State {
        /// What it holds.
        role: StateRole,
        /// Heads in a row, so that a layout by head is possible.
        heads: usize,
    },
    /// An operation.
    Op(Op),
    /// A look at its one operand: a leaf without outputs that changes nothing.
    Tap(crate::TapSpec),
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Unique in the graph, such as `blk.3.attn_norm`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Type and shape of each output.
    pub outs: Descs,
}

/// Which output feeds which operand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Port {
    pub out: u8,
    pub slot: u8,
}

/// An immutable graph; [`crate::GraphBuilder`] makes one.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub(crate) inner: DiGraph<Node, Port>,
    pub(crate) outputs: Vec<Value>,
    pub(crate) names: HashMap<String, NodeId>,
}

impl Graph {
    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.inner.node_count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All nodes in execution order.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (NodeId, &Node)> {
        self.inner.node_indices().map(|i| (NodeId(i.index() as u32), &self.inner[i]))
    }

    /// A node of this graph.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.inner[NodeIndex::new(id.index())]
    }

    /// The node of this name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.names.get(name).copied()
    }

    /// The operands of a node, in order.
    pub fn operands(&self, id: NodeId) -> SmallVec<[Value; 6]> {
        let mut by_slot: SmallVec<[(u8, Value); 6]> = self
            .inner
            .edges_directed(NodeIndex::new(id.index()), Direction::Incoming)
            .map(|e| (e.weight().slot, Value { node: NodeId(e.source().index() as u32), out: e.weight().out }))
            .collect();
        by_slot.sort_by_key(|(slot, _)| *slot);
        by_slot.into_iter().map(|(_, v)| v).collect()
    }

    /// Who reads a value, in execution order; a node that reads it twice is listed twice.
    pub fn consumers(&self, value: Value) -> SmallVec<[NodeId; 4]> {
        let mut list: SmallVec<[NodeId; 4]> = self
            .inner
            .edges_directed(NodeIndex::new(value.node.index()), Direction::Outgoing)
            .filter(|e| e.weight().out == value.out)
            .map(|e| NodeId(e.target().index() as u32))
            .collect();
        list.sort();
        list
    }

    /// Type and shape of a value.
    pub fn desc(&self, value: Value) -> &TensorDesc {
        &self.node(value.node).outs[value.out as usize]
    }

    /// The values a step gives back.
    pub fn outputs(&self) -> &[Value] {
        &self.outputs
    }

    /// A value's name: its node's, with `.1` and so on for further outputs.
    pub fn value_name(&self, value: Value) -> String {
        match value.out {
            0 => self.node(value.node).name.clone(),
            n => format!("{}.{n}", self.node(value.node).name),
        }
    }

    /// Whether a value is a KV cache, as it was or after a write.
    pub fn is_state(&self, value: Value) -> bool {
        self.desc(value).rows() == Dim::Slots
    }

    /// The state node a cache value goes back to through its writes.
    pub fn state_of(&self, value: Value) -> Option<NodeId> {
        let mut at = value;
        loop {
            match &self.node(at.node).kind {
                Kind::State { .. } => return Some(at.node),
                Kind::Op(Op::CacheWrite(_)) => at = *self.operands(at.node).first()?,
                _ => return None,
            }
        }
    }
}

impl PartialEq for Graph {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.outputs == other.outputs
            && self.nodes().zip(other.nodes()).all(|((i, a), (j, b))| a == b && self.operands(i) == other.operands(j))
    }
}
