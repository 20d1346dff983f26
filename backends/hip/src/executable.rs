//! A plan with its weights on a device, and the kernels of each step size.

use crate::checks::{faults, first_state, forced, routed, supported};
use crate::driver::{Device, DriverError, Function, Pointer, Size, Stream};
use crate::kernels::Source;
use crate::lower::{self, Arg, Buffer, Launch, Node, Step};
use crate::memory::DeviceBuffer;
use crate::session::HipSession;
use crate::taps::TapPoint;
use crate::{Launching, failed};
use greta_backend::{
    BackendError, CompileOptions, Executable, Injection, Interrupt, KvConfig, Phase, RouteRule, Session, Weights,
};
use greta_graph::{Graph, Kind, NodeId, Plan, StateRole, Value};
use greta_ops::{Bindings, Cost, DType, HostTensor, Op, TensorDesc};
use smallvec::SmallVec;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// What runs at a place of the plan.
pub(crate) enum Stage {
    Op(NodeId),
    Tap(TapPoint),
}

/// A compiled plan.
pub(crate) struct Compiled {
    pub driver: &'static str,
    pub device: Arc<dyn Device>,
    pub plan: Plan,
    pub stages: Vec<Stage>,
    /// Node, name, bytes of a row.
    pub states: Vec<(NodeId, String, usize)>,
    weights: HashMap<NodeId, Arc<DeviceBuffer>>,
    tables: HashMap<NodeId, DeviceBuffer>,
    routes: Vec<RouteRule>,
    /// Faults built in, by node.
    pub faults: Vec<(NodeId, Injection)>,
    pub max_tokens: usize,
    pub max_rows: usize,
    pub launching: Launching,
    /// Asked between launches.
    pub interrupt: Interrupt,
}

/// A launch with its kernel loaded.
pub(crate) struct Ready {
    pub function: Function,
    pub launch: Launch,
    /// What it has to move and to do at least; found out where launches are timed.
    pub cost: Cost,
}

pub(crate) fn compile(
    driver: &'static str,
    (device, launching): (Arc<dyn Device>, Launching),
    plan: Plan,
    weights: &dyn Weights,
    options: CompileOptions<'_>,
) -> Result<Arc<dyn Executable>, BackendError> {
    let g = plan.graph();
    supported(g)?;
    routed(g, options.routes)?;
    let faults = faults(g, options.faults)?;
    let mut stages = Vec::new();
    for (id, node) in g.nodes() {
        match &node.kind {
            Kind::Op(_) => stages.push(Stage::Op(id)),
            Kind::Tap(_) => stages.extend(TapPoint::new(&plan, id).map(Stage::Tap)),
            _ => {}
        }
    }
    let states = g.nodes().filter(|(_, n)| matches!(n.kind, Kind::State { .. }));
    let states = states.map(|(id, n)| {
        let row = n.outs[0].dtype.row_bytes(n.outs[0].cols().constant().unwrap_or(0));
        (id, n.name.clone(), row.unwrap_or(0))
    });
    let states = states.collect();
    let mut stream = device.stream().map_err(|e| failed(driver, &e))?;
    let mut upload = Upload { driver, device: &device, stream: &mut *stream };
    // Compilers work while weights are on their way.
    let modules = modules(&plan, options.routes, options.max_tokens, device.info().target);
    let stop = || options.interrupt.is_some_and(|i| i.check().is_err());
    let (weights_on, tables) = std::thread::scope(|scope| {
        scope.spawn(|| device.prepare(&modules, &stop));
        Ok::<_, BackendError>((upload.weights(g, weights, options.progress)?, upload.tables(g, weights)?))
    })?;
    let (max_tokens, max_rows, routes) = (options.max_tokens, options.max_rows, options.routes.to_vec());
    let compiled = Compiled {
        driver,
        device,
        plan,
        stages,
        states,
        weights: weights_on,
        tables,
        routes,
        faults,
        max_tokens,
        max_rows,
        launching,
        interrupt: options.interrupt.cloned().unwrap_or_default(),
    };
    Ok(Arc::new(compiled))
}

/// The modules that steps of one token and of many take, with their taps and the largest logits.
fn modules(plan: &Plan, routes: &[RouteRule], max_tokens: usize, target: crate::Target) -> Vec<Source> {
    let g = plan.graph();
    let mut all = Vec::new();
    for (id, node) in g.nodes() {
        let Kind::Op(op) = &node.kind else { continue };
        for (phase, tokens) in [(Phase::Decode, 1), (Phase::Prefill, max_tokens)] {
            let step = Step { tokens, rows: 1, slots: tokens, seqs: 1, pages: 1, context: tokens };
            let n = node_of(plan, id, forced(routes, &node.name, phase), target);
            all.extend(lower::lower(op, &n, &step).into_iter().map(|l| l.source));
        }
    }
    let taps = g.nodes().filter_map(|(id, _)| g.tapped(id));
    all.extend(taps.map(|(value, _)| lower::stats_source(g.desc(value).dtype)));
    all.push(lower::top_k_source());
    let mut seen = HashSet::new();
    all.retain(|source| seen.insert(source.clone()));
    all
}

/// Brings what a step reads and never writes to the device.
struct Upload<'a> {
    driver: &'static str,
    device: &'a Arc<dyn Device>,
    stream: &'a mut dyn Stream,
}

impl Upload<'_> {
    fn put(&mut self, bytes: &[u8], what: &str) -> Result<DeviceBuffer, BackendError> {
        let made = DeviceBuffer::new(self.device, bytes.len(), what).and_then(|b| {
            self.stream.write(b.at(), bytes)?;
            Ok(b)
        });
        made.map_err(|e| match e {
            DriverError::OutOfMemory { .. } => failed(self.driver, &e),
            _ => BackendError::Device(format!("hip:{}: {what}: {e}", self.driver)),
        })
    }

    fn weights(
        &mut self,
        g: &Graph,
        weights: &dyn Weights,
        progress: Option<&dyn Fn(u64, u64)>,
    ) -> Result<HashMap<NodeId, Arc<DeviceBuffer>>, BackendError> {
        let (mut out, mut known) = (HashMap::new(), HashMap::<(String, Option<Range<u32>>), Arc<DeviceBuffer>>::new());
        let all: u64 = g.nodes().filter(|(_, n)| matches!(n.kind, Kind::Weight { .. })).map(|(_, n)| size(n)).sum();
        let mut done = 0;
        for (id, node) in g.nodes() {
            let Kind::Weight { tensor, rows } = &node.kind else { continue };
            let key = (tensor.clone(), rows.clone());
            let buffer = match known.get(&key) {
                Some(buffer) => buffer.clone(),
                None => {
                    let buffer = Arc::new(self.put(bytes_of(weights, tensor, rows.as_ref(), &node.outs[0])?, tensor)?);
                    known.insert(key, buffer.clone());
                    buffer
                }
            };
            out.insert(id, buffer);
            done += size(node);
            if let Some(tell) = progress {
                tell(done, all);
            }
        }
        known.keys().for_each(|(tensor, _)| weights.release(tensor));
        Ok(out)
    }

    fn tables(&mut self, g: &Graph, weights: &dyn Weights) -> Result<HashMap<NodeId, DeviceBuffer>, BackendError> {
        let mut out = HashMap::new();
        for (id, node) in g.nodes() {
            let Kind::Op(Op::Rope(rope)) = &node.kind else { continue };
            let factors = match g.operands(id).get(2) {
                None => None,
                Some(v) => {
                    let Kind::Weight { tensor, rows } = &g.node(v.node).kind else {
                        let why = "its frequency factors are computed, not a weight".into();
                        let (node, op) = (node.name.clone(), rope.to_string());
                        return Err(BackendError::Unsupported { backend: "hip", node, op, why });
                    };
                    let bytes = bytes_of(weights, tensor, rows.as_ref(), g.desc(*v))?;
                    let values = HostTensor::from_bytes(&[rope.dims / 2], DType::F32, bytes);
                    Some(values.reals().iter().map(|&f| f as f32).collect::<Vec<f32>>())
                }
            };
            let table: Vec<u8> = lower::turns(rope, factors.as_deref()).iter().flat_map(|v| v.to_le_bytes()).collect();
            out.insert(id, self.put(&table, &node.name)?);
        }
        Ok(out)
    }
}

fn size(node: &greta_graph::Node) -> u64 {
    node.outs[0].bytes(&Bindings::default()) as u64
}

/// A tensor's bytes, or those of some of its rows.
fn bytes_of<'w>(
    weights: &'w dyn Weights,
    tensor: &str,
    rows: Option<&Range<u32>>,
    want: &TensorDesc,
) -> Result<&'w [u8], BackendError> {
    let view = weights.tensor(tensor)?;
    let cols = want.cols().constant().unwrap_or(0);
    let row = view.desc.dtype.row_bytes(cols).unwrap_or(0);
    let from = rows.map_or(0, |r| r.start as usize) * row;
    let len = want.bytes(&Bindings::default());
    view.bytes.get(from..from + len).filter(|_| view.desc.dtype == want.dtype).ok_or_else(|| {
        let why = format!("the graph wants {want}, the model has {}", view.desc);
        BackendError::Weight { tensor: tensor.into(), why }
    })
}

impl Compiled {
    /// Where a value lies.
    pub fn place(&self, v: Value) -> Buffer {
        place(&self.plan, v)
    }

    /// The fault a node has in steps of this phase.
    pub fn fault(&self, id: NodeId, phase: Phase) -> Option<&Injection> {
        self.faults.iter().find(|(n, f)| *n == id && f.phase.is_none_or(|p| p == phase)).map(|(_, f)| f)
    }

    /// An op's launches for a step. `stale`: a step went before, so that there are old values to read.
    pub fn lower(&self, id: NodeId, phase: Phase, step: &Step, stale: bool) -> Vec<Launch> {
        let g = self.plan.graph();
        let node = g.node(id);
        let Kind::Op(op) = &node.kind else { return Vec::new() };
        let forced = forced(&self.routes, &node.name, phase);
        let n = node_of(&self.plan, id, forced, self.device.info().target);
        let Some(f) = self.fault(id, phase) else { return lower::lower(op, &n, step) };
        let first = [(StateRole::Keys, 1), (StateRole::Values, 2)].map(|(role, i)| {
            first_state(g, role).map_or_else(|| n.ins.get(i).copied().unwrap_or(n.ins[0]), Buffer::State)
        });
        let n = lower::fault::misplace(n, op, f, stale, first);
        let mut launches = lower::lower(op, &n, step);
        lower::fault::inject(&mut launches, f, &n, step);
        launches
    }

    /// Works out what a step's launches cost at least.
    pub fn cost(&self, launches: &mut [Vec<Ready>], step: &Step) {
        let sizes = Bindings { slots: step.context, ..step.bindings() };
        let costs: HashMap<NodeId, Cost> = self.plan.costs(&sizes).into_iter().collect();
        for (stage, list) in self.stages.iter().zip(launches) {
            let Stage::Op(id) = stage else { continue };
            let written = self.plan.graph().node(*id).outs.iter().map(|d| d.bytes(&sizes) as u64).sum();
            let alone: Vec<Launch> = list.iter().map(|r| r.launch.clone()).collect();
            let each = crate::printed::split(costs.get(id).copied().unwrap_or_default(), written, &alone);
            list.iter_mut().zip(each).for_each(|(r, cost)| r.cost = cost);
        }
    }

    /// Loads the kernels of some launches.
    pub fn ready(&self, node: &str, launches: Vec<Launch>) -> Result<Vec<Ready>, BackendError> {
        let load = |launch: Launch| {
            // To compile a kernel takes a while too.
            self.interrupt.check()?;
            let function = self.device.function(&launch.source, launch.kernel);
            let function = function.map_err(|e| self.kernel_error(node, launch.kernel, &e))?;
            Ok(Ready { function, launch, cost: Cost::default() })
        };
        launches.into_iter().map(load).collect()
    }

    /// A kernel's error, with who ran it.
    pub fn kernel_error(&self, node: &str, kernel: &str, e: &DriverError) -> BackendError {
        BackendError::Kernel {
            backend: format!("hip:{}", self.driver),
            node: node.into(),
            kernel: kernel.into(),
            why: e.to_string(),
        }
    }

    /// An error that some kernel before may have made: devices report at the next wait what went wrong since the last.
    pub fn late(&self, e: &DriverError) -> BackendError {
        match (e, self.launching) {
            (DriverError::Device { .. }, Launching::Replayed | Launching::Eager) => BackendError::Device(format!(
                "hip:{}: {e}; a kernel launched before did it: --eager=wait waits after each and names it",
                self.driver
            )),
            _ => failed(self.driver, e),
        }
    }

    /// The address of a buffer that belongs to no session.
    pub fn fixed(&self, b: Buffer) -> Option<Pointer> {
        match b {
            Buffer::Weight(id) => self.weights.get(&id).map(|b| b.at()),
            Buffer::Table(id) => self.tables.get(&id).map(DeviceBuffer::at),
            _ => None,
        }
    }
}

/// Where a value lies.
pub(crate) fn place(plan: &Plan, v: Value) -> Buffer {
    let g = plan.graph();
    match (plan.place(v), &g.node(v.node).kind, g.state_of(v)) {
        (Some(slot), ..) => Buffer::Slot(slot),
        (_, Kind::Input { input }, _) => Buffer::Input(*input),
        (_, _, Some(state)) => Buffer::State(state),
        _ => Buffer::Weight(v.node),
    }
}

/// A node as lowering sees it.
pub(crate) fn node_of<'p>(plan: &'p Plan, id: NodeId, forced: Option<&'static str>, target: crate::Target) -> Node<'p> {
    let g = plan.graph();
    let (ins, outs) = (g.operands(id), &g.node(id).outs);
    Node {
        id,
        ins: ins.iter().map(|&v| place(plan, v)).collect(),
        outs: (0..outs.len() as u8).map(|out| place(plan, Value { node: id, out })).collect(),
        in_descs: ins.iter().map(|&v| g.desc(v)).collect(),
        out_descs: outs,
        forced,
        target,
    }
}

/// A launch's arguments as the kernel takes them, each at a multiple of its size.
pub(crate) fn pack(launch: &Launch, at: impl Fn(Buffer) -> Pointer) -> SmallVec<[u8; 128]> {
    let mut out = SmallVec::new();
    for arg in &launch.args {
        match *arg {
            Arg::Buffer(b) => {
                out.resize(out.len().next_multiple_of(8), 0);
                out.extend_from_slice(&at(b).0.to_le_bytes());
            }
            Arg::U32(v) => out.extend_from_slice(&v.to_le_bytes()),
            Arg::F32(v) => out.extend_from_slice(&v.to_le_bytes()),
        }
    }
    out
}

/// A launch of no workgroups is none.
pub(crate) fn is_empty(size: &Size) -> bool {
    size.grid.contains(&0)
}

impl Executable for Compiled {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn routes(&self, tokens: usize, rows: usize) -> Vec<(String, String)> {
        let step = Step { tokens, rows, slots: tokens, seqs: 1, pages: 1, context: tokens };
        let phase = if tokens == 1 { Phase::Decode } else { Phase::Prefill };
        let ops = self.stages.iter().filter_map(|s| match s {
            Stage::Op(id) => Some(*id),
            Stage::Tap(_) => None,
        });
        let g = self.plan.graph();
        ops.map(|id| (g.node(id).name.clone(), lower::route(&self.lower(id, phase, &step, false)))).collect()
    }

    fn session(self: Arc<Self>, kv: KvConfig) -> Result<Box<dyn Session>, BackendError> {
        Ok(Box::new(HipSession::new(self, kv)?))
    }
}
