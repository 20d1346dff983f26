//! Drivers of real GPUs. One device and one stream over [`api::Api`], whose two implementations are `amd` and `nvidia`.

mod amd;
mod api;
mod context;
mod nvidia;
mod nvrtc;
mod profile;
mod rocm;
mod staging;
mod stream;
mod unit;

pub(crate) use amd::Amd;
pub(crate) use nvidia::Nvidia;

use super::{Device, DeviceInfo, Driver, DriverError, Function, Pointer, Stream};
use crate::cache;
use crate::compile;
use crate::kernels::Source;
use api::{Api, Called, Handle, Image, Unit};
use context::Context;
use greta_backend::{KernelProfile, KernelRun};
use profile::Profile;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use stream::GpuStream;

/// A driver of real GPUs.
pub(crate) struct Gpu<A> {
    /// A folder with the kernels' sources, in place of those in the binary.
    pub kernels: Option<PathBuf>,
    pub api: PhantomData<A>,
}

impl<A: Api> Driver for Gpu<A> {
    fn name(&self) -> &'static str {
        A::NAME
    }

    fn files(&self) -> Result<Vec<String>, DriverError> {
        A::libraries()?;
        Ok(mapped(A::LIBRARIES))
    }

    fn compiler(&self) -> Result<String, DriverError> {
        A::libraries()?;
        A::compiler()
    }

    fn devices(&self) -> Result<Vec<DeviceInfo>, DriverError> {
        A::load()?;
        (0..A::devices()?).map(info::<A>).collect()
    }

    fn open(&self, ordinal: usize) -> Result<Arc<dyn Device>, DriverError> {
        A::load()?;
        let count = A::devices()?;
        if ordinal >= count {
            let known = match count {
                0 => "there is none".into(),
                1 => "the only one is number 0".into(),
                n => format!("there are 0 to {}", n - 1),
            };
            return Err(DriverError::Absent(format!("there is no device {ordinal}; {known}")));
        }
        let info = info::<A>(ordinal)?;
        info.usable.clone().map_err(DriverError::Absent)?;
        let context = Context::of::<A>(ordinal)?;
        Ok(Arc::new(GpuDevice(Arc::new(Shared::<A> {
            info,
            context,
            kernels: self.kernels.clone(),
            modules: Mutex::default(),
            images: Mutex::default(),
            functions: RwLock::default(),
            sizes: Mutex::default(),
            used: AtomicU64::new(0),
            counting: AtomicBool::new(false),
            profile: Mutex::default(),
            api: PhantomData,
        }))))
    }
}

/// What a device is. One that there are no kernels for is listed all the same.
fn info<A: Api>(ordinal: usize) -> Called<DeviceInfo> {
    let p = A::properties(ordinal)?;
    let (target, usable) = match crate::Target::from_name(&p.arch) {
        Some(target) => (target, Ok(())),
        None => {
            (crate::Target::Gfx942, Err(format!("{}: it is {}; the kernels are for {}", p.name, p.arch, A::TARGETS)))
        }
    };
    let (driver, compiler) = (A::version()?, A::compiler()?);
    let (name, arch, memory, units) = (p.name, p.arch, p.memory, p.units);
    Ok(DeviceInfo { name, target, arch, memory, units, driver, compiler, usable })
}

/// The files that libraries of these names were loaded from, where the system tells.
fn mapped(names: &[&str]) -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let path = |name: &&str| maps.lines().filter_map(|l| l.get(l.find('/')?..)).find(|p| p.contains(*name));
    names.iter().map(|name| path(name).unwrap_or(name).to_string()).collect()
}

/// A kernel that was loaded.
#[derive(Clone)]
struct Loaded {
    handle: Handle,
    name: String,
    source: String,
}

struct Shared<A: Api> {
    info: DeviceInfo,
    context: Arc<Context>,
    kernels: Option<PathBuf>,
    modules: Mutex<HashMap<Source, Handle>>,
    /// Compiled and not yet loaded.
    images: Mutex<HashMap<Source, Vec<u8>>>,
    functions: RwLock<Vec<Loaded>>,
    sizes: Mutex<HashMap<u64, u64>>,
    used: AtomicU64,
    /// Whether launches are timed.
    counting: AtomicBool,
    profile: Mutex<Profile>,
    api: PhantomData<A>,
}

/// A lock whose holder panicked guards nothing that could be half done here.
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<A: Api> Shared<A> {
    /// Makes the device the calling thread's.
    fn enter(&self) -> Called<()> {
        self.context.enter::<A>()
    }

    fn waited(&self, result: Called<()>) -> Called<()> {
        self.context.waited(result)
    }

    fn called<T>(&self, result: Called<T>) -> Called<T> {
        self.context.called::<A, T>(result)
    }

    /// Module and kernel.
    fn named(&self, f: Function) -> Option<(String, String)> {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        functions.get(f.0 as usize).map(|l| (l.source.clone(), l.name.clone()))
    }

    fn module(&self, source: &Source) -> Called<Handle> {
        let mut modules = lock(&self.modules);
        if let Some(known) = modules.get(source) {
            return Ok(*known);
        }
        let ready = lock(&self.images).remove(source);
        let made = self.called(A::load_module(&ready.map_or_else(|| self.image(source), Ok)?));
        let module = made.map_err(|e| match e {
            DriverError::Call { .. } => DriverError::Module { module: source.to_string(), why: e.to_string() },
            lost => lost,
        })?;
        modules.insert(source.clone(), module);
        Ok(module)
    }

    /// The module's code, from the cache on disk or the run-time compiler.
    fn image(&self, source: &Source) -> Called<Vec<u8>> {
        let texts = compile::texts(source, self.kernels.as_deref())?;
        let mut options = A::options(self.info.target);
        options.extend(source.defines.iter().map(|(name, value)| format!("-D{name}={value}")));
        let key = cache::key(source, &texts, &format!("{} {} {options:?}", A::NAME, self.info.compiler));
        if let Some([code]) = cache::load(&key) {
            return Ok(code);
        }
        let failed = |text: String| DriverError::Compile { source_name: source.to_string(), text };
        let main = texts.iter().find(|(name, _)| *name == source.file);
        let (name, text) = main.ok_or_else(|| failed("is not part of this build".into()))?;
        let headers: Vec<(&'static str, &str)> =
            texts.iter().filter(|(n, _)| *n != source.file).map(|(n, t)| (*n, &**t)).collect();
        let Image { code, log } = A::compile(&Unit { name, text, headers: &headers, options: &options })
            .map_err(|e| failed(e.to_string()))?;
        if !log.trim().is_empty() && self.kernels.is_some() {
            compile::notice(&format!("{source}:\n{}", log.trim()));
        }
        cache::store(&key, [&code]);
        Ok(code)
    }
}

impl<A: Api> Drop for Shared<A> {
    fn drop(&mut self) {
        // What is on a device that is lost goes with its context.
        if self.context.is_lost() || self.enter().is_err() {
            return;
        }
        for (_, module) in lock(&self.modules).drain() {
            let _ = A::unload_module(module);
        }
    }
}

struct GpuDevice<A: Api>(Arc<Shared<A>>);

impl<A: Api> Device for GpuDevice<A> {
    fn info(&self) -> &DeviceInfo {
        &self.0.info
    }

    fn used(&self) -> u64 {
        self.0.used.load(Relaxed)
    }

    fn alloc(&self, bytes: usize, what: &str) -> Result<Pointer, DriverError> {
        self.0.enter()?;
        let at = A::alloc(bytes).map_err(|e| match A::memory() {
            Ok((free, _)) if free < bytes as u64 + (64 << 20) => {
                DriverError::OutOfMemory { what: what.into(), wanted: bytes as u64, free }
            }
            _ => e,
        });
        let at = self.0.called(at)?;
        self.0.used.fetch_add(bytes as u64, Relaxed);
        lock(&self.0.sizes).insert(at, bytes as u64);
        Ok(Pointer(at))
    }

    fn free(&self, at: Pointer) {
        if let Some(bytes) = lock(&self.0.sizes).remove(&at.0) {
            self.0.used.fetch_sub(bytes, Relaxed);
            // A device that is lost has nothing to give back.
            let _ = self.0.enter().and_then(|()| A::free(at.0));
        }
    }

    fn function(&self, source: &Source, kernel: &str) -> Result<Function, DriverError> {
        let name = source.to_string();
        let find = |list: &[Loaded]| list.iter().position(|f| f.name == kernel && f.source == name);
        if let Some(known) = find(&self.0.functions.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(Function(known as u32));
        }
        self.0.enter()?;
        let module = self.0.module(source)?;
        let handle = A::function(module, kernel)
            .map_err(|e| DriverError::Module { module: name.clone(), why: format!("has no kernel `{kernel}`: {e}") })?;
        let mut functions = self.0.functions.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = find(&functions) {
            return Ok(Function(known as u32));
        }
        functions.push(Loaded { handle, name: kernel.into(), source: name });
        Ok(Function(functions.len() as u32 - 1))
    }

    fn prepare(&self, sources: &[Source], stop: &(dyn Fn() -> bool + Sync)) {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(source) = sources.get(next.fetch_add(1, Relaxed)).filter(|_| !stop()) {
                // What is loaded already is not compiled again.
                let known = lock(&self.0.modules).contains_key(source);
                if let (false, Ok(code)) = (known, self.0.image(source)) {
                    lock(&self.0.images).insert(source.clone(), code);
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(A::COMPILERS).min(sources.len());
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    }

    fn stream(&self) -> Result<Box<dyn Stream>, DriverError> {
        self.0.enter()?;
        Ok(Box::new(GpuStream::new(self.0.clone())?))
    }

    fn count(&self, on: bool) {
        self.0.counting.store(on, Relaxed);
    }

    fn timing(&self) -> bool {
        self.0.counting.load(Relaxed)
    }

    fn profile(&self) -> Vec<KernelProfile> {
        lock(&self.0.profile).kernels(|f| self.0.named(f))
    }

    fn timeline(&self, known: usize) -> Vec<KernelRun> {
        lock(&self.0.profile).timeline(known, |f| self.0.named(f))
    }

    fn free_memory(&self) -> Option<u64> {
        self.0.enter().ok()?;
        A::memory().ok().map(|(free, _)| free)
    }
}
