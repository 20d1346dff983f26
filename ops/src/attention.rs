//! Causal attention over a paged cache.

use crate::case::normal;
use crate::spec::{arity, attrs, one};
use crate::{
    Bindings, Bound, Case, CaseInput, DType, Data, Descs, HostTensor, InferError, OpSpec, PAGE_TOKENS, Precision,
    TensorDesc,
};
use half::f16;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Grouped-query causal attention (Ainslie et al. 2023, arXiv 2305.13245).
///
/// The token of row `t`, at position `p` of sequence `s`, sees the cache slots of positions `0..=p` of that sequence:
/// position `j` lies in slot `block_table[s, j / PAGE] · PAGE + j % PAGE`. Query head `h` reads key-value head
/// `h / (heads / kv_heads)`.
///
/// Operands: `q F32[T, heads · head_dim]`, `keys` and `values [slots, kv_heads · head_dim]` (F32 or F16), `positions
/// I32[T]`, `seqs I32[T]`, `block_table I32[seqs, pages]`. Output: `F32[T, heads · head_dim]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divides `heads`.
    pub kv_heads: usize,
    /// Values in a head.
    pub head_dim: usize,
    /// Factor on scores, usually 1/√head_dim.
    pub scale: f32,
}

impl fmt::Display for Attention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: [(&str, &dyn fmt::Display); 4] = [
            ("heads", &self.heads),
            ("kv_heads", &self.kv_heads),
            ("head_dim", &self.head_dim),
            ("scale", &self.scale),
        ];
        attrs(f, "attention", &list)
    }
}

impl OpSpec for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn operands(&self) -> &'static [&'static str] {
        &["q", "keys", "values", "positions", "seqs", "block_table"]
    }

    fn infer(&self, ins: &[&TensorDesc]) -> Result<Descs, InferError> {
        arity(self, ins, "6", 6, 6)?;
        if self.kv_heads == 0 || self.head_dim == 0 || !self.heads.is_multiple_of(self.kv_heads) || self.heads == 0 {
            let text = format!("{} heads of {} over {} key-value heads", self.heads, self.head_dim, self.kv_heads);
            return Err(InferError::Attribute(text));
        }
        let q = ins[0];
        let want = TensorDesc::matrix(DType::F32, q.rows(), crate::Dim::Const(self.heads * self.head_dim));
        if *q != want {
            return Err(InferError::operand("q", want.to_string(), q));
        }
        for (name, kv) in [("keys", ins[1]), ("values", ins[2])] {
            let width = kv.cols().constant() == Some(self.kv_heads * self.head_dim);
            if !matches!(kv.dtype, DType::F32 | DType::F16) || kv.dims.len() != 2 || !width {
                let text = format!("an F32 or F16 matrix with rows of {}", self.kv_heads * self.head_dim);
                return Err(InferError::operand(name, text, kv));
            }
        }
        if ins[1] != ins[2] {
            return Err(InferError::operand("values", ins[1].to_string(), ins[2]));
        }
        for (name, list) in [("positions", ins[3]), ("seqs", ins[4])] {
            let want = TensorDesc::vector(DType::I32, q.rows());
            if *list != want {
                return Err(InferError::operand(name, want.to_string(), list));
            }
        }
        if ins[5].dtype != DType::I32 || ins[5].dims.len() != 2 {
            return Err(InferError::operand("block_table", "an I32 matrix", ins[5]));
        }
        Ok(one(q.clone()))
    }

    fn reference(&self, ins: &[&HostTensor]) -> Vec<HostTensor> {
        let mut out = Vec::with_capacity(ins[0].reals().len());
        for t in 0..ins[0].rows() {
            for h in 0..self.heads {
                let row = Row::new(self, ins, t, h);
                out.extend((0..self.head_dim).map(|d| row.weighted(ins[2], d, |v| v)));
            }
        }
        vec![HostTensor::real(&ins[0].shape, out)]
    }

    fn error_bound(&self, ins: &[&HostTensor], outs: &[HostTensor], p: Precision) -> Vec<Bound> {
        let (mut bound, u) = (Vec::with_capacity(outs[0].reals().len()), p.unit());
        for t in 0..ins[0].rows() {
            for h in 0..self.heads {
                let row = Row::new(self, ins, t, h);
                // A score off by δ changes its weight by e^δ − 1, above and below the line. Merging pages rounds each
                // weight and partial sum a few times more per page.
                let delta = row.worst * p.dot(self.head_dim) + row.largest * 2.0 * u;
                let pages = row.weights.len().div_ceil(PAGE_TOKENS) as f64;
                let rel = 2.0 * delta.exp_m1() + 2.0 * p.dot(row.weights.len()) + (8.0 + 2.0 * pages.sqrt()) * u;
                bound.extend((0..self.head_dim).map(|d| rel * row.weighted(ins[2], d, f64::abs)));
            }
        }
        vec![bound]
    }

    fn flops(&self, ins: &[&TensorDesc], _: &[TensorDesc], at: &Bindings) -> u64 {
        // Positions are data. The step is taken for the end of one sequence that fills the slots: its tokens are the
        // last of them, and each sees the ones at or before it.
        let tokens = ins[0].rows().at(at);
        let before = ins[1].rows().at(at).saturating_sub(tokens);
        let seen = tokens * before + tokens * (tokens + 1) / 2;
        // Two multiply-adds a value; of a score scale, maximum, difference, exponential and sum; a division an output.
        (self.heads * (seen * (4 * self.head_dim + 5) + tokens * self.head_dim)) as u64
    }

    fn cases() -> Vec<Case> {
        let mut cases = Vec::new();
        for kv in [DType::F32, DType::F16] {
            let t = kv.name().to_lowercase();
            cases.push(case(format!("{t}_prefill_gqa"), [9, 3, 64], kv, &(0..70).map(|p| (p, 0)).collect::<Vec<_>>()));
            cases.push(case(format!("{t}_decode"), [4, 2, 64], kv, &[(95, 0)]));
            cases.push(case(
                format!("{t}_page_ends"),
                [2, 1, 128],
                kv,
                &[(31, 0), (32, 0), (33, 0), (63, 1), (64, 1), (0, 1)],
            ));
            cases.push(case(format!("{t}_odd_head"), [3, 3, 40], kv, &[(0, 0), (40, 1), (95, 0)]));
        }
        cases
    }
}

/// Two sequences of 96 positions whose pages lie interleaved and out of order.
fn case(name: String, [heads, kv_heads, head_dim]: [usize; 3], kv: DType, at: &[(i32, i32)]) -> Case {
    let table = HostTensor::int(&[2, 3], vec![4, 1, 3, 0, 5, 2]);
    let cache = |seed| {
        let mut c = normal(seed, &[6 * PAGE_TOKENS, kv_heads * head_dim]);
        if let (DType::F16, Data::Real(v)) = (kv, &mut c.data) {
            v.iter_mut().for_each(|x| *x = f16::from_f64(*x).to_f64());
        }
        CaseInput::Cache(c, kv)
    };
    let list = |f: fn(&(i32, i32)) -> i32| {
        CaseInput::Value(HostTensor::int(&[at.len()], at.iter().map(f).collect()), DType::I32)
    };
    Case {
        name,
        op: Attention { heads, kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt() }.into(),
        ins: vec![
            CaseInput::Value(normal(21, &[at.len(), heads * head_dim]), DType::F32),
            cache(22),
            cache(23),
            list(|a| a.0),
            list(|a| a.1),
            CaseInput::Value(table, DType::I32),
        ],
    }
}

/// One query row and head: the slots it sees and their weights.
struct Row {
    /// Slot and softmax weight, by ascending position.
    weights: Vec<(usize, f64)>,
    /// The largest Σ|q||k|·scale over the keys.
    worst: f64,
    /// The largest |score|.
    largest: f64,
    /// First value of the head within a cache row.
    base: usize,
}

impl Row {
    fn new(op: &Attention, ins: &[&HostTensor], t: usize, h: usize) -> Row {
        let (pos, seq) = (ins[3].ints()[t].max(0) as usize, ins[4].ints()[t].max(0) as usize);
        let table = &ins[5].ints()[seq * ins[5].cols()..][..ins[5].cols()];
        let q_row = ins[0].row(t);
        let q = &q_row[h * op.head_dim..][..op.head_dim];
        let base = h / (op.heads / op.kv_heads) * op.head_dim;
        let (mut weights, mut worst, mut largest) = (Vec::with_capacity(pos + 1), 0.0f64, 0.0f64);
        for j in 0..=pos {
            let slot = table[j / PAGE_TOKENS] as usize * PAGE_TOKENS + j % PAGE_TOKENS;
            let k_row = ins[1].row(slot);
            let (mut dot, mut size) = (0.0, 0.0);
            for (a, b) in q.iter().zip(&k_row[base..]) {
                dot += a * b;
                size += (a * b).abs();
            }
            let scale = f64::from(op.scale);
            weights.push((slot, dot * scale));
            worst = worst.max(size * scale.abs());
            largest = largest.max((dot * scale).abs());
        }
        let max = weights.iter().fold(f64::NEG_INFINITY, |m, w| m.max(w.1));
        let sum: f64 = weights
            .iter_mut()
            .map(|w| {
                w.1 = (w.1 - max).exp();
                w.1
            })
            .sum();
        weights.iter_mut().for_each(|w| w.1 /= sum);
        Row { weights, worst, largest, base }
    }

    /// Σ weight · f(value) of dimension `d`.
    fn weighted(&self, values: &HostTensor, d: usize, f: fn(f64) -> f64) -> f64 {
        self.weights.iter().map(|&(slot, w)| w * f(values.row(slot)[self.base + d])).sum()
    }
}
