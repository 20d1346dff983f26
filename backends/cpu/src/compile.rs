//! From a plan to stages.

use crate::kernels::cache::{PageShape, Side};
use crate::kv::StateShape;
use crate::ops::{self, Kernel, Place};
use crate::pool::Pool;
use crate::session::CpuSession;
use crate::simd::Level;
use crate::weights::{self, Prepared};
use greta_backend::{BackendError, CompileOptions, Executable, KvConfig, Session, Weights};
use greta_graph::{Graph, Kind, NodeId, Plan, SlotId, StateRole, Value};
use greta_ops::Bindings;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// One op, ready to run.
pub(crate) struct Stage {
    pub node: NodeId,
    pub kernel: Box<dyn Kernel>,
    /// Every thread must have finished the stages before: this one reads what they write, or writes what they use.
    pub barrier: bool,
}

/// A compiled plan.
pub(crate) struct Compiled {
    pub plan: Plan,
    pub stages: Vec<Stage>,
    pub states: Vec<StateShape>,
    /// Which state a cache value belongs to.
    pub state_of: HashMap<NodeId, usize>,
    pub prepared: Prepared,
    pub pool: Arc<Pool>,
    pub max_tokens: usize,
    pub max_rows: usize,
    pub guard: bool,
}

pub(crate) fn compile(
    plan: Plan,
    weights: Arc<dyn Weights>,
    options: CompileOptions<'_>,
    level: Level,
    pool: Arc<Pool>,
    guard: bool,
) -> Result<Arc<dyn Executable>, BackendError> {
    let g = plan.graph();
    supported(g)?;
    let (states, state_of) = states(g);
    let prepared = weights::prepare(g, &weights, &pool, options.progress)?;
    let mut stages = Vec::new();
    for (id, node) in g.nodes() {
        if let Kind::Op(op) = &node.kind {
            let ins: Vec<Place> = g.operands(id).iter().map(|&v| place(&plan, &prepared, &state_of, v)).collect();
            let outs: Vec<Place> = (0..node.outs.len())
                .map(|o| place(&plan, &prepared, &state_of, Value { node: id, out: o as u8 }))
                .collect();
            let descs = g.operands(id).iter().map(|&v| g.desc(v).clone()).collect();
            let lowering = ops::Lowering {
                level,
                threads: pool.threads(),
                ins,
                outs,
                descs,
                states: &states,
                prepared: &prepared,
            };
            stages.push(Stage { node: id, kernel: ops::lower(op, lowering), barrier: false });
        }
    }
    place_barriers(&plan, &state_of, &mut stages);
    let (max_tokens, max_rows) = (options.max_tokens, options.max_rows);
    Ok(Arc::new(Compiled { plan, stages, states, state_of, prepared, pool, max_tokens, max_rows, guard }))
}

fn supported(g: &Graph) -> Result<(), BackendError> {
    for (id, node) in g.nodes() {
        let Kind::Op(op) = &node.kind else { continue };
        let ins = g.operands(id);
        let descs: Vec<_> = ins.iter().map(|&v| g.desc(v)).collect();
        let whole_state = |v: &Value| g.state_of(*v).is_some_and(|s| state_shape(g, s).is_none());
        let why = match ops::supports(op, &descs) {
            Err(why) => why,
            Ok(()) if ins.iter().any(whole_state) => {
                "heads of the KV cache must be a multiple of 8 values, up to 256".into()
            }
            Ok(()) => continue,
        };
        return Err(BackendError::Unsupported { backend: "cpu", node: node.name.clone(), op: op.to_string(), why });
    }
    Ok(())
}

fn state_shape(g: &Graph, id: NodeId) -> Option<StateShape> {
    let Kind::State { role, heads } = g.node(id).kind else { return None };
    let d = &g.node(id).outs[0];
    let page = PageShape::new(d.dtype, heads, d.cols().constant()? / heads)?;
    let side = match role {
        StateRole::Keys => Side::Keys,
        StateRole::Values => Side::Values,
    };
    Some(StateShape { page, side })
}

fn states(g: &Graph) -> (Vec<StateShape>, HashMap<NodeId, usize>) {
    let (mut shapes, mut of) = (Vec::new(), HashMap::new());
    for (id, _) in g.nodes() {
        if let Some(shape) = state_shape(g, id) {
            of.insert(id, shapes.len());
            shapes.push(shape);
        } else if let Some(&state) = g.state_of(Value { node: id, out: 0 }).and_then(|s| of.get(&s)) {
            of.insert(id, state);
        }
    }
    (shapes, of)
}

fn place(plan: &Plan, prepared: &Prepared, state_of: &HashMap<NodeId, usize>, v: Value) -> Place {
    if let Some(slot) = plan.place(v) {
        return Place::Slot(slot);
    }
    match (&plan.graph().node(v.node).kind, state_of.get(&v.node)) {
        (Kind::Input { input }, _) => Place::Input(*input),
        (_, Some(&state)) => Place::State(state),
        _ => match prepared.small.get(&v.node) {
            Some(block) => Place::Small(block.clone()),
            None => Place::Weight(v.node),
        },
    }
}

/// What a stage touches that another may write.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
enum Touched {
    Slot(SlotId),
    State(usize),
}

/// A barrier stands before a stage that reads what was written, or writes what was used, since the last barrier.
fn place_barriers(plan: &Plan, state_of: &HashMap<NodeId, usize>, stages: &mut [Stage]) {
    let g = plan.graph();
    let touched =
        |v: Value| plan.place(v).map(Touched::Slot).or_else(|| state_of.get(&v.node).map(|&s| Touched::State(s)));
    let (mut written, mut read): (HashSet<Touched>, HashSet<Touched>) = Default::default();
    for stage in stages {
        let reads: Vec<_> = g.operands(stage.node).iter().filter_map(|&v| touched(v)).collect();
        let outs = 0..g.node(stage.node).outs.len() as u8;
        let writes: Vec<_> = outs.filter_map(|out| touched(Value { node: stage.node, out })).collect();
        stage.barrier =
            reads.iter().any(|t| written.contains(t)) || writes.iter().any(|t| written.contains(t) || read.contains(t));
        if stage.barrier {
            written.clear();
            read.clear();
        }
        read.extend(reads);
        written.extend(writes);
    }
}

impl Executable for Compiled {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn routes(&self, tokens: usize, rows: usize) -> Vec<(String, String)> {
        let at = Bindings { tokens, rows, ..Bindings::default() };
        self.stages.iter().map(|s| (self.plan.graph().node(s.node).name.clone(), s.kernel.route(&at))).collect()
    }

    fn session(self: Arc<Self>, kv: KvConfig) -> Result<Box<dyn Session>, BackendError> {
        Ok(Box::new(CpuSession::new(self, kv)?))
    }
}
