//! Graphviz.

use crate::{Graph, Kind};
use std::fmt::Write;

impl Graph {
    /// The graph in Graphviz' language: ops as boxes, weights as notes, states as cylinders, inputs as ellipses.
    pub fn to_dot(&self) -> String {
        let mut out = String::from("digraph greta {\n  rankdir=TB;\n  node [fontname=\"monospace\", fontsize=10];\n");
        for (id, node) in self.nodes() {
            let (shape, what) = match &node.kind {
                Kind::Input { .. } => ("ellipse", "input".to_string()),
                Kind::Weight { .. } => ("note", "weight".to_string()),
                Kind::State { .. } => ("cylinder", "state".to_string()),
                Kind::Op(op) => ("box", op.to_string()),
                Kind::Tap(spec) => ("octagon", spec.to_string()),
            };
            let descs: Vec<_> = node.outs.iter().map(|d| d.to_string()).collect();
            let bold = if self.outputs().iter().any(|v| v.node == id) { ", penwidth=2" } else { "" };
            let label = format!("{}\\n{}\\n{}", escape(&node.name), escape(&what), descs.join(" + "));
            // Writing to a string can't fail.
            let _ = writeln!(out, "  n{} [shape={shape}, label=\"{label}\"{bold}];", id.0);
            for (slot, v) in self.operands(id).iter().enumerate() {
                let _ = writeln!(out, "  n{} -> n{} [label=\"{slot}\", fontsize=8];", v.node.0, id.0);
            }
        }
        out.push_str("}\n");
        out
    }
}

fn escape(s: &str) -> String {
    s.replace('\\', "\\\\").replace('"', "\\\"")
}
