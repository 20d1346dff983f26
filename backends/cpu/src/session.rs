//! Running steps.

use crate::compile::Compiled;
use crate::kv::Cache;
use crate::memory::Block;
use crate::ops::Memory;
use crate::taps::TapBuffer;
use greta_backend::{BackendError, Batch, KvConfig, KvOps, Session, StepAt, StepOut, TapSink, Want};
use greta_graph::{Input, Kind, SlotId, Value};
use greta_ops::{Bindings, DType, HostTensor, PAGE_TOKENS};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes before and after every buffer, whatever the guard option; so a stray write hits them, not a neighbour.
const GUARD: usize = 64;
const GUARD_BYTE: u8 = 0xA5;

/// A KV cache and the buffers of one step.
pub(crate) struct CpuSession {
    model: Arc<Compiled>,
    cache: Cache,
    slots: Vec<Block>,
    taps: Vec<TapBuffer>,
    /// Next chunk of each stage.
    next: Vec<AtomicUsize>,
}

impl CpuSession {
    pub fn new(model: Arc<Compiled>, kv: KvConfig) -> Result<CpuSession, BackendError> {
        let size = |i: usize| model.plan.slots()[i].size.at(model.max_tokens, model.max_rows);
        let mut slots = Vec::new();
        for i in 0..model.plan.slots().len() {
            let mut block = Block::zeroed(size(i) + 2 * GUARD, "activations")?;
            block.bytes_mut()[..GUARD].fill(GUARD_BYTE);
            block.bytes_mut()[GUARD + size(i)..].fill(GUARD_BYTE);
            slots.push(block);
        }
        let cache = Cache::new(kv, &model.states);
        let next = model.stages.iter().map(|_| AtomicUsize::new(0)).collect();
        let taps = model.taps.iter().map(|_| TapBuffer::default()).collect();
        Ok(CpuSession { model, cache, slots, taps, next })
    }

    fn check(&self, b: &Batch) -> Result<(), BackendError> {
        b.check(self.model.max_tokens, self.model.max_rows)?;
        let table = self.cache.table();
        b.check_places(table, table.pages() * PAGE_TOKENS)
    }

    fn check_guards(&self) -> Result<(), BackendError> {
        for (i, block) in self.slots.iter().enumerate() {
            let bytes = block.bytes();
            let bad = |part: &[u8]| part.iter().any(|&b| b != GUARD_BYTE);
            let place = match (bad(&bytes[..GUARD]), bad(&bytes[bytes.len() - GUARD..])) {
                (true, _) => "before",
                (_, true) => "after",
                _ => continue,
            };
            let g = self.model.plan.graph();
            let writer = |s: &&crate::compile::Stage| {
                self.model.plan.place(Value { node: s.node, out: 0 }) == Some(SlotId(i as u32))
            };
            let node = self.model.stages.iter().rev().find(writer).map_or("?".into(), |s| g.node(s.node).name.clone());
            return Err(BackendError::Guard { place, slot: i as u32, node });
        }
        Ok(())
    }

    /// Hands what the taps kept to the sink.
    fn deliver(
        &self,
        sizes: &Bindings,
        step: StepAt,
        batch: &Batch,
        sink: &mut dyn TapSink,
    ) -> Result<(), BackendError> {
        for (buffer, point) in self.taps.iter().zip(&self.model.taps).filter(|(b, _)| !b.rows.is_empty()) {
            let kernel = point.stage.map(|s| self.model.stages[s].kernel(step.phase));
            let route = kernel.map_or("input".into(), |k| k.route(sizes));
            buffer.deliver(point, self.model.plan.graph(), &route, step, batch, sink)?;
        }
        Ok(())
    }

    fn collect(&self, memory: &Memory<'_>, batch: &Batch, want: Want) -> StepOut {
        let g = self.model.plan.graph();
        let mut out = StepOut::default();
        for &v in g.outputs() {
            let (name, d) = (g.value_name(v), g.desc(v));
            if let Some(&state) = self.model.state_of.get(&v.node) {
                let width = self.model.states[state].width();
                let rows = batch.slots.iter().flat_map(|&s| self.cache.row(state, s as usize)).map(f64::from).collect();
                out.values.push((name, HostTensor::real(&[batch.slots.len(), width], rows)));
                continue;
            }
            if let (true, DType::F32, Some(slot)) = (name == "logits", d.dtype, self.model.plan.place(v)) {
                // SAFETY: the step is over, so nobody writes to the slot; it is aligned and holds these values.
                let logits =
                    unsafe { std::slice::from_raw_parts(memory.slot(slot).cast::<f32>(), d.elements(&memory.at)) };
                out = out.with_logits(logits, d.cols().at(&memory.at), want);
                continue;
            }
            let bytes = match (self.model.plan.place(v), &g.node(v.node).kind) {
                (Some(slot), _) => {
                    // SAFETY: the step is over; nobody writes to the slot.
                    unsafe { std::slice::from_raw_parts(memory.slot(slot), d.bytes(&memory.at)) }.to_vec()
                }
                (None, Kind::Input { input }) => memory.input(*input).iter().flat_map(|x| x.to_le_bytes()).collect(),
                (None, _) => self.model.prepared.mapped.get(&v.node).map_or(Vec::new(), |m| m.bytes().to_vec()),
            };
            let shape: Vec<usize> = d.dims.iter().map(|n| n.at(&memory.at)).collect();
            out.values.push((name, HostTensor::from_bytes(&shape, d.dtype, &bytes)));
        }
        out
    }
}

impl Session for CpuSession {
    fn run_tapped(
        &mut self,
        batch: &Batch,
        want: Want,
        step: StepAt,
        sink: &mut dyn TapSink,
    ) -> Result<StepOut, BackendError> {
        self.check(batch)?;
        let table = self.cache.table();
        let at = Bindings {
            tokens: batch.tokens.len(),
            rows: batch.rows.len(),
            slots: table.pages() * PAGE_TOKENS,
            seqs: table.config().sequences,
            pages: table.max_pages(),
        };
        let blocks = table.block_table();
        let inputs = Input::ALL.map(|i| match i {
            Input::Tokens => &batch.tokens[..],
            Input::Positions => &batch.positions,
            Input::Seqs => &batch.seqs,
            Input::Slots => &batch.slots,
            Input::RowsWanted => &batch.rows,
            Input::BlockTable => &blocks,
        });
        let slots = self.slots.iter().map(|b| b.base().wrapping_add(GUARD)).collect();
        for (buffer, point) in self.taps.iter_mut().zip(&self.model.taps) {
            if sink.active() { buffer.prepare(point, step, batch) } else { buffer.clear() }
        }
        let views: Vec<_> = self.taps.iter_mut().map(TapBuffer::view).collect();
        let memory = Memory::new(at, inputs, slots, &self.cache, &views);
        self.next.iter_mut().for_each(|n| *n.get_mut() = 0);
        self.model.pool.team(|team| {
            for (stage, next) in self.model.stages.iter().zip(&self.next) {
                if stage.barrier && !team.barrier() {
                    return;
                }
                let kernel = stage.kernel(step.phase);
                let chunks = kernel.chunks(&memory);
                loop {
                    let chunk = next.fetch_add(1, Ordering::Relaxed);
                    if chunk >= chunks {
                        break;
                    }
                    // SAFETY: the plan keeps values that are alive apart, barriers keep a stage from running beside one
                    // whose values it reads or overwrites, and the counter gives each chunk to one thread.
                    unsafe { kernel.run(&memory, chunk) };
                }
            }
        })?;
        if self.model.guard {
            self.check_guards()?;
        }
        self.deliver(&at, step, batch, sink)?;
        Ok(self.collect(&memory, batch, want))
    }

    fn kv(&mut self) -> &mut dyn KvOps {
        &mut self.cache
    }

    fn limits(&self) -> (usize, usize) {
        (self.model.max_tokens, self.model.max_rows)
    }
}
