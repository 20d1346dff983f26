//! A model's graph built by hand: one transformer block with random weights kept in memory, run on the CPU.
//!
//! `cargo run --release --example build_graph`

use greta::backends::{BackendError, Batch, CompileOptions, KvConfig, RowsWanted, SeqId, Want, WeightView, Weights};
use greta::graph::{BuildError, Graph, GraphBuilder, Input, Pipeline, Plan, StateRole, Value};
use greta::ops::{
    Add, Attention, CacheWrite, DType, Dim, Embed, MatMul, Pairing, RmsNorm, Rope, Swiglu, TensorDesc, quant,
};
use std::collections::HashMap;
use std::sync::Arc;

const VOCAB: usize = 256;
const DIM: usize = 64;
const FFN: usize = 128;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD: usize = DIM / HEADS;

/// The whole model as one readable function. `T` tokens come in, logits for `R` of them go out.
fn build() -> Result<Graph, BuildError> {
    let mut b = GraphBuilder::new();
    // What each step brings. Positions, cache slots and the block table are data, so one graph serves every step.
    let (tokens, positions) = (b.input(Input::Tokens)?, b.input(Input::Positions)?);
    let (seqs, slots) = (b.input(Input::Seqs)?, b.input(Input::Slots)?);
    let (rows, block_table) = (b.input(Input::RowsWanted)?, b.input(Input::BlockTable)?);

    let matrix = |b: &mut GraphBuilder, name: &str, rows: usize, cols: usize| {
        b.weight(name, TensorDesc::matrix(DType::F32, Dim::Const(rows), Dim::Const(cols)))
    };
    let linear = |b: &mut GraphBuilder, name: &str, x: Value, rows: usize, cols: usize| {
        let w = matrix(b, &format!("{name}.weight"), rows, cols)?;
        b.op(name, MatMul {}, &[w, x])
    };
    let norm = |b: &mut GraphBuilder, name: &str, x: Value| {
        let w = b.weight(&format!("{name}.weight"), TensorDesc::vector(DType::F32, Dim::Const(DIM)))?;
        b.op(name, RmsNorm { eps: 1e-5 }, &[x, w])
    };

    let table = matrix(&mut b, "embd.weight", VOCAB, DIM)?;
    let x = b.op("embd", Embed {}, &[table, tokens])?;

    // Attention. The KV cache is a state; a write gives a new value, so that the order of things is an edge.
    let h = norm(&mut b, "attn_norm", x)?;
    let q = linear(&mut b, "q", h, HEADS * HEAD, DIM)?;
    let k = linear(&mut b, "k", h, KV_HEADS * HEAD, DIM)?;
    let v = linear(&mut b, "v", h, KV_HEADS * HEAD, DIM)?;
    let rope = Rope { theta: 10_000.0, dims: HEAD, head_dim: HEAD, pairing: Pairing::Adjacent };
    let q = b.op("q_rope", rope.clone(), &[q, positions])?;
    let k = b.op("k_rope", rope, &[k, positions])?;
    let keys = b.state("keys", StateRole::Keys, KV_HEADS, HEAD, DType::F32)?;
    let values = b.state("values", StateRole::Values, KV_HEADS, HEAD, DType::F32)?;
    let keys = b.op("k_cache", CacheWrite {}, &[keys, k, slots])?;
    let values = b.op("v_cache", CacheWrite {}, &[values, v, slots])?;
    let attention = Attention { heads: HEADS, kv_heads: KV_HEADS, head_dim: HEAD, scale: 1.0 / (HEAD as f32).sqrt() };
    let a = b.op("attn", attention, &[q, keys, values, positions, seqs, block_table])?;
    let a = linear(&mut b, "attn_out", a, DIM, DIM)?;
    let x = b.op("ffn_inp", Add {}, &[a, x])?;

    // Feed-forward: down(silu(gate(h)) · up(h)).
    let h = norm(&mut b, "ffn_norm", x)?;
    let (gate, up) = (linear(&mut b, "gate", h, FFN, DIM)?, linear(&mut b, "up", h, FFN, DIM)?);
    let h = b.op("act", Swiglu {}, &[gate, up])?;
    let h = linear(&mut b, "down", h, DIM, FFN)?;
    let x = b.op("out", Add {}, &[h, x])?;

    // Only the rows whose logits are wanted go on. The head is the embedding table again.
    let x = b.op("rows", Embed {}, &[x, rows])?;
    let h = norm(&mut b, "output_norm", x)?;
    let logits = b.op("logits", MatMul {}, &[table, h])?;
    b.output(logits);
    b.finish()
}

/// Weights in memory. A backend asks for them by name.
struct InMemory(HashMap<String, (TensorDesc, Vec<u8>)>);

impl InMemory {
    /// Random values for every weight of a graph.
    fn random(graph: &Graph) -> InMemory {
        let mut rng = quant::Rng::new(42);
        let weights = graph.nodes().filter(|(_, node)| matches!(node.kind, greta::graph::Kind::Weight { .. }));
        let fill = |node: &greta::graph::Node| {
            let desc = node.outs[0].clone();
            let mut bytes = vec![0; desc.bytes(&Default::default())];
            quant::random_row(desc.dtype, &mut rng, 0.1, &mut bytes);
            (node.name.clone(), (desc, bytes))
        };
        InMemory(weights.map(|(_, node)| node).map(fill).collect())
    }
}

impl Weights for InMemory {
    fn tensor(&self, name: &str) -> Result<WeightView<'_>, BackendError> {
        let missing = || BackendError::Weight { tensor: name.into(), why: "is not in memory".into() };
        let (desc, bytes) = self.0.get(name).ok_or_else(missing)?;
        Ok(WeightView { desc: desc.clone(), bytes })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let backend = greta::backend("cpu", &Default::default())?;

    // Graph → passes → plan. Each is a value that can be printed.
    let graph = build()?;
    let weights = Arc::new(InMemory::random(&graph));
    let (graph, log) = Pipeline::exact().retain(|pass| backend.wants(pass)).run(&graph)?;
    let plan = Plan::new(graph);
    println!("{}", plan.graph());
    println!("{} events of passes; {} buffers for every op of a step\n", log.events.len(), plan.slots().len());

    // Plan → executable → session, which keeps a KV cache.
    let exe = backend.compile(plan, weights, CompileOptions { max_tokens: 8, max_rows: 1, ..Default::default() })?;
    let mut session = exe.session(KvConfig { context: 64, sequences: 1 })?;

    // A prompt of three tokens, then five more, one at a time, each the likeliest after the last.
    let mut next = vec![3, 1, 4];
    for _ in 0..6 {
        let mut batch = Batch::default();
        batch.append(session.kv(), SeqId(0), &next, RowsWanted::Last)?;
        let out = session.run(&batch, Want::TopK(3))?;
        let top: Vec<_> = out.top[0].iter().map(|(id, logit)| format!("{id}: {logit:.4}")).collect();
        println!("after {next:?}: {}", top.join("   "));
        next = vec![out.top[0][0].0];
    }
    Ok(())
}
