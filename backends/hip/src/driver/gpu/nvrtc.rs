//! NVIDIA's run-time compiler: sources to code for one architecture.

use super::api::{Called, Image, Unit};
use super::nvidia::text;
use crate::driver::DriverError;
use cudarc::nvrtc::sys::{self as rtc, nvrtcResult};
use std::ffi::{CStr, CString, c_char};
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
    let name = text("nvrtcCreateProgram", unit.name)?;
    let source = text("nvrtcCreateProgram", unit.text)?;
    let texts = |list: Vec<&str>| list.into_iter().map(|t| text("nvrtcCreateProgram", t)).collect::<Called<Vec<_>>>();
    let names = texts(unit.headers.iter().map(|(n, _)| *n).collect())?;
    let headers = texts(unit.headers.iter().map(|(_, t)| *t).collect())?;
    let options = texts(unit.options.iter().map(String::as_str).collect())?;
    let pointers = |list: &[CString]| list.iter().map(|c| c.as_ptr()).collect::<Vec<_>>();
    let (names, headers, flags) = (pointers(&names), pointers(&headers), pointers(&options));
    let mut program = null_mut();
    let count = headers.len() as i32;
    nvrtc!(nvrtcCreateProgram(&mut program, source.as_ptr(), name.as_ptr(), count, headers.as_ptr(), names.as_ptr()))?;
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
    let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_string();
    done.map_err(|e| match log.trim() {
        "" => e,
        said => DriverError::Call { call: "nvrtcCompileProgram", why: said.into() },
    })?;
    nvrtc!(nvrtcGetCUBINSize(program, &mut size))?;
    let mut code = vec![0u8; size];
    nvrtc!(nvrtcGetCUBIN(program, code.as_mut_ptr().cast()))?;
    Ok(Image { code, log })
}
