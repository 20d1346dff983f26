//! Builds a graph node by node.

use crate::graph::Port;
use crate::{BuildError, Graph, Input, Kind, Node, NodeId, StateRole, Value, verify};
use greta_ops::{DType, Descs, Dim, Op, TensorDesc};
use petgraph::graph::NodeIndex;
use smallvec::smallvec;

/// Appends nodes; an op's output shapes are inferred as it is added.
///
/// ```
/// use greta_graph::{GraphBuilder, Input};
/// use greta_ops::{Add, DType, Embed, TensorDesc, Dim};
///
/// let mut b = GraphBuilder::new();
/// let table = b.weight("token_embd.weight", TensorDesc::matrix(DType::F16, Dim::Const(100), Dim::Const(64)))?;
/// let tokens = b.input(Input::Tokens)?;
/// let x = b.op("embd", Embed {}, &[table, tokens])?;
/// let y = b.op("twice", Add {}, &[x, x])?;
/// b.output(y);
/// let graph = b.finish()?;
/// assert_eq!(graph.len(), 4);
/// # Ok::<(), greta_graph::BuildError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct GraphBuilder {
    graph: Graph,
}

impl GraphBuilder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Something each step brings; asked for again, the same value.
    pub fn input(&mut self, input: Input) -> Result<Value, BuildError> {
        if let Some(node) = self.graph.find(input.name()) {
            return Ok(Value { node, out: 0 });
        }
        self.leaf(input.name(), Kind::Input { input }, smallvec![input.desc()])
    }

    /// A whole tensor of the model file; asked for again, the same value. The node bears the tensor's name.
    pub fn weight(&mut self, tensor: &str, desc: TensorDesc) -> Result<Value, BuildError> {
        if let Some(node) = self.graph.find(tensor).filter(|&n| self.graph.node(n).outs[0] == desc) {
            return Ok(Value { node, out: 0 });
        }
        self.leaf(tensor, Kind::Weight { tensor: tensor.into(), rows: None }, smallvec![desc])
    }

    /// A KV cache with rows of `heads · head_dim` values of `dtype`.
    pub fn state(
        &mut self,
        name: &str,
        role: StateRole,
        heads: usize,
        head_dim: usize,
        dtype: DType,
    ) -> Result<Value, BuildError> {
        let desc = TensorDesc::matrix(dtype, Dim::Slots, Dim::Const(heads * head_dim));
        self.leaf(name, Kind::State { role, heads }, smallvec![desc])
    }

    /// An op; gives its first output ([`Value::output`] names the others).
    pub fn op(&mut self, name: impl Into<String>, op: impl Into<Op>, operands: &[Value]) -> Result<Value, BuildError> {
        let (name, op) = (name.into(), op.into());
        let mut descs = Vec::with_capacity(operands.len());
        for (i, v) in operands.iter().enumerate() {
            let found = (v.node.index() < self.graph.len()).then(|| self.graph.node(v.node).outs.get(v.out as usize));
            let Some(desc) = found.flatten() else {
                return Err(BuildError::Dangling { node: name, operand: i, index: v.node.index(), out: v.out.into() });
            };
            descs.push(desc);
        }
        let outs = op.spec().infer(&descs).map_err(|source| BuildError::Infer {
            node: name.clone(),
            op: op.to_string(),
            source,
        })?;
        self.append(Node { name, kind: Kind::Op(op), outs }, operands)
    }

    /// Names a value the step gives back.
    pub fn output(&mut self, value: Value) {
        if !self.graph.outputs.contains(&value) {
            self.graph.outputs.push(value);
        }
    }

    /// Checks every invariant and gives the graph.
    pub fn finish(self) -> Result<Graph, BuildError> {
        verify(&self.graph)?;
        Ok(self.graph)
    }

    /// Continues a finished graph.
    pub(crate) fn from_graph(graph: Graph) -> Self {
        GraphBuilder { graph }
    }

    /// The graph so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    pub(crate) fn leaf(&mut self, name: &str, kind: Kind, outs: Descs) -> Result<Value, BuildError> {
        self.append(Node { name: name.into(), kind, outs }, &[])
    }

    pub(crate) fn append(&mut self, node: Node, operands: &[Value]) -> Result<Value, BuildError> {
        let g = &mut self.graph;
        if g.names.contains_key(&node.name) {
            return Err(BuildError::DuplicateName(node.name));
        }
        let name = node.name.clone();
        let at = g.inner.add_node(node);
        for (slot, v) in operands.iter().enumerate() {
            g.inner.add_edge(NodeIndex::new(v.node.index()), at, Port { out: v.out, slot: slot as u8 });
        }
        let id = NodeId(at.index() as u32);
        g.names.insert(name, id);
        Ok(Value { node: id, out: 0 })
    }
}

impl Graph {
    /// The same graph with the first outputs of the nodes of these names among its outputs.
    pub fn with_outputs<S: AsRef<str>>(&self, names: &[S]) -> Result<Graph, BuildError> {
        let mut b = GraphBuilder::from_graph(self.clone());
        for name in names.iter().map(AsRef::as_ref) {
            let node = self.find(name).ok_or_else(|| BuildError::UnknownNode(name.into()))?;
            b.output(Value { node, out: 0 });
        }
        b.finish()
    }
}
