//! Which kernel each node gets: the session's instruction set, one that a route rule names, or one with a fault.

use crate::ops::{self, Kernel, Lowering};
use crate::plain;
use crate::simd::Level;
use crate::taps::TapKernel;
use greta_backend::{BackendError, CompileOptions, Injection, Phase, RouteRule};
use greta_graph::{Graph, Kind, NodeId, Value};
use greta_ops::Op;
use std::collections::HashSet;

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
            let found = graph.find(&f.node).filter(|&id| matches!(graph.node(id).kind, Kind::Op(_)));
            if found.is_none() {
                return Err(BackendError::Fault {
                    injection: f.to_string(),
                    why: "no op of the plan is named so".into(),
                });
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
        let in_phase = |p: Option<Phase>| p.is_none_or(|p| p == phase);
        let mut faults = self.faults.iter().filter(|f| f.node == *name && in_phase(f.phase) && !plain::in_tap(f.fault));
        if let Some(f) = faults.next() {
            return match faults.next() {
                None => Ok(Pick::Plain(Some(f))),
                Some(_) => Err(BackendError::Fault {
                    injection: f.to_string(),
                    why: "the node has another fault already".into(),
                }),
            };
        }
        let rule = self.routes.iter().find(|r| r.pattern.matches(name) && in_phase(r.phase));
        Ok(match rule.map(|r| r.kernel.as_str()) {
            Some(plain::NAME) => Pick::Plain(None),
            Some(level) => Pick::Level(Level::from_name(level).unwrap_or(self.level)),
            None => Pick::Level(self.level),
        })
    }

    /// The kernel of a node's prompt steps, and that of its decode steps where it differs.
    #[allow(clippy::type_complexity, reason = "a pair")]
    pub fn kernels<'l>(
        &self,
        op: &Op,
        id: NodeId,
        lowering: impl Fn(Level) -> Lowering<'l>,
    ) -> Result<(Box<dyn Kernel>, Option<Box<dyn Kernel>>), BackendError> {
        let make = |pick: Pick<'_>| match pick {
            Pick::Level(level) => Ok(ops::lower(op, lowering(level))),
            Pick::Plain(fault) => plain::lower(op, lowering(self.level), fault).map_err(|why| match fault {
                Some(f) => BackendError::Fault { injection: f.to_string(), why },
                None => BackendError::Route { rule: format!("{}={}", self.graph.node(id).name, plain::NAME), why },
            }),
        };
        let (prefill, decode) = (self.pick(id, Phase::Prefill)?, self.pick(id, Phase::Decode)?);
        let other = if decode == prefill { None } else { Some(make(decode)?) };
        Ok((make(prefill)?, other))
    }

    /// A tap's kernel.
    pub fn tap(&self, value: Value, kernel: TapKernel) -> Result<Box<dyn Kernel>, BackendError> {
        let name = &self.graph.node(value.node).name;
        match self.faults.iter().find(|f| f.node == *name && plain::in_tap(f.fault)) {
            Some(f) => plain::tap(kernel, f).map_err(|why| BackendError::Fault { injection: f.to_string(), why }),
            None => Ok(Box::new(kernel)),
        }
    }
}
