//! `rmsnorm → quantize` and `swiglu → quantize` as one kernel: the f32 row never leaves the core's cache.

use crate::{BuildError, Graph, Kind, NodeId, Pass, PassLog, Rewriter, Rewritten};
use greta_ops::{Fused, Op};
use std::collections::HashMap;

/// Fuses `rmsnorm → quantize`.
pub struct FuseNormQuantize;

/// Fuses `swiglu → quantize`.
pub struct FuseSwigluQuantize;

impl Pass for FuseNormQuantize {
    fn name(&self) -> &'static str {
        "fuse_norm_quantize"
    }

    fn run(&self, g: &Graph, log: &mut PassLog) -> Result<Rewritten, BuildError> {
        fuse(self.name(), g, log, |op| match op {
            Op::RmsNorm(norm) => Some(Fused::norm_quantize(norm.clone())),
            _ => None,
        })
    }
}

impl Pass for FuseSwigluQuantize {
    fn name(&self) -> &'static str {
        "fuse_swiglu_quantize"
    }

    fn run(&self, g: &Graph, log: &mut PassLog) -> Result<Rewritten, BuildError> {
        fuse(self.name(), g, log, |op| matches!(op, Op::Swiglu(_)).then(Fused::swiglu_quantize))
    }
}

/// Replaces each `quantize` whose operand `first` turns into a fused op, unless something else needs that operand.
fn fuse(
    name: &'static str,
    g: &Graph,
    log: &mut PassLog,
    first: impl Fn(&Op) -> Option<Fused>,
) -> Result<Rewritten, BuildError> {
    let mut fused: HashMap<NodeId, (NodeId, Fused)> = HashMap::new();
    for (id, node) in g.nodes() {
        let Kind::Op(Op::Quantize(_)) = node.kind else { continue };
        let x = g.operands(id)[0];
        let Kind::Op(op) = &g.node(x.node).kind else { continue };
        let Some(f) = first(op) else { continue };
        if g.outputs().contains(&x) {
            log.refused(name, &node.name, format!("`{}` is an output", g.node(x.node).name));
        } else if let Some(&other) = g.consumers(x).iter().find(|&&c| c != id) {
            log.refused(
                name,
                &node.name,
                format!("`{}` is also read by `{}`", g.node(x.node).name, g.node(other).name),
            );
        } else {
            fused.insert(id, (x.node, f));
        }
    }
    let inner: Vec<NodeId> = fused.values().map(|(n, _)| *n).collect();
    let mut rw = Rewriter::new(g);
    for (id, node) in g.nodes() {
        if let Some((producer, f)) = fused.remove(&id) {
            let ins: Vec<_> = g.operands(producer).iter().map(|&v| rw.get(v)).collect();
            rw.replace(id, f, &ins)?;
            log.did(name, &node.name);
        } else if !inner.contains(&id) {
            rw.copy(id)?;
        }
    }
    rw.finish()
}
