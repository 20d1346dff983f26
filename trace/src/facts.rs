//! What norm, product, attention and quantisation records add about themselves.

use crate::recording::{At, RowSink, StepBegin};
use crate::{Recording, TraceError};
use greta_backend::{TapRow, Weights};
use greta_graph::{Detail, Graph, Kind, NodeId, TapRequest, TapSpec, Value};
use greta_models::{Engine, EngineOptions, Model};
use greta_ops::{ACT_BLOCK, Attention, DType, HostTensor, MatMul, Op, PAGE_TOKENS, RmsNorm};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Facts of one record. Each op fills in its own part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Of a norm or a product: its weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<Arc<WeightFacts>>,
    /// Of a norm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm: Option<NormFacts>,
    /// Of a product: terms of each sum (`k`), and sums (`n`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matmul: Option<MatmulFacts>,
    /// Of an attention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<AttentionFacts>,
    /// Of a quantisation: values that share a scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<usize>,
}

/// A weight, recognisable without its values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightFacts {
    /// The tensor's name in the file.
    pub tensor: String,
    /// How it is stored.
    pub dtype: DType,
    /// The first sixteen hexadecimal digits of the SHA-256 of its bytes.
    pub hash: String,
    /// Its first values, dequantised.
    #[serde(with = "reals")]
    pub window: Vec<f32>,
}

/// What a norm computed with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NormFacts {
    /// Added to the mean square.
    pub eps: f32,
    /// Values in a row.
    pub cols: usize,
    /// The row it read, by the graph; `None` where that was not tapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<InputFacts>,
    /// `1 / √(sum_sq / cols + eps)`; `None` where the sum is not known, or the root is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inv_rms: Option<f64>,
}

/// A row that an op reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputFacts {
    /// The value's name.
    pub value: String,
    /// The sum of the row's squares, taken where the row lies.
    pub sum_sq: f64,
    /// Sixteen hexadecimal digits: the hash of its statistics.
    pub hash: String,
    /// The buffer it lay in.
    pub buffer: String,
    /// Byte offset in the buffer.
    pub offset: u64,
}

/// A product's sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatmulFacts {
    /// Terms of each sum.
    pub k: usize,
    /// Sums of a row.
    pub n: usize,
}

/// What an attention read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttentionFacts {
    /// Factor on scores.
    pub scale: f32,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Values in a head.
    pub head_dim: usize,
    /// Positions the row attends to: its own and those before it. As many cache slots are read.
    pub positions: usize,
    /// Pages those lie in.
    pub pages: usize,
    /// The first and the last of them, by the block table; `None` where the table is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_page: Option<usize>,
    /// See `first_page`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_page: Option<usize>,
}

/// Values shown of a weight.
const WINDOW: usize = 16;

/// Makes the facts of a run's records, step by step. A weight is hashed when first asked for, and once.
pub struct FactMaker {
    weights: Arc<dyn Weights>,
    known: HashMap<String, Arc<WeightFacts>>,
    pages: Vec<usize>,
    /// The step's rows that norms will read.
    inputs: HashMap<(Value, usize), InputFacts>,
    wanted: Option<HashSet<Value>>,
}

impl FactMaker {
    /// Facts about a model's ops.
    pub fn new(weights: Arc<dyn Weights>) -> FactMaker {
        FactMaker { weights, known: HashMap::new(), pages: Vec::new(), inputs: HashMap::new(), wanted: None }
    }

    /// A step begins, over a sequence that has these pages.
    pub fn begin(&mut self, pages: &[usize]) {
        self.pages = pages.to_vec();
        self.inputs.clear();
    }

    /// The facts of a row. Rows of a step come in the graph's order, so that a norm's input comes before it.
    pub fn of(&mut self, g: &Graph, row: &TapRow<'_>) -> Option<Facts> {
        let wanted = self.wanted.get_or_insert_with(|| norm_inputs(g).map(|(_, input)| input).collect());
        if wanted.contains(&row.value) {
            let facts = InputFacts {
                value: g.value_name(row.value),
                sum_sq: row.stats.sum_sq,
                hash: format!("{:016x}", row.stats.hash),
                buffer: row.buffer.into(),
                offset: row.offset,
            };
            self.inputs.insert((row.value, row.token_index), facts);
        }
        let id = row.value.node;
        let Kind::Op(op) = &g.node(id).kind else { return None };
        let mut facts = Facts::default();
        match op {
            Op::RmsNorm(norm) => self.norm(&mut facts, g, row, norm),
            Op::MatMul(MatMul {}) => self.matmul(&mut facts, g, row),
            Op::Attention(a) => facts.attention = Some(self.attention(a, row)),
            Op::Quantize(_) => facts.block = Some(ACT_BLOCK),
            Op::Fused(f) => {
                if let Some(Op::RmsNorm(norm)) = f.steps.first().map(|s| &s.op) {
                    self.norm(&mut facts, g, row, norm);
                }
                let quantises = f.steps.iter().any(|s| matches!(s.op, Op::Quantize(_)));
                facts.block = quantises.then_some(ACT_BLOCK);
            }
            _ => {}
        }
        (facts != Facts::default()).then_some(facts)
    }

    fn norm(&mut self, facts: &mut Facts, g: &Graph, row: &TapRow<'_>, norm: &RmsNorm) {
        let ins = g.operands(row.value.node);
        let cols = g.desc(ins[0]).cols().constant().unwrap_or(0);
        let input = self.inputs.get(&(ins[0], row.token_index)).cloned();
        let inv = input.as_ref().map(|i| 1.0 / (i.sum_sq / cols.max(1) as f64 + f64::from(norm.eps)).sqrt());
        let inv_rms = inv.filter(|v| v.is_finite());
        facts.norm = Some(NormFacts { eps: norm.eps, cols, input, inv_rms });
        facts.weight = self.weight(g, ins[1].node);
    }

    fn matmul(&mut self, facts: &mut Facts, g: &Graph, row: &TapRow<'_>) {
        let weight = g.operands(row.value.node)[0];
        let d = g.desc(weight);
        let (k, n) = (d.cols().constant().unwrap_or(0), d.rows().constant().unwrap_or(0));
        facts.matmul = Some(MatmulFacts { k, n });
        facts.weight = self.weight(g, weight.node);
    }

    fn attention(&self, a: &Attention, row: &TapRow<'_>) -> AttentionFacts {
        let positions = row.position as usize + 1;
        let pages = positions.div_ceil(PAGE_TOKENS);
        AttentionFacts {
            scale: a.scale,
            heads: a.heads,
            kv_heads: a.kv_heads,
            head_dim: a.head_dim,
            positions,
            pages,
            first_page: self.pages.first().copied(),
            last_page: self.pages.get(pages - 1).copied(),
        }
    }

    fn weight(&mut self, g: &Graph, mut id: NodeId) -> Option<Arc<WeightFacts>> {
        if let Kind::Op(Op::Dequant(_)) = &g.node(id).kind {
            id = g.operands(id)[0].node;
        }
        let Kind::Weight { tensor, rows } = &g.node(id).kind else { return None };
        let key = &g.node(id).name;
        if let Some(known) = self.known.get(key) {
            return Some(known.clone());
        }
        let view = self.weights.tensor(tensor).ok()?;
        let (dtype, cols) = (view.desc.dtype, view.desc.cols().constant()?);
        let row = dtype.row_bytes(cols)?;
        let bytes = match rows {
            Some(r) => view.bytes.get(r.start as usize * row..r.end as usize * row)?,
            None => view.bytes,
        };
        let hash = Sha256::digest(bytes).iter().take(8).map(|b| format!("{b:02x}")).collect();
        let first = HostTensor::from_bytes(&[1, cols], dtype, bytes.get(..row)?);
        let window = first.row(0).iter().take(WINDOW).map(|&v| v as f32).collect();
        let made = Arc::new(WeightFacts { tensor: tensor.clone(), dtype, hash, window });
        self.known.insert(key.clone(), made.clone());
        Some(made)
    }
}

/// A recording that is given facts as well.
pub struct Recorder {
    /// The rows so far.
    pub recording: Recording,
    facts: FactMaker,
}

impl Recorder {
    /// Goes on with a recording.
    pub fn new(recording: Recording, weights: Arc<dyn Weights>) -> Recorder {
        Recorder { recording, facts: FactMaker::new(weights) }
    }
}

impl RowSink for Recorder {
    fn begin(&mut self, step: &StepBegin<'_>) -> Result<(), TraceError> {
        self.facts.begin(step.pages);
        Ok(())
    }

    fn row(&mut self, graph: &Graph, at: At, row: &TapRow<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.recording.row(graph, at, row)?;
        let name = graph.value_name(row.value);
        let facts = self.facts.of(graph, row).map(Arc::new);
        if let Some(last) = self.recording.entry(&name, Default::default).rows.last_mut() {
            last.facts = facts;
        }
        Ok(())
    }
}

/// Norms, and the value each reads.
fn norm_inputs(g: &Graph) -> impl Iterator<Item = (NodeId, Value)> + '_ {
    let norm = |op: &Op| match op {
        Op::RmsNorm(_) => true,
        Op::Fused(f) => f.steps.first().is_some_and(|s| matches!(s.op, Op::RmsNorm(_))),
        _ => false,
    };
    g.nodes().filter(move |(_, n)| matches!(&n.kind, Kind::Op(op) if norm(op))).map(|(id, _)| (id, g.operands(id)[0]))
}

/// The taps asked for, and statistics of what each tapped norm reads, in the same rows and phases, where no tap records
/// it: a norm's sum of squares has to come from where its input lies.
pub fn with_facts(
    model: &Model,
    backend: &dyn greta_backend::Backend,
    options: &EngineOptions<'_>,
) -> Result<Vec<TapRequest>, TraceError> {
    let (plan, _) = Engine::plan(model, backend, options)?;
    let g = plan.graph();
    let taps: HashMap<Value, &TapSpec> = g.nodes().filter_map(|(id, _)| g.tapped(id)).collect();
    let mut list = options.taps.clone();
    for (norm, input) in norm_inputs(g) {
        let Some(spec) = taps.get(&Value { node: norm, out: 0 }) else { continue };
        if !taps.contains_key(&input) && matches!(g.node(input.node).kind, Kind::Op(_)) {
            let spec = TapSpec { detail: Detail::Stats, ..(*spec).clone() };
            list.push(TapRequest::new(&g.node(input.node).name, spec)?);
        }
    }
    Ok(list)
}

/// Reals in JSON, which has no NaN: null.
mod reals {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(v: &[f32], s: S) -> Result<S::Ok, S::Error> {
        v.iter().map(|x| x.is_finite().then_some(*x)).collect::<Vec<_>>().serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<f32>, D::Error> {
        let list = Vec::<Option<f32>>::deserialize(d)?;
        Ok(list.into_iter().map(|x| x.unwrap_or(f32::NAN)).collect())
    }
}
