//! The graph: verifier, saved forms, passes and plans.

use crate::support::{Outcome, all, cpu, engine, synth_tiny, trial};
use greta_graph::{Graph, GraphBuilder, Kind, Pipeline, Plan, Value, passes};
use greta_models::llama::{self, Config};
use greta_models::{Arithmetic, Engine, EngineOptions};
use greta_ops::{Add, DType, Dim, OpSpec, TensorDesc};
use libtest_mimic::Trial;
use proptest::prelude::*;
use proptest::test_runner::{Config as PropConfig, TestRunner};
use std::collections::HashMap;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("graph/snapshots", snapshots),
        trial("graph/json_reads_back_equal", json),
        trial("graph/verifier", verifier),
        trial("graph/outputs_refuse_fusion", outputs_refuse_fusion),
        trial("graph/unknown_pass", unknown_pass),
        trial("graph/plan_keeps_live_values_apart", plan_property),
        trial("graph/passes_on_and_off/int8", || on_and_off("Q4_K_M", Arithmetic::Int8)),
        trial("graph/passes_on_and_off/exact", || on_and_off("Q4_K_M", Arithmetic::Exact)),
        trial("graph/passes_on_and_off/f16", || on_and_off("F16", Arithmetic::Int8)),
        trial("graph/fused_shape_rule_is_its_steps", fused),
    ]
}

fn config() -> Config {
    Config {
        layers: 1,
        dim: 256,
        ffn: 512,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        vocab: 1000,
        context: 2048,
        eps: 1e-5,
        rope_theta: 500_000.0,
        rope_dims: 64,
        rope_factors: true,
        tied: false,
    }
}

fn small() -> Result<Graph, Outcome> {
    let dtype = |name: &str| {
        Some(if name.ends_with("_norm.weight") || name.starts_with("rope") { DType::F32 } else { DType::Q4_K })
    };
    Ok(llama::build(&config(), dtype, DType::F16)?)
}

fn snapshots() -> Result<(), Outcome> {
    let graph = small()?;
    let (int8, _) = Pipeline::int8().run(&graph)?;
    let (exact, _) = Pipeline::exact().run(&graph)?;
    let plan = Plan::new(int8.clone());
    let sizes = format!(
        "512 tokens, 8 rows: {} bytes of buffers, {} alive at most",
        plan.buffer_bytes(512, 8),
        plan.live_bytes(512, 8)
    );
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        insta::assert_snapshot!("llama_raw", graph.to_string());
        insta::assert_snapshot!("llama_int8", int8.to_string());
        insta::assert_snapshot!("llama_exact", exact.to_string());
        insta::assert_snapshot!("llama_int8_plan", format!("{plan}{sizes}"));
        insta::assert_snapshot!("llama_int8_dot", int8.to_dot());
    });
    Ok(())
}

fn json() -> Result<(), Outcome> {
    let raw = small()?;
    let (int8, _) = Pipeline::int8().run(&raw)?;
    let mut failures = Vec::new();
    for (name, g) in [("raw", &raw), ("int8", &int8), ("empty", &Graph::default())] {
        let back = Graph::from_json(&g.to_json())?;
        if back != *g || back.to_string() != g.to_string() {
            failures.push(format!("{name}: differs after reading back"));
        }
    }
    all(failures)
}

/// Saved graphs with one thing broken; each must be refused with a message that says what.
fn verifier() -> Result<(), Outcome> {
    let good = small()?.to_json();
    let cases: &[(&str, &str, &str, &str)] = &[
        ("duplicate name", "\"name\": \"blk.0.k\"", "\"name\": \"blk.0.q\"", "two nodes are named `blk.0.q`"),
        ("white space in a name", "\"name\": \"blk.0.q_rope\"", "\"name\": \"q rope\"", "white space"),
        ("unknown op", "\"op\": \"swiglu\"", "\"op\": \"geglu\"", "geglu"),
        ("schema", "\"schema\": 1", "\"schema\": 99", "schema 99"),
        ("eps", "\"eps\": ", "\"eps\": -", "eps is -"),
        ("head count", "\"kv_heads\": 2", "\"kv_heads\": 3", "key-value heads"),
        ("input's name", "\"name\": \"slots\"", "\"name\": \"slotz\"", "is not `slots`"),
        ("state's heads", "\"heads\": 2,", "\"heads\": 3,", "3 heads"),
        (
            "a weight without constants",
            "\"tensor\": \"output_norm.weight\"",
            "\"tensor\": \"x\", \"rows\": {\"start\": 0, \"end\": 7}",
            "takes rows",
        ),
    ];
    let mut failures = Vec::new();
    for (name, from, to, says) in cases {
        if !good.contains(from) {
            failures.push(format!("{name}: the saved graph has no {from}"));
            continue;
        }
        match Graph::from_json(&good.replacen(from, to, 1)) {
            Ok(_) => failures.push(format!("{name}: accepted")),
            Err(e) if !e.to_string().contains(says) => failures.push(format!("{name}: `{e}` does not say `{says}`")),
            Err(_) => {}
        }
    }
    // A cache must not be read as it was before a write.
    let mut b = GraphBuilder::new();
    let late = (|| {
        let cache = b.state("keys", greta_graph::StateRole::Keys, 2, 64, DType::F16)?;
        let rows = b.weight("rows", TensorDesc::matrix(DType::F32, Dim::Tokens, Dim::Const(128)))?;
        let slots = b.input(greta_graph::Input::Slots)?;
        b.op("one", greta_ops::CacheWrite {}, &[cache, rows, slots])?;
        let two = b.op("two", greta_ops::CacheWrite {}, &[cache, rows, slots])?;
        b.output(two);
        b.finish()
    })();
    if late.is_ok() {
        failures.push("two writes to one version of a cache: accepted".into());
    }
    all(failures)
}

fn outputs_refuse_fusion() -> Result<(), Outcome> {
    let graph = small()?.with_outputs(&["blk.0.ffn_norm"])?;
    let (g, log) = Pipeline::int8().run(&graph)?;
    let refused =
        log.events.iter().any(|e| e.refused.as_deref().is_some_and(|r| r.contains("`blk.0.ffn_norm` is an output")));
    match (g.find("blk.0.ffn_norm"), g.find("blk.0.attn_norm"), refused) {
        (Some(_), None, true) => Ok(()),
        other => Err(Outcome::Failed(format!("{other:?}\n{:?}", log.events))),
    }
}

fn unknown_pass() -> Result<(), Outcome> {
    match Pipeline::exact().without(&["fuse_everything"]) {
        Err(e) if e.to_string().contains("fuse_dequant") => Ok(()),
        Err(e) => Err(Outcome::Failed(format!("`{e}` does not list the passes"))),
        Ok(_) => Err(Outcome::Failed("accepted".into())),
    }
}

/// Random graphs of additions: values that are alive together never share a slot.
fn plan_property() -> Result<(), Outcome> {
    let run = |(edges, outputs): (Vec<(usize, usize)>, Vec<usize>)| {
        let fail = |e: greta_graph::BuildError| TestCaseError::fail(e.to_string());
        let mut b = GraphBuilder::new();
        let table = b.weight("w", TensorDesc::matrix(DType::F32, Dim::Const(9), Dim::Const(4))).map_err(fail)?;
        let tokens = b.input(greta_graph::Input::Tokens).map_err(fail)?;
        let mut values = vec![b.op("x", greta_ops::Embed {}, &[table, tokens]).map_err(fail)?];
        for (i, (a, c)) in edges.iter().enumerate() {
            let ins = [values[a % values.len()], values[c % values.len()]];
            values.push(b.op(format!("n{i}"), Add {}, &ins).map_err(fail)?);
        }
        outputs.iter().for_each(|o| b.output(values[o % values.len()]));
        let plan = Plan::new(b.finish().map_err(fail)?);
        let g = plan.graph();
        // Each value lives from its producer to its last reader; one that nobody reads lives while it is made.
        let mut lives: HashMap<_, Vec<(usize, usize)>> = HashMap::new();
        for (id, node) in g.nodes().filter(|(_, n)| matches!(n.kind, Kind::Op(_))) {
            let v = Value { node: id, out: 0 };
            let mut end = g.consumers(v).last().map_or(id.index(), |c| c.index());
            if g.outputs().contains(&v) {
                end = g.len();
            }
            let slot = plan.place(v).ok_or_else(|| TestCaseError::fail(format!("`{}` has no slot", node.name)))?;
            lives.entry(slot).or_default().push((id.index(), end));
        }
        for spans in lives.values() {
            for (i, a) in spans.iter().enumerate() {
                prop_assert!(spans[..i].iter().all(|b| a.0 > b.1 || b.0 > a.1), "{:?} share a slot", spans);
            }
        }
        prop_assert!(plan.buffer_bytes(8, 1) >= plan.live_bytes(8, 1));
        Ok(())
    };
    let strategy =
        (proptest::collection::vec((0..50usize, 0..50usize), 0..40), proptest::collection::vec(0..50usize, 1..4));
    let mut runner = TestRunner::new(PropConfig { cases: 256, failure_persistence: None, ..PropConfig::default() });
    runner.run(&strategy, run).map_err(|e| Outcome::Failed(e.to_string()))
}

/// Every fusion, switched off alone and all at once, leaves the logits as they are.
fn on_and_off(mix: &str, arith: Arithmetic) -> Result<(), Outcome> {
    let model = synth_tiny(mix)?;
    let backend = cpu(2)?;
    let fusions: Vec<&str> = passes::ALL.iter().filter(|p| !p.changes_numbers()).map(|p| p.name()).collect();
    let mut sets: Vec<Vec<String>> = fusions.iter().map(|f| vec![f.to_string()]).collect();
    sets.push(fusions.iter().map(|f| f.to_string()).collect());
    let tokens: Vec<u32> = (0..41).map(|i| i * 17 % 900).collect();
    let logits = |without: Vec<String>| -> Result<(Vec<u32>, usize), Outcome> {
        let engine: Engine = engine(&model, &backend, &EngineOptions { arith, without, ..EngineOptions::default() })?;
        let rewrites = engine.pass_log().events.iter().filter(|e| e.refused.is_none()).count();
        let bits = engine
            .context()?
            .prefill(&tokens, &mut |_, _| true)?
            .unwrap_or_default()
            .iter()
            .map(|x| x.to_bits())
            .collect();
        Ok((bits, rewrites))
    };
    let (want, rewrites) = logits(Vec::new())?;
    let mut failures = Vec::new();
    if rewrites == 0 {
        failures.push("no pass did anything".into());
    }
    for set in sets {
        if logits(set.clone())?.0 != want {
            failures.push(format!("without {}: other logits", set.join(", ")));
        }
    }
    // The arithmetic pass is the one that must show.
    if arith == Arithmetic::Int8 && mix != "F16" && logits(vec!["quantize_activations".into()])?.0 == want {
        failures.push("without quantize_activations: the same logits".into());
    }
    all(failures)
}

fn fused() -> Result<(), Outcome> {
    let mut fused = greta_ops::Fused::swiglu_quantize();
    fused.steps[1].ins[0] = greta_ops::Source::Step(0, 1);
    let d = TensorDesc::matrix(DType::F32, Dim::Tokens, Dim::Const(64));
    match fused.infer(&[&d, &d]) {
        Err(_) => Ok(()),
        Ok(_) => Err(Outcome::Failed("a step that reads an output its source does not have was accepted".into())),
    }
}
