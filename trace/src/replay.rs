//! A replay bundle: one op's operands, parameters and outputs, small enough to mail, that run alone.
//!
//! A folder with `replay.json` (the op, the verdict, what each tensor is) and `tensors.safetensors`. Of a large weight only
//! a window of rows around the worst element is kept, with the same columns of the output.

use crate::error::io;
use crate::hypotheses::some_rows;
use crate::judge::{Culprit, Judge, NodeCheck};
use crate::{At, TraceError};
use greta_backend::{Backend, CaseRunner};
use greta_graph::Kind;
use greta_ops::{Case, CaseInput, DType, Data, HostTensor, Op, Precision};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Version of the bundle.
const SCHEMA: u32 = 1;
/// Weights larger than this many bytes are cut to a window.
const WHOLE: usize = 1 << 20;
/// Rows of such a window.
const WINDOW: usize = 64;

/// A tensor of a bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Its name in `tensors.safetensors`.
    pub name: String,
    /// How it is stored.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether it is a KV cache, slot by slot.
    #[serde(default)]
    pub cache: bool,
}

/// `replay.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplayInfo {
    /// 1.
    pub schema: u32,
    /// What wrote it.
    pub engine: String,
    /// The node.
    pub node: String,
    /// The op with its attributes.
    pub op: Op,
    /// Model, backend, arithmetic and kernel of the run.
    pub model: String,
    /// See `model`.
    pub backend: String,
    /// See `model`.
    pub arith: String,
    /// See `model`.
    pub route: String,
    /// The rows kept.
    pub rows: Vec<At>,
    /// First row of the weight and how many, where only a window was kept.
    pub window: Option<(usize, usize)>,
    /// Operands in order.
    pub ins: Vec<Part>,
    /// Outputs in order, as the run recorded them.
    pub outs: Vec<Part>,
    /// What was said of it.
    pub class: String,
    /// See `class`.
    pub hypothesis: Option<String>,
    /// The worst error over its bound in the run.
    pub ratio: f64,
}

/// A bundle in memory.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// What it is.
    pub info: ReplayInfo,
    /// Operands.
    pub ins: Vec<HostTensor>,
    /// Recorded outputs.
    pub outs: Vec<HostTensor>,
}

/// What a replay found.
#[derive(Clone, Debug, Serialize)]
pub struct Replayed {
    /// The node.
    pub node: String,
    /// The worst error over its bound: as recorded, and now.
    pub recorded_ratio: f64,
    /// See `recorded_ratio`.
    pub replayed_ratio: f64,
    /// Whether the op is wrong again.
    pub reproduced: bool,
    /// Whether the outputs are the recorded ones, to the bit.
    pub same_bits: bool,
    /// The backend.
    pub backend: String,
}

impl Bundle {
    /// The check that found a culprit, as a bundle; `None` where it is of a kind that none can be made of.
    pub fn of(judge: &Judge<'_>, culprit: &Culprit) -> Result<Option<Bundle>, TraceError> {
        let (Some(id), Some(worst)) = (judge.graph.find(&culprit.node), &culprit.worst) else { return Ok(None) };
        let check = judge.check(id, worst.at.prompt, worst.at.order)?;
        Ok(Bundle::new(judge, &check, culprit))
    }

    /// Cuts a bundle out of a failed check.
    pub fn new(judge: &Judge<'_>, check: &NodeCheck, culprit: &Culprit) -> Option<Bundle> {
        let node = judge.graph.node(check.node);
        let Kind::Op(op) = &node.kind else { return None };
        let mut ins = check.ins.clone();
        let mut outs = check.outs.clone();
        let mut window = None;
        if let (Op::MatMul(_), Some(Data::Packed(_, bytes))) = (op, ins.first().map(|t| &t.data))
            && bytes.len() > WHOLE
        {
            let rows = ins[0].rows();
            let worst = culprit.worst.as_ref().map_or(0, |w| w.element);
            let first = (worst.saturating_sub(WINDOW / 2) / 16 * 16).min(rows.saturating_sub(WINDOW));
            let count = WINDOW.min(rows - first);
            ins[0] = packed_rows(&ins[0], first, count)?;
            outs = outs.iter().map(|t| columns(t, first, count)).collect();
            window = Some((first, count));
        }
        if let (Op::Embed(_), Some(Data::Packed(_, bytes))) = (op, ins.first().map(|t| &t.data))
            && bytes.len() > WHOLE
        {
            return None;
        }
        let descs: Vec<_> = judge.graph.operands(check.node).iter().map(|&v| judge.graph.desc(v).dtype).collect();
        let part = |name: String, t: &HostTensor, dtype: DType, cache: bool| Part {
            name,
            dtype,
            shape: t.shape.to_vec(),
            cache,
        };
        let is_cache = |i: usize| match op {
            Op::Attention(_) => i == 1 || i == 2,
            Op::CacheWrite(_) => i == 0,
            _ => false,
        };
        let info = ReplayInfo {
            schema: SCHEMA,
            engine: format!("greta {}", env!("CARGO_PKG_VERSION")),
            node: node.name.clone(),
            op: op.clone(),
            model: judge.recording.info.model.path.display().to_string(),
            backend: judge.recording.info.backend.clone(),
            arith: judge.recording.info.arith.clone(),
            route: culprit.route.clone(),
            rows: check.rows.clone(),
            window,
            ins: ins.iter().enumerate().map(|(i, t)| part(format!("in{i}"), t, descs[i], is_cache(i))).collect(),
            outs: outs.iter().enumerate().map(|(i, t)| part(format!("out{i}"), t, node.outs[i].dtype, false)).collect(),
            class: culprit.class.name().into(),
            hypothesis: culprit.hypothesis.clone(),
            ratio: check.worst(),
        };
        Some(Bundle { info, ins, outs })
    }

    /// Writes the bundle's folder.
    pub fn save(&self, dir: &Path) -> Result<(), TraceError> {
        std::fs::create_dir_all(dir).map_err(io(dir, "the replay bundle's folder can't be made"))?;
        let path = dir.join("replay.json");
        if !path.exists() && std::fs::read_dir(dir).is_ok_and(|mut d| d.next().is_some()) {
            let what = "is not empty and no replay bundle; give another folder".to_string();
            return Err(TraceError::Format { path: dir.to_owned(), what });
        }
        let text = serde_json::to_string_pretty(&self.info)
            .map_err(|e| TraceError::Format { path: path.clone(), what: e.to_string() })?;
        std::fs::write(&path, text).map_err(io(&path, "can't be written"))?;
        let parts = self.info.ins.iter().zip(&self.ins).chain(self.info.outs.iter().zip(&self.outs));
        let bytes: Vec<(String, Vec<u8>)> = parts.map(|(p, t)| (p.name.clone(), t.to_bytes(p.dtype))).collect();
        let path = dir.join("tensors.safetensors");
        let format = |e: safetensors::SafeTensorError| TraceError::Format { path: path.clone(), what: e.to_string() };
        let mut views = Vec::new();
        for (name, bytes) in &bytes {
            // Packed blocks have no type of safetensors: all are kept as bytes, and `replay.json` says what they are.
            views.push((name.as_str(), TensorView::new(Dtype::U8, vec![bytes.len()], bytes).map_err(format)?));
        }
        let whole = safetensors::serialize(views, None).map_err(format)?;
        std::fs::write(&path, whole).map_err(io(&path, "can't be written"))
    }

    /// Reads a bundle's folder.
    pub fn open(dir: &Path) -> Result<Bundle, TraceError> {
        let path = dir.join("replay.json");
        let text = std::fs::read_to_string(&path).map_err(io(&path, "no replay bundle can be read"))?;
        let bad = |what: String| TraceError::Format { path: path.clone(), what };
        let info: ReplayInfo = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        if info.schema != SCHEMA {
            return Err(bad(format!("has schema version {}, this greta reads {SCHEMA}", info.schema)));
        }
        let path = dir.join("tensors.safetensors");
        let file = std::fs::read(&path).map_err(io(&path, "can't be read"))?;
        let tensors = SafeTensors::deserialize(&file)
            .map_err(|e| TraceError::Format { path: path.clone(), what: e.to_string() })?;
        let read = |p: &Part| -> Result<HostTensor, TraceError> {
            let bad = |what: String| TraceError::Format { path: path.clone(), what };
            let view = tensors.tensor(&p.name).map_err(|e| bad(format!("`{}`: {e}", p.name)))?;
            let (cols, n) = (p.shape.last().copied().unwrap_or(0), p.shape.iter().product::<usize>());
            let want = p.dtype.row_bytes(cols).and_then(|r| r.checked_mul(n.checked_div(cols).unwrap_or(0)));
            match want {
                Some(want) if want == view.data().len() => Ok(HostTensor::from_bytes(&p.shape, p.dtype, view.data())),
                _ => Err(bad(format!(
                    "`{}` has {} bytes, which is not {} {:?}",
                    p.name,
                    view.data().len(),
                    p.dtype,
                    p.shape
                ))),
            }
        };
        let ins = info.ins.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let outs = info.outs.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Bundle { info, ins, outs })
    }

    /// Runs the op alone on a backend and holds it and the recorded outputs against the reference.
    pub fn replay(&self, backend: &dyn Backend) -> Result<Replayed, TraceError> {
        let value = |(p, t): (&Part, &HostTensor)| match p.cache {
            true => CaseInput::Cache(t.clone(), p.dtype),
            false => CaseInput::Value(t.clone(), p.dtype),
        };
        let ins = self.info.ins.iter().zip(&self.ins).map(value).collect();
        let case = Case { name: "replay".into(), op: self.info.op.clone(), ins };
        let descs: Vec<_> = self
            .ins
            .iter()
            .zip(&self.info.ins)
            .map(|(t, p)| greta_ops::TensorDesc { dtype: p.dtype, ..t.desc() })
            .collect();
        let refs: Vec<_> = descs.iter().collect();
        self.info.op.spec().infer(&refs).map_err(|e| TraceError::NotJudged(format!("`{}`: {e}", self.info.node)))?;
        let now = CaseRunner::new(&case, backend)?.run()?;
        let stored = case.stored();
        let refs: Vec<_> = stored.iter().collect();
        let want = self.info.op.spec().reference(&refs);
        let bounds = self.info.op.spec().error_bound(&refs, &want, Precision::F32);
        let worst = |outs: &[HostTensor]| {
            let mut worst = 0.0f64;
            for (o, out) in outs.iter().enumerate() {
                let dtype = self.info.outs[o].dtype;
                let rows = out.rows().min(want[o].rows());
                worst = worst.max(crate::judge::worst_ratio(out, &want[o], &bounds[o], dtype, rows));
            }
            worst
        };
        let (recorded_ratio, replayed_ratio) = (worst(&self.outs), worst(&now));
        let flat = |t: &HostTensor| -> Vec<u64> {
            (0..t.rows()).flat_map(|r| t.row(r).iter().map(|v| v.to_bits()).collect::<Vec<_>>()).collect()
        };
        Ok(Replayed {
            node: self.info.node.clone(),
            recorded_ratio,
            replayed_ratio,
            reproduced: replayed_ratio > 1.0,
            same_bits: now.iter().zip(&self.outs).all(|(a, b)| flat(a) == flat(b)),
            backend: backend.name().into(),
        })
    }
}

fn packed_rows(t: &HostTensor, first: usize, count: usize) -> Option<HostTensor> {
    let Data::Packed(dtype, bytes) = &t.data else { return None };
    let row = dtype.row_bytes(t.cols())?;
    Some(HostTensor::packed(&[count, t.cols()], *dtype, bytes[first * row..(first + count) * row].into()))
}

fn columns(t: &HostTensor, first: usize, count: usize) -> HostTensor {
    let rows: Vec<usize> = (0..t.rows()).collect();
    let all = some_rows(t, &rows);
    HostTensor::real(
        &[t.rows(), count],
        (0..t.rows()).flat_map(|r| all.row(r)[first..first + count].to_vec()).collect(),
    )
}
