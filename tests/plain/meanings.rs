//! Faults said a second time: as a right op on changed operands.

use super::cases::{cases, flat, injection, run};
use crate::conformance::judge;
use crate::support::{Outcome, all, cpu};
use greta_backend::Fault;
use greta_ops::{Attention, Case, CaseInput, DType, Data, HostTensor, Op, Pairing, Precision};
use half::f16;

/// Changes a case so that the right op gives what the faulty one gives for the case itself.
type Meaning = fn(&mut Case);

/// Faults that a right op with other operands or attributes shows as well.
const MEANINGS: &[(Fault, Option<u32>, &str, Meaning)] = &[
    (Fault::WeightColMajor, None, "matmul/f32_", column_major),
    (Fault::KvTransposed, None, "matmul/f32_", column_major),
    (Fault::EmbdColMajor, None, "embed/f32_", column_major),
    (Fault::OperandsTransposed, Some(4), "matmul/f32_16x1024x9", |c| fragments(c, &[0, 1])),
    (Fault::OperandsTransposed, None, "matmul/f32_40x512x40", |c| fragments(c, &[0, 1])),
    (Fault::KTruncated, Some(100), "matmul/", |c| terms(c, 1, |k, _| k < 100)),
    (Fault::KTruncated, None, "matmul/", |c| terms(c, 1, |k, n| k < n / 2)),
    (Fault::HalfWave, None, "matmul/", |c| terms(c, 1, |k, _| k % 64 < 32)),
    (Fault::BlockDropped, None, "matmul/", |c| terms(c, 1, |k, n| k / 32 != n / 64)),
    (Fault::HalfWave, None, "attention/", |c| match &c.op {
        Op::Attention(a) => {
            let (wave, d) = (a.head_dim.min(64), a.head_dim);
            terms(c, 0, |k, _| k % d % wave < wave / 2)
        }
        _ => unreachable!(),
    }),
    (Fault::Eps, None, "rmsnorm/", |c| eps(c, 100.0)),
    (Fault::Eps, Some(7), "rmsnorm/", |c| eps(c, 7.0)),
    (Fault::WeightPlusOne, None, "rmsnorm/", |c| map(c, 1, |_, w| w + 1.0)),
    (Fault::LayerNorm, None, "rmsnorm/4x256", |c| {
        each_row(c, 0, |row| {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            row.iter_mut().for_each(|x| *x -= mean);
        })
    }),
    (Fault::ResidualTwice, None, "add/", |c| map(c, 1, |_, b| 2.0 * b)),
    (Fault::RopePosPlus1, None, "rope/", |c| ints(c, 1, |p| p + 1)),
    (Fault::RopeHalves, None, "rope/", |c| match &mut c.op {
        Op::Rope(r) => {
            r.pairing = if r.pairing == Pairing::Halves { Pairing::Adjacent } else { Pairing::Halves };
        }
        _ => unreachable!(),
    }),
    (Fault::NoSqrtD, None, "attention/", |c| attention(c, |a| a.scale = 1.0)),
    (Fault::SeqLenMinus1, None, "attention/", |c| ints(c, 3, |p| (p - 1).max(0))),
    (Fault::CtxBoundary, None, "attention/", |c| ints(c, 3, |p| p.min(63))),
    (Fault::InputToken, Some(2), "embed/", |c| last_int(c, 1, 2)),
    (Fault::InputRow, None, "rmsnorm/4x256", |c| previous_rows(c, 0)),
    (Fault::InputRow, None, "matmul/q4_k_16x1024x9", |c| previous_rows(c, 1)),
];

pub fn are_what_they_say() -> Result<(), Outcome> {
    let (backend, routes) = (cpu(2)?, super::everywhere()?);
    let all_cases = cases();
    let mut failures = Vec::new();
    for &(fault, param, prefix, meaning) in MEANINGS {
        // Terms left out of a product are zeros of its f32 activations; codes are a test of their own.
        let fits = |c: &&Case| c.title().starts_with(prefix) && (c.ins.len() < 3 || !c.title().starts_with("matmul"));
        let mut count = 0;
        for case in all_cases.iter().filter(fits) {
            let mut other = case.clone();
            meaning(&mut other);
            let stored = other.stored();
            let stored: Vec<_> = stored.iter().collect();
            let want = other.op.spec().reference(&stored);
            let bounds = other.op.spec().error_bound(&stored, &want, Precision::F32);
            let got = run(case, &backend, &routes, Some(injection(fault, param)))?;
            for ((got, want), bound) in got.iter().zip(&want).zip(&bounds) {
                // The fault's own step rounds too: 1 + weight, x − mean.
                let values = flat(want);
                let largest = values.iter().fold(0.0f64, |m, y| m.max(y.abs()));
                let step = if fault == Fault::LayerNorm { largest } else { 0.0 };
                let slack = |y: f64| (y.abs() + step) * 2f64.powi(-22);
                let bound: Vec<f64> = bound.iter().zip(values).map(|(b, y)| b + slack(y)).collect();
                if let Err(e) = judge(got, want, &bound, DType::F32) {
                    failures.push(format!("{fault} on {}: {e}", case.title()));
                }
            }
            count += 1;
        }
        if count == 0 {
            failures.push(format!("{fault}: no case begins with {prefix}"));
        }
    }
    all(failures)
}

fn value(c: &mut Case, i: usize) -> &mut HostTensor {
    match &mut c.ins[i] {
        CaseInput::Value(t, _) | CaseInput::Cache(t, _) => t,
    }
}

/// Calls `f` with each row of a plain real operand; packed ones become plain.
fn each_row(c: &mut Case, i: usize, mut f: impl FnMut(&mut [f64])) {
    let mut rows = flat(value(c, i));
    let t = value(c, i);
    rows.chunks_exact_mut(t.cols()).for_each(&mut f);
    t.data = Data::Real(rows);
    if let CaseInput::Value(_, dtype) = &mut c.ins[i] {
        *dtype = DType::F32;
    }
}

fn map(c: &mut Case, i: usize, f: impl Fn(usize, f64) -> f64) {
    each_row(c, i, |row| row.iter_mut().enumerate().for_each(|(k, x)| *x = f(k, *x)));
}

fn terms(c: &mut Case, i: usize, takes: impl Fn(usize, usize) -> bool) {
    let n = value(c, i).cols();
    map(c, i, |k, x| if takes(k, n) { x } else { 0.0 });
}

fn ints(c: &mut Case, i: usize, f: impl Fn(i32) -> i32) {
    if let Data::Int(list) = &mut value(c, i).data {
        list.iter_mut().for_each(|x| *x = f(*x));
    }
}

fn last_int(c: &mut Case, i: usize, to: i32) {
    if let Data::Int(list) = &mut value(c, i).data {
        list.iter_mut().next_back().into_iter().for_each(|x| *x = to);
    }
}

fn eps(c: &mut Case, factor: f32) {
    match &mut c.op {
        Op::RmsNorm(norm) => norm.eps *= factor,
        _ => unreachable!(),
    }
}

fn attention(c: &mut Case, f: impl Fn(&mut Attention)) {
    match &mut c.op {
        Op::Attention(a) => f(a),
        _ => unreachable!(),
    }
}

/// The matrix whose values lie in the same order, column by column.
fn column_major(c: &mut Case) {
    let t = value(c, 0);
    let (all, rows, cols) = (flat(t), t.rows(), t.cols());
    let at = |i: usize| all[i % cols * rows + i / cols];
    t.data = Data::Real((0..rows * cols).map(at).collect());
}

/// 16×16 parts of these operands, each transposed; the last rows of activations are filled up with zeros.
fn fragments(c: &mut Case, which: &[usize]) {
    for &which in which {
        let t = value(c, which);
        let (all, rows, cols) = (flat(t), t.rows(), t.cols());
        let at = |i: usize| {
            let (r, k) = (i / cols, i % cols);
            let full = (which == 1 || r / 16 * 16 + 16 <= rows) && k / 16 * 16 + 16 <= cols;
            let source = (r / 16 * 16 + k % 16) * cols + k / 16 * 16 + r % 16;
            if full { all.get(source).copied().unwrap_or(0.0) } else { all[i] }
        };
        t.data = Data::Real((0..rows * cols).map(at).collect());
    }
}

fn previous_rows(c: &mut Case, i: usize) {
    let t = value(c, i);
    let (all, cols) = (flat(t), t.cols());
    t.data = Data::Real((0..all.len()).map(|k| if k < cols { all[k] } else { all[k - cols] }).collect());
}

/// Sums in half precision are those of the `half` crate's own roundings, from subnormal halves to infinity.
pub fn halves_round_as_halves() -> Result<(), Outcome> {
    let (backend, routes) = (cpu(2)?, super::everywhere()?);
    let mut failures = Vec::new();
    let products = cases().into_iter().filter(|c| c.title().starts_with("matmul/f32_"));
    for original in products {
        for size in [1e-7, 1e-4, 1.0, 1e4, 1e6] {
            let mut case = original.clone();
            map(&mut case, 1, |_, x| f64::from((x * size) as f32));
            let (w, x) = (flat(value(&mut case, 0)), flat(value(&mut case, 1)));
            let (n, k) = (value(&mut case, 0).rows(), value(&mut case, 0).cols());
            let got = run(&case, &backend, &routes, Some(injection(Fault::F16Accumulate, None)))?;
            for (i, got) in flat(&got[0]).into_iter().enumerate() {
                let terms = w[i % n * k..][..k].iter().zip(&x[i / n * k..][..k]);
                let want = terms.fold(0f32, |sum, (w, x)| f16::from_f32(sum + *w as f32 * *x as f32).to_f32());
                if got as f32 != want && !(got.is_nan() && want.is_nan()) {
                    failures.push(format!("{}, {size}: element {i} is {got:e}, expected {want:e}", case.title()));
                }
            }
        }
    }
    all(failures)
}
