//! Llama 2, 3, 3.1, 3.2 and models of the same shape (SmolLM2) as a static op graph.

mod config;

pub use config::Config;

use crate::ModelError;
use crate::arch::Limits;
use crate::gguf::Gguf;
use greta_graph::{BuildError, Graph, GraphBuilder, Input, StateRole, Value};
use greta_ops::{
    Add, Attention, CacheWrite, DType, Dequant, Dim, Embed, MatMul, Pairing, RmsNorm, Rope, Swiglu, TensorDesc,
};

/// Builds the graph: one forward step of `Tokens` tokens through every layer, logits for `Rows` of them.
///
/// `dtype_of` says how a tensor is stored; `None` if the model does not have it. The graph states plain
/// `dequant → matmul`; passes fuse and choose the arithmetic.
///
/// Shapes: hidden state `[T, dim]`, queries `[T, heads · head_dim]`, keys and values `[T, kv_heads · head_dim]`,
/// `logits [R, vocab]`.
pub fn build(c: &Config, dtype_of: impl Fn(&str) -> Option<DType>, kv: DType) -> Result<Graph, BuildError> {
    let mut m = Weights { b: GraphBuilder::new(), dtype_of };
    let tokens = m.b.input(Input::Tokens)?;
    let positions = m.b.input(Input::Positions)?;
    let seqs = m.b.input(Input::Seqs)?;
    let slots = m.b.input(Input::Slots)?;
    let rows_wanted = m.b.input(Input::RowsWanted)?;
    let block_table = m.b.input(Input::BlockTable)?;

    let norm = RmsNorm { eps: c.eps };
    let rope = Rope { theta: c.rope_theta, dims: c.rope_dims, head_dim: c.head_dim, pairing: Pairing::Adjacent };
    let scale = 1.0 / (c.head_dim as f32).sqrt();
    let attention = Attention { heads: c.heads, kv_heads: c.kv_heads, head_dim: c.head_dim, scale };
    let (q_dim, kv_dim) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
    let factors = match c.rope_factors {
        true => Some(m.vector("rope_freqs.weight", c.rope_dims / 2)?),
        false => None,
    };

    let table = m.matrix("token_embd.weight", c.vocab, c.dim)?;
    let mut x = m.b.op("embd", Embed {}, &[table, tokens])?;
    for i in 0..c.layers {
        let blk = |point: &str| format!("blk.{i}.{point}");

        let w = m.vector(&blk("attn_norm.weight"), c.dim)?;
        let h = m.b.op(blk("attn_norm"), norm.clone(), &[x, w])?;
        let q = m.linear(&blk("q"), &blk("attn_q.weight"), h, q_dim, c.dim)?;
        let k = m.linear(&blk("k"), &blk("attn_k.weight"), h, kv_dim, c.dim)?;
        let v = m.linear(&blk("v"), &blk("attn_v.weight"), h, kv_dim, c.dim)?;
        let turn = |v: Value| [v, positions].into_iter().chain(factors).collect::<Vec<_>>();
        let q = m.b.op(blk("q_rope"), rope.clone(), &turn(q))?;
        let k = m.b.op(blk("k_rope"), rope.clone(), &turn(k))?;

        let keys = m.b.state(&blk("keys"), StateRole::Keys, c.kv_heads, c.head_dim, kv)?;
        let values = m.b.state(&blk("values"), StateRole::Values, c.kv_heads, c.head_dim, kv)?;
        let keys = m.b.op(blk("k_cache"), CacheWrite {}, &[keys, k, slots])?;
        let values = m.b.op(blk("v_cache"), CacheWrite {}, &[values, v, slots])?;
        let a = m.b.op(blk("attn"), attention.clone(), &[q, keys, values, positions, seqs, block_table])?;
        let a = m.linear(&blk("attn_out"), &blk("attn_output.weight"), a, c.dim, q_dim)?;
        let x_ffn = m.b.op(blk("ffn_inp"), Add {}, &[a, x])?;

        let w = m.vector(&blk("ffn_norm.weight"), c.dim)?;
        let h = m.b.op(blk("ffn_norm"), norm.clone(), &[x_ffn, w])?;
        let gate = m.linear(&blk("ffn_gate"), &blk("ffn_gate.weight"), h, c.ffn, c.dim)?;
        let up = m.linear(&blk("ffn_up"), &blk("ffn_up.weight"), h, c.ffn, c.dim)?;
        let act = m.b.op(blk("ffn_act"), Swiglu {}, &[gate, up])?;
        let down = m.linear(&blk("ffn_out"), &blk("ffn_down.weight"), act, c.dim, c.ffn)?;
        x = m.b.op(blk("out"), Add {}, &[down, x_ffn])?;
    }

    let x = m.b.op("rows", Embed {}, &[x, rows_wanted])?;
    let w = m.vector("output_norm.weight", c.dim)?;
    let h = m.b.op("output_norm", norm, &[x, w])?;
    let head = if c.tied { "token_embd.weight" } else { "output.weight" };
    let logits = m.linear("logits", head, h, c.vocab, c.dim)?;
    m.b.output(logits);
    m.b.finish()
}

/// The builder, and how the model's tensors are stored.
struct Weights<F> {
    b: GraphBuilder,
    dtype_of: F,
}

impl<F: Fn(&str) -> Option<DType>> Weights<F> {
    /// A tensor as f32: stored so, or through a dequant of the name `<tensor>.f32`.
    fn matrix(&mut self, tensor: &str, rows: usize, cols: usize) -> Result<Value, BuildError> {
        let dtype = (self.dtype_of)(tensor).unwrap_or(DType::F32);
        let w = self.b.weight(tensor, TensorDesc::matrix(dtype, Dim::Const(rows), Dim::Const(cols)))?;
        let name = format!("{tensor}.f32");
        match (dtype, self.b.graph().find(&name)) {
            (DType::F32, _) => Ok(w),
            (_, Some(node)) => Ok(Value { node, out: 0 }),
            _ => self.b.op(name, Dequant {}, &[w]),
        }
    }

    fn vector(&mut self, tensor: &str, n: usize) -> Result<Value, BuildError> {
        let dtype = (self.dtype_of)(tensor).unwrap_or(DType::F32);
        self.b.weight(tensor, TensorDesc::vector(dtype, Dim::Const(n)))
    }

    fn linear(&mut self, name: &str, tensor: &str, x: Value, n: usize, k: usize) -> Result<Value, BuildError> {
        let w = self.matrix(tensor, n, k)?;
        self.b.op(name, MatMul {}, &[w, x])
    }
}

pub(crate) fn limits(gguf: &Gguf) -> Result<Limits, ModelError> {
    let c = Config::from_gguf(gguf)?;
    Ok(Limits { vocab: c.vocab, context: c.context })
}

/// Builds a file's graph and holds every weight of it against the file's tensors.
pub(crate) fn from_gguf(gguf: &Gguf, kv: DType) -> Result<Graph, ModelError> {
    let c = Config::from_gguf(gguf)?;
    let graph = build(&c, |name| gguf.tensor(name).map(|t| t.dtype), kv);
    let graph = graph.map_err(|e| ModelError::Graph { path: gguf.path().into(), source: Box::new(e) })?;
    crate::model::check_tensors(gguf, &graph)?;
    Ok(graph)
}
