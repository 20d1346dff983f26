//! AMD's libraries: whether they are there, and whether they have every function that `amd` calls.
//!
//! The bindings end the process at a function that a library lacks, so each is looked for first.

use cubecl_hip_sys as hip;
use libloading::Library;
use std::env;
use std::path::{Path, PathBuf};

const HIP_FUNCTIONS: &[&str] = &[
    "hipInit",
    "hipGetErrorName",
    "hipGetErrorString",
    "hipRuntimeGetVersion",
    "hipGetDeviceCount",
    "hipGetDevicePropertiesR0600",
    "hipSetDevice",
    "hipDeviceReset",
    "hipMemGetInfo",
    "hipMalloc",
    "hipFree",
    "hipHostMalloc",
    "hipHostFree",
    "hipStreamCreateWithFlags",
    "hipStreamDestroy",
    "hipStreamSynchronize",
    "hipEventCreate",
    "hipEventDestroy",
    "hipEventRecord",
    "hipEventSynchronize",
    "hipEventElapsedTime",
    "hipMemcpyHtoDAsync",
    "hipMemcpyDtoHAsync",
    "hipMemcpyDtoDAsync",
    "hipModuleLoadData",
    "hipModuleUnload",
    "hipModuleGetFunction",
    "hipModuleLaunchKernel",
    "hipStreamBeginCapture",
    "hipStreamEndCapture",
    "hipGraphInstantiate",
    "hipGraphLaunch",
    "hipGraphDestroy",
    "hipGraphExecDestroy",
];
const HIPRTC_FUNCTIONS: &[&str] = &[
    "hiprtcVersion",
    "hiprtcGetErrorString",
    "hiprtcCreateProgram",
    "hiprtcCompileProgram",
    "hiprtcDestroyProgram",
    "hiprtcGetCodeSize",
    "hiprtcGetCode",
    "hiprtcGetProgramLogSize",
    "hiprtcGetProgramLog",
];

/// Loads both libraries. An error says which is missing, or which function, and what to do.
pub(super) fn load() -> Result<(), String> {
    // The bindings keep both libraries, or neither.
    let there = hip::is_available();
    for (name, functions) in [("amdhip64", HIP_FUNCTIONS), ("hiprtc", HIPRTC_FUNCTIONS)] {
        let library = open(name).map_err(|why| absent(name, &why))?;
        type Any = unsafe extern "C" fn();
        // SAFETY: a symbol is only looked for.
        let lacks = |n: &&&str| unsafe { library.get::<Any>(n.as_bytes()) }.is_err();
        if let Some(function) = functions.iter().find(lacks) {
            return Err(format!("lib{name}.so has no `{function}`: it is not of ROCm 6 or newer, or it is damaged"));
        }
    }
    if there { Ok(()) } else { Err("AMD's libraries could not be loaded".into()) }
}

/// Folders that usually hold the libraries, the loader's own among them.
const FOLDERS: &[&str] = &["/opt/rocm/lib", "/opt/rocm/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib64"];

fn absent(name: &str, why: &str) -> String {
    let begins = format!("lib{name}.so");
    let of_runtime = |folder: &&str| {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
        files.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&begins))).max()
    };
    let hint = match FOLDERS.iter().find_map(of_runtime) {
        Some(path) if path.ends_with(&begins) => {
            let root = path.parent().and_then(Path::parent).unwrap_or(&path);
            format!("it lies in {}: export ROCM_PATH={}", path.display(), root.display())
        }
        // The bindings know the names .so, .so.1 and .so.0 alone.
        Some(path) => format!(
            "{} is there without the name {begins}: install HIP's development package, or link it as FOLDER/{begins} and \
             export ROCM_PATH=FOLDER",
            path.display()
        ),
        None => {
            "it comes with ROCm (HIP's runtime and development packages), and ROCM_PATH says where else to look".into()
        }
    };
    format!("{begins} is not there; {hint}{why}")
}

/// A library as the bindings find it: in ROCM_PATH and HIP_PATH, then where the loader looks.
fn open(name: &str) -> Result<Library, String> {
    let names = ["so", "so.1", "so.0"].map(|end| format!("lib{name}.{end}"));
    let folders = ["ROCM_PATH", "HIP_PATH"].into_iter().filter_map(env::var_os).flat_map(|p| {
        let path = PathBuf::from(p);
        [path.join("lib"), path]
    });
    let mut damaged = String::new();
    let inside: Vec<PathBuf> = folders.flat_map(|f| names.clone().map(|n| f.join(n))).filter(|p| p.exists()).collect();
    for path in inside.into_iter().chain(names.map(PathBuf::from)) {
        // SAFETY: loading AMD's libraries runs their initialisers, which ask nothing of the process.
        match unsafe { Library::new(&path) } {
            Ok(library) => return Ok(library),
            // A file that is there and can't be loaded says more than one that isn't.
            Err(e) if path.exists() => damaged += &format!("; {}: {e}", path.display()),
            Err(_) => {}
        }
    }
    Err(damaged)
}
