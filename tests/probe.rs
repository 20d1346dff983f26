//! Probes: each says nothing of a clean run, and names the op, the class and the layout of a fault that is built in.

use crate::support::{Outcome, all, cpu, synth_tiny, trial};
use greta_backend::{Fault, Injection, Phase};
use greta_models::{EngineOptions, Model};
use greta_trace::judge::{Class, VerdictKind};
use greta_trace::probe::{self, Cell, Kind, Point, Probe, Row};
use greta_trace::prompts;
use libtest_mimic::Trial;
use std::sync::Arc;

const RMS: Kind = Kind::RmsNorm(Point::FfnNorm);
const ATTN_RMS: Kind = Kind::RmsNorm(Point::AttnNorm);

/// A fault, a question, and what has to hold of the answer.
struct Case {
    fault: (Fault, &'static str),
    phase: Option<Phase>,
    param: Option<u32>,
    kind: Kind,
    layer: u32,
    culprit: &'static str,
    class: Class,
    /// How the hypothesis begins; empty: there must be none.
    hypothesis: &'static str,
    holds: fn(&Probe) -> bool,
}

pub fn trials() -> Vec<Trial> {
    vec![
        trial("probe/clean", clean),
        trial("probe/faults", || all(cases().iter().filter_map(|c| asked(c).err()).collect())),
        trial("probe/json", json),
        trial("probe/too_little", too_little),
    ]
}

fn answer(kind: Kind, layer: u32, faults: Vec<Injection>) -> Result<Probe, Outcome> {
    let model = Arc::new(Model::open(&synth_tiny("Q4_K_M")?)?);
    let prompts = prompts::built_in(&model, &[], model.context().min(1024))?;
    let engine = EngineOptions { faults, ..EngineOptions::default() };
    let rec = probe::record(kind, &model, &cpu(2)?, &engine, &prompts, layer, &mut |_, _, _| true)?;
    Ok(probe::run(kind, &rec, &model, layer)?)
}

fn clean() -> Result<(), Outcome> {
    let mut failures = Vec::new();
    for kind in [Kind::NormQkv, Kind::Weights, RMS, ATTN_RMS, Kind::Embedding, Kind::Rope, Kind::Cache] {
        let p = answer(kind, 1, Vec::new())?;
        let right = p.rows.iter().all(|r| match kind {
            Kind::NormQkv => r.text("first mismatch") == "NONE",
            Kind::RmsNorm(_) => r.text("bucket") == "NONE" && r.number("output_mae") == Some(0.0),
            Kind::Weights | Kind::Embedding => r.text("layout_best") == "row-major",
            Kind::Rope => r.text("pairing") == "adjacent" && r.number("position_offset") == Some(0.0),
            Kind::Cache => {
                // A layer is no measure: 0 is not 0.0.
                let layer = matches!(r.get("layer"), Some(Cell::Whole(1)));
                layer && r.text("layer_read") == "1" && r.text("head_map") == "h / 2" && r.text("length") == "n"
            }
        });
        if !right || p.rows.is_empty() || p.verdict != VerdictKind::Clean || p.class() != Class::None {
            failures.push(format!("{kind:?}: {}", shown(&p)));
        }
    }
    all(failures)
}

fn shown(p: &Probe) -> String {
    let found: Vec<String> = p
        .findings
        .iter()
        .map(|c| format!("{} {} {} {} {:?}", c.node, c.prompt, c.phase, c.class, c.hypothesis))
        .collect();
    let rows: Vec<String> = p.rows.iter().map(|r| r.0.iter().map(|(n, c)| format!("{n}={c} ")).collect()).collect();
    format!("{:?} {}\n{}\n{}\n{:?}", p.verdict, p.interpretation.en, found.join("\n"), rows.join("\n"), p.not_judged)
}

fn asked(c: &Case) -> Result<(), String> {
    let (fault, node) = c.fault;
    let injection = Injection { fault, node: node.into(), phase: c.phase, param: c.param };
    let p = match answer(c.kind, c.layer, vec![injection]) {
        Ok(p) => p,
        Err(Outcome::Failed(why)) => return Err(format!("{fault} at {node}: {why}")),
        Err(Outcome::Lacks(..)) => return Err(format!("{fault} at {node}: lacks something")),
    };
    let said = p.culprit();
    let hypothesis = said.and_then(|c| c.hypothesis.clone()).unwrap_or_default();
    let explained = if c.hypothesis.is_empty() { hypothesis.is_empty() } else { hypothesis.starts_with(c.hypothesis) };
    let right = said.is_some_and(|s| s.node == c.culprit) && p.class() == c.class && explained;
    match right && p.verdict == VerdictKind::Fault && (c.holds)(&p) {
        true => Ok(()),
        false => Err(format!("{fault} at {node}, {:?}: {}", c.kind, shown(&p))),
    }
}

/// The rows of a prompt.
fn of<'p>(p: &'p Probe, prompt: &'p str) -> impl Iterator<Item = &'p Row> {
    p.rows.iter().filter(move |r| r.text("prompt") == prompt)
}

fn never_input_selection(p: &Probe) -> bool {
    let named = |r: &Row| r.text("bucket") == "NONE" || r.text("culprit") == p.culprit().map_or("", |c| &c.node);
    p.rows.iter().all(|r| r.text("bucket") != "A_input_selection" && named(r))
        && p.rows.iter().any(|r| r.number("input_mae") > Some(0.0) && r.text("bucket") != "NONE")
        && p.interpretation.en.contains("does what it should")
}

/// The published table: short prompts equal, the others differ at q with the norm's output equal.
fn published(p: &Probe) -> bool {
    let short = of(p, "p0_short").all(|r| r.number("q MAE") == Some(0.0) && r.text("first mismatch") == "NONE");
    let mut long = ["p4_sys", "p5_ba", "p6_long"].into_iter().flat_map(|id| of(p, id));
    short
        && p.rows.len() == 4
        && p.rows.iter().all(|r| r.number("norm_out MAE") == Some(0.0))
        && long.all(|r| r.number("q MAE") > Some(0.0) && r.text("first mismatch") == "q")
        && p.interpretation.en.contains("not the weights")
        && p.interpretation.en.contains("kernel")
        && p.interpretation.es.contains("no los pesos")
}

fn layouts(p: &Probe, weight: &str, layout: &str) -> bool {
    p.rows.iter().all(|r| {
        let want = if r.text("weight") == weight { layout } else { "row-major" };
        r.text("layout_best") == want
    }) && p.rows.iter().any(|r| r.text("weight") == weight)
}

fn cases() -> Vec<Case> {
    let case = |fault, kind, layer, culprit, class, hypothesis, holds: fn(&Probe) -> bool| Case {
        fault,
        phase: None,
        param: None,
        kind,
        layer,
        culprit,
        class,
        hypothesis,
        holds,
    };
    let decode = |c: Case| Case { phase: Some(Phase::Decode), ..c };
    use Class::{AInputSelection, BNormStats, CWeightLayout, DKernelMath, FCache, Unknown};
    vec![
        Case {
            param: Some(32),
            ..case(
                (Fault::TileTransposed, "blk.0.q"),
                Kind::NormQkv,
                0,
                "blk.0.q",
                DKernelMath,
                "output tile",
                published,
            )
        },
        decode(case(
            (Fault::WeightColMajor, "blk.0.q"),
            RMS,
            0,
            "blk.0.q",
            CWeightLayout,
            "column",
            never_input_selection,
        )),
        decode(case((Fault::GqaMap, "blk.0.attn"), RMS, 0, "blk.0.attn", FCache, "GQA", never_input_selection)),
        decode(case(
            (Fault::ScaleUniform, "blk.0.attn_out"),
            RMS,
            0,
            "blk.0.attn_out",
            DKernelMath,
            "uniform scale",
            never_input_selection,
        )),
        // Asked of a later layer, the earlier layer's op is named.
        decode(case(
            (Fault::WeightColMajor, "blk.0.attn_out"),
            RMS,
            1,
            "blk.0.attn_out",
            CWeightLayout,
            "column",
            never_input_selection,
        )),
        decode(case((Fault::InputRow, "blk.0.ffn_norm"), RMS, 0, "blk.0.ffn_norm", AInputSelection, "another", |p| {
            of(p, "p6_long").all(|r| r.text("bucket") == "A_input_selection" && r.text("culprit") == "blk.0.ffn_norm")
                && p.rows.iter().all(|r| r.number("input_mae") == Some(0.0))
        })),
        case((Fault::Eps, "blk.1.ffn_norm"), RMS, 1, "blk.1.ffn_norm", BNormStats, "epsilon", |p| {
            p.rows.iter().all(|r| r.get("eps_match") == Some(&false.into()) && r.text("bucket") == "B_norm_stats")
        }),
        case(
            (Fault::NormWeightLayer, "blk.1.ffn_norm"),
            RMS,
            1,
            "blk.1.ffn_norm",
            CWeightLayout,
            "neighbour layer",
            |p| {
                let weight =
                    |r: &Row| r.number("weight_mae") > Some(0.0) && r.get("weight_hash_match") == Some(&false.into());
                p.rows.iter().all(|r| weight(r) && r.get("eps_match") == Some(&true.into()))
            },
        ),
        case((Fault::WeightColMajor, "blk.1.k"), Kind::Weights, 1, "blk.1.k", CWeightLayout, "column", |p| {
            layouts(p, "attn_k", "column-major")
        }),
        case((Fault::Noise, "blk.1.q"), Kind::Weights, 1, "blk.1.q", Unknown, "", |p| {
            layouts(p, "attn_q", "NONE_FITS")
        }),
        case((Fault::EmbdColMajor, "embd"), Kind::Embedding, 0, "embd", CWeightLayout, "column", |p| {
            p.rows.iter().all(|r| r.text("layout_best") == "column-major" && r.number("mae_col") == Some(0.0))
        }),
        case((Fault::RopeHalves, "blk.1.q_rope"), Kind::Rope, 1, "blk.1.q_rope", DKernelMath, "RoPE pairing", |p| {
            of(p, "p6_long").all(|r| (r.text("pairing") == "halves") == (r.text("node") == "q_rope"))
        }),
        decode(case(
            (Fault::RopePosPlus1, "blk.0.k_rope"),
            Kind::Rope,
            0,
            "blk.0.k_rope",
            AInputSelection,
            "RoPE pos",
            |p| {
                p.rows.iter().all(|r| {
                    let wrong = r.text("node") == "k_rope" && r.text("phase") == "decode0";
                    r.number("position_offset") == Some(if wrong { 1.0 } else { 0.0 })
                })
            },
        )),
        case((Fault::KvLayerBase, "blk.1.attn"), Kind::Cache, 1, "blk.1.attn", FCache, "another layer", |p| {
            p.rows
                .iter()
                .all(|r| r.text("layer_read") == "0" && r.text("head_map") == "h / 2" && r.text("length") == "n")
        }),
        case((Fault::GqaMap, "blk.1.attn"), Kind::Cache, 1, "blk.1.attn", FCache, "GQA", |p| {
            p.rows.iter().all(|r| r.text("layer_read") == "1" && r.text("head_map").starts_with("h % "))
        }),
        decode(case(
            (Fault::SeqLenPlus1, "blk.1.attn"),
            Kind::Cache,
            1,
            "blk.1.attn",
            FCache,
            "sequence length +1",
            |p| p.rows.iter().all(|r| r.text("length").starts_with("n + 1") == (r.text("phase") == "decode0")),
        )),
    ]
}

fn json() -> Result<(), Outcome> {
    let p = answer(RMS, 0, Vec::new())?;
    let value = serde_json::to_value(&p)?;
    let columns: Vec<&str> = p.rows[0].0.iter().map(|(c, _)| *c).collect();
    let wanted = [
        "prompt",
        "input_mae",
        "weight_mae",
        "output_mae",
        "eps_match",
        "sumsq_delta",
        "inv_rms_delta",
        "input_ptr_match",
        "input_offset_match",
        "weight_hash_match",
        "bucket",
        "culprit",
    ];
    let keys = ["probe", "layer", "rows", "culprit", "class", "hypothesis", "interpretation"];
    let there = keys.iter().all(|k| value.get(k).is_some()) && value["rows"][0]["bucket"] == "NONE";
    match columns == wanted && there && value["class"] == "NONE" && value["culprit"].is_null() {
        true => Ok(()),
        false => Err(Outcome::Failed(value.to_string())),
    }
}

/// A layer that is not there is an error; a run that lacks what is asked for passes nothing.
fn too_little() -> Result<(), Outcome> {
    let model = Arc::new(Model::open(&synth_tiny("Q4_K_M")?)?);
    let prompts = prompts::built_in(&model, &["p0_short".into()], 64)?;
    let engine = EngineOptions::default();
    let rec = probe::record(Kind::NormQkv, &model, &cpu(1)?, &engine, &prompts, 0, &mut |_, _, _| true)?;
    let far = probe::norm_qkv(&rec, &model, 99).err().map_or(String::new(), |e| e.to_string());
    let lacks = probe::cache(&rec, &model, 0)?;
    match far.contains("no layer 99") && lacks.verdict == VerdictKind::Incomplete && !lacks.not_judged.is_empty() {
        true => Ok(()),
        false => Err(Outcome::Failed(format!("{far}; {}", shown(&lacks)))),
    }
}
