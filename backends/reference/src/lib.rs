//! The reference backend: a graph run by the ops' own f64 definitions.
//!
//! It is the oracle of a whole model, and the second backend wherever one is to be switched. Within an op everything is
//! f64; between ops a value is what its type stores, once rounded, so that each op can be judged on recorded operands.
//! It is slow.

mod taps;

use greta_backend::{
    Backend, BackendError, Batch, CompileOptions, Executable, Interrupt, KvConfig, KvError, KvOps, PageTable, Session,
    StepAt, StepOut, TapSink, Want, Weights,
};
use greta_graph::{Graph, Input, Kind, NodeId, Pass, Plan, Value};
use greta_ops::{HostTensor, Op, PAGE_TOKENS, TensorDesc};
use std::collections::HashMap;
use std::sync::Arc;

/// The backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl Backend for Reference {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn describe(&self) -> String {
        "every op's f64 reference, one thread".into()
    }

    fn wants(&self, pass: &dyn Pass) -> bool {
        // A dequantised weight would be held whole in f64; matmul's reference dequantises row by row.
        pass.changes_numbers() || matches!(pass.name(), "fuse_dequant" | "drop_dead")
    }

    fn supports(&self, _: &Op, _: &[&TensorDesc]) -> Result<(), String> {
        Ok(())
    }

    fn compile(
        &self,
        plan: Plan,
        weights: Arc<dyn Weights>,
        options: CompileOptions<'_>,
    ) -> Result<Arc<dyn Executable>, BackendError> {
        if let Some(f) = options.faults.first() {
            let why = "this backend runs definitions; faults are injected into kernels".into();
            return Err(BackendError::Fault { injection: f.to_string(), why });
        }
        if let Some(r) = options.routes.first() {
            let why = "this backend has one way to compute an op".into();
            return Err(BackendError::Route { rule: r.to_string(), why });
        }
        let mut tensors = HashMap::new();
        for (id, node) in plan.graph().nodes() {
            if let Kind::Weight { tensor, rows } = &node.kind {
                let view = weights.tensor(tensor)?;
                let shape: Vec<usize> = node.outs[0].dims.iter().filter_map(|d| d.constant()).collect();
                let cols = shape.last().copied().unwrap_or(0);
                let row = view.desc.dtype.row_bytes(cols).unwrap_or(0);
                let from = rows.as_ref().map_or(0, |r| r.start as usize) * row;
                let want = node.outs[0].bytes(&Default::default());
                let bytes = view.bytes.get(from..from + want).filter(|_| view.desc.dtype == node.outs[0].dtype);
                let Some(bytes) = bytes else {
                    let why = format!("the graph wants {}, the model has {}", node.outs[0], view.desc);
                    return Err(BackendError::Weight { tensor: tensor.clone(), why });
                };
                tensors.insert(id, HostTensor::from_bytes(&shape, view.desc.dtype, bytes));
            }
        }
        let (limits, interrupt) =
            ((options.max_tokens, options.max_rows), options.interrupt.cloned().unwrap_or_default());
        Ok(Arc::new(Compiled { plan, tensors, limits, interrupt }))
    }
}

struct Compiled {
    plan: Plan,
    tensors: HashMap<NodeId, HostTensor>,
    limits: (usize, usize),
    interrupt: Interrupt,
}

impl Executable for Compiled {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn routes(&self, _: usize, _: usize) -> Vec<(String, String)> {
        let ops = self.plan.graph().nodes().filter(|(_, n)| matches!(n.kind, Kind::Op(_)));
        ops.map(|(_, n)| (n.name.clone(), "reference".into())).collect()
    }

    fn session(self: Arc<Self>, kv: KvConfig) -> Result<Box<dyn Session>, BackendError> {
        let states = self.plan.graph().nodes().filter(|(_, n)| matches!(n.kind, Kind::State { .. }));
        let empty = states.map(|(id, n)| {
            let width = n.outs[0].cols().constant().unwrap_or(0);
            (id, HostTensor::real(&[0, width], Vec::new()))
        });
        let cache = Cache { table: PageTable::new(kv), states: empty.collect() };
        Ok(Box::new(Running { model: self, cache }))
    }
}

struct Cache {
    table: PageTable,
    states: HashMap<NodeId, HostTensor>,
}

impl KvOps for Cache {
    fn table(&self) -> &PageTable {
        &self.table
    }

    fn table_mut(&mut self) -> &mut PageTable {
        &mut self.table
    }

    fn grow(&mut self, pages: usize) -> Result<(), KvError> {
        for state in self.states.values_mut() {
            let rows = pages * PAGE_TOKENS;
            if rows > state.rows() {
                let mut values = state.reals().to_vec();
                values.resize(rows * state.cols(), 0.0);
                *state = HostTensor::real(&[rows, state.cols()], values);
            }
        }
        Ok(())
    }

    fn copy_page(&mut self, from: usize, to: usize) {
        for state in self.states.values_mut() {
            let page = PAGE_TOKENS * state.cols();
            let mut values = state.reals().to_vec();
            values.copy_within(from * page..(from + 1) * page, to * page);
            *state = HostTensor::real(&state.shape.clone(), values);
        }
    }
}

struct Running {
    model: Arc<Compiled>,
    cache: Cache,
}

impl Session for Running {
    fn run_tapped(
        &mut self,
        batch: &Batch,
        want: Want,
        at: StepAt,
        sink: &mut dyn TapSink,
    ) -> Result<StepOut, BackendError> {
        let (max_tokens, max_rows) = self.limits();
        batch.check(max_tokens, max_rows)?;
        let graph = self.model.plan.graph();
        let mut values: HashMap<Value, HostTensor> = HashMap::new();
        for (id, node) in graph.nodes() {
            let outs = match &node.kind {
                Kind::Input { input } => vec![self.input(*input, batch)],
                Kind::Weight { .. } => continue,
                Kind::Tap(_) => {
                    if sink.active() {
                        taps::deliver(graph, id, &values, batch, at, sink)?;
                    }
                    vec![]
                }
                Kind::State { .. } => vec![self.cache.states[&id].clone()],
                Kind::Op(op) => {
                    self.model.interrupt.check()?;
                    let ins = graph.operands(id);
                    let ins: Vec<&HostTensor> =
                        ins.iter().map(|v| values.get(v).unwrap_or_else(|| &self.model.tensors[&v.node])).collect();
                    let outs = op.spec().reference(&ins);
                    match graph.state_of(Value { node: id, out: 0 }) {
                        Some(state) => {
                            let rounded = round(&outs[0], &node.outs[0]);
                            self.cache.states.insert(state, rounded.clone());
                            vec![rounded]
                        }
                        None => outs.iter().zip(&node.outs).map(|(t, d)| round(t, d)).collect(),
                    }
                }
            };
            values.extend(outs.into_iter().enumerate().map(|(i, t)| (Value { node: id, out: i as u8 }, t)));
            for v in graph.operands(id) {
                if self.model.plan.last_use(v.node) == id.index() {
                    values.remove(&v);
                }
            }
        }
        Ok(self.collect(graph, values, batch, want))
    }

    fn kv(&mut self) -> &mut dyn KvOps {
        &mut self.cache
    }

    fn limits(&self) -> (usize, usize) {
        self.model.limits
    }
}

impl Running {
    fn input(&self, input: Input, batch: &Batch) -> HostTensor {
        let list = |v: &[i32]| HostTensor::int(&[v.len()], v.to_vec());
        match input {
            Input::Tokens => list(&batch.tokens),
            Input::Positions => list(&batch.positions),
            Input::Seqs => list(&batch.seqs),
            Input::Slots => list(&batch.slots),
            Input::RowsWanted => list(&batch.rows),
            Input::BlockTable => {
                let table = &self.cache.table;
                HostTensor::int(&[table.config().sequences, table.max_pages()], table.block_table())
            }
        }
    }

    fn collect(&self, graph: &Graph, values: HashMap<Value, HostTensor>, batch: &Batch, want: Want) -> StepOut {
        let mut out = StepOut::default();
        for &v in graph.outputs() {
            let name = graph.value_name(v);
            let tensor = values.get(&v).unwrap_or_else(|| &self.model.tensors[&v.node]);
            if name == "logits" {
                let logits: Vec<f32> = tensor.reals().iter().map(|&x| x as f32).collect();
                out = out.with_logits(&logits, tensor.cols(), want);
            } else if graph.is_state(v) {
                // A cache as output is the rows this step stored.
                let rows = batch.slots.iter().flat_map(|&s| tensor.row(s as usize).into_owned()).collect();
                out.values.push((name, HostTensor::real(&[batch.slots.len(), tensor.cols()], rows)));
            } else {
                out.values.push((name, tensor.clone()));
            }
        }
        out
    }
}

/// A value as its type stores it. Taps record stored values, and an op is judged by what its producers stored.
fn round(t: &HostTensor, d: &TensorDesc) -> HostTensor {
    HostTensor::from_bytes(&t.shape, d.dtype, &t.to_bytes(d.dtype))
}
