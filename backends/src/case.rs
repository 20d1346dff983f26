//! Runs an op's case on a backend: what tests judge and benches time.

use crate::{
    Backend, BackendError, Batch, CompileOptions, KvConfig, RowsWanted, SeqId, Session, Want, WeightView, Weights,
};
use greta_graph::{BuildError, GraphBuilder, Plan, StateRole, Value};
use greta_ops::{CacheWrite, Case, CaseInput, DType, HostTensor, Op, TensorDesc};
use std::collections::HashMap;
use std::sync::Arc;

/// A case as a graph of one op, compiled: operands are constants, caches are filled by cache writes.
pub struct CaseRunner {
    session: Box<dyn Session>,
    batch: Batch,
    outputs: Vec<TensorDesc>,
}

impl CaseRunner {
    /// Builds and compiles the graph.
    pub fn new(case: &Case, backend: &dyn Backend) -> Result<CaseRunner, BackendError> {
        Self::with_options(case, backend, CompileOptions::default())
    }

    /// As [`CaseRunner::new`], with routes and faults; the op is node `out`. The step's size is the case's own.
    pub fn with_options(
        case: &Case,
        backend: &dyn Backend,
        options: CompileOptions<'_>,
    ) -> Result<CaseRunner, BackendError> {
        let built = build(case).map_err(|e| BackendError::Batch(format!("case {}: {e}", case.title())))?;
        let slots = built.slots.max(1);
        let options = CompileOptions { max_tokens: slots, max_rows: 1, ..options };
        let exe = backend.compile(built.plan, Arc::new(built.constants), options)?;
        let mut session = exe.session(KvConfig { context: slots, sequences: 1 })?;
        // As many tokens as the cache has slots: outputs that are caches then come back whole.
        let mut batch = Batch::default();
        batch.append(session.kv(), SeqId(0), &vec![0; slots], RowsWanted::None)?;
        Ok(CaseRunner { session, batch, outputs: built.outputs })
    }

    /// Runs it and gives the op's outputs.
    pub fn run(&mut self) -> Result<Vec<HostTensor>, BackendError> {
        let out = self.session.run(&self.batch, Want::Nothing)?;
        Ok(out.values.into_iter().map(|(_, t)| t).collect())
    }

    /// Types and shapes of the outputs.
    pub fn outputs(&self) -> &[TensorDesc] {
        &self.outputs
    }
}

struct Built {
    plan: Plan,
    constants: Constants,
    outputs: Vec<TensorDesc>,
    slots: usize,
}

struct Constants(HashMap<String, (TensorDesc, Vec<u8>)>);

impl Weights for Constants {
    fn tensor(&self, name: &str) -> Result<WeightView<'_>, BackendError> {
        match self.0.get(name) {
            Some((desc, bytes)) => Ok(WeightView { desc: desc.clone(), bytes }),
            None => Err(BackendError::Weight { tensor: name.into(), why: "is not part of the case".into() }),
        }
    }
}

fn build(case: &Case) -> Result<Built, BuildError> {
    let mut b = GraphBuilder::new();
    let mut constants = HashMap::new();
    let mut constant = |b: &mut GraphBuilder, name: String, t: &HostTensor, dtype: DType| {
        let desc = TensorDesc { dtype, ..t.desc() };
        let v = b.weight(&name, desc.clone())?;
        constants.insert(name, (desc, t.to_bytes(dtype)));
        Ok::<Value, BuildError>(v)
    };
    let (mut ins, mut slots) = (Vec::new(), 0);
    for (i, input) in case.ins.iter().enumerate() {
        ins.push(match input {
            CaseInput::Value(t, dtype) => constant(&mut b, format!("in{i}"), t, *dtype)?,
            CaseInput::Cache(t, dtype) => {
                slots = t.rows();
                let (role, heads) = match &case.op {
                    Op::Attention(a) if i == 2 => (StateRole::Values, a.kv_heads),
                    Op::Attention(a) => (StateRole::Keys, a.kv_heads),
                    _ => (StateRole::Keys, 1),
                };
                let cache = b.state(&format!("cache{i}"), role, heads, t.cols() / heads, *dtype)?;
                let rows = constant(&mut b, format!("rows{i}"), t, DType::F32)?;
                let at = HostTensor::int(&[slots], (0..slots as i32).collect());
                let at = constant(&mut b, format!("slots{i}"), &at, DType::I32)?;
                b.op(format!("filled{i}"), CacheWrite {}, &[cache, rows, at])?
            }
        });
    }
    let out = b.op("out", case.op.clone(), &ins)?;
    let outputs = b.graph().node(out.node).outs.to_vec();
    (0..outputs.len() as u8).for_each(|i| b.output(out.output(i)));
    Ok(Built { plan: Plan::new(b.finish()?), constants: Constants(constants), outputs, slots })
}
