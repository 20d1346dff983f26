//! From a plan to stages.

use crate::choice::Choice;
use crate::kernels::cache::{PageShape, Side};
use crate::kv::StateShape;
use crate::ops::{self, Kernel, Lowering, Place};
use crate::pool::Pool;
use crate::session::CpuSession;
use crate::simd::Level;
use crate::taps::{self, TapKernel, TapPoint};
use crate::weights::{self, Prepared};
use greta_backend::{BackendError, CompileOptions, Executable, KvConfig, Phase, Session, Weights};
use greta_graph::{Graph, Kind, NodeId, Plan, SlotId, StateRole, Value};
use greta_ops::Bindings;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// One op, ready to run.
pub(crate) struct Stage {
    pub node: NodeId,
    pub kernel: Box<dyn Kernel>,
    /// The kernel of decode steps, where it is another one.
    pub decode: Option<Box<dyn Kernel>>,
    /// Every thread must have finished the stages before: this one reads what they write, or writes what they use.
    pub barrier: bool,
}

impl Stage {
    /// The kernel that a step of this phase takes.
    pub fn kernel(&self, phase: Phase) -> &dyn Kernel {
        match (&self.decode, phase) {
            (Some(k), Phase::Decode) => &**k,
            _ => &*self.kernel,
        }
    }
}

/// A compiled plan.
pub(crate) struct Compiled {
    pub plan: Plan,
    pub stages: Vec<Stage>,
    pub taps: Vec<TapPoint>,
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
    let choice = Choice::new(g, level, &options)?;
    let (states, state_of) = states(g);
    let prepared = weights::prepare(g, &weights, &pool, &choice.plain, options.progress)?;
    let (mut stages, mut taps) = (Vec::new(), Vec::new());
    for (id, node) in g.nodes() {
        let lowering = |level| {
            let place = |v: Value| place(&plan, &prepared, &state_of, v);
            ops::Lowering {
                graph: g,
                node: id,
                level,
                threads: pool.threads(),
                ins: g.operands(id).iter().map(|&v| place(v)).collect(),
                outs: (0..node.outs.len()).map(|o| place(Value { node: id, out: o as u8 })).collect(),
                descs: g.operands(id).iter().map(|&v| g.desc(v).clone()).collect(),
                states: &states,
                prepared: &prepared,
            }
        };
        match &node.kind {
            Kind::Op(op) => {
                let (kernel, decode) = choice.kernels(op, id, lowering)?;
                stages.push(Stage { node: id, kernel, decode, barrier: false });
            }
            Kind::Tap(_) => {
                let Lowering { mut ins, .. } = lowering(level);
                let (place, index) = (ins.remove(0), taps.len());
                let state = g.operands(id).first().and_then(|&v| g.state_of(v)).map(|s| g.node(s).name.clone());
                let Some(point) = TapPoint::new(g, id, &place, state) else { continue };
                let (dtype, cols, kept) = (point.dtype, point.cols, point.kept);
                let kernel = || TapKernel { index, level, place: place.clone(), dtype, cols, kept };
                let (kernel, decode) = choice.taps(point.value, kernel)?;
                stages.push(Stage { node: id, kernel, decode, barrier: false });
                taps.push(point);
            }
            _ => {}
        }
    }
    let stages = place_barriers(&plan, &state_of, stages);
    for point in &mut taps {
        point.stage = stages.iter().position(|s| s.node == point.value.node);
    }
    let (max_tokens, max_rows) = (options.max_tokens, options.max_rows);
    Ok(Arc::new(Compiled { plan, stages, taps, states, state_of, prepared, pool, max_tokens, max_rows, guard }))
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

/// Puts barriers where they are needed, and taps where they need none.
///
/// A barrier stands before a stage that reads what was written, or writes what was used, since the last barrier. A tap
/// of what was written since waits for the next barrier that another stage needs anyway, unless that stage would overwrite
/// what it looks at.
fn place_barriers(plan: &Plan, state_of: &HashMap<NodeId, usize>, stages: Vec<Stage>) -> Vec<Stage> {
    let g = plan.graph();
    let touched =
        |v: Value| plan.place(v).map(Touched::Slot).or_else(|| state_of.get(&v.node).map(|&s| Touched::State(s)));
    let reads = |s: &Stage| -> Vec<_> { g.operands(s.node).iter().filter_map(|&v| touched(v)).collect() };
    let writes = |s: &Stage| -> Vec<_> {
        let outs = 0..g.node(s.node).outs.len() as u8;
        outs.filter_map(|out| touched(Value { node: s.node, out })).collect()
    };
    let mut line = Line::default();
    let mut waiting: Vec<Stage> = Vec::new();
    for stage in stages {
        if taps::is_tap(g, stage.node) {
            let r = reads(&stage);
            if line.needs(&r, &[]) {
                waiting.push(stage)
            } else {
                line.push(r, Vec::new(), stage)
            }
            continue;
        }
        let (r, w) = (reads(&stage), writes(&stage));
        if waiting.iter().any(|t| reads(t).iter().any(|x| w.contains(x))) {
            waiting.drain(..).for_each(|t| line.push(reads(&t), Vec::new(), t));
        }
        let met = line.needs(&r, &w);
        line.push(r, w, stage);
        if met {
            waiting.drain(..).for_each(|t| line.push(reads(&t), Vec::new(), t));
        }
    }
    waiting.into_iter().for_each(|t| line.push(reads(&t), Vec::new(), t));
    line.stages
}

/// Stages in order, and what was touched since the last barrier.
#[derive(Default)]
struct Line {
    stages: Vec<Stage>,
    written: HashSet<Touched>,
    read: HashSet<Touched>,
}

impl Line {
    fn needs(&self, reads: &[Touched], writes: &[Touched]) -> bool {
        reads.iter().any(|t| self.written.contains(t))
            || writes.iter().any(|t| self.written.contains(t) || self.read.contains(t))
    }

    fn push(&mut self, reads: Vec<Touched>, writes: Vec<Touched>, mut stage: Stage) {
        stage.barrier = self.needs(&reads, &writes);
        if stage.barrier {
            self.written.clear();
            self.read.clear();
        }
        self.read.extend(reads);
        self.written.extend(writes);
        self.stages.push(stage);
    }
}

impl Executable for Compiled {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn routes(&self, tokens: usize, rows: usize) -> Vec<(String, String)> {
        let at = Bindings { tokens, rows, ..Bindings::default() };
        let ops = self.stages.iter().filter(|s| !taps::is_tap(self.plan.graph(), s.node));
        let phase = if tokens == 1 { Phase::Decode } else { Phase::Prefill };
        ops.map(|s| (self.plan.graph().node(s.node).name.clone(), s.kernel(phase).route(&at))).collect()
    }

    fn session(self: Arc<Self>, kv: KvConfig) -> Result<Box<dyn Session>, BackendError> {
        let session = CpuSession::new(self.clone(), kv)?;
        self.stages.iter().flat_map(|s| [Some(&s.kernel), s.decode.as_ref()]).flatten().for_each(|k| k.opened());
        Ok(Box::new(session))
    }
}
