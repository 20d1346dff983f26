//! A plan's launches as `greta plan` prints them.

use crate::checks::{forced, routed, supported};
use crate::executable::node_of;
use crate::lower::{self, Arg, Buffer, Launch, Step};
use greta_backend::{BackendError, Lowered, Phase, RouteRule, StepSize};
use greta_graph::{Graph, Kind, NodeId, Plan};
use greta_ops::{Bindings, Cost, PAGE_TOKENS};
use std::collections::HashMap;

/// The launches of every op for a step, as they are printed.
pub(crate) fn lowering(
    plan: &Plan,
    target: crate::Target,
    at: &StepSize,
    rules: &[RouteRule],
) -> Result<Vec<Lowered>, BackendError> {
    let g = plan.graph();
    supported(g)?;
    routed(g, rules)?;
    let pages = at.context.div_ceil(PAGE_TOKENS);
    let (slots, phase) = (pages * PAGE_TOKENS, if at.tokens == 1 { Phase::Decode } else { Phase::Prefill });
    let step = Step { tokens: at.tokens, rows: at.rows, slots, seqs: 1, pages, context: at.context };
    // Pages are given out whole; what a step reads ends with the sequence.
    let sizes = Bindings { slots: at.context, ..step.bindings() };
    let costs: HashMap<NodeId, Cost> = plan.costs(&sizes).into_iter().collect();
    let mut out = Vec::new();
    for (id, node) in g.nodes() {
        let Kind::Op(op) = &node.kind else { continue };
        let launches = lower::lower(op, &node_of(plan, id, forced(rules, &node.name, phase), target), &step);
        let written = node.outs.iter().map(|d| d.bytes(&sizes) as u64).sum();
        let costs = split(costs.get(&id).copied().unwrap_or_default(), written, &launches);
        for (l, cost) in launches.iter().zip(costs) {
            out.push(Lowered {
                node: node.name.clone(),
                op: op.to_string(),
                module: l.source.to_string(),
                kernel: l.kernel.into(),
                grid: l.size.grid,
                block: l.size.block,
                lds: l.lds,
                args: l.args.iter().map(|a| argument(g, a)).collect(),
                bytes: cost.bytes,
                flops: cost.flops,
            });
        }
    }
    Ok(out)
}

/// The cost of each of an op's launches. Where there are two, the first leaves partial results that the second folds into
/// the output, `written` bytes: both move them, and to fold one is a multiply-add.
pub(crate) fn split(op: Cost, written: u64, launches: &[Launch]) -> Vec<Cost> {
    let partial: u64 = launches.iter().map(|l| l.scratch).sum();
    match launches.len() {
        2 => vec![
            Cost { bytes: op.bytes - op.bytes.min(written) + partial, ..op },
            Cost { bytes: partial + written, flops: partial / 4 * 2 },
        ],
        n => std::iter::once(op).chain(std::iter::repeat(Cost::default())).take(n).collect(),
    }
}

/// An argument with the names of the graph.
fn argument(g: &Graph, a: &Arg) -> String {
    let name = |id: NodeId| &g.node(id).name;
    match a {
        Arg::Buffer(Buffer::Weight(id)) => match &g.node(*id).kind {
            Kind::Weight { tensor, .. } => tensor.clone(),
            _ => name(*id).clone(),
        },
        Arg::Buffer(Buffer::State(id)) => name(*id).clone(),
        Arg::Buffer(Buffer::Table(id)) => format!("table:{}", name(*id)),
        other => other.to_string(),
    }
}
