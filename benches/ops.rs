//! The cases of every op on the CPU backend, the same that the tests judge, and products of the sizes that models have.
//!
//!   cargo bench --bench ops -- matmul

use criterion::{Criterion, Throughput};
use greta::{BackendOptions, backend};
use greta_backend::CaseRunner;
use greta_ops::{Bindings, DType, MatMul, Op};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let cpu = backend("cpu", &BackendOptions::default()).expect("the CPU backend is always there");
    let large = [DType::Q4_0, DType::Q4_K, DType::Q6_K, DType::Q8_0, DType::F16]
        .into_iter()
        .flat_map(|t| [1, 64].map(|m| MatMul::case(t, [1536, 768, m])));
    for case in Op::cases().into_iter().chain(large) {
        let mut runner = match CaseRunner::new(&case, &*cpu) {
            Ok(r) => r,
            Err(e) => {
                eprintln!("{}: SKIP: {e}", case.title());
                continue;
            }
        };
        let ins: Vec<_> = case.ins.iter().map(|i| i.tensor().desc()).collect();
        let cost = case.op.spec().cost(&ins.iter().collect::<Vec<_>>(), runner.outputs(), &Bindings::default());
        let mut group = criterion.benchmark_group(case.op.spec().name());
        // Small ops are bound by what they move.
        let products = matches!(case.op, Op::MatMul(_) | Op::Attention(_));
        group.throughput(if products { Throughput::Elements(cost.flops) } else { Throughput::Bytes(cost.bytes) });
        group.bench_function(&case.name, |b| b.iter(|| runner.run()));
        group.finish();
    }
    criterion.final_summary();
}
