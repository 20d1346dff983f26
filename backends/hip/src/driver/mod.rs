//! What a GPU's driver does, behind one trait: devices, memory, streams, events, modules, launches, captured graphs.
//!
//! Nothing outside this folder names a driver's own functions.

pub(crate) mod gpu;
pub mod sim;

use crate::Target;
use crate::kernels::Source;
use greta_backend::{KernelProfile, KernelRun};
use std::sync::Arc;

/// An address in a device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pointer(pub u64);

impl Pointer {
    /// This many bytes further on.
    pub fn offset(self, bytes: u64) -> Pointer {
        Pointer(self.0 + bytes)
    }
}

/// A kernel of a loaded module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Function(pub u32);

/// A point in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event(pub u32);

/// A captured sequence of launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Captured(pub u32);

/// What a driver refused or a device did.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// Something that is to be installed first.
    #[error("{0}")]
    Absent(String),
    /// A source that does not compile.
    #[error("{source_name}: {text}")]
    Compile {
        /// The module.
        source_name: String,
        /// What the compiler said.
        text: String,
    },
    /// A module without this kernel, or with one that can't be loaded.
    #[error("module {module}: {why}")]
    Module {
        /// The module.
        module: String,
        /// What is wrong.
        why: String,
    },
    /// Device memory that can't be had.
    #[error("{wanted} bytes for {what}, of which {free} are free")]
    OutOfMemory {
        /// What for.
        what: String,
        /// How much.
        wanted: u64,
        /// What there is.
        free: u64,
    },
    /// A call of the driver that failed.
    #[error("{call}: {why}")]
    Call {
        /// The call.
        call: &'static str,
        /// What came back.
        why: String,
    },
    /// A kernel that did something wrong.
    #[error("{0}")]
    Fault(String),
    /// A launch of a captured sequence that did something wrong.
    #[error("launch {launch} of a replay: {why}")]
    InReplay {
        /// Which, from 0.
        launch: usize,
        /// What it did.
        why: String,
    },
    /// What a device reports at a wait or any call: something launched before went wrong, and the device is lost.
    #[error("{call}: {why}")]
    Device {
        /// The call that brought it to light.
        call: &'static str,
        /// What came back.
        why: String,
    },
    /// A device that an error before has left useless.
    #[error("the device is lost since `{0}`; open the backend again")]
    Lost(String),
    /// The same, and its driver gives this process no other context.
    #[error(
        "the device is lost since `{lost}`, and its driver gives this process no other context ({why}); start greta again"
    )]
    Gone {
        /// The error that left it useless.
        lost: String,
        /// What the driver said when it was asked again.
        why: String,
    },
}

/// What a device is.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// Its name, for people.
    pub name: String,
    /// What kernels are compiled for.
    pub target: Target,
    /// Its architecture, which kernels may not be for.
    pub arch: String,
    /// Bytes of memory.
    pub memory: u64,
    /// Compute units.
    pub units: u32,
    /// The driver's version, for people.
    pub driver: String,
    /// The version of the compiler that makes its kernels, for people.
    pub compiler: String,
    /// Whether there are kernels for it, and why not.
    pub usable: Result<(), String>,
}

/// How many workgroups of how many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Workgroups.
    pub grid: [u32; 3],
    /// Threads of a workgroup.
    pub block: u32,
}

/// What a launch is for, and what it has to move and to do at least.
#[derive(Clone, Debug, Default)]
pub struct Note {
    /// The node.
    pub node: String,
    /// Bytes.
    pub bytes: u64,
    /// Operations.
    pub operations: u64,
}

/// A kind of driver.
pub trait Driver: Send + Sync {
    /// The name users give after `hip:`.
    fn name(&self) -> &'static str;

    /// Whether its devices are programs on the host.
    fn emulated(&self) -> bool {
        false
    }

    /// The files it is loaded from, or what is missing.
    fn files(&self) -> Result<Vec<String>, DriverError>;

    /// The version of the compiler that makes its kernels.
    fn compiler(&self) -> Result<String, DriverError>;

    /// The devices it has.
    fn devices(&self) -> Result<Vec<DeviceInfo>, DriverError>;

    /// Opens a device.
    fn open(&self, ordinal: usize) -> Result<Arc<dyn Device>, DriverError>;
}

/// A device.
pub trait Device: Send + Sync {
    /// What it is.
    fn info(&self) -> &DeviceInfo;

    /// Bytes in use.
    fn used(&self) -> u64;

    /// Memory; its contents are undefined.
    fn alloc(&self, bytes: usize, what: &str) -> Result<Pointer, DriverError>;

    /// Gives memory back.
    fn free(&self, at: Pointer);

    /// Compiles a module, or takes it from the cache, and loads it. A second call gives the same functions.
    fn function(&self, source: &Source, kernel: &str) -> Result<Function, DriverError>;

    /// Compiles modules that will be asked for, where that takes long enough to be done beside other work; `stop` ends it
    /// early. What goes wrong is said when a kernel is asked for.
    fn prepare(&self, _sources: &[Source], _stop: &(dyn Fn() -> bool + Sync)) {}

    /// A stream: work on it runs in order.
    fn stream(&self) -> Result<Box<dyn Stream>, DriverError>;

    /// Whether launches are timed from here on.
    fn count(&self, on: bool);

    /// Whether each launch is timed, so that launches must be made one by one.
    fn timing(&self) -> bool;

    /// Bytes nobody uses, where the driver says.
    fn free_memory(&self) -> Option<u64> {
        None
    }

    /// What each kernel cost: while launches were timed, or ever since where counting costs nothing.
    fn profile(&self) -> Vec<KernelProfile>;

    /// Each launch that was timed, in order, without the first `known`.
    fn timeline(&self, known: usize) -> Vec<KernelRun>;
}

/// Work in order.
pub trait Stream: Send {
    /// Host to device.
    fn write(&mut self, to: Pointer, bytes: &[u8]) -> Result<(), DriverError>;

    /// Device to host, when everything before is done: several places with one wait.
    fn read_all(&mut self, parts: &mut [(Pointer, &mut [u8])]) -> Result<(), DriverError>;

    /// The same from one place.
    fn read(&mut self, from: Pointer, out: &mut [u8]) -> Result<(), DriverError> {
        self.read_all(&mut [(from, out)])
    }

    /// Device to device.
    fn copy(&mut self, from: Pointer, to: Pointer, bytes: usize) -> Result<(), DriverError>;

    /// Runs a kernel; `args` are packed as its parameters are declared. `live`: addresses, and how many bytes from there on
    /// the kernel may touch, for drivers that check; none of them is no limit.
    fn launch(&mut self, kernel: Function, size: Size, args: &[u8], live: &[(Pointer, u64)])
    -> Result<(), DriverError>;

    /// What the next launch is for, if it is timed.
    fn note(&mut self, note: Note);

    /// Waits for everything before.
    fn wait(&mut self) -> Result<(), DriverError>;

    /// Marks a point.
    fn event(&mut self) -> Result<Event, DriverError>;

    /// Milliseconds between two points, once both are reached.
    fn elapsed(&mut self, from: Event, to: Event) -> Result<f64, DriverError>;

    /// From here on launches are noted, not run.
    fn begin_capture(&mut self) -> Result<(), DriverError>;

    /// Ends what [`Stream::begin_capture`] began.
    fn end_capture(&mut self) -> Result<Captured, DriverError>;

    /// Runs what was captured.
    fn replay(&mut self, captured: Captured) -> Result<(), DriverError>;

    /// What was captured is not run again.
    fn forget(&mut self, _: Captured) {}
}
