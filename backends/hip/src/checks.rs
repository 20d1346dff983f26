//! What is looked at before anything is compiled: ops, route rules, faults.

use crate::lower;
use greta_backend::{BackendError, Fault, Injection, Phase, RouteRule};
use greta_graph::{Graph, Kind, NodeId, StateRole};

/// Checks that every op has kernels.
pub(crate) fn supported(g: &Graph) -> Result<(), BackendError> {
    for (id, node) in g.nodes() {
        let Kind::Op(op) = &node.kind else { continue };
        let ins = g.operands(id);
        let descs: Vec<_> = ins.iter().map(|&v| g.desc(v)).collect();
        lower::supports(op, &descs).map_err(|why| BackendError::Unsupported {
            backend: "hip",
            node: node.name.clone(),
            op: op.to_string(),
            why,
        })?;
    }
    Ok(())
}

/// Checks that every rule names a kernel that some node it fits has.
pub(crate) fn routed(g: &Graph, rules: &[RouteRule]) -> Result<(), BackendError> {
    for rule in rules {
        let error = |why: String| BackendError::Route { rule: rule.to_string(), why };
        if !lower::ROUTES.contains(&rule.kernel.as_str()) {
            return Err(error(format!("unknown kernel `{}`; known: {}", rule.kernel, lower::ROUTES.join(", "))));
        }
        let mut fits = false;
        for (id, node) in g.nodes() {
            let Kind::Op(op) = &node.kind else { continue };
            if !rule.pattern.matches(&node.name) {
                continue;
            }
            let ins = g.operands(id);
            let descs: Vec<_> = ins.iter().map(|&v| g.desc(v)).collect();
            let has = lower::routes_of(op, &descs);
            if !has.contains(&rule.kernel.as_str()) {
                let list = if has.is_empty() { "one kernel".into() } else { has.join(", ") };
                return Err(error(format!("`{}` has {list}", node.name)));
            }
            fits = true;
        }
        if !fits {
            return Err(error("its pattern matches no op; `greta graph --plan` lists them".into()));
        }
    }
    Ok(())
}

/// The nodes of faults, each of which its node's kernels can have.
pub(crate) fn faults(g: &Graph, list: &[Injection]) -> Result<Vec<(NodeId, Injection)>, BackendError> {
    let mut out: Vec<(NodeId, Injection)> = Vec::new();
    for f in list {
        let error = |why: String| BackendError::Fault { injection: f.to_string(), why };
        let found = g.find(&f.node).and_then(|id| match &g.node(id).kind {
            Kind::Op(op) => Some((id, op)),
            _ => None,
        });
        let Some((id, op)) = found else {
            return Err(error("no op of the plan is named so; a fusion may have taken it in".into()));
        };
        let ins = g.operands(id);
        let descs: Vec<_> = ins.iter().map(|&v| g.desc(v)).collect();
        lower::fault::fits(op, &descs, f.fault).map_err(error)?;
        let first = ins.iter().filter_map(|&v| g.state_of(v)).next();
        if f.fault == Fault::KvLayerBase && first.is_some() && first == first_state(g, StateRole::Keys) {
            return Err(error("the first layer's cache is the node's own".into()));
        }
        if out.iter().any(|(other, o)| *other == id && (o.phase.is_none() || f.phase.is_none() || o.phase == f.phase)) {
            return Err(error("the node has another fault already".into()));
        }
        out.push((id, f.clone()));
    }
    Ok(out)
}

/// The first layer's cache.
pub(crate) fn first_state(g: &Graph, want: StateRole) -> Option<NodeId> {
    g.nodes().find(|(_, n)| matches!(n.kind, Kind::State { role, .. } if role == want)).map(|(id, _)| id)
}

/// The kernel that a rule asks for.
pub(crate) fn forced(rules: &[RouteRule], node: &str, phase: Phase) -> Option<&'static str> {
    let rule = rules.iter().find(|r| r.pattern.matches(node) && r.phase.is_none_or(|p| p == phase));
    rule.and_then(|r| lower::ROUTES.iter().copied().find(|k| *k == r.kernel))
}
