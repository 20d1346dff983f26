//! The driver `sim`: gfx942 machine code, executed on the host's cores by the emulator.
//!
//! A launch runs when it is made, so streams and events are in order by themselves.

use super::{Captured, Device, DeviceInfo, Driver, DriverError, Event, Function, Note, Pointer, Size, Stream};
use crate::Target;
use crate::compile::Clang;
use crate::kernels::Source;
use greta_backend::{KernelProfile, KernelRun};
use greta_gfx942::{Counts, Launch, Memory, Program};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Memory the emulated device has: as much of it is promised as the host can give.
const MEMORY: u64 = 192 << 30;
/// Compute units of an MI300X.
const UNITS: u32 = 304;

/// Instructions after which a wave is taken to run for ever, in place of the emulator's own limit.
pub const LIMIT_VARIABLE: &str = "GRETA_SIM_INSTRUCTIONS";

/// The limit that the variable gives.
fn limit(given: Option<&str>) -> Result<u64, DriverError> {
    let Some(text) = given.filter(|t| !t.is_empty()) else { return Ok(greta_gfx942::LIMIT) };
    let wrong = || DriverError::Absent(format!("{LIMIT_VARIABLE}={text}: expected a number of instructions above 0"));
    text.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)
}

/// The driver.
#[derive(Clone, Debug)]
pub struct Sim {
    /// Host threads.
    pub threads: usize,
    /// A folder with the kernels' sources, in place of those in the binary.
    pub kernels: Option<PathBuf>,
}

impl Driver for Sim {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn emulated(&self) -> bool {
        true
    }

    fn files(&self) -> Result<Vec<String>, DriverError> {
        Ok(vec!["part of greta".into()])
    }

    fn compiler(&self) -> Result<String, DriverError> {
        Ok(Clang::get()?.version().into())
    }

    fn devices(&self) -> Result<Vec<DeviceInfo>, DriverError> {
        Ok(vec![self.info()?])
    }

    fn open(&self, ordinal: usize) -> Result<Arc<dyn Device>, DriverError> {
        if ordinal > 0 {
            return Err(DriverError::Absent(format!("there is no device {ordinal}; the emulated one is number 0")));
        }
        let limit = limit(std::env::var(LIMIT_VARIABLE).ok().as_deref())?;
        Ok(Arc::new(SimDevice(Arc::new(Shared {
            info: self.info()?,
            memory: Memory::new(MEMORY),
            threads: self.threads,
            kernels: self.kernels.clone(),
            limit,
            modules: Mutex::default(),
            functions: RwLock::default(),
            profile: Mutex::default(),
            counting: AtomicBool::new(false),
            timeline: Mutex::default(),
            first: OnceLock::new(),
        }))))
    }
}

impl Sim {
    /// The name says what decides a run's bits: records of runs keep it.
    fn info(&self) -> Result<DeviceInfo, DriverError> {
        let clang = Clang::get()?;
        let kernels = crate::compile::describe_sources(self.kernels.as_deref())?;
        let name =
            format!("gfx942 emulator on {} host threads, clang {}, kernels {kernels}", self.threads, clang.number());
        Ok(DeviceInfo {
            name,
            target: Target::Gfx942,
            arch: Target::Gfx942.to_string(),
            memory: MEMORY,
            units: UNITS,
            driver: "emulator".into(),
            compiler: self.compiler()?,
            usable: Ok(()),
        })
    }
}

/// What the emulator loaded.
#[derive(Clone)]
struct Kernel {
    program: Arc<Program>,
    name: String,
    source: String,
}

struct Shared {
    info: DeviceInfo,
    memory: Memory,
    threads: usize,
    kernels: Option<PathBuf>,
    limit: u64,
    modules: Mutex<HashMap<Source, Arc<Program>>>,
    functions: RwLock<Vec<Kernel>>,
    profile: Mutex<BTreeMap<(String, String), Cost>>,
    /// Whether launches are noted one by one, those that were, and when the first began.
    counting: AtomicBool,
    timeline: Mutex<Vec<KernelRun>>,
    first: OnceLock<Instant>,
}

/// A lock whose holder panicked guards nothing that could be half done here.
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

struct SimDevice(Arc<Shared>);

impl Device for SimDevice {
    fn info(&self) -> &DeviceInfo {
        &self.0.info
    }

    fn used(&self) -> u64 {
        self.0.memory.used()
    }

    fn alloc(&self, bytes: usize, what: &str) -> Result<Pointer, DriverError> {
        let at = self.0.memory.alloc(bytes, what).map_err(|_| DriverError::OutOfMemory {
            what: what.into(),
            wanted: bytes as u64,
            free: self.0.memory.limit().saturating_sub(self.0.memory.used()),
        })?;
        Ok(Pointer(at))
    }

    fn free(&self, at: Pointer) {
        // Only what was allocated is freed, once.
        let _ = self.0.memory.free(at.0);
    }

    fn function(&self, source: &Source, kernel: &str) -> Result<Function, DriverError> {
        let program = {
            let mut modules = lock(&self.0.modules);
            match modules.get(source) {
                Some(program) => program.clone(),
                None => {
                    let made = Clang::get()?.compile(source, Target::Gfx942, self.0.kernels.as_deref())?;
                    let program = Program::load(&made.code, &made.listing)
                        .map_err(|e| DriverError::Module { module: source.to_string(), why: e.to_string() })?;
                    let program = Arc::new(program);
                    modules.insert(source.clone(), program.clone());
                    program
                }
            }
        };
        if program.kernel(kernel).is_none() {
            return Err(DriverError::Module { module: source.to_string(), why: format!("has no kernel `{kernel}`") });
        }
        let source = source.to_string();
        let mut functions = self.0.functions.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = functions.iter().position(|f| f.name == kernel && f.source == source) {
            return Ok(Function(known as u32));
        }
        functions.push(Kernel { program, name: kernel.into(), source });
        Ok(Function(functions.len() as u32 - 1))
    }

    fn stream(&self) -> Result<Box<dyn Stream>, DriverError> {
        let device = self.0.clone();
        let note = Note::default();
        Ok(Box::new(SimStream { device, events: Vec::new(), noted: None, captured: Vec::new(), note }))
    }

    fn count(&self, on: bool) {
        self.0.counting.store(on, Relaxed);
    }

    fn timing(&self) -> bool {
        self.0.counting.load(Relaxed)
    }

    fn timeline(&self, known: usize) -> Vec<KernelRun> {
        lock(&self.0.timeline).iter().skip(known).cloned().collect()
    }

    fn profile(&self) -> Vec<KernelProfile> {
        let costs = lock(&self.0.profile);
        let mut list: Vec<KernelProfile> = costs.iter().map(|((module, kernel), c)| c.named(module, kernel)).collect();
        list.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        list
    }
}

/// What all launches of one kernel cost.
#[derive(Clone, Copy, Default)]
struct Cost {
    launches: u64,
    time: Duration,
    counts: Counts,
}

impl Cost {
    fn named(&self, module: &str, kernel: &str) -> KernelProfile {
        let c = &self.counts;
        KernelProfile {
            module: module.into(),
            kernel: kernel.into(),
            launches: self.launches,
            seconds: self.time.as_secs_f64(),
            counters: vec![
                ("instructions", c.instructions()),
                ("valu", c.valu),
                ("salu", c.salu),
                ("mfma", c.mfma),
                ("dot", c.dot),
                ("lds", c.lds),
                ("lds_conflict_cycles", c.lds_bank_conflict_cycles),
                ("loads", c.vmem_load),
                ("stores", c.vmem_store),
                ("scalar_loads", c.smem),
                ("branches", c.branch),
                ("atomics", c.atomic),
                ("barriers", c.barrier),
                ("waits", c.wait),
                ("other", c.other),
                ("bytes_read", c.global_bytes_read),
                ("bytes_written", c.global_bytes_written),
                ("waves", c.waves),
                ("workgroups", c.workgroups),
                ("lds_bytes", c.lds_bytes),
            ],
        }
    }
}

/// A launch that was noted: with its arguments and what is live.
type Noted = (Function, Size, Vec<u8>, Vec<(Pointer, u64)>);

struct SimStream {
    device: Arc<Shared>,
    events: Vec<Instant>,
    noted: Option<Vec<Noted>>,
    captured: Vec<Vec<Noted>>,
    /// What the next launch is for.
    note: Note,
}

impl SimStream {
    fn run(
        &self,
        kernel: Function,
        size: Size,
        args: &[u8],
        live: &[(Pointer, u64)],
        note: Note,
    ) -> Result<(), DriverError> {
        let found = {
            let functions = self.device.functions.read().unwrap_or_else(PoisonError::into_inner);
            functions.get(kernel.0 as usize).cloned()
        };
        let Some(k) = found else {
            return Err(DriverError::Call { call: "launch", why: format!("there is no function {}", kernel.0) });
        };
        let live: Vec<(u64, u64)> = live.iter().map(|(at, bytes)| (at.0, *bytes)).collect();
        let launch = Launch {
            kernel: &k.name,
            grid: size.grid,
            block: [size.block, 1, 1],
            dynamic_lds: 0,
            args,
            live: &live,
            limit: self.device.limit,
        };
        let start = Instant::now();
        let counts: Counts = greta_gfx942::run(&k.program, &self.device.memory, &launch, self.device.threads)
            .map_err(|fault| DriverError::Fault(fault.to_string()))?;
        let took = start.elapsed();
        if self.device.counting.load(Relaxed) {
            let first = *self.device.first.get_or_init(|| start);
            let Note { node, bytes, operations } = note;
            let (module, kernel) = (k.source.clone(), k.name.clone());
            let (start, seconds) = (start.saturating_duration_since(first).as_secs_f64(), took.as_secs_f64());
            let run = KernelRun { node, module, kernel, start, seconds, bytes, operations };
            lock(&self.device.timeline).push(run);
        }
        let mut costs = lock(&self.device.profile);
        let cost = costs.entry((k.source, k.name)).or_default();
        cost.launches += 1;
        cost.time += took;
        cost.counts += counts;
        Ok(())
    }

    fn call<E: std::fmt::Display>(call: &'static str) -> impl FnOnce(E) -> DriverError {
        move |e| DriverError::Call { call, why: e.to_string() }
    }
}

impl Stream for SimStream {
    fn write(&mut self, to: Pointer, bytes: &[u8]) -> Result<(), DriverError> {
        self.device.memory.write(to.0, bytes).map_err(Self::call("write"))
    }

    fn read_all(&mut self, parts: &mut [(Pointer, &mut [u8])]) -> Result<(), DriverError> {
        parts.iter_mut().try_for_each(|(from, out)| self.device.memory.read(from.0, out)).map_err(Self::call("read"))
    }

    fn copy(&mut self, from: Pointer, to: Pointer, bytes: usize) -> Result<(), DriverError> {
        self.device.memory.copy(to.0, from.0, bytes as u64).map_err(Self::call("copy"))
    }

    fn launch(
        &mut self,
        kernel: Function,
        size: Size,
        args: &[u8],
        live: &[(Pointer, u64)],
    ) -> Result<(), DriverError> {
        match &mut self.noted {
            Some(list) => {
                list.push((kernel, size, args.to_vec(), live.to_vec()));
                Ok(())
            }
            None => {
                let note = std::mem::take(&mut self.note);
                self.run(kernel, size, args, live, note)
            }
        }
    }

    fn note(&mut self, note: Note) {
        self.note = note;
    }

    fn wait(&mut self) -> Result<(), DriverError> {
        Ok(())
    }

    fn event(&mut self) -> Result<Event, DriverError> {
        self.events.push(Instant::now());
        Ok(Event(self.events.len() as u32 - 1))
    }

    fn elapsed(&mut self, from: Event, to: Event) -> Result<f64, DriverError> {
        match (self.events.get(from.0 as usize), self.events.get(to.0 as usize)) {
            (Some(a), Some(b)) => Ok(b.saturating_duration_since(*a).as_secs_f64() * 1e3),
            _ => Err(DriverError::Call { call: "elapsed", why: "there is no such event".into() }),
        }
    }

    fn begin_capture(&mut self) -> Result<(), DriverError> {
        self.noted = Some(Vec::new());
        Ok(())
    }

    fn end_capture(&mut self) -> Result<Captured, DriverError> {
        let none = || DriverError::Call { call: "end_capture", why: "no capture was begun".into() };
        self.captured.push(self.noted.take().ok_or_else(none)?);
        Ok(Captured(self.captured.len() as u32 - 1))
    }

    fn replay(&mut self, captured: Captured) -> Result<(), DriverError> {
        let none = || DriverError::Call { call: "replay", why: "nothing was captured".into() };
        let list = self.captured.get(captured.0 as usize).ok_or_else(none)?;
        list.iter().enumerate().try_for_each(|(launch, (kernel, size, args, live))| {
            let at = |e: DriverError| DriverError::InReplay { launch, why: e.to_string() };
            self.run(*kernel, *size, args, live, Note::default()).map_err(at)
        })
    }
}
