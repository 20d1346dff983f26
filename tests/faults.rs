//! Faults are found: the corpus on synthetic models, values that are no numbers, the gate, and replay bundles.

use crate::support::{Outcome, all, cpu, hips, synth_tiny, trial};
use greta_backend::{Backend, Fault, Injection};
use greta_graph::{Kind, TapRequest};
use greta_hip::Hip;
use greta_models::gguf::Gguf;
use greta_models::{Arithmetic, EngineOptions, Model};
use greta_ops::{DType, Dim, TensorDesc};
use greta_reference::Reference;
use greta_trace::faults::{self, FaultOptions, LayerChoice};
use greta_trace::gate::{self, GateOptions, GateVerdict};
use greta_trace::judge::{Class, VerdictKind};
use greta_trace::prompts;
use greta_trace::replay::Bundle;
use greta_trace::verify::{VerifyOptions, verify};
use libtest_mimic::Trial;
use std::path::Path;
use std::sync::Arc;

pub fn trials() -> Vec<Trial> {
    let mut list: Vec<Trial> = hips()
        .into_iter()
        .map(|(label, open)| trial(format!("faults/{label}"), move || on_hip(label, &open()?)))
        .collect();
    list.extend([
        trial("faults/corpus/int8", || corpus(Arithmetic::Int8, &[])),
        trial("faults/corpus/exact", || {
            corpus(
                Arithmetic::Exact,
                &[Fault::WeightColMajor, Fault::Q4kNibbles, Fault::Q6kOrder, Fault::KTruncated, Fault::F16Accumulate],
            )
        }),
        trial("faults/only_for_faults", only_for_faults),
        trial("faults/gate", gate_trial),
        trial("faults/replay", replay),
        trial("faults/unknown_node", unknown_node),
        trial("faults/hip_has_what_it_says", hip_has),
    ]);
    for arith in [Arithmetic::Exact, Arithmetic::Int8] {
        for backend in ["cpu", "reference"] {
            list.push(trial(format!("faults/nan_named_where_born/{backend}/{arith}"), move || nan(backend, arith)));
        }
    }
    list
}

fn corpus(arith: Arithmetic, only: &[Fault]) -> Result<(), Outcome> {
    let dir = tempfile::tempdir()?;
    let engine = EngineOptions { arith, ..EngineOptions::default() };
    let options = FaultOptions { faults: only.to_vec(), ..FaultOptions::default() };
    let report = faults::run(&cpu(2)?, &engine, &options, dir.path(), &|_, _, _| true)?;
    let missed = report.rows.iter().filter(|r| r.eligible && !r.explained || !r.eligible && r.detected && !r.located);
    let lines: Vec<String> = missed
        .map(|r| {
            format!(
                "{} at {} on {} ({:.1} × bound): said {:?}, {}, {:?}",
                r.fault, r.node, r.prompt, r.ratio, r.said_node, r.said_class, r.said_hypothesis
            )
        })
        .collect();
    let eligible = report.counts.total - report.counts.no_effect;
    if report.passes() && (eligible >= 40 || !only.is_empty()) {
        return Ok(());
    }
    let head = format!(
        "{:?}\ncorpus {:?}\nothers {:?}\npairs {:?}\nnever: {:?}",
        report.counts, report.corpus, report.unhypothesised, report.pairs, report.never_eligible
    );
    Err(Outcome::Failed(format!("{head}\n{}", lines.join("\n"))))
}

/// Faults in the kernels of the HIP backend and in its lowering: machine code that is wrong.
fn on_hip(label: &str, hip: &Hip) -> Result<(), Outcome> {
    use Fault::*;
    let faults = [
        HalfWave,
        TileTransposed,
        OperandsTransposed,
        KTruncated,
        Q4kNibbles,
        Q6kOrder,
        RopeHalves,
        GqaMap,
        StaleBuffer,
        KvLayerBase,
    ];
    let dir = tempfile::tempdir()?;
    let options = FaultOptions {
        faults: faults.to_vec(),
        prompts: vec!["p6_long".into()],
        layers: vec![LayerChoice::Middle],
        // Enough for matrix cores, few where each instruction is executed.
        longest: Some(if label == "hip-sim" { 40 } else { 100 }),
        ..FaultOptions::default()
    };
    let report = faults::run(hip, &EngineOptions::default(), &options, dir.path(), &|_, _, _| true)?;
    let found = |f: &Fault| report.rows.iter().any(|r| r.fault == f.name() && r.eligible && r.explained);
    let said = |f: &Fault| {
        let rows = report.rows.iter().filter(|r| r.fault == f.name());
        let rows = rows.map(|r| {
            format!(
                "{} on {} ({:.1} × bound): said {:?}, {}, {:?}",
                r.node, r.prompt, r.ratio, r.said_node, r.said_class, r.said_hypothesis
            )
        });
        format!("{f}: {}", rows.collect::<Vec<_>>().join("; "))
    };
    let mut failures: Vec<String> = faults.iter().filter(|f| !found(f)).map(said).collect();
    if report.counts.false_verdicts > 0 {
        failures.push(format!("{} false verdicts", report.counts.false_verdicts));
    }
    all(failures)
}

/// What the backend says it has is what it takes, at the one op or another.
fn hip_has() -> Result<(), Outcome> {
    let model = open(&synth_tiny("Q4_K_M")?)?;
    let backend = greta_hip::Hip::open(":gfx942", greta_hip::HipOptions::threads(1))?;
    let (plan, _) = greta_models::Engine::plan(&model, &backend, &EngineOptions::default())?;
    let (g, q6) = (plan.graph(), TensorDesc::matrix(DType::Q6_K, Dim::Const(256), Dim::Const(256)));
    let takes = |fault: Fault| {
        g.nodes().any(|(id, n)| {
            let Kind::Op(op) = &n.kind else { return false };
            let descs: Vec<_> = g.operands(id).into_iter().map(|v| g.desc(v)).collect();
            // The model may have no weight of this type; its ops would take one.
            let packed: Vec<_> = std::iter::once(&q6).chain(descs.iter().skip(1).copied()).collect();
            [&descs, &packed].iter().any(|ins| greta_hip::lower::fault::fits(op, ins, fault).is_ok())
        })
    };
    let wrong = Fault::ALL.iter().filter(|f| takes(**f) != backend.faults().contains(f));
    all(wrong.map(|f| format!("{f}: taken {}, said {}", takes(*f), !takes(*f))).collect())
}

fn open(path: &Path) -> Result<Arc<Model>, Outcome> {
    Ok(Arc::new(Model::open(path)?))
}

/// No environment variable and no option of `run` builds a fault in: engines have none unless asked.
fn only_for_faults() -> Result<(), Outcome> {
    let model = open(&synth_tiny("Q4_K_M")?)?;
    let prompts = prompts::built_in(&model, &["p4_sys".into()], 256)?;
    let backend = cpu(2)?;
    let found =
        verify(&model, &backend, &EngineOptions::default(), &prompts, &VerifyOptions::default(), None, &|_, _, _| {
            true
        })?;
    match found.verified.verdict.verdict {
        VerdictKind::Clean if found.verified.taps_change_nothing => Ok(()),
        other => Err(Outcome::Failed(format!("{other:?}: {:?}", found.verified.verdict.culprit))),
    }
}

/// One scale of a Q4_K tensor set to NaN: the product that reads it is named, not what comes after.
fn nan(backend: &'static str, arith: Arithmetic) -> Result<(), Outcome> {
    let source = synth_tiny("Q4_K_M")?;
    let (tensor, at) = {
        let gguf = Gguf::open(&source)?;
        let found =
            gguf.tensors().iter().find(|t| t.name.starts_with("blk.1.") && t.dtype == DType::Q4_K && t.dims.len() == 2);
        let found = found.ok_or_else(|| Outcome::Failed("no Q4_K matrix in layer 1".into()))?;
        let whole = std::fs::read(&source)?;
        let bytes = gguf.bytes(found);
        // Where the tensor's bytes lie in the file: they are random enough to be found once.
        let at =
            whole.windows(64).position(|w| w == &bytes[..64]).ok_or_else(|| Outcome::Failed("not found".into()))?;
        (found.name.clone(), at)
    };
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("nan.gguf");
    let mut bytes = std::fs::read(&source)?;
    // The first field of a Q4_K block is its f16 scale.
    let block = at + 144 * 3;
    bytes[block..block + 2].copy_from_slice(&0x7e00u16.to_le_bytes());
    std::fs::write(&path, bytes)?;
    let model = open(&path)?;
    let prompts = prompts::built_in(&model, &["p4_sys".into()], 256)?;
    let backend: Box<dyn Backend> = if backend == "cpu" { Box::new(cpu(2)?) } else { Box::new(Reference) };
    let engine = EngineOptions { arith, ..EngineOptions::default() };
    let found = verify(&model, &*backend, &engine, &prompts, &VerifyOptions::default(), None, &|_, _, _| true)?;
    let reads = |node: &str| {
        let graph = found.recording.graph.as_ref()?;
        let id = graph.find(node)?;
        graph.operands(id).first().map(|v| graph.node(v.node).name.clone())
    };
    match &found.verified.verdict.culprit {
        Some(c) if reads(&c.node).is_some_and(|w| w.starts_with(&tensor)) && c.detail.contains(&tensor) => Ok(()),
        other => Err(Outcome::Failed(format!("{tensor}: said {other:?}"))),
    }
}

fn gate_trial() -> Result<(), Outcome> {
    let model = open(&synth_tiny("Q4_K_M")?)?;
    let prompts = prompts::built_in(&model, &["p0_short".into(), "p4_sys".into()], 256)?;
    let mut failures = Vec::new();
    let backends: [(&str, Box<dyn Backend>); 2] = [("cpu", Box::new(cpu(2)?)), ("reference", Box::new(Reference))];
    for (name, backend) in &backends {
        let r = gate::prefill_vs_decode(
            &model,
            &**backend,
            &EngineOptions::default(),
            &prompts,
            &GateOptions { max_abs: if *name == "cpu" { 0.0 } else { 1e-5 }, p99_abs: 1e-6, ..GateOptions::default() },
            &mut |_, _, _| true,
        )?;
        if r.verdict != GateVerdict::Pass || !r.fault_caught || r.compared.tokens < 20 {
            failures.push(format!("{name}: {r:?}"));
        }
    }
    let fault = Injection {
        fault: Fault::GqaMap,
        node: "blk.1.attn".into(),
        phase: Some(greta_backend::Phase::Decode),
        param: None,
    };
    let wrong = EngineOptions { faults: vec![fault], ..EngineOptions::default() };
    let r =
        gate::prefill_vs_decode(&model, &*backends[0].1, &wrong, &prompts, &GateOptions::default(), &mut |_, _, _| {
            true
        })?;
    if r.verdict != GateVerdict::Fail {
        failures.push(format!("a faulty decode side: {r:?}"));
    }
    all(failures)
}

fn replay() -> Result<(), Outcome> {
    let model = open(&synth_tiny("Q4_K_M")?)?;
    let prompts = prompts::built_in(&model, &["p4_sys".into()], 256)?;
    let mut failures = Vec::new();
    for (fault, node) in [
        (Fault::WeightColMajor, "blk.1.q"),
        (Fault::RopeHalves, "blk.0.k_rope"),
        (Fault::GqaMap, "blk.1.attn"),
        (Fault::Eps, "blk.0.ffn_norm"),
        (Fault::ScaleUniform, "blk.1.ffn_act"),
    ] {
        let engine = EngineOptions {
            faults: vec![Injection { fault, node: node.into(), phase: None, param: None }],
            ..EngineOptions::default()
        };
        // The fused plan of a plain run has no node of some of these names.
        let options = VerifyOptions { plain_run: false, ..VerifyOptions::default() };
        let found = verify(&model, &cpu(2)?, &engine, &prompts, &options, None, &|_, _, _| true)?;
        let dir = tempfile::tempdir()?;
        let Some(bundle) = found.bundle else {
            failures.push(format!("{fault}: no bundle: {:?}", found.verified.verdict.culprit));
            continue;
        };
        bundle.save(dir.path())?;
        let again = Bundle::open(dir.path())?.replay(&cpu(2)?)?;
        // The backend's own kernel is right; what was recorded is not.
        if again.node != node || again.recorded_ratio <= 2.0 || again.reproduced {
            failures.push(format!("{fault}: {again:?}"));
        }
        if found.verified.verdict.class == Class::None {
            failures.push(format!("{fault}: no class"));
        }
    }
    all(failures)
}

fn unknown_node() -> Result<(), Outcome> {
    let model = open(&synth_tiny("F32")?)?;
    let prompts = prompts::built_in(&model, &["p0_short".into()], 64)?;
    let options = VerifyOptions { nodes: Some("blk.99.*".parse()?), ..VerifyOptions::default() };
    let found = verify(&model, &cpu(1)?, &EngineOptions::default(), &prompts, &options, None, &|_, _, _| true);
    let said = found.err().map_or(String::new(), |e| e.to_string());
    let tap = TapRequest::new("blk.0.[", Default::default()).err().map_or(String::new(), |e| e.to_string());
    match said.contains("blk.99.*") && said.contains("matches no node") && tap.contains("blk.0.[") {
        true => Ok(()),
        false => Err(Outcome::Failed(format!("said {said:?} and {tap:?}"))),
    }
}
