//! NVIDIA's run-time compiler: sources to code for one architecture.

use super::api::{Called, Image, Unit};
use super::unit::{Texts, image};
use crate::driver::DriverError;
use cudarc::nvrtc::sys::{self as rtc, nvrtcResult};
use std::ffi::{CStr, c_char};
use std::ptr::null_mut;

/// The functions that are used.
pub(super) const FUNCTIONS: &[&str] = &[
    "nvrtcVersion",
    "nvrtcGetErrorString",
    "nvrtcCreateProgram",
    "nvrtcCompileProgram",
    "nvrtcDestroyProgram",
    "nvrtcGetCUBINSize",
    "nvrtcGetCUBIN",
    "nvrtcGetProgramLogSize",
    "nvrtcGetProgramLog",
];

fn check_rtc(call: &'static str, code: nvrtcResult) -> Called<()> {
    if code == nvrtcResult::NVRTC_SUCCESS {
        return Ok(());
    }
    // SAFETY: the text is a constant of the library, whatever the code.
    let why = unsafe { CStr::from_ptr(rtc::nvrtcGetErrorString(code)).to_string_lossy().into_owned() };
    Err(DriverError::Call { call, why })
}

/// Calls a function of the compiler and checks what it says.
macro_rules! nvrtc {
    ($name:ident($($arg:expr),* $(,)?)) => {{
        // SAFETY: the arguments are what the function is documented to take, with a program that was created and not yet
        // destroyed.
        let code = unsafe { rtc::$name($($arg),*) };
        check_rtc(stringify!($name), code)
    }};
}

/// The compiler's version.
pub(super) fn version() -> Called<String> {
    let (mut major, mut minor) = (0, 0);
    nvrtc!(nvrtcVersion(&mut major, &mut minor))?;
    Ok(format!("NVRTC {major}.{minor}"))
}

/// Compiles a module for the architecture its options name.
pub(super) fn compile(unit: &Unit<'_>) -> Called<Image> {
    let texts = Texts::of("nvrtcCreateProgram", unit)?;
    let (names, headers, flags) = (texts.header_names(), texts.headers(), texts.options());
    let (name, source, count) = (texts.name().as_ptr(), texts.source().as_ptr(), headers.len() as i32);
    let mut program = null_mut();
    nvrtc!(nvrtcCreateProgram(&mut program, source, name, count, headers.as_ptr(), names.as_ptr()))?;
    let made = compiled(program, &flags);
    nvrtc!(nvrtcDestroyProgram(&mut program))?;
    made
}

/// Compiles a program: its code, or what the compiler says of it.
fn compiled(program: rtc::nvrtcProgram, flags: &[*const c_char]) -> Called<Image> {
    let done = nvrtc!(nvrtcCompileProgram(program, flags.len() as i32, flags.as_ptr()));
    let mut size = 0;
    nvrtc!(nvrtcGetProgramLogSize(program, &mut size))?;
    let mut log = vec![0u8; size];
    nvrtc!(nvrtcGetProgramLog(program, log.as_mut_ptr().cast()))?;
    image("nvrtcCompileProgram", done, &log, || {
        nvrtc!(nvrtcGetCUBINSize(program, &mut size))?;
        let mut code = vec![0u8; size];
        nvrtc!(nvrtcGetCUBIN(program, code.as_mut_ptr().cast()))?;
        Ok(code)
    })
}
