//! Passes: a pass rebuilds the graph, it never edits in place.

use crate::{
    BuildError, Graph, GraphBuilder, Kind, NodeId, TapMode, TapRequest, Value, insert_taps, passes, taps::delay_taps,
};
use greta_ops::Op;
use std::collections::HashMap;

/// One rewrite of a whole graph.
pub trait Pass: Sync {
    /// The name it is switched off by.
    fn name(&self) -> &'static str;

    /// Whether the pass changes numbers (an arithmetic pass) or leaves every remaining value as it was, to the bit.
    fn changes_numbers(&self) -> bool {
        false
    }

    /// Makes the new graph.
    fn run(&self, g: &Graph, log: &mut PassLog) -> Result<Rewritten, BuildError>;
}

/// What a pass gives: a graph, and where the old graph's values are in it.
#[derive(Debug)]
pub struct Rewritten {
    /// The new graph.
    pub graph: Graph,
    /// Old value → new value; values that are gone are missing.
    pub map: HashMap<Value, Value>,
}

/// Something a pass did or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassEvent {
    /// The pass.
    pub pass: &'static str,
    /// The node it looked at.
    pub node: String,
    /// `None` if it was rewritten, else why not.
    pub refused: Option<String>,
}

/// All events of a pipeline, in order.
#[derive(Clone, Debug, Default)]
pub struct PassLog {
    /// The events.
    pub events: Vec<PassEvent>,
}

impl PassLog {
    /// Notes a rewrite.
    pub fn did(&mut self, pass: &'static str, node: &str) {
        self.events.push(PassEvent { pass, node: node.into(), refused: None });
    }

    /// Notes a refusal and its reason.
    pub fn refused(&mut self, pass: &'static str, node: &str, why: impl Into<String>) {
        self.events.push(PassEvent { pass, node: node.into(), refused: Some(why.into()) });
    }

    /// How often a pass rewrote something.
    pub fn count(&self, pass: &str) -> usize {
        self.events.iter().filter(|e| e.pass == pass && e.refused.is_none()).count()
    }
}

/// Copies a graph node by node, so that a pass states only what differs.
pub struct Rewriter<'g> {
    old: &'g Graph,
    /// The new graph so far.
    pub new: GraphBuilder,
    map: HashMap<Value, Value>,
}

impl<'g> Rewriter<'g> {
    /// Starts with an empty new graph.
    pub fn new(old: &'g Graph) -> Self {
        Rewriter { old, new: GraphBuilder::new(), map: HashMap::new() }
    }

    /// Where an old value is in the new graph. Every operand of a node is mapped before the node comes up, unless the
    /// pass left its producer out; then the old value is answered, and the builder refuses it if it is not there.
    pub fn get(&self, old: Value) -> Value {
        self.map.get(&old).copied().unwrap_or(old)
    }

    /// Copies a node with its operands mapped.
    pub fn copy(&mut self, id: NodeId) -> Result<Value, BuildError> {
        let node = self.old.node(id);
        let new = match &node.kind {
            Kind::Op(op) => {
                let ins: Vec<_> = self.old.operands(id).iter().map(|&v| self.get(v)).collect();
                self.new.op(&node.name, op.clone(), &ins)?
            }
            Kind::Tap(_) => {
                let ins: Vec<_> = self.old.operands(id).iter().map(|&v| self.get(v)).collect();
                self.new.append(node.clone(), &ins)?
            }
            leaf => self.new.leaf(&node.name, leaf.clone(), node.outs.clone())?,
        };
        self.put(id, new);
        Ok(new)
    }

    /// Puts an op in a node's place; it takes the node's name, and has as many outputs.
    pub fn replace(&mut self, id: NodeId, op: impl Into<Op>, ins: &[Value]) -> Result<Value, BuildError> {
        let new = self.new.op(&self.old.node(id).name, op, ins)?;
        self.put(id, new);
        Ok(new)
    }

    /// Finishes: the old graph's outputs become the new one's.
    pub fn finish(mut self) -> Result<Rewritten, BuildError> {
        for &v in self.old.outputs() {
            let v = self.get(v);
            self.new.output(v);
        }
        Ok(Rewritten { graph: self.new.finish()?, map: self.map })
    }

    fn put(&mut self, id: NodeId, new: Value) {
        for out in 0..self.old.node(id).outs.len() as u8 {
            self.map.insert(Value { node: id, out }, new.output(out));
        }
    }
}

/// A list of passes, some of them switched off.
pub struct Pipeline {
    passes: Vec<&'static dyn Pass>,
    taps: Vec<TapRequest>,
    mode: TapMode,
}

impl Pipeline {
    fn of(passes: Vec<&'static dyn Pass>) -> Pipeline {
        Pipeline { passes, taps: Vec::new(), mode: TapMode::default() }
    }

    /// With taps: before the fusions or after them, as the mode says.
    pub fn with_taps(mut self, taps: &[TapRequest], mode: TapMode) -> Pipeline {
        self.taps = taps.to_vec();
        self.mode = mode;
        self
    }

    /// The passes that make the `exact` arithmetic: fusions alone.
    pub fn exact() -> Pipeline {
        Pipeline::of(passes::ALL.iter().copied().filter(|p| !p.changes_numbers()).collect())
    }

    /// The passes that make the `int8` arithmetic.
    pub fn int8() -> Pipeline {
        Pipeline::of(passes::ALL.to_vec())
    }

    /// Without the fusions that make fused ops a backend does not have.
    pub fn retain(mut self, keep: impl Fn(&dyn Pass) -> bool) -> Pipeline {
        self.passes.retain(|p| keep(*p));
        self
    }

    /// Switches passes off by name. A name that no pass has is an error; one that is not in this list is not.
    pub fn without<S: AsRef<str>>(mut self, names: &[S]) -> Result<Pipeline, BuildError> {
        for name in names.iter().map(AsRef::as_ref) {
            if !passes::ALL.iter().any(|p| p.name() == name) {
                let known = passes::ALL.iter().map(|p| p.name()).collect::<Vec<_>>().join(", ");
                return Err(BuildError::UnknownPass { name: name.into(), known });
            }
            self.passes.retain(|p| p.name() != name);
        }
        Ok(self)
    }

    /// Names of the passes, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.passes.iter().map(|p| p.name()).collect()
    }

    /// Runs the passes; each verifies what it made.
    pub fn run(&self, g: &Graph) -> Result<(Graph, PassLog), BuildError> {
        let (mut graph, mut log) = (g.clone(), PassLog::default());
        let (arithmetic, fusions) = self.passes.iter().partition::<Vec<&dyn Pass>, _>(|p| p.changes_numbers());
        for p in arithmetic {
            graph = p.run(&graph, &mut log)?.graph;
        }
        if self.mode == TapMode::Semantic && !self.taps.is_empty() {
            graph = insert_taps(&graph, &self.taps)?;
        }
        for p in fusions {
            graph = p.run(&graph, &mut log)?.graph;
        }
        if self.mode == TapMode::AsExecuted && !self.taps.is_empty() {
            graph = insert_taps(&graph, &self.taps)?;
        }
        // As executed, no buffer may move for a tap.
        if !self.taps.is_empty() && self.mode == TapMode::Semantic {
            graph = delay_taps(&graph)?;
        }
        Ok((graph, log))
    }
}
