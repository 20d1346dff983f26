//! Every case of every op on every backend, judged by the op's own reference and bound.

use crate::support::{Outcome, all, hips, trial};
use greta_backend::{Backend, CaseRunner, CompileOptions};
use greta_cpu::simd::Level;
use greta_cpu::{Cpu, CpuOptions};
use greta_ops::{Case, DType, HostTensor, Op, Precision};
use greta_reference::Reference;
use libtest_mimic::Trial;
use std::collections::BTreeMap;
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
                    .filter_map(|c| {
                        run(c, &*backend, CompileOptions::default()).err().map(|e| format!("{}: {e}", c.title()))
                    })
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
    for (label, open) in hips() {
        list.push((label.into(), Arc::new(move || Ok(Box::new(open()?) as Box<dyn Backend>))));
    }
    list
}

/// Runs a case and judges what it gives.
pub fn run(case: &Case, backend: &dyn Backend, options: CompileOptions<'_>) -> Result<(), String> {
    let mut runner = CaseRunner::with_options(case, backend, options).map_err(|e| e.to_string())?;
    let got = runner.run().map_err(|e| e.to_string())?;
    let want = case.op.spec().reference(&case.stored().iter().collect::<Vec<_>>());
    let bounds = case.op.spec().error_bound(&case.stored().iter().collect::<Vec<_>>(), &want, Precision::F32);
    for (i, ((got, want), bound)) in got.iter().zip(&want).zip(&bounds).enumerate() {
        judge(got, want, bound, runner.outputs()[i].dtype).map_err(|e| format!("output {i}: {e}"))?;
    }
    if got.len() != want.len() { Err(format!("{} outputs, expected {}", got.len(), want.len())) } else { Ok(()) }
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
