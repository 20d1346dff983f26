//! A step's results on the way to the host.

use super::HipSession;
use crate::driver::Stream;
use crate::failed;
use crate::lower::{Buffer, Step, TopK};
use greta_backend::{BackendError, Batch, StepOut, Want};
use greta_graph::{NodeId, Value};
use greta_ops::{DType, HostTensor};

impl HipSession {
    /// What the output `logits` is, if the graph has it as an op's value.
    pub(super) fn logits(&self) -> Option<Value> {
        let g = self.model.plan.graph();
        let named = |v: &&Value| g.value_name(**v) == "logits" && g.desc(**v).dtype == DType::F32;
        g.outputs().iter().find(named).copied().filter(|v| self.model.plan.place(*v).is_some())
    }

    fn read(&self, stream: &mut dyn Stream, b: Buffer, bytes: usize) -> Result<Vec<u8>, BackendError> {
        let mut out = vec![0; bytes];
        if bytes > 0 {
            stream.read(self.address(b), &mut out).map_err(|e| failed(self.model.driver, &e))?;
        }
        Ok(out)
    }

    /// Brings a step's results to the host; `top` is where the largest logits were put.
    pub(super) fn collect(
        &self,
        stream: &mut dyn Stream,
        step: &Step,
        batch: &Batch,
        want: Want,
        top: Option<(TopK, u64)>,
    ) -> Result<StepOut, BackendError> {
        let g = self.model.plan.graph();
        let (mut out, at) = (StepOut::default(), step.bindings());
        let logits = self.logits();
        for &v in g.outputs() {
            let (name, d, place) = (g.value_name(v), g.desc(v), self.model.place(v));
            if let Buffer::State(node) = place {
                out.values.push((name, self.cache_rows(stream, node, v, batch)?));
            } else if Some(v) == logits {
                out.vocab = d.cols().at(&at);
                match (want, top) {
                    (Want::Nothing, _) => {}
                    (Want::TopK(_), Some((k, to))) => {
                        let bytes = self.read(stream, Buffer::Side(to), k.rows * k.want * 8)?;
                        let word = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                        let pair = |b: &[u8]| (word(b), f32::from_bits(word(&b[4..])));
                        out.top =
                            bytes.chunks_exact(k.want * 8).map(|r| r.chunks_exact(8).map(pair).collect()).collect();
                    }
                    _ => {
                        let mut values = vec![0.0f32; d.bytes(&at) / 4];
                        let to = bytemuck::cast_slice_mut(&mut values);
                        stream.read(self.address(place), to).map_err(|e| failed(self.model.driver, &e))?;
                        match want {
                            Want::Logits => out.logits = values,
                            _ => out = out.with_logits(&values, d.cols().at(&at), want),
                        }
                    }
                }
            } else {
                let shape: Vec<usize> = d.dims.iter().map(|n| n.at(&at)).collect();
                let bytes = self.read(stream, place, d.bytes(&at))?;
                out.values.push((name, HostTensor::from_bytes(&shape, d.dtype, &bytes)));
            }
        }
        Ok(out)
    }

    /// A cache as output is the rows this step stored.
    fn cache_rows(
        &self,
        stream: &mut dyn Stream,
        node: NodeId,
        v: Value,
        batch: &Batch,
    ) -> Result<HostTensor, BackendError> {
        let d = self.model.plan.graph().desc(v);
        let width = d.cols().constant().unwrap_or(0);
        let row = d.dtype.row_bytes(width).unwrap_or(0);
        let mut bytes = vec![0; row * batch.slots.len()];
        for (&slot, out) in batch.slots.iter().zip(bytes.chunks_exact_mut(row.max(1))) {
            let at = self.address(Buffer::State(node)).offset(slot as u64 * row as u64);
            stream.read(at, out).map_err(|e| failed(self.model.driver, &e))?;
        }
        Ok(HostTensor::from_bytes(&[batch.slots.len(), width], d.dtype, &bytes))
    }
}
