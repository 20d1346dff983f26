//! Fused ops, values that are no numbers, and steps of which little was recorded.

use super::run::{Step, Taped, norm, product, quantized};
use super::{Case, judged};
use crate::support::{Outcome, all, trial};
use greta_backend::{BackendError, WeightView, Weights};
use greta_graph::TapMode;
use greta_models::Arithmetic::{Exact, Int8};
use greta_ops::DType;
use greta_trace::judge::Class::{self, AInputSelection, BNormStats, CWeightLayout, DKernelMath, GStaleData, Unknown};
use greta_trace::judge::{Judge, JudgeOptions, Outcome as Found};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("hypotheses/fused", fused),
        trial("hypotheses/non_finite", non_finite),
        trial("hypotheses/zeros_match_nothing", zeros),
    ]
}

type Wrong = fn(&Step<'_>) -> Option<Vec<Vec<f32>>>;

fn fused() -> Result<(), Outcome> {
    let taped = Taped::tapped("Q4_K_M", Int8, DType::F16, 70, TapMode::AsExecuted)?;
    const NODE: &str = "blk.1.attn_norm.q8";
    const W: &str = "blk.1.attn_norm.weight";
    let case = |name, class, hypothesis, wrong: Wrong| Case {
        name,
        mix: "Q4_K_M",
        arith: Int8,
        node: NODE,
        wrong,
        class,
        hypothesis,
    };
    let cases = [
        case("eps", BNormStats, Some("epsilon (1e-3)"), |s| {
            Some(quantized(&norm(&s.rows("blk.0.out"), &s.weight(W).values, 1e-3, |_| true)))
        }),
        case("half-wave", DKernelMath, Some("norm over half the lanes (first 32 of 64)"), |s| {
            Some(quantized(&norm(&s.rows("blk.0.out"), &s.weight(W).values, 1e-5, |i| i % 64 < 32)))
        }),
        case("norm-weight-layer", CWeightLayout, Some("neighbour layer's weight (-1)"), |s| {
            let w = s.weight("blk.0.attn_norm.weight").values;
            Some(quantized(&norm(&s.rows("blk.0.out"), &w, 1e-5, |_| true)))
        }),
        case("input-row", AInputSelection, Some("another token's row (row 0"), |s| {
            let x = vec![s.rows("blk.0.out")[0].clone(); s.positions().len()];
            (!s.decodes()).then(|| quantized(&norm(&x, &s.weight(W).values, 1e-5, |_| true)))
        }),
        case("stale-buffer", GStaleData, Some("stale operand"), |s| {
            let x = vec![s.before()?.rows("blk.0.out")[0].clone()];
            Some(quantized(&norm(&x, &s.weight(W).values, 1e-5, |_| true)))
        }),
        case("scale", DKernelMath, Some("uniform scale (2.0"), |s| {
            let mut x = norm(&s.rows("blk.0.out"), &s.weight(W).values, 1e-5, |_| true);
            x.iter_mut().flatten().for_each(|v| *v *= 2.0);
            Some(quantized(&x))
        }),
        case("weight-plus-one", Unknown, None, |s| {
            let w: Vec<f32> = s.weight(W).values.iter().map(|v| v + 1.0).collect();
            Some(quantized(&norm(&s.rows("blk.0.out"), &w, 1e-5, |_| true)))
        }),
        case("block-dropped", Unknown, None, |s| {
            let x = norm(&s.rows("blk.0.out"), &s.weight(W).values, 1e-5, |i| !(96..128).contains(&i));
            Some(quantized(&x))
        }),
    ];
    all(cases.iter().filter_map(|c| judged(&taped, c)).collect())
}

/// A model in one of whose tensors the first bytes are others.
struct Patched<'a> {
    inner: &'a dyn Weights,
    tensor: &'static str,
    bytes: Vec<u8>,
}

impl Weights for Patched<'_> {
    fn tensor(&self, name: &str) -> Result<WeightView<'_>, BackendError> {
        let view = self.inner.tensor(name)?;
        Ok(if name == self.tensor { WeightView { desc: view.desc, bytes: &self.bytes } } else { view })
    }
}

fn non_finite() -> Result<(), Outcome> {
    let taped = Taped::new("Q4_K_M", Int8, DType::F16, 20)?;
    let mut failures = Vec::new();
    let weights = taped.model.weights();
    let mut expect =
        |what: &str, weights: &dyn Weights, class: Class, hypothesis: &str, place: &str| -> Result<(), Outcome> {
            let recording = taped.distorted("blk.1.q", |s| {
                let mut rows = s.rows("blk.1.q");
                rows.iter_mut().for_each(|r| r[3] = f32::NAN);
                Some(rows)
            });
            let options = JudgeOptions { nodes: "blk.1.q".parse().ok(), rows: None };
            let verdict = Judge::new(&recording, weights, options)?.run(&|_, _| true)?;
            let found = verdict.culprit.filter(|c| {
                c.outcome == Found::NonFinite
                    && c.class == class
                    && c.hypothesis.as_deref() == Some(hypothesis)
                    && c.detail.contains(place)
            });
            if found.is_none() {
                failures.push(format!("{what}: {:?}", verdict.class));
            }
            Ok(())
        };
    expect("born here", &*weights, DKernelMath, "non-finite born here", "element 3")?;
    let tensor = "blk.1.attn_q.weight";
    let mut bytes = weights.tensor(tensor)?.bytes.to_vec();
    // The scale of row 3's only block.
    bytes[3 * 144..3 * 144 + 2].copy_from_slice(&0x7e00u16.to_le_bytes());
    let patched = Patched { inner: &*weights, tensor, bytes };
    expect("weight", &patched, CWeightLayout, "weight-non-finite", "row 3, block 0")?;
    all(failures)
}

/// A layer whose output is all zeros is explained by nothing, whatever would give zeros too.
fn zeros() -> Result<(), Outcome> {
    let taped = Taped::new("F32", Exact, DType::F16, 40)?;
    let case = |node, wrong: Wrong| Case {
        name: "zeros",
        mix: "F32",
        arith: Exact,
        node,
        wrong,
        class: Unknown,
        hypothesis: None,
    };
    let cases = [
        case("blk.1.q", |s| Some(vec![vec![0.0; 256]; s.positions().len()])),
        case("blk.1.attn", |s| Some(vec![vec![0.0; 256]; s.positions().len()])),
        case("blk.1.ffn_out", |s| Some(product(&s.rows("blk.1.ffn_act"), 256, |_, _| 0.0))),
    ];
    all(cases.iter().filter_map(|c| judged(&taped, c)).collect())
}
