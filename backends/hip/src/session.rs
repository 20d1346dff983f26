//! A session: buffers and a cache, and steps run on one stream.

mod extra;
mod results;

use crate::driver::{DriverError, Note, Pointer, Stream};
use crate::executable::{Compiled, Ready, Stage, is_empty, pack};
use crate::graphs::{GraphKey, Graphs};
use crate::kv::Cache;
use crate::lower::{self, Buffer, Step};
use crate::memory::DeviceBuffer;
use crate::taps::Row;
use crate::{Launching, failed};
use extra::{Extra, ExtraKey, Extras};
use greta_backend::{
    BackendError, Batch, Fault, KvConfig, KvOps, Phase, SeqId, Session, StepAt, StepOut, TapSink, Want,
};
use greta_graph::{Input, Kind, NodeId};
use greta_ops::Cost;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Sizes of steps whose launches are kept: decode steps of one context, and chunks of a prompt.
const KEPT_STEPS: usize = 8;

/// The launches of each stage.
type StepLaunches = Vec<Vec<Ready>>;

/// A session on a device.
pub(crate) struct HipSession {
    model: Arc<Compiled>,
    stream: Arc<Mutex<Box<dyn Stream>>>,
    cache: Cache,
    slots: Vec<DeviceBuffer>,
    inputs: Vec<DeviceBuffer>,
    /// What was last sent to each.
    sent: Vec<Vec<i32>>,
    /// Where lists of tapped rows were last sent.
    listed: (Pointer, Vec<u8>),
    scratch: DeviceBuffer,
    side: DeviceBuffer,
    /// Launches of each op by step size.
    steps: HashMap<(Step, Phase, bool), Arc<StepLaunches>>,
    /// Launches that are not the plan's, by kind of step.
    extras: Extras,
    /// Operands as the step before left them, for faults.
    stale: HashMap<(NodeId, u8), DeviceBuffer>,
    /// Whether a step went before.
    warm: bool,
    /// Decode steps as the device runs them at once.
    graphs: Graphs,
}

impl HipSession {
    pub fn new(model: Arc<Compiled>, kv: KvConfig) -> Result<HipSession, BackendError> {
        Self::make(model.clone(), kv).map_err(|e| failed(model.driver, &e))
    }

    fn make(model: Arc<Compiled>, kv: KvConfig) -> Result<HipSession, DriverError> {
        let device = &model.device;
        let stream = Arc::new(Mutex::new(device.stream()?));
        let (tokens, rows) = (model.max_tokens, model.max_rows);
        let slot = |(i, s): (usize, &greta_graph::Slot)| {
            DeviceBuffer::new(device, s.size.at(tokens, rows), &format!("slot{i}"))
        };
        let slots = model.plan.slots().iter().enumerate().map(slot).collect::<Result<_, _>>()?;
        let cache = Cache::new(kv, device, &stream, &model.states)?;
        let table = kv.sequences * cache.table().max_pages();
        let input = |i: &Input| {
            let n = match i {
                Input::RowsWanted => rows,
                Input::BlockTable => table,
                _ => tokens,
            };
            DeviceBuffer::new(device, 4 * n, i.name())
        };
        let inputs = Input::ALL.iter().map(input).collect::<Result<_, _>>()?;
        let scratch = DeviceBuffer::new(device, 4, "scratch")?;
        let side = DeviceBuffer::new(device, 4, "taps and results")?;
        let mut stale = HashMap::new();
        let g = model.plan.graph();
        for (id, _) in model.faults.iter().filter(|(_, f)| f.fault == Fault::StaleBuffer) {
            let Kind::Op(op) = &g.node(*id).kind else { continue };
            let ins = g.operands(*id);
            for i in lower::fault::activations(op, ins.len()) {
                let at = greta_ops::Bindings { tokens, rows, ..Default::default() };
                let bytes = g.desc(ins[i]).bytes(&at);
                let buffer = DeviceBuffer::new(device, bytes, "stale operand")?;
                stream.lock().unwrap_or_else(PoisonError::into_inner).write(buffer.at(), &vec![0; bytes])?;
                stale.insert((*id, i as u8), buffer);
            }
        }
        Ok(HipSession {
            model: model.clone(),
            stream,
            cache,
            slots,
            sent: vec![Vec::new(); Input::ALL.len()],
            listed: (Pointer(0), Vec::new()),
            inputs,
            scratch,
            side,
            steps: HashMap::new(),
            extras: Extras::default(),
            stale,
            warm: false,
            graphs: Graphs::default(),
        })
    }

    fn check(&self, b: &Batch) -> Result<(), BackendError> {
        b.check(self.model.max_tokens, self.model.max_rows)?;
        let table = self.cache.table();
        b.check_places(table, self.cache.slots())
    }

    fn step_of(&self, batch: &Batch) -> Step {
        let table = self.cache.table();
        let config = table.config();
        Step {
            tokens: batch.tokens.len(),
            rows: batch.rows.len(),
            slots: self.cache.slots(),
            seqs: config.sequences,
            pages: table.max_pages(),
            // In whole segments, so that decode steps share their launches.
            context: (0..config.sequences)
                .map(|s| table.len(SeqId(s)))
                .max()
                .unwrap_or(0)
                .next_multiple_of(lower::SEGMENT),
        }
    }

    /// The launches of every op for a step.
    fn launches(&mut self, step: Step, phase: Phase) -> Result<Arc<StepLaunches>, BackendError> {
        // Only a fault makes a difference between the first step and the others.
        let warm = self.warm && !self.stale.is_empty();
        if let (Some(known), false) = (self.steps.get(&(step, phase, warm)), self.model.device.timing()) {
            return Ok(known.clone());
        }
        let g = self.model.plan.graph();
        let of = |stage: &Stage| match stage {
            Stage::Op(id) => self.model.ready(&g.node(*id).name, self.model.lower(*id, phase, &step, warm)),
            Stage::Tap(_) => Ok(Vec::new()),
        };
        let mut made: StepLaunches = self.model.stages.iter().map(of).collect::<Result<_, _>>()?;
        if self.model.device.timing() {
            self.model.cost(&mut made, &step);
        }
        let made = Arc::new(made);
        if self.steps.len() >= KEPT_STEPS {
            self.steps.clear();
        }
        self.steps.insert((step, phase, warm), made.clone());
        Ok(made)
    }

    /// Runs a launch.
    fn execute(&self, stream: &mut dyn Stream, node: &str, ready: &Ready) -> Result<(), BackendError> {
        if is_empty(&ready.launch.size) {
            return Ok(());
        }
        self.model.interrupt.check()?;
        if self.model.device.timing() {
            let Cost { bytes, flops: operations, .. } = ready.cost;
            stream.note(Note { node: node.into(), bytes, operations });
        }
        let args = pack(&ready.launch, |b| self.address(b));
        let live: Vec<_> = ready.launch.live.iter().map(|(b, bytes)| (self.address(*b), *bytes)).collect();
        if self.model.launching == Launching::Named {
            let [x, y, z] = ready.launch.size.grid;
            crate::compile::say(&format!("launch {node}: {} of {x} × {y} × {z}", ready.launch.kernel));
        }
        let launched = stream.launch(ready.function, ready.launch.size, &args, &live);
        let through = match self.model.launching {
            Launching::Waited | Launching::Named => launched.and_then(|()| stream.wait()),
            _ => launched,
        };
        through.map_err(|e| match (&e, self.model.launching) {
            // Of this launch or any before it.
            (DriverError::Device { .. }, Launching::Replayed | Launching::Eager)
            | (DriverError::Lost(_) | DriverError::Gone { .. }, _) => self.model.late(&e),
            _ => self.model.kernel_error(node, ready.launch.kernel, &e),
        })
    }

    fn address(&self, b: Buffer) -> Pointer {
        let none = Pointer(0);
        match b {
            Buffer::Slot(s) => self.slots[s.0 as usize].at(),
            Buffer::Input(i) => Input::ALL.iter().position(|x| *x == i).map_or(none, |i| self.inputs[i].at()),
            Buffer::State(node) => self.cache.buffer(node).map_or(none, DeviceBuffer::at),
            Buffer::Scratch => self.scratch.at(),
            Buffer::Side(at) => self.side.at().offset(at),
            Buffer::Stale(node, i) => self.stale.get(&(node, i)).map_or(none, DeviceBuffer::at),
            Buffer::Weight(_) | Buffer::Table(_) => self.model.fixed(b).unwrap_or(none),
        }
    }

    /// Launches a step: one by one, or all at once where the same was launched before.
    fn launch_all(&mut self, stream: &mut dyn Stream, work: &Work<'_>, phase: Phase) -> Result<(), BackendError> {
        // Prompts are cut into steps of a size each; a graph of one would hardly be used again. Faults change from step to step.
        let one_by_one = self.model.launching != Launching::Replayed || self.model.device.timing();
        if one_by_one || phase != Phase::Decode || !self.model.faults.is_empty() {
            return self.launch_each(stream, work);
        }
        let late = |e: DriverError| self.model.late(&e);
        let key = GraphKey { step: work.step, extra: work.extra.id, at: [self.scratch.at(), self.side.at()] };
        match self.graphs.get(&key) {
            Some(Some(graph)) => stream.replay(graph).map_err(|e| self.replay_error(e, work)),
            // The first time kernels may have to be loaded, which can't be captured.
            None => {
                self.graphs.seen(key).into_iter().for_each(|old| stream.forget(old));
                self.launch_each(stream, work)
            }
            Some(None) => {
                stream.begin_capture().map_err(late)?;
                let launched = self.launch_each(stream, work);
                let graph = stream.end_capture().map_err(late);
                if let (Err(_), Ok(half)) = (&launched, &graph) {
                    stream.forget(*half);
                }
                launched?;
                let graph = graph?;
                self.graphs.captured(&key, graph);
                stream.replay(graph).map_err(|e| self.replay_error(e, work))
            }
        }
    }

    /// The step's launches in order: the op if they are one's, the node they are of.
    fn launched<'a>(&'a self, work: &Work<'a>) -> impl Iterator<Item = (Option<NodeId>, &'a str, &'a [Ready])> {
        let g = self.model.plan.graph();
        let (mut taps, top) = (work.extra.taps.iter(), &*work.extra.top_ready);
        let stages = self.model.stages.iter().zip(work.launches).map(move |(stage, ready)| match stage {
            Stage::Op(id) => (Some(*id), &*g.node(*id).name, &**ready),
            // Where nobody listens, taps launch nothing.
            Stage::Tap(point) => (None, &*g.node(point.tap).name, taps.next().map_or(&[][..], |t| &t.ready)),
        });
        stages.chain([(None, "logits", top)])
    }

    fn launch_each(&self, stream: &mut dyn Stream, work: &Work<'_>) -> Result<(), BackendError> {
        for (op, node, ready) in self.launched(work) {
            ready.iter().try_for_each(|r| self.execute(stream, node, r))?;
            if let Some(id) = op {
                self.keep(stream, id, &work.step).map_err(|e| self.model.late(&e))?;
            }
        }
        Ok(())
    }

    /// An error of a replay, with the node where the driver says which launch it was.
    fn replay_error(&self, e: DriverError, work: &Work<'_>) -> BackendError {
        let DriverError::InReplay { launch, why } = e else { return self.model.late(&e) };
        let all = self.launched(work).flat_map(|(_, node, list)| list.iter().map(move |r| (node, &r.launch)));
        let found = all.filter(|(_, l)| !is_empty(&l.size)).nth(launch);
        let why = DriverError::Fault(why);
        found.map_or_else(|| self.model.late(&why), |(node, l)| self.model.kernel_error(node, l.kernel, &why))
    }

    /// Keeps the operands of a node whose fault is to read them again in the next step.
    fn keep(&self, stream: &mut dyn Stream, id: NodeId, step: &Step) -> Result<(), DriverError> {
        let g = self.model.plan.graph();
        for (i, &v) in g.operands(id).iter().enumerate() {
            if let Some(to) = self.stale.get(&(id, i as u8)) {
                stream.copy(self.address(self.model.place(v)), to.at(), g.desc(v).bytes(&step.bindings()))?;
            }
        }
        Ok(())
    }

    /// Sends what the step brings, apart from what is there already.
    fn write_inputs(&mut self, stream: &mut dyn Stream, batch: &Batch) -> Result<(), DriverError> {
        let table = self.cache.table().block_table();
        for ((input, buffer), sent) in Input::ALL.iter().zip(&self.inputs).zip(&mut self.sent) {
            let list = match input {
                Input::Tokens => &batch.tokens,
                Input::Positions => &batch.positions,
                Input::Seqs => &batch.seqs,
                Input::Slots => &batch.slots,
                Input::RowsWanted => &batch.rows,
                Input::BlockTable => &table,
            };
            if !list.is_empty() && *sent != *list {
                let bytes: Vec<u8> = list.iter().flat_map(|v| v.to_le_bytes()).collect();
                // What an error leaves there is unknown.
                sent.clear();
                stream.write(buffer.at(), &bytes)?;
                sent.extend_from_slice(list);
            }
        }
        Ok(())
    }

    /// Sends the lists of tapped rows, if they are not there already. They lie before what kernels write.
    fn write_lists(
        &mut self,
        stream: &mut dyn Stream,
        extra: &Extra,
        rows: &[Vec<Row>],
        batch: &Batch,
    ) -> Result<(), DriverError> {
        let mut lists = Vec::with_capacity(extra.lists as usize);
        self.points().zip(rows).for_each(|(point, rows)| point.list(rows, batch, &mut lists));
        let now = (self.side.at(), lists);
        if extra.found[1] > 0 && self.listed != now {
            // What an error leaves there is unknown; a step without lists writes its results there.
            self.listed.1.clear();
            if !now.1.is_empty() {
                stream.write(now.0, &now.1)?;
            }
            self.listed = now;
        }
        Ok(())
    }
}

/// What a step launches, once its inputs are on the device.
struct Work<'a> {
    step: Step,
    launches: &'a StepLaunches,
    extra: &'a Extra,
}

impl Session for HipSession {
    fn run_tapped(
        &mut self,
        batch: &Batch,
        want: Want,
        at: StepAt,
        sink: &mut dyn TapSink,
    ) -> Result<StepOut, BackendError> {
        let driver = self.model.driver;
        let bad = |e: DriverError| failed(driver, &e);
        if let Some(e) = self.cache.take_failure() {
            return Err(bad(e));
        }
        self.check(batch)?;
        let step = self.step_of(batch);
        let launches = self.launches(step, at.phase)?;
        let rows = self.tapped(at, batch, sink);
        let top = match want {
            Want::TopK(n) if step.rows > 0 => n,
            _ => 0,
        };
        let key = ExtraKey { step, phase: at.phase, rows: rows.iter().map(Vec::len).collect(), top };
        let extra = self.extra(key, &launches)?;
        // Room first, so that no address changes once work is on the stream.
        let scratch = launches.iter().flatten().map(|r| r.launch.scratch).max().unwrap_or(0).max(extra.scratch);
        self.scratch.reserve(scratch as usize, "scratch").map_err(bad)?;
        self.side.reserve(extra.found[1] as usize, "taps and results").map_err(bad)?;

        let stream = self.stream.clone();
        let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = &mut **stream;
        self.write_inputs(stream, batch).map_err(|e| self.model.late(&e))?;
        self.write_lists(stream, &extra, &rows, batch).map_err(|e| self.model.late(&e))?;
        self.launch_all(stream, &Work { step, launches: &launches, extra: &extra }, at.phase)?;
        let (out, found) = self.collect(stream, &step, batch, want, &extra)?;
        self.warm = true;
        let g = self.model.plan.graph();
        for ((point, tapped), rows) in self.points().zip(&extra.taps).zip(&rows) {
            let (room, route) = (&tapped.room, &*tapped.route);
            point.deliver((rows, room), (&found, extra.found[0]), (g, route), at, batch, sink)?;
        }
        Ok(out)
    }

    fn kv(&mut self) -> &mut dyn KvOps {
        &mut self.cache
    }

    fn limits(&self) -> (usize, usize) {
        (self.model.max_tokens, self.model.max_rows)
    }
}
