//! What a machine is, as far as it decides how a GPU behaves: for the report of `greta doctor`.

use serde_json::{Map, Value, json};
use std::fs;

/// Variables that are told; no other one leaves the machine.
const VARIABLES: &[&str] = &[
    "GRETA_CLANG",
    "GRETA_KERNELS",
    "GRETA_KERNEL_CACHE",
    "GRETA_MAX_SEQ_LEN",
    "GRETA_MODEL",
    "ROCM_PATH",
    "HIP_PATH",
    "LD_LIBRARY_PATH",
    "HIP_LAUNCH_BLOCKING",
    "HSA_OVERRIDE_GFX_VERSION",
    "HSA_XNACK",
    "HSA_ENABLE_SDMA",
    "AMD_SERIALIZE_KERNEL",
    "AMD_SERIALIZE_COPY",
    "AMD_LOG_LEVEL",
    "GPU_MAX_HW_QUEUES",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_HOME",
];

/// Files with a version in their first line.
const VERSIONS: &[(&str, &str)] = &[
    ("kernel", "/proc/version"),
    ("amdgpu", "/sys/module/amdgpu/version"),
    ("nvidia", "/proc/driver/nvidia/version"),
    ("rocm", "/opt/rocm/.info/version"),
];

/// Versions, and the variables that are set.
pub fn facts() -> Value {
    let mut versions = Map::new();
    versions.insert("greta".into(), env!("CARGO_PKG_VERSION").into());
    for (name, path) in VERSIONS {
        if let Some(line) = fs::read_to_string(path).ok().as_deref().and_then(|t| t.lines().next()) {
            versions.insert(name.to_string(), line.trim().into());
        }
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if let Some(name) = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")) {
        versions.insert("system".into(), name.trim_matches('"').into());
    }
    let told = VARIABLES.iter().chain(greta::VISIBLE);
    let set = told.filter_map(|v| Some((v.to_string(), Value::from(std::env::var_os(v)?.to_string_lossy()))));
    json!({
        "machine": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        "versions": versions,
        "environment": set.collect::<Map<_, _>>(),
    })
}
