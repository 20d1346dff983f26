//! Leaves out what no output needs.

use crate::{BuildError, Graph, Kind, Pass, PassLog, Rewriter, Rewritten};

/// Keeps the nodes that an output or a tap reads, directly or not. A graph without outputs becomes empty.
pub struct DropDead;

impl Pass for DropDead {
    fn name(&self) -> &'static str {
        "drop_dead"
    }

    fn run(&self, g: &Graph, log: &mut PassLog) -> Result<Rewritten, BuildError> {
        let mut live = vec![false; g.len()];
        for v in g.outputs() {
            live[v.node.index()] = true;
        }
        let ids: Vec<_> = g.nodes().map(|(id, _)| id).collect();
        for (id, node) in g.nodes() {
            live[id.index()] |= matches!(node.kind, Kind::Tap(_));
        }
        for &id in ids.iter().rev() {
            if live[id.index()] {
                g.operands(id).iter().for_each(|v| live[v.node.index()] = true);
            }
        }
        let mut rw = Rewriter::new(g);
        for id in ids {
            if live[id.index()] {
                rw.copy(id)?;
            } else {
                log.did(self.name(), &g.node(id).name);
            }
        }
        rw.finish()
    }
}
