//! The canonical text: one line a node, equal graphs give equal text.

use crate::{Graph, Kind};
use std::fmt;

/// `name: type[shape] = what(attributes)(operands)`, in execution order, then the outputs.
impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, node) in self.nodes() {
            write!(f, "{}: ", node.name)?;
            for (i, d) in node.outs.iter().enumerate() {
                write!(f, "{}{d}", if i > 0 { " + " } else { "" })?;
            }
            match &node.kind {
                Kind::Input { .. } => f.write_str(" = input")?,
                Kind::Weight { tensor, rows } => {
                    f.write_str(" = weight")?;
                    if *tensor != node.name {
                        write!(f, " {tensor}")?;
                    }
                    if let Some(r) = rows {
                        write!(f, " rows {}..{}", r.start, r.end)?;
                    }
                }
                Kind::State { role, heads } => {
                    let role = format!("{role:?}").to_lowercase();
                    write!(f, " = state {role} heads={heads}")?;
                }
                Kind::Tap(spec) => {
                    let ins: Vec<_> = self.operands(id).iter().map(|&v| self.value_name(v)).collect();
                    write!(f, "= {spec} ← {}", ins.join(", "))?;
                }
                Kind::Op(op) => {
                    let ins: Vec<_> = self.operands(id).iter().map(|&v| self.value_name(v)).collect();
                    write!(f, " = {op} ← {}", ins.join(", "))?;
                }
            }
            writeln!(f)?;
        }
        for &v in self.outputs() {
            writeln!(f, "→ {}", self.value_name(v))?;
        }
        Ok(())
    }
}
