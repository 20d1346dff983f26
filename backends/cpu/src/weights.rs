//! Weights in the form their reader wants.

use crate::kernels::panel::{Panels, panel_bytes, panel_count};
use crate::kernels::repack::repack;
use crate::memory::Block;
use crate::pool::Pool;
use greta_backend::{BackendError, Weights};
use greta_graph::{Graph, Kind, NodeId};
use greta_ops::{DType, Op, TensorDesc};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A weight matrix in panels, part of one large block.
#[derive(Clone)]
pub(crate) struct PanelMatrix {
    arena: Arc<Block>,
    at: Range<usize>,
    dtype: DType,
    n: usize,
    k: usize,
}

impl PanelMatrix {
    /// The panels.
    pub fn panels(&self) -> Panels<'_> {
        Panels::new(self.dtype, self.n, self.k, &self.arena.bytes()[self.at.clone()])
            .expect("the arena was laid out for this shape")
    }
}

/// A tensor left where the file has it.
#[derive(Clone)]
pub(crate) struct Mapped {
    weights: Arc<dyn Weights>,
    tensor: String,
    bytes: Range<usize>,
    pub dtype: DType,
}

impl Mapped {
    /// Its bytes, row after row.
    pub fn bytes(&self) -> &[u8] {
        // Found when compiling; an unreadable mapping is beyond an error's reach anyway.
        self.weights.tensor(&self.tensor).map_or(&[], |v| &v.bytes[self.bytes.clone()])
    }
}

/// Every form a graph's weights were prepared in.
#[derive(Default)]
pub(crate) struct Prepared {
    pub panels: HashMap<NodeId, PanelMatrix>,
    pub mapped: HashMap<NodeId, Mapped>,
    pub small: HashMap<NodeId, Arc<Block>>,
}

/// What readers make of a weight.
#[derive(Default)]
struct Uses {
    panels: bool,
    mapped: bool,
    small: bool,
}

fn uses(g: &Graph, id: NodeId, plain: &HashSet<NodeId>) -> Uses {
    let mut u = Uses::default();
    let value = greta_graph::Value { node: id, out: 0 };
    for c in g.consumers(value) {
        let first = g.operands(c).first() == Some(&value);
        match &g.node(c).kind {
            Kind::Op(Op::MatMul(_)) if first => {
                u.panels = true;
                u.mapped |= plain.contains(&c);
            }
            Kind::Tap(_) => {}
            Kind::Op(Op::Embed(_) | Op::Dequant(_)) if first => u.mapped = true,
            _ => u.small = true,
        }
    }
    u.mapped |= g.outputs().contains(&value);
    u
}

/// Copies small weights, repacks those of matmuls on all threads and gives the file's pages back.
pub(crate) fn prepare(
    g: &Graph,
    weights: &Arc<dyn Weights>,
    pool: &Pool,
    plain: &HashSet<NodeId>,
    progress: Option<&dyn Fn(u64, u64)>,
) -> Result<Prepared, BackendError> {
    let mut out = Prepared::default();
    let (mut jobs, mut size, mut total) = (Vec::new(), 0usize, 0u64);
    for (id, node) in g.nodes() {
        let Kind::Weight { tensor, rows } = &node.kind else { continue };
        let bytes = find(weights.as_ref(), tensor, rows, &node.outs[0])?;
        let u = uses(g, id, plain);
        if u.mapped {
            let dtype = node.outs[0].dtype;
            out.mapped
                .insert(id, Mapped { weights: weights.clone(), tensor: tensor.clone(), bytes: bytes.clone(), dtype });
        }
        if u.small {
            let view = weights.tensor(tensor)?;
            out.small.insert(id, Arc::new(Block::copy_of(&view.bytes[bytes.clone()], tensor)?));
        }
        if u.panels {
            let d = &node.outs[0];
            let (n, k) = (d.rows().constant().unwrap_or(0), d.cols().constant().unwrap_or(0));
            let len = panel_bytes(d.dtype, k).and_then(|b| b.checked_mul(panel_count(n)));
            let len = len.ok_or_else(|| BackendError::Weight {
                tensor: tensor.clone(),
                why: format!("{d} has no panel form"),
            })?;
            total += bytes.len() as u64;
            jobs.push((id, tensor, bytes, size..size + len, d.dtype, n, k));
            size += len.next_multiple_of(64);
        }
    }
    let arena = Arc::new(Block::zeroed(size, "repacked weights")?);
    let done = AtomicU64::new(0);
    for (id, tensor, bytes, at, dtype, n, k) in jobs {
        let view = weights.tensor(tensor)?;
        let (rows, each, panels) = (&view.bytes[bytes], panel_bytes(dtype, k).unwrap_or(0), panel_count(n));
        // Chunks of about a quarter of a megabyte: enough of them for any number of threads.
        let chunk = ((256 << 10) / each.max(1)).clamp(1, panels.max(1));
        pool.each(panels.div_ceil(chunk), |i| {
            let part = i * chunk..((i + 1) * chunk).min(panels);
            // SAFETY: chunks are disjoint parts of this matrix' own range of the arena, which nobody reads yet.
            let out = unsafe {
                std::slice::from_raw_parts_mut(arena.base().add(at.start + part.start * each), part.len() * each)
            };
            repack(dtype, rows, n, k, part, out);
        })?;
        weights.release(tensor);
        if let Some(tell) = progress {
            tell(done.fetch_add(rows.len() as u64, Ordering::Relaxed) + rows.len() as u64, total);
        }
        out.panels.insert(id, PanelMatrix { arena: arena.clone(), at, dtype, n, k });
    }
    Ok(out)
}

/// Where the graph's weight lies within the model's tensor.
fn find(
    weights: &dyn Weights,
    tensor: &str,
    rows: &Option<Range<u32>>,
    want: &TensorDesc,
) -> Result<Range<usize>, BackendError> {
    let view = weights.tensor(tensor)?;
    let error = || BackendError::Weight {
        tensor: tensor.into(),
        why: format!("the graph wants {want}, the model has {}", view.desc),
    };
    let row = want.cols().constant().and_then(|k| want.dtype.row_bytes(k)).ok_or_else(error)?;
    let from = rows.as_ref().map_or(0, |r| r.start as usize) * row;
    let len = want.bytes(&Default::default());
    let fits = view.desc.dtype == want.dtype && view.desc.cols() == want.cols() && view.bytes.len() >= from + len;
    if !fits || (rows.is_none() && view.bytes.len() != len) {
        return Err(error());
    }
    Ok(from..from + len)
}
