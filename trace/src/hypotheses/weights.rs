//! The op read another tensor than the graph gives it.

use super::scene::Scene;
use super::{Hypothesis, Prediction};
use crate::judge::{self, Class};
use greta_graph::{Kind, NodeId};
use greta_ops::{HostTensor, Op};

pub(super) const ROOM: &[Hypothesis] = &[
    Hypothesis { name: "neighbour layer's weight", class: Class::CWeightLayout, predict: neighbour },
    Hypothesis { name: "another tensor of the layer", class: Class::CWeightLayout, predict: sibling },
];

/// The weights among the operands: which operand, which node.
fn weights(scene: &Scene<'_>) -> Vec<(usize, NodeId)> {
    let g = &scene.judge.graph;
    let packed = |id: NodeId| match &g.node(id).kind {
        Kind::Weight { .. } => Some(id),
        Kind::Op(Op::Dequant(_)) => g.operands(id).first().map(|v| v.node),
        _ => None,
    };
    scene.operands().iter().enumerate().filter_map(|(i, v)| Some((i, packed(v.node)?))).collect()
}

fn neighbour<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let g = &scene.judge.graph;
    let mut out = Vec::new();
    for (i, id) in weights(scene) {
        let name = &g.node(id).name;
        let Some((layer, rest)) = judge::layer(name).and_then(|l| Some((l, name.splitn(3, '.').nth(2)?))) else {
            continue;
        };
        for (detail, other) in [("-1", layer.checked_sub(1)), ("+1", layer.checked_add(1))] {
            let node = other.and_then(|l| g.find(&format!("blk.{l}.{rest}")));
            out.extend(node.and_then(|n| with_weight(scene, detail, i, n)));
        }
    }
    out
}

/// Weights of the same shape in the same layer, such as the other norm's or `ffn_up` for `ffn_gate`.
fn sibling<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let g = &scene.judge.graph;
    let mut out = Vec::new();
    for (i, id) in weights(scene) {
        let layer = judge::layer(&g.node(id).name);
        for (other, node) in g.nodes() {
            let is_weight = matches!(node.kind, Kind::Weight { .. });
            if other != id && is_weight && judge::layer(&node.name) == layer {
                out.extend(with_weight(scene, &node.name, i, other));
            }
        }
    }
    out
}

fn with_weight<'s>(scene: &'s Scene<'_>, detail: &str, i: usize, node: NodeId) -> Option<Prediction<'s>> {
    let same = |t: &HostTensor| t.shape == scene.ins[i].shape && *t != scene.ins[i];
    let other = judge::weight(scene.judge, node).ok().filter(same)?;
    Some(scene.with_operand(detail, i, other))
}
