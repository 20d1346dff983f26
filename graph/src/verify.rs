//! The verifier: run on every finished graph and after every pass.
//!
//! Invariants:
//! 1. Names are unique, not empty and hold no white space; the name index agrees with the nodes.
//! 2. Operands come before their reader: index order is execution order.
//! 3. The operands of an op fill its slots without gaps; inputs, weights and states have none.
//! 4. An op's output types and shapes are what its shape rule infers from its operands.
//! 5. An input's shape is its kind's, its name too.
//! 6. A weight's dimensions are constants, its rows end on a block, and a row range has as many rows as its shape says.
//! 7. A state is an F32 or F16 matrix of slots; heads divide its rows.
//! 8. `Slots` is the first dimension of cache values alone; `Seqs` and `Pages` belong to the block table alone.
//! 9. A version of a cache is written at most once, and nothing reads it after that write: writes happen in place.
//! 10. Outputs name values that are there, each once.
//! 11. A tap has one operand and no output; its name is `tap:` and its operand's.

use crate::{Graph, Kind, Node, NodeId, Violation};
use greta_ops::{DType, Dim, Op};

/// Checks every invariant of the list at the head of this file.
pub fn verify(g: &Graph) -> Result<(), Violation> {
    for (id, node) in g.nodes() {
        check(g, id, node).map_err(|what| Violation { node: node.name.clone(), what })?;
    }
    for (i, v) in g.outputs().iter().enumerate() {
        let there = v.node.index() < g.len() && (v.out as usize) < g.node(v.node).outs.len();
        if !there || g.outputs()[..i].contains(v) {
            let what = "is not there, or listed twice".into();
            return Err(Violation { node: format!("output {i}"), what });
        }
    }
    Ok(())
}

fn check(g: &Graph, id: NodeId, node: &Node) -> Result<(), String> {
    if node.name.is_empty() || node.name.contains(char::is_whitespace) || g.find(&node.name) != Some(id) {
        return Err("its name is empty, holds white space, or is another node's".into());
    }
    let ins = g.operands(id);
    for v in &ins {
        if v.node >= id {
            return Err(format!("reads `{}`, which comes after it", g.node(v.node).name));
        }
        if v.out as usize >= g.node(v.node).outs.len() {
            return Err(format!(
                "reads output {} of `{}`, which has {}",
                v.out,
                g.node(v.node).name,
                g.node(v.node).outs.len()
            ));
        }
    }
    match &node.kind {
        Kind::Op(op) => check_op(g, id, node, op)?,
        Kind::Tap(_) => {
            let named = ins.len() == 1 && node.name == format!("{}{}", crate::TAP_PREFIX, g.value_name(ins[0]));
            if !named || !node.outs.is_empty() {
                return Err("a tap needs one operand, no output, and the name `tap:<operand>`".into());
            }
        }
        _ if !ins.is_empty() => return Err("is a leaf but has operands".into()),
        _ if node.outs.len() != 1 => return Err(format!("is a leaf with {} outputs", node.outs.len())),
        Kind::Input { input } => {
            if node.outs[0] != input.desc() || node.name != input.name() {
                return Err(format!("is not `{}` {}", input.name(), input.desc()));
            }
        }
        Kind::Weight { rows, .. } => {
            let d = &node.outs[0];
            let whole = d.cols().constant().is_some_and(|k| d.dtype.row_bytes(k).is_some());
            if !whole || d.dims.iter().any(|d| d.constant().is_none()) {
                return Err(format!("a weight of {d}: dimensions must be constants and rows end on a block"));
            }
            if let Some(r) = rows
                && Some(r.len()) != d.rows().constant()
            {
                return Err(format!("takes rows {r:?}, but its shape is {d}"));
            }
        }
        Kind::State { heads, .. } => {
            let d = &node.outs[0];
            let divides = d.cols().constant().is_some_and(|n| *heads > 0 && n % heads == 0);
            if !matches!(d.dtype, DType::F32 | DType::F16) || d.dims.len() != 2 || d.dims[0] != Dim::Slots || !divides {
                return Err(format!("a state of {d} with {heads} heads"));
            }
        }
    }
    check_dims(node)
}

fn check_op(g: &Graph, id: NodeId, node: &Node, op: &Op) -> Result<(), String> {
    let ins = g.operands(id);
    let edges = g.inner.edges_directed(petgraph::graph::NodeIndex::new(id.index()), petgraph::Direction::Incoming);
    let mut slots: Vec<u8> = edges.map(|e| e.weight().slot).collect();
    slots.sort();
    if slots.iter().enumerate().any(|(i, &s)| i != s as usize) {
        return Err(format!("operands fill slots {slots:?}"));
    }
    let descs: Vec<_> = ins.iter().map(|&v| g.desc(v)).collect();
    match op.spec().infer(&descs) {
        Err(e) => return Err(e.to_string()),
        Ok(outs) if outs != node.outs => return Err("its output shapes are not what its op infers".into()),
        Ok(_) => {}
    }
    if let (Op::CacheWrite(_), Some(&cache)) = (op, ins.first())
        && let Some(late) = g.consumers(cache).into_iter().find(|&c| c > id)
    {
        return Err(format!("`{}` uses the cache as it was before this write", g.node(late).name));
    }
    Ok(())
}

fn check_dims(node: &Node) -> Result<(), String> {
    for d in &node.outs {
        let slots = d.dims.iter().skip(1).any(|d| *d == Dim::Slots)
            || d.dims.first() == Some(&Dim::Slots)
                && !matches!(node.kind, Kind::State { .. } | Kind::Op(Op::CacheWrite(_)));
        let table =
            d.dims.iter().any(|d| matches!(d, Dim::Seqs | Dim::Pages)) && !matches!(node.kind, Kind::Input { .. });
        if slots || table {
            return Err(format!("has the shape {d}, which only the cache or the block table may have"));
        }
    }
    Ok(())
}
