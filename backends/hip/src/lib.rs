//! The HIP backend: kernels for AMD's MI300X (gfx942), their lowering, and the drivers that run them.
//!
//! A plan is lowered to launches by pure functions; a driver compiles the modules they name and runs them in order on one
//! stream. Values lie where the plan puts them, weights as the file packs them, the KV cache in pages.
//!
//! Nothing here has run on AMD hardware: the driver `sim` executes the machine code that clang makes for gfx942 on the CPU.

mod checks;
pub mod compile;
pub mod driver;
mod executable;
pub mod kernels;
mod kv;
pub mod lower;
mod memory;
mod printed;
mod session;
mod taps;
mod target;

pub use target::Target;

use driver::sim::Sim;
use driver::{Device, Driver, DriverError};
use greta_backend::{
    Backend, BackendError, CompileOptions, Executable, Fault, KernelProfile, Lowered, RouteRule, StepSize, Weights,
};
use greta_graph::{Pass, Plan};
use greta_ops::{Op, TensorDesc};
use std::path::PathBuf;
use std::sync::Arc;

/// How to use a device.
#[derive(Clone, Debug)]
pub struct HipOptions {
    /// Threads of the host, for the emulator.
    pub threads: usize,
    /// A folder with the kernels' sources, in place of those in the binary; `GRETA_KERNELS` by default.
    pub kernels: Option<PathBuf>,
}

impl HipOptions {
    /// With this many threads of the host.
    pub fn threads(threads: usize) -> HipOptions {
        let kernels = std::env::var_os(compile::KERNELS_VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
        HipOptions { threads, kernels }
    }
}

/// The backend on one device, or for a target alone.
pub struct Hip {
    name: &'static str,
    target: Target,
    device: Option<Arc<dyn Device>>,
}

impl Hip {
    /// Opens a device. `which` is what the user wrote after `hip`: nothing for the best there is, `:sim` or `:sim:0` for a
    /// driver and its device, `:gfx942` for a target that is planned for and not run on.
    pub fn open(which: &str, options: HipOptions) -> Result<Hip, BackendError> {
        let mut words = which.split(':').skip(1);
        let (word, ordinal) = (words.next(), words.next());
        let sim = Sim { threads: options.threads, kernels: options.kernels };
        let (name, driver): (_, &dyn Driver) = match word {
            None | Some("sim") => ("hip:sim", &sim),
            Some(other) => match Target::from_name(other) {
                Some(target) if ordinal.is_none() => return Ok(Hip { name: "hip", target, device: None }),
                _ => {
                    let text = format!("hip has no driver or target `{other}` in this build; known: sim, gfx942");
                    return Err(BackendError::Device(text));
                }
            },
        };
        let ordinal = match ordinal.map(str::parse) {
            None => 0,
            Some(Ok(n)) => n,
            Some(Err(_)) => {
                return Err(BackendError::Device(format!("hip{which}: expected {name}:NUMBER")));
            }
        };
        let device = driver.open(ordinal).map_err(|e| failed(driver.name(), &e))?;
        Ok(Hip { name, target: device.info().target, device: Some(device) })
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

    fn profile(&self) -> Vec<KernelProfile> {
        self.device.as_ref().map_or(Vec::new(), |d| d.profile())
    }

    fn compile(
        &self,
        plan: Plan,
        weights: Arc<dyn Weights>,
        options: CompileOptions<'_>,
    ) -> Result<Arc<dyn Executable>, BackendError> {
        let Some(device) = &self.device else {
            let text = format!("hip:{} names a target, not a device; run on hip:sim, or use `greta plan`", self.target);
            return Err(BackendError::Device(text));
        };
        let driver = self.name.trim_start_matches("hip:");
        executable::compile(driver, device.clone(), plan, &*weights, options)
    }
}
