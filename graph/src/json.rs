//! A saved graph. Reading goes through the builder and the verifier, so a file can't bring in a broken graph.

use crate::{BuildError, Graph, GraphBuilder, Kind, Value};
use greta_ops::Descs;
use serde::{Deserialize, Serialize};

/// The file's version; raised when a reader of the old one would misread the new.
const SCHEMA: u32 = 1;

/// A graph as JSON holds it: nodes in execution order, operands as `[node, output]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GraphJson {
    schema: u32,
    nodes: Vec<NodeJson>,
    outputs: Vec<Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct NodeJson {
    name: String,
    #[serde(flatten)]
    kind: Kind,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ins: Vec<Value>,
    outs: Descs,
}

impl From<&Graph> for GraphJson {
    fn from(g: &Graph) -> Self {
        let node = |(id, n): (_, &crate::Node)| NodeJson {
            name: n.name.clone(),
            kind: n.kind.clone(),
            ins: g.operands(id).into_vec(),
            outs: n.outs.clone(),
        };
        GraphJson { schema: SCHEMA, nodes: g.nodes().map(node).collect(), outputs: g.outputs().to_vec() }
    }
}

impl GraphJson {
    /// Builds and verifies the graph.
    pub fn build(self) -> Result<Graph, BuildError> {
        if self.schema != SCHEMA {
            return Err(BuildError::Json(format!("schema {} (this greta reads {SCHEMA})", self.schema)));
        }
        let mut b = GraphBuilder::new();
        for n in self.nodes {
            match n.kind {
                Kind::Op(op) => {
                    let v = b.op(&n.name, op, &n.ins)?;
                    let inferred = &b.graph().node(v.node).outs;
                    if *inferred != n.outs {
                        return Err(BuildError::Json(format!("node `{}` has shapes its op does not give", n.name)));
                    }
                }
                kind @ Kind::Tap(_) => {
                    b.append(crate::Node { name: n.name, kind, outs: n.outs }, &n.ins)?;
                }
                kind if n.ins.is_empty() => {
                    b.leaf(&n.name, kind, n.outs)?;
                }
                _ => return Err(BuildError::Json(format!("node `{}` is a leaf but has operands", n.name))),
            }
        }
        self.outputs.into_iter().for_each(|v| b.output(v));
        b.finish()
    }
}

impl Graph {
    /// The graph as pretty JSON.
    pub fn to_json(&self) -> String {
        // A graph holds no map with non-string keys and no non-finite float that infer let pass.
        serde_json::to_string_pretty(&GraphJson::from(self)).unwrap_or_default()
    }

    /// Reads what [`Graph::to_json`] wrote.
    pub fn from_json(text: &str) -> Result<Graph, BuildError> {
        serde_json::from_str::<GraphJson>(text).map_err(|e| BuildError::Json(e.to_string()))?.build()
    }
}
