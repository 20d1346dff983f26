//! A step's results on the way to the host.

use super::HipSession;
use super::extra::Extra;
use crate::driver::{Pointer, Stream};
use crate::lower::{Buffer, Step};
use greta_backend::{BackendError, Batch, StepOut, Want};
use greta_graph::Value;
use greta_ops::{DType, HostTensor};

impl HipSession {
    /// What the output `logits` is, if the graph has it as an op's value.
    pub(super) fn logits(&self) -> Option<Value> {
        let g = self.model.plan.graph();
        let named = |v: &&Value| g.value_name(**v) == "logits" && g.desc(**v).dtype == DType::F32;
        g.outputs().iter().find(named).copied().filter(|v| self.model.plan.place(*v).is_some())
    }

    /// Brings a step's results to the host together, so that they need not be waited for one by one: outputs, and what the extra kernels found.
    pub(super) fn collect(
        &self,
        stream: &mut dyn Stream,
        step: &Step,
        batch: &Batch,
        want: Want,
        extra: &Extra,
    ) -> Result<(StepOut, Vec<u8>), BackendError> {
        let (g, at) = (self.model.plan.graph(), step.bindings());
        let logits_at = self.logits();
        let [from, to] = extra.found;
        let mut found = vec![0; (to - from) as usize];
        let mut logits: Vec<f32> = Vec::new();
        let mut values: Vec<(Value, Vec<u8>)> = Vec::new();
        let whole = want != Want::Nothing && extra.top.is_none();
        for &v in g.outputs() {
            match self.model.place(v) {
                Buffer::State(_) => values.push((v, vec![0; self.cache_row(v) * batch.slots.len()])),
                _ if Some(v) != logits_at => values.push((v, vec![0; g.desc(v).bytes(&at)])),
                _ if whole => logits = vec![0.0; g.desc(v).bytes(&at) / 4],
                _ => {}
            }
        }
        let mut parts: Vec<(Pointer, &mut [u8])> = vec![(self.address(Buffer::Side(from)), &mut found)];
        if let Some(v) = logits_at {
            parts.push((self.address(self.model.place(v)), bytemuck::cast_slice_mut(&mut logits)));
        }
        for (v, bytes) in &mut values {
            let base = self.address(self.model.place(*v));
            match self.model.place(*v) {
                Buffer::State(_) => {
                    let row = self.cache_row(*v).max(1);
                    let slots = batch.slots.iter().map(|&slot| base.offset(slot as u64 * row as u64));
                    parts.extend(slots.zip(bytes.chunks_exact_mut(row)));
                }
                _ => parts.push((base, bytes)),
            }
        }
        parts.retain(|(_, bytes)| !bytes.is_empty());
        stream.read_all(&mut parts).map_err(|e| self.model.late(&e))?;

        let mut out = StepOut::default();
        let vocab = logits_at.map_or(0, |v| g.desc(v).cols().at(&at));
        if let Some((k, to)) = extra.top {
            let word = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            let pair = |b: &[u8]| (word(b), f32::from_bits(word(&b[4..])));
            let rows = found[(to - from) as usize..].chunks_exact(k.want * 8).take(k.rows);
            out.top = rows.map(|r| r.chunks_exact(8).map(pair).collect()).collect();
        } else if logits_at.is_some() && whole {
            match want {
                Want::Logits => out.logits = logits,
                _ => out = out.with_logits(&logits, vocab, want),
            }
        }
        out.vocab = vocab;
        for (v, bytes) in values {
            let d = g.desc(v);
            let shape: Vec<usize> = match self.model.place(v) {
                Buffer::State(_) => vec![batch.slots.len(), d.cols().constant().unwrap_or(0)],
                _ => d.dims.iter().map(|n| n.at(&at)).collect(),
            };
            out.values.push((g.value_name(v), HostTensor::from_bytes(&shape, d.dtype, &bytes)));
        }
        Ok((out, found))
    }

    /// Bytes of a cache's row. A cache as output is the rows this step stored.
    fn cache_row(&self, v: Value) -> usize {
        let d = self.model.plan.graph().desc(v);
        d.dtype.row_bytes(d.cols().constant().unwrap_or(0)).unwrap_or(0)
    }
}
