//! Faults on single ops: each changes what it fits, by more than an op may err.

use crate::support::{Outcome, all, cpu};
use greta_backend::{Backend, BackendError, CaseRunner, CompileOptions, Fault, Injection, RouteRule};
use greta_ops::{Case, DType, HostTensor, MatMul, Op, Precision};
use std::collections::BTreeMap;

pub fn injection(fault: Fault, param: Option<u32>) -> Injection {
    Injection { fault, node: "out".into(), phase: None, param }
}

/// A case's outputs by plain kernels, `out` with a fault or without.
pub fn run(
    case: &Case,
    backend: &dyn Backend,
    routes: &[RouteRule],
    fault: Option<Injection>,
) -> Result<Vec<HostTensor>, BackendError> {
    let options = CompileOptions { routes, faults: fault.as_slice(), ..CompileOptions::default() };
    CaseRunner::with_options(case, backend, options)?.run()
}

pub fn flat(t: &HostTensor) -> Vec<f64> {
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
pub fn cases() -> Vec<Case> {
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
