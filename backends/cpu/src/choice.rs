//! Which kernel each node gets: the session's instruction set, one that a route rule names, or one with a fault.

use crate::ops::{self, Kernel, Lowering};
use crate::plain;
use crate::simd::Level;
use crate::taps::TapKernel;
use greta_backend::{BackendError, CompileOptions, Injection, Phase, RouteRule};
use greta_graph::{Graph, Kind, NodeId, Value};
use greta_ops::Op;
use std::collections::HashSet;
use std::sync::Arc;

/// A kernel's name and, if it has one, its fault.
#[derive(Clone, Copy, PartialEq)]
enum Pick<'a> {
    Level(Level),
    Plain(Option<&'a Injection>),
}

/// The choices for a graph.
pub(crate) struct Choice<'a> {
    graph: &'a Graph,
    level: Level,
    routes: &'a [RouteRule],
    faults: &'a [Injection],
    /// Nodes that some step runs by plain kernels, which read weights where the file has them.
    pub plain: HashSet<NodeId>,
}

impl<'a> Choice<'a> {
    pub fn new(graph: &'a Graph, level: Level, options: &CompileOptions<'a>) -> Result<Choice<'a>, BackendError> {
        let (routes, faults) = (options.routes, options.faults);
        let ops = || graph.nodes().filter(|(_, n)| matches!(n.kind, Kind::Op(_)));
        for rule in routes {
            let error = |why: String| BackendError::Route { rule: rule.to_string(), why };
            if rule.kernel != plain::NAME && Level::from_name(&rule.kernel).is_none() {
                let known: Vec<_> = Level::available().iter().map(|l| l.name()).chain([plain::NAME]).collect();
                let text = format!("this CPU has no kernels `{}`; it has {}", rule.kernel, known.join(", "));
                return Err(error(text));
            }
            if !ops().any(|(_, n)| rule.pattern.matches(&n.name)) {
                return Err(error("its pattern matches no op; `greta graph --plan` lists them".into()));
            }
        }
        for f in faults {
            let error = |why: &str| BackendError::Fault { injection: f.to_string(), why: why.into() };
            let found = graph.find(&f.node).filter(|&id| matches!(graph.node(id).kind, Kind::Op(_)));
            let Some(id) = found else {
                return Err(error("no op of the plan is named so; a fusion may have taken it in"));
            };
            let tapped = (0..graph.node(id).outs.len() as u8)
                .flat_map(|out| graph.consumers(Value { node: id, out }))
                .any(|c| matches!(graph.node(c).kind, Kind::Tap(_)));
            if plain::in_tap(f.fault) && !tapped {
                return Err(error("it is in a tap, and the node has none"));
            }
        }
        let mut choice = Choice { graph, level, routes, faults, plain: HashSet::new() };
        choice.plain = ops()
            .filter(|(id, _)| {
                [Phase::Prefill, Phase::Decode].iter().any(|&p| matches!(choice.pick(*id, p), Ok(Pick::Plain(_))))
            })
            .map(|(id, _)| id)
            .collect();
        Ok(choice)
    }

    fn pick(&self, id: NodeId, phase: Phase) -> Result<Pick<'a>, BackendError> {
        let name = &self.graph.node(id).name;
        let mine = |f: &&Injection| f.node == *name && in_phase(f.phase, phase) && !plain::in_tap(f.fault);
        let mut faults = self.faults.iter().filter(mine);
        if let Some(f) = faults.next() {
            return match faults.next() {
                None => Ok(Pick::Plain(Some(f))),
                Some(_) => Err(BackendError::Fault {
                    injection: f.to_string(),
                    why: "the node has another fault already".into(),
                }),
            };
        }
        let rule = self.routes.iter().find(|r| r.pattern.matches(name) && in_phase(r.phase, phase));
        Ok(match rule.map(|r| r.kernel.as_str()) {
            Some(plain::NAME) => Pick::Plain(None),
            Some(level) => Pick::Level(Level::from_name(level).unwrap_or(self.level)),
            None => Pick::Level(self.level),
        })
    }

    /// The kernel of a node's prompt steps, and that of its decode steps where it differs.
    pub fn kernels<'l>(
        &self,
        op: &Op,
        id: NodeId,
        lowering: impl Fn(Level) -> Lowering<'l>,
    ) -> Result<Pair, BackendError> {
        let name = || self.graph.node(id).name.clone();
        let history = Arc::default();
        let (prefill, decode) = (self.pick(id, Phase::Prefill)?, self.pick(id, Phase::Decode)?);
        let make = |pick: Pick<'_>, other: Pick<'_>| {
            let error = |why: String, fault: Option<&Injection>| match fault {
                Some(f) => BackendError::Fault { injection: f.to_string(), why },
                None => BackendError::Route { rule: format!("{}={}", name(), plain::NAME), why },
            };
            let (kernel, fault) = match pick {
                Pick::Level(level) => (ops::lower(op, lowering(level)), None),
                Pick::Plain(fault) => {
                    let kernel = plain::lower(op, lowering(self.level), fault, &history);
                    (kernel.map_err(|why| error(why, fault))?, fault)
                }
            };
            match other {
                Pick::Plain(Some(f)) if fault != Some(f) => {
                    plain::watch(op, kernel, lowering(self.level), f, &history).map_err(|why| error(why, Some(f)))
                }
                _ => Ok(kernel),
            }
        };
        let other = if decode == prefill { None } else { Some(make(decode, prefill)?) };
        Ok((make(prefill, decode)?, other))
    }

    /// A tap's kernels, in the same way.
    pub fn taps(&self, value: Value, kernel: impl Fn() -> TapKernel) -> Result<Pair, BackendError> {
        let name = &self.graph.node(value.node).name;
        let make = |phase: Phase| -> Result<Option<Box<dyn Kernel>>, BackendError> {
            let mine = |f: &&Injection| f.node == *name && plain::in_tap(f.fault) && in_phase(f.phase, phase);
            let Some(f) = self.faults.iter().find(mine) else { return Ok(None) };
            let faulty = plain::tap(kernel(), self.graph.desc(value), f);
            faulty.map(Some).map_err(|why| BackendError::Fault { injection: f.to_string(), why })
        };
        let (prefill, decode) = (make(Phase::Prefill)?, make(Phase::Decode)?);
        let right = || Box::new(kernel()) as Box<dyn Kernel>;
        Ok(match (prefill, decode) {
            (None, None) => (right(), None),
            (prefill, decode) => (prefill.unwrap_or_else(right), Some(decode.unwrap_or_else(right))),
        })
    }
}

/// The kernel of prompt steps, and that of decode steps where it is another one.
type Pair = (Box<dyn Kernel>, Option<Box<dyn Kernel>>);

/// Whether what is limited to a phase, or not, counts in this one.
fn in_phase(limit: Option<Phase>, phase: Phase) -> bool {
    limit.is_none_or(|p| p == phase)
}
