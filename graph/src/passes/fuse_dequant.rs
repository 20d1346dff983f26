//! `dequant → matmul` and `dequant → embed`: the consumer reads the packed weight.

use crate::{BuildError, Graph, Kind, Pass, PassLog, Rewriter, Rewritten, Value};
use greta_ops::Op;

/// Points a matmul or embed at the packed weight behind a dequant. The kernel dequantises on the way, to the same bits.
///
/// The dequant itself stays for other readers; `drop_dead` takes it away if there are none.
pub struct FuseDequant;

impl Pass for FuseDequant {
    fn name(&self) -> &'static str {
        "fuse_dequant"
    }

    fn run(&self, g: &Graph, log: &mut PassLog) -> Result<Rewritten, BuildError> {
        let mut rw = Rewriter::new(g);
        for (id, node) in g.nodes() {
            let ins = g.operands(id);
            match (&node.kind, ins.first().and_then(|&w| behind_dequant(g, w))) {
                (Kind::Op(op @ (Op::MatMul(_) | Op::Embed(_))), Some(packed)) => {
                    let mut new: Vec<_> = ins.iter().map(|&v| rw.get(v)).collect();
                    new[0] = rw.get(packed);
                    rw.replace(id, op.clone(), &new)?;
                    log.did(self.name(), &node.name);
                }
                _ => {
                    rw.copy(id)?;
                }
            }
        }
        rw.finish()
    }
}

/// The packed weight that a value is the dequantisation of.
pub(super) fn behind_dequant(g: &Graph, v: Value) -> Option<Value> {
    matches!(g.node(v.node).kind, Kind::Op(Op::Dequant(_))).then(|| g.operands(v.node)[0])
}
