//! Faults on single ops: each changes what it fits, by more than an op may err, and is the fault it says.

use crate::conformance::judge;
use crate::support::{Outcome, all, cpu};
use greta_backend::{Backend, BackendError, CaseRunner, CompileOptions, Fault, Injection, RouteRule};
use greta_ops::{Attention, Case, CaseInput, DType, Data, HostTensor, MatMul, Op, Pairing, Precision};
use std::collections::BTreeMap;

fn injection(fault: Fault, param: Option<u32>) -> Injection {
    Injection { fault, node: "out".into(), phase: None, param }
}

/// A case's outputs by plain kernels, `out` with a fault or without.
fn run(
    case: &Case,
    backend: &dyn Backend,
    routes: &[RouteRule],
    fault: Option<Injection>,
) -> Result<Vec<HostTensor>, BackendError> {
    let options = CompileOptions { routes, faults: fault.as_slice(), ..CompileOptions::default() };
    CaseRunner::with_options(case, backend, options)?.run()
}

fn flat(t: &HostTensor) -> Vec<f64> {
    (0..t.rows()).flat_map(|r| t.row(r).into_owned()).collect()
}

/// How many bounds two outputs lie apart, at most.
fn distance(a: &[HostTensor], b: &[HostTensor], bounds: &[Vec<f64>]) -> f64 {
    let ratio = |(a, b, bound): (f64, f64, f64)| match (a - b).abs() {
        0.0 => 0.0,
        _ if a.is_nan() && b.is_nan() => 0.0,
        d if d.is_nan() => f64::INFINITY,
        d => d / bound,
    };
    a.iter()
        .zip(b)
        .zip(bounds)
        .flat_map(|((a, b), bound)| flat(a).into_iter().zip(flat(b)).zip(bound.clone()).map(|((a, b), c)| (a, b, c)))
        .map(ratio)
        .fold(0.0, f64::max)
}

/// The ops of the cases that each fault fits; `norm_quantize` and `swiglu_quantize` take what their first op takes.
const FITS: &[(Fault, &[&str])] = {
    use Fault::*;
    const ANY: &[&str] = &[
        "add",
        "attention",
        "cache_write",
        "dequant",
        "embed",
        "matmul",
        "norm_quantize",
        "quantize",
        "rmsnorm",
        "rope",
        "swiglu",
        "swiglu_quantize",
    ];
    const NORM: &[&str] = &["norm_quantize", "rmsnorm"];
    const WEIGHT: &[&str] = &["dequant", "embed", "matmul"];
    const ATTENTION: &[&str] = &["attention"];
    &[
        (EmbdColMajor, &["embed"]),
        (InputToken, &["embed"]),
        (TileTransposed, &["matmul"]),
        (OperandsTransposed, &["matmul"]),
        (WeightColMajor, &["matmul"]),
        (KvTransposed, &["matmul"]),
        (Q4kScales, WEIGHT),
        (Q4kNibbles, WEIGHT),
        (Q6kOrder, WEIGHT),
        (OneScale, WEIGHT),
        (RopeHalves, &["rope"]),
        (RopePosPlus1, &["rope"]),
        (PairSkipped, &["rope"]),
        (GqaMap, ATTENTION),
        (SeqLenPlus1, ATTENTION),
        (SeqLenMinus1, ATTENTION),
        (NoSqrtD, ATTENTION),
        (MaskPlus1, ATTENTION),
        (CtxBoundary, ATTENTION),
        (CoarseExp, ATTENTION),
        (
            InputRow,
            &[
                "add",
                "attention",
                "matmul",
                "norm_quantize",
                "quantize",
                "rmsnorm",
                "rope",
                "swiglu",
                "swiglu_quantize",
            ],
        ),
        (Eps, NORM),
        (LayerNorm, NORM),
        (WeightPlusOne, NORM),
        (HalfWave, &["attention", "matmul", "norm_quantize", "rmsnorm"]),
        (KTruncated, &["matmul", "norm_quantize", "rmsnorm"]),
        (BlockDropped, &["matmul", "norm_quantize", "rmsnorm"]),
        (F16Accumulate, &["attention", "matmul", "norm_quantize", "rmsnorm"]),
        (Bf16Truncate, ANY),
        (ScaleUniform, ANY),
        (LaneSign, ANY),
        (Noise, ANY),
        (ColumnRepeated, ANY),
        (Saturated, ANY),
        (MantissaBit, ANY),
        (ResidualTwice, &["add"]),
        (HardSilu, &["swiglu", "swiglu_quantize"]),
        // Theirs are tests of whole models: they need steps, layers, computed rows or taps.
        (StaleBuffer, &[]),
        (KvLayerBase, &[]),
        (NormWeightLayer, &[]),
        (LogitsRow, &[]),
        (AsyncCopy, &[]),
        (BosMissing, &[]),
    ]
};

/// The parameter that makes a fault show on the cases.
fn param(fault: Fault) -> Option<u32> {
    match fault {
        // The row of the weight: of an embed's, one that is looked up.
        Fault::OneScale => Some(3),
        _ => None,
    }
}

/// The cases of all ops, and matmuls of more rows than a tile has.
fn cases() -> Vec<Case> {
    let mut cases = Op::cases();
    let tall = [DType::F32, DType::F16, DType::Q4_K, DType::Q6_K, DType::Q8_0];
    cases.extend(tall.map(|t| MatMul::case(t, [40, 512, 40])));
    cases
}

/// Every fault on every op: where it fits it changes some case by more than twice the bound, elsewhere it is refused.
pub fn change_what_they_fit() -> Result<(), Outcome> {
    let (backend, routes) = (cpu(1)?, super::everywhere()?);
    // (fault, op) → the most that any case was changed by, if any took the fault.
    let mut most: BTreeMap<(Fault, &str), Option<f64>> = BTreeMap::new();
    let mut failures = Vec::new();
    let all_cases = cases();
    for case in &all_cases {
        let stored = case.stored();
        let stored: Vec<_> = stored.iter().collect();
        let spec = case.op.spec();
        let bounds = spec.error_bound(&stored, &spec.reference(&stored), Precision::F32);
        let clean = run(case, &backend, &routes, None)?;
        for &fault in Fault::ALL {
            let entry = most.entry((fault, spec.name())).or_default();
            match run(case, &backend, &routes, Some(injection(fault, param(fault)))) {
                Ok(got) => {
                    let d = distance(&got, &clean, &bounds);
                    *entry = Some(entry.unwrap_or(0.0).max(d));
                }
                Err(e) => {
                    let text = e.to_string();
                    if !text.starts_with(&format!("fault {fault} at out")) {
                        failures.push(format!("{fault} on {}: `{text}` does not begin with the fault", case.title()));
                    }
                }
            }
        }
    }
    for ((fault, op), changed) in &most {
        let fits = FITS.iter().find(|(f, _)| f == fault).is_some_and(|(_, ops)| ops.contains(op));
        match changed {
            Some(d) if fits && *d <= 2.0 => failures.push(format!("{fault} on {op} changes {d:.2} bounds at most")),
            Some(_) if !fits => failures.push(format!("{fault} is taken by {op}")),
            None if fits => failures.push(format!("{fault} is refused by {op}")),
            _ => {}
        }
    }
    if FITS.len() != Fault::ALL.len() {
        failures.push(format!("{} faults in the table, {} exist", FITS.len(), Fault::ALL.len()));
    }
    all(failures)
}

/// A fault with a threshold changes no bit below it.
pub fn keep_their_thresholds() -> Result<(), Outcome> {
    let (backend, routes) = (cpu(2)?, super::everywhere()?);
    let mut failures = Vec::new();
    let mut check = |fault, case: &Case, param, changes: bool| -> Result<(), Outcome> {
        let (clean, got) =
            (run(case, &backend, &routes, None)?, run(case, &backend, &routes, Some(injection(fault, Some(param))))?);
        if (clean != got) != changes {
            failures.push(format!("{fault} ({param}) on {}: changed {}, expected {changes}", case.title(), !changes));
        }
        Ok(())
    };
    for case in [DType::F32, DType::Q4_K].map(|t| MatMul::case(t, [40, 512, 40])) {
        for fault in [Fault::TileTransposed, Fault::OperandsTransposed] {
            check(fault, &case, 39, true)?;
            check(fault, &case, 40, false)?;
        }
        check(Fault::KTruncated, &case, 500, true)?;
        check(Fault::KTruncated, &case, 512, false)?;
    }
    for case in Op::cases().iter().filter(|c| c.name.ends_with("prefill_gqa")) {
        // Positions 0 to 69.
        check(Fault::CtxBoundary, case, 69, true)?;
        check(Fault::CtxBoundary, case, 70, false)?;
    }
    all(failures)
}

/// What a fault does, said a second time: as a right op on changed operands.
type Meaning = fn(&mut Case);

/// Faults that a right op with other operands or attributes shows as well.
const MEANINGS: &[(Fault, Option<u32>, &str, Meaning)] = &[
    (Fault::WeightColMajor, None, "matmul/f32_", column_major),
    (Fault::KvTransposed, None, "matmul/f32_", column_major),
    (Fault::EmbdColMajor, None, "embed/f32_", column_major),
    (Fault::OperandsTransposed, Some(4), "matmul/f32_16x1024x9", |c| fragments(c, &[0])),
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

/// Full 16×16 parts of these operands, each transposed.
fn fragments(c: &mut Case, which: &[usize]) {
    for &i in which {
        let t = value(c, i);
        let (all, rows, cols) = (flat(t), t.rows(), t.cols());
        let at = |i: usize| {
            let (r, k) = (i / cols, i % cols);
            let full = r / 16 * 16 + 16 <= rows && k / 16 * 16 + 16 <= cols;
            if full { all[(r / 16 * 16 + k % 16) * cols + k / 16 * 16 + r % 16] } else { all[i] }
        };
        t.data = Data::Real((0..rows * cols).map(at).collect());
    }
}

fn previous_rows(c: &mut Case, i: usize) {
    let t = value(c, i);
    let (all, cols) = (flat(t), t.cols());
    t.data = Data::Real((0..all.len()).map(|k| if k < cols { all[k] } else { all[k - cols] }).collect());
}
