//! The HIP backend: kernels for AMD's MI300X (gfx942), their lowering, and the drivers that run them.
//!
//! A plan is lowered to launches by pure functions; a driver compiles the modules they name and runs them in order on one
//! stream. Values lie where the plan puts them, weights as the file packs them, the KV cache in pages.
//!
//! Nothing here has run on AMD hardware: the driver `sim` executes the machine code that clang makes for gfx942 on the CPU.

mod cache;
mod checks;
mod checkup;
mod checkup_device;
pub mod compile;
mod devices;
pub mod driver;
mod executable;
mod graphs;
pub mod kernels;
mod kv;
pub mod lower;
mod measure;
mod memory;
mod printed;
mod session;
mod taps;
mod target;

pub use checkup::{VISIBLE, check_up};
pub use devices::devices;
pub use measure::{bandwidth, matrix_rate};
pub use target::Target;

use driver::gpu::{Amd, Gpu, Nvidia};
use driver::sim::Sim;
use driver::{Device, Driver, DriverError};
use greta_backend::{
    Backend, BackendError, CompileOptions, DeviceRates, Executable, Fault, KernelProfile, KernelRun, Lowered,
    RouteRule, StepSize, Weights,
};
use greta_graph::{Pass, Plan};
use greta_ops::{Op, TensorDesc};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;

/// How to use a device.
#[derive(Clone, Debug)]
pub struct HipOptions {
    /// Threads of the host, for the emulator.
    pub threads: usize,
    /// A folder with the kernels' sources, in place of those in the binary; `GRETA_KERNELS` by default.
    pub kernels: Option<PathBuf>,
    /// How steps are launched.
    pub launching: Launching,
}

/// How a step's kernels are launched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Launching {
    /// Decode steps are captured once and replayed.
    #[default]
    Replayed,
    /// Every kernel of every step by itself: tells whether a wrong number comes from the replay.
    Eager,
    /// The same, and each is waited for before the next: tells which kernel a device's error comes from, and whether a wrong
    /// number comes from kernels that overlap.
    Waited,
    /// The same, and each is named on standard error before: where an error ends the whole process, as ROCm's runtime does at
    /// an access of memory that is not there, the last line names the kernel.
    Named,
}

impl HipOptions {
    /// With this many threads of the host.
    pub fn threads(threads: usize) -> HipOptions {
        let kernels = std::env::var_os(compile::KERNELS_VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
        HipOptions { threads, kernels, launching: Launching::default() }
    }
}

/// The backend on one device, or for a target alone.
pub struct Hip {
    name: &'static str,
    target: Target,
    device: Option<Arc<dyn Device>>,
    /// Whether the device is a program on the host, which has no speed to measure.
    emulated: bool,
    launching: Launching,
}

impl Hip {
    /// Opens a device. `which` is what the user wrote after `hip`: nothing for the best there is, `:sim` or `:sim:0` for a
    /// driver and its device, `:gfx942` for a target that is planned for and not run on.
    pub fn open(which: &str, options: HipOptions) -> Result<Hip, BackendError> {
        if let Some(target) = which.strip_prefix(':').and_then(Target::from_name) {
            return Ok(Hip { name: "hip", target, device: None, emulated: false, launching: options.launching });
        }
        let (word, number) = parse(which)?;
        let drivers = drivers(&options);
        let chosen = match word {
            // The first that has a device; the emulator, which is the last, always has one.
            "" => drivers.iter().find(|(_, d)| d.devices().is_ok_and(|list| !list.is_empty())).or(drivers.last()),
            _ => drivers.iter().find(|(_, d)| d.name() == word),
        };
        let Some((name, driver)) = chosen else {
            let known: Vec<_> = drivers.iter().map(|(_, d)| d.name().to_string()).collect();
            let targets: Vec<_> = Target::ALL.iter().map(Target::to_string).collect();
            return Err(BackendError::Device(format!(
                "hip has no driver or target `{word}`; drivers: {}; targets to plan for: {}",
                known.join(", "),
                targets.join(", ")
            )));
        };
        let device = driver.open(number).map_err(|e| failed(driver.name(), &e))?;
        Ok(Hip {
            name,
            target: device.info().target,
            device: Some(device),
            emulated: driver.emulated(),
            launching: options.launching,
        })
    }
}

/// The driver's name, empty for the best, and the device's number of what the user wrote after `hip`.
fn parse(which: &str) -> Result<(&str, usize), BackendError> {
    let Some(rest) = which.strip_prefix(':') else { return Ok(("", 0)) };
    let (word, ordinal) = rest.split_once(':').map_or((rest, None), |(word, n)| (word, Some(n)));
    if word.is_empty() {
        let text = format!("hip{which} names no driver after the colon; plain hip takes the best there is");
        return Err(BackendError::Device(text));
    }
    if ordinal.is_some() && Target::from_name(word).is_some() {
        let text = format!("hip{which}: {word} is a target to plan for and has no device number; give hip:{word}");
        return Err(BackendError::Device(text));
    }
    match ordinal.map(str::parse) {
        None => Ok((word, 0)),
        Some(Ok(n)) => Ok((word, n)),
        Some(Err(_)) => Err(BackendError::Device(format!("hip{which}: expected hip:{word}:NUMBER"))),
    }
}

/// Every driver, with the backend's name on it, the best first.
fn drivers(options: &HipOptions) -> [(&'static str, Box<dyn Driver>); 3] {
    let kernels = || options.kernels.clone();
    [
        ("hip:amd", Box::new(Gpu { kernels: kernels(), api: PhantomData::<Amd> })),
        ("hip:nvidia", Box::new(Gpu { kernels: kernels(), api: PhantomData::<Nvidia> })),
        ("hip:sim", Box::new(Sim { threads: options.threads, kernels: kernels() })),
    ]
}

impl Hip {
    /// Bytes this backend holds on its device.
    pub fn memory_used(&self) -> u64 {
        self.device.as_ref().map_or(0, |d| d.used())
    }
}

/// A driver's error outside a step.
fn failed(driver: &str, e: &DriverError) -> BackendError {
    BackendError::Device(format!("hip:{driver}: {e}"))
}

impl Backend for Hip {
    fn name(&self) -> &'static str {
        self.name
    }

    fn describe(&self) -> String {
        match &self.device {
            Some(device) => format!("{}: {}", self.name, device.info().name),
            None => format!("{}: plans alone", self.target),
        }
    }

    fn kernels(&self) -> Vec<String> {
        lower::ROUTES.iter().map(|r| r.to_string()).collect()
    }

    fn faults(&self) -> Vec<Fault> {
        lower::fault::FAULTS.to_vec()
    }

    fn wants(&self, _: &dyn Pass) -> bool {
        true
    }

    fn supports(&self, op: &Op, ins: &[&TensorDesc]) -> Result<(), String> {
        lower::supports(op, ins)
    }

    fn lowering(&self, plan: &Plan, at: &StepSize, routes: &[RouteRule]) -> Result<Option<Vec<Lowered>>, BackendError> {
        printed::lowering(plan, self.target, at, routes).map(Some)
    }

    fn count(&self, on: bool) {
        if let Some(device) = &self.device {
            device.count(on);
        }
    }

    fn profile(&self) -> Vec<KernelProfile> {
        self.device.as_ref().map_or(Vec::new(), |d| d.profile())
    }

    fn timeline(&self, known: usize) -> Vec<KernelRun> {
        self.device.as_ref().map_or(Vec::new(), |d| d.timeline(known))
    }

    fn rates(&self) -> Option<Result<DeviceRates, BackendError>> {
        let device = self.device.as_ref().filter(|_| !self.emulated)?;
        Some(measure::rates(device).map_err(|e| failed(self.name.trim_start_matches("hip:"), &e)))
    }

    fn compile(
        &self,
        plan: Plan,
        weights: Arc<dyn Weights>,
        options: CompileOptions<'_>,
    ) -> Result<Arc<dyn Executable>, BackendError> {
        let Some(device) = &self.device else {
            let on = match self.target {
                Target::Gfx942 => "hip:amd or hip:sim",
                Target::Sm(_) => "hip:nvidia",
            };
            let text = format!("hip:{} names a target, not a device; run on {on}, or use `greta plan`", self.target);
            return Err(BackendError::Device(text));
        };
        let driver = self.name.trim_start_matches("hip:");
        executable::compile(driver, (device.clone(), self.launching), plan, &*weights, options)
    }
}
