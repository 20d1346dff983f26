//! The driver `amd`: libamdhip64 and libhiprtc, loaded when the first device is asked for.
//!
//! It has never run on an AMD GPU. Its calls are those of `nvidia`, one to one; tests run them against a stand-in library.

use super::api::{Api, Called, Handle, Image, LaunchCall, Properties, Unit};
use super::unit::{Texts, image, text};
use crate::Target;
use crate::driver::DriverError;
use cubecl_hip_sys as hip;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

/// AMD's HIP.
pub(crate) struct Amd;

/// What follows in a launch's list is the packed arguments, where their size stands, or nothing: macros of HIP's header,
/// which the bindings leave out.
const LAUNCH_PARAM_BUFFER_POINTER: usize = 1;
const LAUNCH_PARAM_BUFFER_SIZE: usize = 2;
const LAUNCH_PARAM_END: usize = 3;

/// An error of a call, in the runtime's words.
fn check(call: &'static str, code: hip::hipError_t) -> Called<()> {
    if code == hip::HIP_SUCCESS {
        return Ok(());
    }
    // SAFETY: both give constant texts, whatever the code.
    let said = unsafe { [constant(hip::hipGetErrorName(code)), constant(hip::hipGetErrorString(code))] };
    Err(DriverError::Call { call, why: format!("{} ({}, code {code})", said[1], said[0]) })
}

fn check_rtc(call: &'static str, code: hip::hiprtcResult) -> Called<()> {
    if code == hip::hiprtcResult_HIPRTC_SUCCESS {
        return Ok(());
    }
    // SAFETY: the text is a constant of the library, whatever the code.
    let why = unsafe { constant(hip::hiprtcGetErrorString(code)) };
    Err(DriverError::Call { call, why })
}

/// # Safety
/// `text` is null or ends in zero.
unsafe fn constant(text: *const c_char) -> String {
    if text.is_null() {
        return "unknown".into();
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Calls a function of the runtime and checks what it says. Every function named so is looked for by
/// `libraries` first.
macro_rules! call {
    ($check:ident, $name:ident($($arg:expr),* $(,)?)) => {{
        // SAFETY: the arguments are what the function is documented to take; those that are pointers are to places that
        // live through the call.
        let code = unsafe { hip::$name($($arg),*) };
        $check(stringify!($name), code)
    }};
    ($name:ident($($arg:expr),* $(,)?)) => { call!(check, $name($($arg),*)) };
}

fn handle<T>(p: *mut T) -> Handle {
    Handle(p as usize)
}
fn pointer<T>(h: Handle) -> *mut T {
    h.0 as *mut T
}
fn device(at: u64) -> *mut c_void {
    at as *mut c_void
}

impl Api for Amd {
    const NAME: &'static str = "amd";
    const LIBRARIES: &'static [&'static str] = &["libamdhip64", "libhiprtc"];
    const TARGETS: &'static str = "gfx942";
    // Whether hiprtc may be called from several threads is not known.
    const COMPILERS: usize = 1;

    fn libraries() -> Called<()> {
        static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
        FOUND.get_or_init(super::rocm::load).clone().map_err(DriverError::Absent)
    }

    fn load() -> Called<()> {
        Self::libraries()?;
        call!(hipInit(0)).map_err(|e| DriverError::Absent(e.to_string()))
    }

    fn version() -> Called<String> {
        let mut version = 0;
        call!(hipRuntimeGetVersion(&mut version))?;
        Ok(format!("HIP {}.{}.{}", version / 10_000_000, version / 100_000 % 100, version % 100_000))
    }

    fn devices() -> Called<usize> {
        let mut count = 0;
        call!(hipGetDeviceCount(&mut count))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    fn properties(ordinal: usize) -> Called<Properties> {
        // SAFETY: the structure is numbers, texts and arrays of them, for all of which zero is a value.
        let mut p: hip::hipDeviceProp_tR0600 = unsafe { std::mem::zeroed() };
        call!(hipGetDevicePropertiesR0600(&mut p, ordinal as i32))?;
        // SAFETY: the runtime writes texts that end in zero.
        let (name, arch) = unsafe { (constant(p.name.as_ptr()), constant(p.gcnArchName.as_ptr())) };
        // Features follow the name: gfx942:sramecc+:xnack-
        let arch = arch.split(':').next().unwrap_or_default().to_string();
        Ok(Properties {
            name,
            arch,
            memory: p.totalGlobalMem as u64,
            units: u32::try_from(p.multiProcessorCount).unwrap_or(0),
        })
    }

    fn context(ordinal: usize) -> Called<Handle> {
        // HIP has no contexts; a thread chooses a device.
        call!(hipSetDevice(ordinal as i32))?;
        Ok(Handle(0))
    }

    fn enter(_: Handle, ordinal: usize) -> Called<()> {
        call!(hipSetDevice(ordinal as i32))
    }

    fn reset(ordinal: usize) -> Called<()> {
        call!(hipSetDevice(ordinal as i32))?;
        call!(hipDeviceReset())
    }

    fn memory() -> Called<(u64, u64)> {
        let (mut free, mut all) = (0, 0);
        call!(hipMemGetInfo(&mut free, &mut all))?;
        Ok((free as u64, all as u64))
    }

    fn alloc(bytes: usize) -> Called<u64> {
        let mut at = null_mut();
        call!(hipMalloc(&mut at, bytes))?;
        Ok(at as u64)
    }

    fn free(at: u64) -> Called<()> {
        call!(hipFree(device(at)))
    }

    fn alloc_host(bytes: usize) -> Called<*mut u8> {
        let mut at = null_mut();
        call!(hipHostMalloc(&mut at, bytes, hip::hipHostMallocDefault))?;
        Ok(at.cast())
    }

    fn free_host(at: *mut u8) -> Called<()> {
        call!(hipHostFree(at.cast()))
    }

    fn stream() -> Called<Handle> {
        let mut stream = null_mut();
        call!(hipStreamCreateWithFlags(&mut stream, hip::hipStreamNonBlocking))?;
        Ok(handle(stream))
    }

    fn drop_stream(stream: Handle) -> Called<()> {
        call!(hipStreamDestroy(pointer(stream)))
    }

    fn wait(stream: Handle) -> Called<()> {
        call!(hipStreamSynchronize(pointer(stream)))
    }

    fn event() -> Called<Handle> {
        let mut event = null_mut();
        call!(hipEventCreate(&mut event))?;
        Ok(handle(event))
    }

    fn drop_event(event: Handle) -> Called<()> {
        call!(hipEventDestroy(pointer(event)))
    }

    fn record(event: Handle, stream: Handle) -> Called<()> {
        call!(hipEventRecord(pointer(event), pointer(stream)))
    }

    fn wait_event(event: Handle) -> Called<()> {
        call!(hipEventSynchronize(pointer(event)))
    }

    fn elapsed(from: Handle, to: Handle) -> Called<f64> {
        let mut ms = 0.0;
        call!(hipEventElapsedTime(&mut ms, pointer(from), pointer(to)))?;
        Ok(f64::from(ms))
    }

    unsafe fn write(to: u64, from: *const u8, bytes: usize, stream: Handle) -> Called<()> {
        call!(hipMemcpyHtoDAsync(device(to), from.cast(), bytes, pointer(stream)))
    }

    unsafe fn read(to: *mut u8, from: u64, bytes: usize, stream: Handle) -> Called<()> {
        call!(hipMemcpyDtoHAsync(to.cast(), device(from), bytes, pointer(stream)))
    }

    fn copy(to: u64, from: u64, bytes: usize, stream: Handle) -> Called<()> {
        call!(hipMemcpyDtoDAsync(device(to), device(from), bytes, pointer(stream)))
    }

    fn load_module(image: &[u8]) -> Called<Handle> {
        let mut module = null_mut();
        call!(hipModuleLoadData(&mut module, image.as_ptr().cast()))?;
        Ok(handle(module))
    }

    fn unload_module(module: Handle) -> Called<()> {
        call!(hipModuleUnload(pointer(module)))
    }

    fn function(module: Handle, name: &str) -> Called<Handle> {
        let name = text("hipModuleGetFunction", name)?;
        let mut function = null_mut();
        call!(hipModuleGetFunction(&mut function, pointer(module), name.as_ptr()))?;
        Ok(handle(function))
    }

    fn launch(call: &LaunchCall<'_>) -> Called<()> {
        let mut bytes = call.args.len();
        let mut extra = [
            LAUNCH_PARAM_BUFFER_POINTER as *mut c_void,
            call.args.as_ptr().cast_mut().cast(),
            LAUNCH_PARAM_BUFFER_SIZE as *mut c_void,
            (&raw mut bytes).cast(),
            LAUNCH_PARAM_END as *mut c_void,
        ];
        let ([x, y, z], stream) = (call.grid, pointer(call.stream));
        let (function, block) = (pointer(call.function), call.block);
        call!(hipModuleLaunchKernel(function, x, y, z, block, 1, 1, 0, stream, null_mut(), extra.as_mut_ptr()))
    }

    fn begin_capture(stream: Handle) -> Called<()> {
        call!(hipStreamBeginCapture(pointer(stream), hip::hipStreamCaptureMode_hipStreamCaptureModeThreadLocal))
    }

    fn end_capture(stream: Handle) -> Called<Handle> {
        let (mut graph, mut ready) = (null_mut(), null_mut());
        call!(hipStreamEndCapture(pointer(stream), &mut graph))?;
        let made = call!(hipGraphInstantiate(&mut ready, graph, null_mut(), null_mut(), 0));
        call!(hipGraphDestroy(graph))?;
        made.map(|()| handle(ready))
    }

    fn launch_graph(graph: Handle, stream: Handle) -> Called<()> {
        call!(hipGraphLaunch(pointer(graph), pointer(stream)))
    }

    fn drop_graph(graph: Handle) -> Called<()> {
        call!(hipGraphExecDestroy(pointer(graph)))
    }

    fn compiler() -> Called<String> {
        let (mut major, mut minor) = (0, 0);
        call!(check_rtc, hiprtcVersion(&mut major, &mut minor))?;
        Ok(format!("hiprtc {major}.{minor} of {}", Self::version()?))
    }

    fn options(target: Target) -> Vec<String> {
        let arch = format!("--offload-arch={target}");
        [&arch, "-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-gline-tables-only", "-Wno-pass-failed"]
            .map(String::from)
            .to_vec()
    }

    fn compile(unit: &Unit<'_>) -> Called<Image> {
        let texts = Texts::of("hiprtcCreateProgram", unit)?;
        let (mut names, mut headers, mut flags) = (texts.header_names(), texts.headers(), texts.options());
        let (source, name, count) = (texts.source().as_ptr(), texts.name().as_ptr(), headers.len() as i32);
        let (list, called) = (headers.as_mut_ptr(), names.as_mut_ptr());
        let mut program = null_mut();
        call!(check_rtc, hiprtcCreateProgram(&mut program, source, name, count, list, called))?;
        let made = compiled(program, &mut flags);
        call!(check_rtc, hiprtcDestroyProgram(&mut program))?;
        made
    }
}

/// Compiles a program: its code, or what the compiler says of it.
fn compiled(program: hip::hiprtcProgram, flags: &mut [*const c_char]) -> Called<Image> {
    let done = call!(check_rtc, hiprtcCompileProgram(program, flags.len() as i32, flags.as_mut_ptr()));
    let mut size = 0;
    call!(check_rtc, hiprtcGetProgramLogSize(program, &mut size))?;
    let mut log = vec![0u8; size];
    call!(check_rtc, hiprtcGetProgramLog(program, log.as_mut_ptr().cast()))?;
    image("hiprtcCompileProgram", done, &log, || {
        call!(check_rtc, hiprtcGetCodeSize(program, &mut size))?;
        let mut code = vec![0u8; size];
        call!(check_rtc, hiprtcGetCode(program, code.as_mut_ptr().cast()))?;
        Ok(code)
    })
}
