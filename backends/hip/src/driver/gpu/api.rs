//! The calls of a GPU's runtime that are used. HIP's map one to one onto those of NVIDIA's driver, so that everything above
//! this trait is written once; what is proven on one holds for the other as far as the calls do.

use crate::Target;
use crate::driver::DriverError;

/// What a call gives back.
pub(super) type Called<T> = Result<T, DriverError>;

/// Something a driver keeps: a context, module, function, stream, event or graph. Zero is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Handle(pub usize);

/// What a driver says of a device.
pub(crate) struct Properties {
    pub name: String,
    /// The architecture, in compilers' words.
    pub arch: String,
    pub memory: u64,
    pub units: u32,
}

/// One kernel's launch.
pub(crate) struct LaunchCall<'a> {
    pub function: Handle,
    pub grid: [u32; 3],
    pub block: u32,
    /// Packed as the kernel's parameters are declared.
    pub args: &'a [u8],
    pub stream: Handle,
    /// Whether it may start while the launch before it runs, on devices that can.
    pub early: bool,
}

/// A source as a run-time compiler takes it.
pub(crate) struct Unit<'a> {
    pub name: &'a str,
    pub text: &'a str,
    pub headers: &'a [(&'static str, &'a str)],
    pub options: &'a [String],
}

/// A compiled module, and what the compiler said.
pub(crate) struct Image {
    pub code: Vec<u8>,
    pub log: String,
}

/// A GPU's runtime. The library is loaded when the first function is called; [`Api::libraries`] says first whether it is there.
///
/// Every function but `libraries`, `load`, versions and `compile` works on the context that is current to the calling thread.
pub(crate) trait Api: Send + Sync + 'static {
    /// The name users give after `hip:`.
    const NAME: &'static str;
    /// How the files of its libraries begin.
    const LIBRARIES: &'static [&'static str];
    /// What there are kernels for, for people.
    const TARGETS: &'static str;
    /// Threads that may compile at a time.
    const COMPILERS: usize;

    /// Loads the libraries and checks that they have every function used here.
    fn libraries() -> Called<()>;
    /// The same, and starts the runtime, which fails where it sees no device.
    fn load() -> Called<()>;
    /// The driver's version, for people.
    fn version() -> Called<String>;
    fn devices() -> Called<usize>;
    fn properties(ordinal: usize) -> Called<Properties>;

    /// The device's context.
    fn context(ordinal: usize) -> Called<Handle>;
    /// Makes a context the calling thread's.
    fn enter(context: Handle, ordinal: usize) -> Called<()>;
    /// Throws away everything on the device: after an error that leaves its context useless.
    fn reset(ordinal: usize) -> Called<()>;

    /// Free bytes, all bytes.
    fn memory() -> Called<(u64, u64)>;
    fn alloc(bytes: usize) -> Called<u64>;
    fn free(at: u64) -> Called<()>;
    /// Memory of the host that the device copies from without another copy.
    fn alloc_host(bytes: usize) -> Called<*mut u8>;
    fn free_host(at: *mut u8) -> Called<()>;

    fn stream() -> Called<Handle>;
    fn drop_stream(stream: Handle) -> Called<()>;
    fn wait(stream: Handle) -> Called<()>;
    fn event() -> Called<Handle>;
    fn drop_event(event: Handle) -> Called<()>;
    fn record(event: Handle, stream: Handle) -> Called<()>;
    fn wait_event(event: Handle) -> Called<()>;
    /// Milliseconds between two events that are reached.
    fn elapsed(from: Handle, to: Handle) -> Called<f64>;

    /// Host to device.
    ///
    /// # Safety
    /// `from` points to `bytes` bytes that stay as they are until the stream is through.
    unsafe fn write(to: u64, from: *const u8, bytes: usize, stream: Handle) -> Called<()>;
    /// Device to host.
    ///
    /// # Safety
    /// `to` points to `bytes` bytes that nobody else looks at until the stream is through.
    unsafe fn read(to: *mut u8, from: u64, bytes: usize, stream: Handle) -> Called<()>;
    fn copy(to: u64, from: u64, bytes: usize, stream: Handle) -> Called<()>;

    fn load_module(image: &[u8]) -> Called<Handle>;
    fn unload_module(module: Handle) -> Called<()>;
    fn function(module: Handle, name: &str) -> Called<Handle>;
    fn launch(call: &LaunchCall<'_>) -> Called<()>;

    fn begin_capture(stream: Handle) -> Called<()>;
    /// The captured launches, ready to run.
    fn end_capture(stream: Handle) -> Called<Handle>;
    fn launch_graph(graph: Handle, stream: Handle) -> Called<()>;
    fn drop_graph(graph: Handle) -> Called<()>;

    /// The run-time compiler's version: part of the cache's key.
    fn compiler() -> Called<String>;
    /// Options every module is compiled with.
    fn options(target: Target) -> Vec<String>;
    fn compile(unit: &Unit<'_>) -> Called<Image>;
}
