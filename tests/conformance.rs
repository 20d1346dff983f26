//! Every case of every op on every backend, judged by the op's own reference and bound.

use crate::support::{Outcome, all, trial};
use greta_backend::{
    Backend, BackendError, Batch, CompileOptions, KvConfig, RowsWanted, SeqId, Want, WeightView, Weights,
};
use greta_cpu::simd::Level;
use greta_cpu::{Cpu, CpuOptions};
use greta_graph::{Graph, GraphBuilder, Kind, Plan, StateRole, Value};
use greta_ops::{Case, CaseInput, DType, HostTensor, Op, Precision, TensorDesc};
use greta_reference::Reference;
use libtest_mimic::Trial;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub fn trials() -> Vec<Trial> {
    let mut by_op: BTreeMap<&str, Vec<Case>> = BTreeMap::new();
    for case in Op::cases() {
        by_op.entry(case.op.spec().name()).or_default().push(case);
    }
    let mut list = Vec::new();
    for (backend, make) in backends() {
        for (op, cases) in &by_op {
            let (cases, make) = (cases.clone(), make.clone());
            list.push(trial(format!("conformance/{backend}/{op}"), move || {
                let backend = make()?;
                all(cases
                    .iter()
                    .filter_map(|c| run(c, &*backend).err().map(|e| format!("{}: {e}", c.title())))
                    .collect())
            }));
        }
    }
    list
}

type Make = Arc<dyn Fn() -> Result<Box<dyn Backend>, Outcome> + Send + Sync>;

/// The backends of this machine: the CPU once for each instruction set.
fn backends() -> Vec<(String, Make)> {
    let mut list: Vec<(String, Make)> =
        vec![("reference".into(), Arc::new(|| Ok(Box::new(Reference) as Box<dyn Backend>)))];
    for level in Level::available() {
        let options = CpuOptions { threads: Some(2), level: Some(level), guard: true };
        list.push((
            format!("cpu-{}", level.name()),
            Arc::new(move || Ok(Box::new(Cpu::new(options)?) as Box<dyn Backend>)),
        ));
    }
    list
}

/// Constants of a case, by name.
struct Constants(HashMap<String, (TensorDesc, Vec<u8>)>);

impl Weights for Constants {
    fn tensor(&self, name: &str) -> Result<WeightView<'_>, BackendError> {
        match self.0.get(name) {
            Some((desc, bytes)) => Ok(WeightView { desc: desc.clone(), bytes }),
            None => Err(BackendError::Weight { tensor: name.into(), why: "is not part of the case".into() }),
        }
    }
}

/// Builds a graph of the one op; its caches are filled by cache writes.
fn graph(case: &Case) -> Result<(Graph, Constants, usize), Outcome> {
    let mut b = GraphBuilder::new();
    let mut constants = HashMap::new();
    let mut constant = |b: &mut GraphBuilder, name: String, t: &HostTensor, dtype: DType| -> Result<Value, Outcome> {
        let desc = TensorDesc { dtype, ..t.desc() };
        let v = b.weight(&name, desc.clone())?;
        constants.insert(name, (desc, t.to_bytes(dtype)));
        Ok(v)
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
                b.op(format!("filled{i}"), greta_ops::CacheWrite {}, &[cache, rows, at])?
            }
        });
    }
    let out = b.op("out", case.op.clone(), &ins)?;
    for i in 0..b.graph().node(out.node).outs.len() as u8 {
        b.output(out.output(i));
    }
    Ok((b.finish()?, Constants(constants), slots))
}

fn run(case: &Case, backend: &dyn Backend) -> Result<(), String> {
    let (graph, constants, slots) = graph(case).map_err(text)?;
    let descs: Vec<TensorDesc> = match graph.nodes().last() {
        Some((_, n)) if matches!(n.kind, Kind::Op(_)) => n.outs.to_vec(),
        _ => return Err("no op".into()),
    };
    let sizes = CompileOptions { max_tokens: slots.max(1), max_rows: 1, progress: None };
    let exe = backend.compile(Plan::new(graph), Arc::new(constants), sizes).map_err(|e| e.to_string())?;
    let mut session = exe.session(KvConfig { context: slots.max(1), sequences: 1 }).map_err(|e| e.to_string())?;
    let mut batch = Batch::default();
    batch.append(session.kv(), SeqId(0), &vec![0; slots.max(1)], RowsWanted::None).map_err(|e| e.to_string())?;
    let got = session.run(&batch, Want::Nothing).map_err(|e| e.to_string())?.values;

    // The reference sees what a device would hold: operands rounded to their stored types.
    let ins: Vec<HostTensor> = case
        .ins
        .iter()
        .map(|i| match i {
            CaseInput::Value(t, d) | CaseInput::Cache(t, d) => HostTensor::from_bytes(&t.shape, *d, &t.to_bytes(*d)),
        })
        .collect();
    let ins: Vec<&HostTensor> = ins.iter().collect();
    let want = case.op.spec().reference(&ins);
    let bounds = case.op.spec().error_bound(&ins, &want, Precision::F32);
    for (i, ((got, want), bound)) in got.iter().zip(&want).zip(&bounds).enumerate() {
        judge(&got.1, want, bound, descs[i].dtype).map_err(|e| format!("output {i}: {e}"))?;
    }
    if got.len() != want.len() { Err(format!("{} outputs, expected {}", got.len(), want.len())) } else { Ok(()) }
}

fn text(o: Outcome) -> String {
    match o {
        Outcome::Failed(t) => t,
        Outcome::Lacks(n, _) => n.install.into(),
    }
}

/// NaN first, then every element against its bound.
pub fn judge(got: &HostTensor, want: &HostTensor, bound: &[f64], dtype: DType) -> Result<(), String> {
    let flat = |t: &HostTensor| -> Vec<f64> { (0..t.rows()).flat_map(|r| t.row(r).into_owned()).collect() };
    let rounded =
        if dtype.is_real() { HostTensor::from_bytes(&want.shape, dtype, &want.to_bytes(dtype)) } else { want.clone() };
    let (got, want, stored) = (flat(got), flat(want), flat(&rounded));
    if got.len() != want.len() || bound.len() != want.len() {
        return Err(format!("{} values, expected {}, bounds {}", got.len(), want.len(), bound.len()));
    }
    for i in 0..got.len() {
        if got[i].is_nan() != want[i].is_nan() {
            return Err(format!("element {i} is {}, expected {}", got[i], want[i]));
        }
    }
    let ratio = |i: usize| match (got[i] - want[i]).abs() {
        _ if got[i].is_nan() || got[i] == stored[i] => 0.0,
        e => e / bound[i],
    };
    let worst = (0..got.len()).max_by(|&a, &b| ratio(a).total_cmp(&ratio(b)));
    match worst {
        Some(i) if ratio(i) > 1.0 => Err(format!(
            "element {i} is {:e}, expected {:e}: {:.2} × its bound of {:.2e}",
            got[i],
            want[i],
            ratio(i),
            bound[i]
        )),
        _ => Ok(()),
    }
}
