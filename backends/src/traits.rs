//! Backend, executable, session: all object-safe, so that a backend is chosen by a string.

use crate::{
    BackendError, Batch, DeviceRates, Fault, Injection, Interrupt, KvConfig, KvOps, NoTaps, RouteRule, StepAt, StepOut,
    TapSink, Want,
};
use greta_graph::{Pass, Plan};
use greta_ops::{Op, TensorDesc};
use serde::Serialize;
use std::sync::Arc;

/// A tensor of the model: type, shape, and its bytes as the file stores them.
#[derive(Clone, Debug)]
pub struct WeightView<'a> {
    /// Type and constant shape.
    pub desc: TensorDesc,
    /// Row after row.
    pub bytes: &'a [u8],
}

/// Where weights come from.
pub trait Weights: Send + Sync {
    /// The tensor of this name.
    fn tensor(&self, name: &str) -> Result<WeightView<'_>, BackendError>;

    /// The backend has its own copy now: the tensor's memory may be given back until someone reads it again.
    fn release(&self, _name: &str) {}
}

/// How to compile.
#[derive(Clone, Copy)]
pub struct CompileOptions<'a> {
    /// Most tokens in a step.
    pub max_tokens: usize,
    /// Most rows wanted in a step.
    pub max_rows: usize,
    /// Kernels forced on nodes; the first rule that fits decides. One that fits no node, or names a kernel the node does
    /// not have, is an error.
    pub routes: &'a [RouteRule],
    /// Faults built into kernels.
    pub faults: &'a [Injection],
    /// Told now and then how many bytes of weights are ready, of how many.
    pub progress: Option<&'a dyn Fn(u64, u64)>,
    /// Asked during steps, by backends whose steps take long, whether to stop: [`BackendError::Interrupted`].
    pub interrupt: Option<&'a Interrupt>,
}

impl Default for CompileOptions<'_> {
    fn default() -> Self {
        CompileOptions { max_tokens: 512, max_rows: 8, routes: &[], faults: &[], progress: None, interrupt: None }
    }
}

/// The size of a step that is planned and not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSize {
    /// Tokens of the step.
    pub tokens: usize,
    /// Rows wanted.
    pub rows: usize,
    /// Tokens of the longest sequence once the step is done.
    pub context: usize,
}

/// A launch of a kernel, as it can be printed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lowered {
    /// The node.
    pub node: String,
    /// Its op.
    pub op: String,
    /// The kernel's source and what is defined for it.
    pub module: String,
    /// The kernel.
    pub kernel: String,
    /// Workgroups.
    pub grid: [u32; 3],
    /// Threads of a workgroup.
    pub block: u32,
    /// Shared memory of a workgroup, bytes.
    pub lds: u32,
    /// Arguments, in order.
    pub args: Vec<String>,
    /// Bytes it must move: the op's operands and outputs, each once, and what lies between its kernels.
    pub bytes: u64,
    /// Operations, as [`greta_ops::OpSpec::flops`] counts them, and what it takes to fold partial results.
    pub flops: u64,
}

/// What launches of one kernel cost: all since its backend was opened where an emulator counts, those that
/// [`Backend::count`] asked for on a GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct KernelProfile {
    /// The kernel's source and what is defined for it.
    pub module: String,
    /// The kernel.
    pub kernel: String,
    /// How often it ran.
    pub launches: u64,
    /// Time it took: of the device, or of the host that emulates one.
    pub seconds: f64,
    /// What the driver counts, by name.
    pub counters: Vec<(&'static str, u64)>,
}

/// One launch of a kernel, as a device timed it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct KernelRun {
    /// The node it is of.
    pub node: String,
    /// The kernel's source and what is defined for it.
    pub module: String,
    /// The kernel.
    pub kernel: String,
    /// Seconds from the beginning of the first launch that its session counted to this one's.
    pub start: f64,
    /// Seconds it took.
    pub seconds: f64,
    /// Bytes it has to move at least.
    pub bytes: u64,
    /// Operations it has to do at least.
    pub operations: u64,
}

/// A kind of device.
pub trait Backend: Send + Sync {
    /// The name users give: `cpu`.
    fn name(&self) -> &'static str;

    /// The device and how it is used, for people.
    fn describe(&self) -> String;

    /// Names of the kernels that a route rule may force.
    fn kernels(&self) -> Vec<String> {
        Vec::new()
    }

    /// Faults that [`CompileOptions::faults`] may build into its kernels, each at the nodes it fits.
    fn faults(&self) -> Vec<Fault> {
        Vec::new()
    }

    /// Whether the backend wants this pass run. A fusion it has no kernel for is refused here.
    fn wants(&self, pass: &dyn Pass) -> bool;

    /// Whether there is a kernel for this op on these operands; if not, why.
    fn supports(&self, op: &Op, ins: &[&TensorDesc]) -> Result<(), String>;

    /// The kernels each op of a plan takes for a step, in order, where the backend lowers to launches that can be printed;
    /// no device and no weight is touched.
    fn lowering(&self, _: &Plan, _: &StepSize, _: &[RouteRule]) -> Result<Option<Vec<Lowered>>, BackendError> {
        Ok(None)
    }

    /// Whether kernels are timed from here on, on backends where that costs time; others count always.
    fn count(&self, _on: bool) {}

    /// What kernels cost so far, where the backend counts; the costliest first.
    fn profile(&self) -> Vec<KernelProfile> {
        Vec::new()
    }

    /// Each launch that was counted, in order and without the first `known`, where the backend times them.
    fn timeline(&self, _known: usize) -> Vec<KernelRun> {
        Vec::new()
    }

    /// What its device can do at best; measured, which takes a second. `None`: it has no speed of its own.
    fn rates(&self) -> Option<Result<DeviceRates, BackendError>> {
        None
    }

    /// Prepares weights and kernels.
    fn compile(
        &self,
        plan: Plan,
        weights: Arc<dyn Weights>,
        options: CompileOptions<'_>,
    ) -> Result<Arc<dyn Executable>, BackendError>;
}

/// A plan with its weights on a device.
pub trait Executable: Send + Sync {
    /// The plan.
    fn plan(&self) -> &Plan;

    /// The kernel each op takes for a step of this many tokens and rows, by node name.
    fn routes(&self, tokens: usize, rows: usize) -> Vec<(String, String)>;

    /// A session with an empty cache of its own. Several may be open.
    fn session(self: Arc<Self>, kv: KvConfig) -> Result<Box<dyn Session>, BackendError>;
}

/// A KV cache, and the buffers to run steps with.
pub trait Session: Send {
    /// Runs one step without its taps.
    fn run(&mut self, batch: &Batch, want: Want) -> Result<StepOut, BackendError> {
        self.run_tapped(batch, want, StepAt::of(batch), &mut NoTaps)
    }

    /// Runs one step and hands the rows its taps record to `sink`.
    fn run_tapped(
        &mut self,
        batch: &Batch,
        want: Want,
        at: StepAt,
        sink: &mut dyn TapSink,
    ) -> Result<StepOut, BackendError>;

    /// The cache.
    fn kv(&mut self) -> &mut dyn KvOps;

    /// Most tokens and rows in a step.
    fn limits(&self) -> (usize, usize);
}
