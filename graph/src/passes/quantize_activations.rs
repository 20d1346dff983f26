//! The `int8` arithmetic.

use super::fuse_dequant::behind_dequant;
use crate::{BuildError, Graph, Kind, Pass, PassLog, Rewriter, Rewritten, Value};
use greta_ops::{MatMul, Op, Quantize};
use std::collections::HashMap;

/// Puts a `quantize` before every matmul with a quantised weight; readers of one activation share it.
///
/// The node is named after the activation: `blk.0.attn_norm` gives `blk.0.attn_norm.q8`.
pub struct QuantizeActivations;

impl Pass for QuantizeActivations {
    fn name(&self) -> &'static str {
        "quantize_activations"
    }

    fn changes_numbers(&self) -> bool {
        true
    }

    fn run(&self, g: &Graph, log: &mut PassLog) -> Result<Rewritten, BuildError> {
        let mut rw = Rewriter::new(g);
        let mut quantized: HashMap<Value, Value> = HashMap::new();
        for (id, node) in g.nodes() {
            let ins = g.operands(id);
            let (Kind::Op(Op::MatMul(_)), [w, x]) = (&node.kind, ins.as_slice()) else {
                rw.copy(id)?;
                continue;
            };
            let packed = behind_dequant(g, *w).unwrap_or(*w);
            if !g.desc(packed).dtype.is_quantized() {
                log.refused(self.name(), &node.name, format!("its weight is {}", g.desc(packed).dtype));
                rw.copy(id)?;
                continue;
            }
            let q = match quantized.get(x) {
                Some(&q) => q,
                None => {
                    let q = rw.new.op(format!("{}.q8", g.value_name(*x)), Quantize {}, &[rw.get(*x)])?;
                    quantized.insert(*x, q);
                    q
                }
            };
            rw.replace(id, MatMul {}, &[rw.get(packed), q, q.output(1)])?;
            log.did(self.name(), &node.name);
        }
        rw.finish()
    }
}
