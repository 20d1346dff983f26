//! The driver `nvidia`: libcuda and libnvrtc, loaded when the first device is asked for.

use super::api::{Api, Called, Handle, Image, LaunchCall, Properties, Unit};
use super::nvrtc;
use super::unit::text;
use crate::Target;
use crate::driver::DriverError;
use cudarc::driver::sys::{self as cu, CUresult};
use cudarc::nvrtc::sys as rtc;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

/// NVIDIA's driver API.
pub(crate) struct Nvidia;

/// An error of a call, in the driver's words.
fn check(call: &'static str, code: CUresult) -> Called<()> {
    if code == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let mut text: [*const c_char; 2] = [null(); 2];
    // SAFETY: both write a pointer to a constant text, or leave null where they know no such code.
    let said = unsafe {
        let _ = cu::cuGetErrorName(code, &mut text[0]);
        let _ = cu::cuGetErrorString(code, &mut text[1]);
        text.map(|t| if t.is_null() { "unknown".into() } else { CStr::from_ptr(t).to_string_lossy().into_owned() })
    };
    Err(DriverError::Call { call, why: format!("{} ({}, code {})", said[1], said[0], code as u32) })
}

/// Calls a function of the driver and checks what it says. Every function named so is looked for by `libraries` first.
macro_rules! cuda {
    ($name:ident($($arg:expr),* $(,)?)) => {{
        // SAFETY: the arguments are what the function is documented to take; those that are pointers are to places that
        // live through the call.
        let code = unsafe { cu::$name($($arg),*) };
        check(stringify!($name), code)
    }};
}
const CUDA_FUNCTIONS: &[&str] = &[
    "cuInit",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceTotalMem_v2",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxReset_v2",
    "cuCtxSetCurrent",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemHostAlloc",
    "cuMemFreeHost",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuEventElapsedTime",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuLaunchKernelEx",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
];
fn find() -> Result<(), String> {
    let absent = |what: &str, install: &str| format!("{what} is not there; {install}");
    // SAFETY: loading NVIDIA's libraries runs their initialisers, which ask nothing of the process.
    let (driver, compiler) = unsafe { (cu::is_culib_present(), rtc::is_culib_present()) };
    if !driver {
        return Err(absent("libcuda.so.1", "it comes with NVIDIA's driver"));
    }
    if !compiler {
        let install = "it comes with the CUDA toolkit (package cuda-nvrtc); LD_LIBRARY_PATH says where else to look";
        return Err(absent("libnvrtc.so", install));
    }
    type Any = unsafe extern "C" fn();
    // SAFETY: the libraries are there; a symbol is only looked for.
    let lacks = unsafe {
        let (cuda, compiler) = (cu::culib(), rtc::culib());
        let missing = |lib: &libloading::Library, list: &'static [&str]| {
            list.iter().find(|n| lib.get::<Any>(n.as_bytes()).is_err()).copied()
        };
        missing(cuda, CUDA_FUNCTIONS).or_else(|| missing(compiler, nvrtc::FUNCTIONS))
    };
    lacks.map_or(Ok(()), |name| Err(format!("NVIDIA's libraries have no `{name}`: they are too old")))
}

fn handle<T>(p: *mut T) -> Handle {
    Handle(p as usize)
}
fn pointer<T>(h: Handle) -> *mut T {
    h.0 as *mut T
}

fn attribute(which: cu::CUdevice_attribute, device: cu::CUdevice) -> Called<u32> {
    let mut value = 0;
    cuda!(cuDeviceGetAttribute(&mut value, which, device))?;
    Ok(value as u32)
}

impl Api for Nvidia {
    const NAME: &'static str = "nvidia";
    const LIBRARIES: &'static [&'static str] = &["libcuda", "libnvrtc"];
    const TARGETS: &'static str = "sm_80 and newer";
    // NVRTC may be called from several threads.
    const COMPILERS: usize = 16;

    fn libraries() -> Called<()> {
        static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
        FOUND.get_or_init(find).clone().map_err(DriverError::Absent)
    }

    fn load() -> Called<()> {
        Self::libraries()?;
        cuda!(cuInit(0)).map_err(|e| DriverError::Absent(e.to_string()))
    }

    fn version() -> Called<String> {
        let mut version = 0;
        cuda!(cuDriverGetVersion(&mut version))?;
        Ok(format!("CUDA {}.{}", version / 1000, version % 1000 / 10))
    }

    fn devices() -> Called<usize> {
        let mut count = 0;
        cuda!(cuDeviceGetCount(&mut count))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    fn properties(ordinal: usize) -> Called<Properties> {
        // Ordinals are the driver's own numbers of devices.
        let device = ordinal as cu::CUdevice;
        let (mut name, mut memory) = ([0 as c_char; 128], 0usize);
        cuda!(cuDeviceGetName(name.as_mut_ptr(), name.len() as i32 - 1, device))?;
        cuda!(cuDeviceTotalMem_v2(&mut memory, device))?;
        use cu::CUdevice_attribute::*;
        let major = attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device)?;
        let minor = attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device)?;
        let arch = format!("sm_{}", major * 10 + minor);
        // SAFETY: the driver wrote a text that ends in zero; so does the array, whatever it wrote.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        Ok(Properties {
            name,
            arch,
            memory: memory as u64,
            units: attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device)?,
        })
    }

    fn context(ordinal: usize) -> Called<Handle> {
        let mut context = null_mut();
        cuda!(cuDevicePrimaryCtxRetain(&mut context, ordinal as cu::CUdevice))?;
        Ok(handle(context))
    }

    fn enter(context: Handle, _: usize) -> Called<()> {
        cuda!(cuCtxSetCurrent(pointer(context)))
    }

    fn reset(ordinal: usize) -> Called<()> {
        cuda!(cuDevicePrimaryCtxReset_v2(ordinal as cu::CUdevice))
    }

    fn memory() -> Called<(u64, u64)> {
        let (mut free, mut all) = (0, 0);
        cuda!(cuMemGetInfo_v2(&mut free, &mut all))?;
        Ok((free as u64, all as u64))
    }

    fn alloc(bytes: usize) -> Called<u64> {
        let mut at = 0;
        cuda!(cuMemAlloc_v2(&mut at, bytes))?;
        Ok(at)
    }

    fn free(at: u64) -> Called<()> {
        cuda!(cuMemFree_v2(at))
    }

    fn alloc_host(bytes: usize) -> Called<*mut u8> {
        let mut at = null_mut();
        cuda!(cuMemHostAlloc(&mut at, bytes, 0))?;
        Ok(at.cast())
    }

    fn free_host(at: *mut u8) -> Called<()> {
        cuda!(cuMemFreeHost(at.cast()))
    }

    fn stream() -> Called<Handle> {
        let mut stream = null_mut();
        cuda!(cuStreamCreate(&mut stream, cu::CUstream_flags::CU_STREAM_NON_BLOCKING as u32))?;
        Ok(handle(stream))
    }

    fn drop_stream(stream: Handle) -> Called<()> {
        cuda!(cuStreamDestroy_v2(pointer(stream)))
    }

    fn wait(stream: Handle) -> Called<()> {
        cuda!(cuStreamSynchronize(pointer(stream)))
    }

    fn event() -> Called<Handle> {
        let mut event = null_mut();
        cuda!(cuEventCreate(&mut event, 0))?;
        Ok(handle(event))
    }

    fn drop_event(event: Handle) -> Called<()> {
        cuda!(cuEventDestroy_v2(pointer(event)))
    }

    fn record(event: Handle, stream: Handle) -> Called<()> {
        cuda!(cuEventRecord(pointer(event), pointer(stream)))
    }

    fn wait_event(event: Handle) -> Called<()> {
        cuda!(cuEventSynchronize(pointer(event)))
    }

    fn elapsed(from: Handle, to: Handle) -> Called<f64> {
        type Elapsed = unsafe extern "C" fn(*mut f32, cu::CUevent, cu::CUevent) -> CUresult;
        let none = |e| DriverError::Call { call: "cuEventElapsedTime", why: format!("{e}") };
        let mut ms = 0.0;
        // SAFETY: the symbol is this function in every version of the driver; the bindings' name for it depends on theirs.
        let code = unsafe {
            let elapsed = cu::culib().get::<Elapsed>(b"cuEventElapsedTime\0").map_err(none)?;
            elapsed(&mut ms, pointer(from), pointer(to))
        };
        check("cuEventElapsedTime", code)?;
        Ok(f64::from(ms))
    }

    unsafe fn write(to: u64, from: *const u8, bytes: usize, stream: Handle) -> Called<()> {
        cuda!(cuMemcpyHtoDAsync_v2(to, from.cast(), bytes, pointer(stream)))
    }

    unsafe fn read(to: *mut u8, from: u64, bytes: usize, stream: Handle) -> Called<()> {
        cuda!(cuMemcpyDtoHAsync_v2(to.cast(), from, bytes, pointer(stream)))
    }

    fn copy(to: u64, from: u64, bytes: usize, stream: Handle) -> Called<()> {
        cuda!(cuMemcpyDtoDAsync_v2(to, from, bytes, pointer(stream)))
    }

    fn load_module(image: &[u8]) -> Called<Handle> {
        let mut module = null_mut();
        cuda!(cuModuleLoadData(&mut module, image.as_ptr().cast()))?;
        Ok(handle(module))
    }

    fn unload_module(module: Handle) -> Called<()> {
        cuda!(cuModuleUnload(pointer(module)))
    }

    fn function(module: Handle, name: &str) -> Called<Handle> {
        let name = text("cuModuleGetFunction", name)?;
        let mut function = null_mut();
        cuda!(cuModuleGetFunction(&mut function, pointer(module), name.as_ptr()))?;
        Ok(handle(function))
    }

    fn launch(call: &LaunchCall<'_>) -> Called<()> {
        let mut bytes = call.args.len();
        // The packed arguments, their length, the end.
        let mut extra = [
            cu::CU_LAUNCH_PARAM_BUFFER_POINTER_AS_INT as usize as *mut c_void,
            call.args.as_ptr().cast_mut().cast(),
            cu::CU_LAUNCH_PARAM_BUFFER_SIZE_AS_INT as usize as *mut c_void,
            (&raw mut bytes).cast(),
            null_mut(),
        ];
        let ([x, y, z], stream) = (call.grid, pointer(call.stream));
        let (function, block) = (pointer(call.function), call.block);
        // Kernels wait themselves for the one before (`await_inputs`), so that it need not have ended when they start.
        // SAFETY: the attribute is numbers, for which zero is a value.
        let mut early: cu::CUlaunchAttribute = unsafe { std::mem::zeroed() };
        early.id = cu::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        early.value.programmaticStreamSerializationAllowed = 1;
        let config = cu::CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: 0,
            hStream: stream,
            attrs: &mut early,
            numAttrs: u32::from(call.early),
        };
        cuda!(cuLaunchKernelEx(&config, function, null_mut(), extra.as_mut_ptr()))
    }

    fn begin_capture(stream: Handle) -> Called<()> {
        let mode = cu::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        cuda!(cuStreamBeginCapture_v2(pointer(stream), mode))
    }

    fn end_capture(stream: Handle) -> Called<Handle> {
        let (mut graph, mut ready) = (null_mut(), null_mut());
        cuda!(cuStreamEndCapture(pointer(stream), &mut graph))?;
        let made = cuda!(cuGraphInstantiateWithFlags(&mut ready, graph, 0));
        cuda!(cuGraphDestroy(graph))?;
        made.map(|()| handle(ready))
    }

    fn launch_graph(graph: Handle, stream: Handle) -> Called<()> {
        cuda!(cuGraphLaunch(pointer(graph), pointer(stream)))
    }

    fn drop_graph(graph: Handle) -> Called<()> {
        cuda!(cuGraphExecDestroy(pointer(graph)))
    }

    fn compiler() -> Called<String> {
        nvrtc::version()
    }

    fn options(target: Target) -> Vec<String> {
        let arch = format!("--gpu-architecture={target}");
        [&arch, "--std=c++17", "--fmad=false", "--generate-line-info", "--device-as-default-execution-space"]
            .map(String::from)
            .to_vec()
    }

    fn compile(unit: &Unit<'_>) -> Called<Image> {
        nvrtc::compile(unit)
    }
}
