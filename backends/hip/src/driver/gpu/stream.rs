//! A stream of a GPU.

use super::api::{Api, Called, Handle, LaunchCall};
use super::staging::Staging;
use super::{Shared, lock};
use crate::Target;
use crate::driver::{Captured, DriverError, Event, Function, Note, Pointer, Size, Stream};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

/// Timed launches that wait to be read: so many events are alive at a time.
const MOST_TIMED: usize = 4096;

pub(super) struct GpuStream<A: Api> {
    stream: Handle,
    staging: Staging<A>,
    /// A driver's handle by function: looked up without a lock.
    functions: Vec<Handle>,
    events: Vec<Handle>,
    graphs: Vec<Option<Handle>>,
    capturing: bool,
    /// Launches between two events each.
    timed: Vec<(Function, Note, [Handle; 2])>,
    /// What the next launch is for.
    note: Note,
    /// An event, and how many milliseconds after the first it was.
    base: Option<(Handle, f64)>,
    spare: Vec<Handle>,
    /// The last to go: what is above is given back to it.
    device: Arc<Shared<A>>,
}

impl<A: Api> GpuStream<A> {
    pub fn new(device: Arc<Shared<A>>) -> Called<GpuStream<A>> {
        let (stream, staging) = (A::stream()?, Staging::new()?);
        Ok(GpuStream {
            device,
            stream,
            staging,
            functions: Vec::new(),
            events: Vec::new(),
            graphs: Vec::new(),
            capturing: false,
            timed: Vec::new(),
            note: Note::default(),
            base: None,
            spare: Vec::new(),
        })
    }

    fn handle(&mut self, f: Function) -> Called<Handle> {
        if let Some(known) = self.functions.get(f.0 as usize) {
            return Ok(*known);
        }
        let all = self.device.functions.read().unwrap_or_else(PoisonError::into_inner);
        self.functions.extend(all.iter().skip(self.functions.len()).map(|l| l.handle));
        let none = || DriverError::Call { call: "launch", why: format!("there is no function {}", f.0) };
        self.functions.get(f.0 as usize).copied().ok_or_else(none)
    }

    fn mark(&mut self) -> Called<Handle> {
        let event = self.spare.pop().map_or_else(A::event, Ok)?;
        self.device.called(A::record(event, self.stream))?;
        Ok(event)
    }

    /// Adds up what the events say; everything before is done.
    fn read_times(&mut self) -> Called<()> {
        let mut profile = lock(&self.device.profile);
        let mut last = None;
        for (f, note, [from, to]) in self.timed.drain(..) {
            let (base, at) = *self.base.get_or_insert((from, 0.0));
            let start = at + self.device.called(A::elapsed(base, from))?;
            profile.add(f, note, start, self.device.called(A::elapsed(from, to))?);
            self.spare.push(to);
            // Milliseconds of an event long ago have few digits left for what is between two launches.
            if let Some((before, _)) = last.replace((from, start)).filter(|(before, _)| *before != base) {
                self.spare.push(before);
            }
        }
        if let (Some(now), Some((old, _))) = (last, self.base)
            && now.0 != old
        {
            self.spare.push(old);
            self.base = Some(now);
        }
        Ok(())
    }
}

impl<A: Api> Stream for GpuStream<A> {
    fn write(&mut self, to: Pointer, bytes: &[u8]) -> Result<(), DriverError> {
        self.device.enter()?;
        self.staging.write(&self.device, to.0, bytes, self.stream)
    }

    fn read_all(&mut self, parts: &mut [(Pointer, &mut [u8])]) -> Result<(), DriverError> {
        self.device.enter()?;
        self.staging.read(&self.device, parts, self.stream)?;
        self.read_times()
    }

    fn copy(&mut self, from: Pointer, to: Pointer, bytes: usize) -> Result<(), DriverError> {
        self.device.enter()?;
        self.device.called(A::copy(to.0, from.0, bytes, self.stream))
    }

    fn launch(&mut self, kernel: Function, size: Size, args: &[u8], _: &[(Pointer, u64)]) -> Result<(), DriverError> {
        self.device.enter()?;
        let function = self.handle(kernel)?;
        let timed = self.device.counting.load(Relaxed) && !self.capturing;
        let from = if timed { Some(self.mark()?) } else { None };
        // What is timed must not overlap.
        let early = !timed && matches!(self.device.info.target, Target::Sm(90..));
        let call = LaunchCall { function, grid: size.grid, block: size.block, args, stream: self.stream, early };
        self.device.called(A::launch(&call))?;
        if let Some(from) = from {
            let to = self.mark()?;
            let note = std::mem::take(&mut self.note);
            self.timed.push((kernel, note, [from, to]));
            if self.timed.len() >= MOST_TIMED {
                self.wait()?;
            }
        }
        Ok(())
    }

    fn note(&mut self, note: Note) {
        self.note = note;
    }

    fn wait(&mut self) -> Result<(), DriverError> {
        self.device.enter()?;
        self.device.waited(A::wait(self.stream))?;
        self.read_times()
    }

    fn event(&mut self) -> Result<Event, DriverError> {
        self.device.enter()?;
        let event = self.mark()?;
        self.events.push(event);
        Ok(Event(self.events.len() as u32 - 1))
    }

    fn elapsed(&mut self, from: Event, to: Event) -> Result<f64, DriverError> {
        self.device.enter()?;
        let get = |e: Event| {
            let none = || DriverError::Call { call: "elapsed", why: "there is no such event".into() };
            self.events.get(e.0 as usize).copied().ok_or_else(none)
        };
        let (from, to) = (get(from)?, get(to)?);
        self.device.waited(A::wait_event(to))?;
        self.device.called(A::elapsed(from, to))
    }

    fn begin_capture(&mut self) -> Result<(), DriverError> {
        self.device.enter()?;
        self.device.called(A::begin_capture(self.stream))?;
        self.capturing = true;
        Ok(())
    }

    fn end_capture(&mut self) -> Result<Captured, DriverError> {
        self.device.enter()?;
        self.capturing = false;
        self.graphs.push(Some(self.device.called(A::end_capture(self.stream))?));
        Ok(Captured(self.graphs.len() as u32 - 1))
    }

    fn replay(&mut self, captured: Captured) -> Result<(), DriverError> {
        self.device.enter()?;
        let none = || DriverError::Call { call: "replay", why: "nothing was captured".into() };
        let graph = self.graphs.get(captured.0 as usize).copied().flatten().ok_or_else(none)?;
        self.device.called(A::launch_graph(graph, self.stream))
    }

    fn forget(&mut self, captured: Captured) {
        if let Some(graph) = self.graphs.get_mut(captured.0 as usize).and_then(Option::take) {
            // A graph that is still running may be dropped; the driver keeps it until it is through.
            let _ = self.device.enter().and_then(|()| A::drop_graph(graph));
        }
    }
}

impl<A: Api> Drop for GpuStream<A> {
    fn drop(&mut self) {
        // Nothing that is given back here may still be in use. A device that is lost has nothing to give back.
        if self.device.enter().and_then(|()| self.device.waited(A::wait(self.stream))).is_err() {
            return;
        }
        let timed = self.timed.drain(..).flat_map(|(_, _, both)| both).chain(self.base.take().map(|(event, _)| event));
        for event in self.events.drain(..).chain(self.spare.drain(..)).chain(timed) {
            let _ = A::drop_event(event);
        }
        for graph in self.graphs.drain(..).flatten() {
            let _ = A::drop_graph(graph);
        }
        let _ = A::drop_stream(self.stream);
    }
}
