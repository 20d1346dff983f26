//! Whether a driver and its device work, from the library to a replayed graph: the first half of `greta doctor`.
//!
//! The checks are in the order in which one is of no use without those before it. They need no model.

use crate::checkup_device::{MODULE, on_device};
use crate::driver::{DeviceInfo, Driver};
use crate::{HipOptions, drivers, parse};
use greta_backend::{BackendError, Check, CheckStatus, Checked, Checkup, Interrupt};
use std::path::{Path, PathBuf};

const ACCESS: Checked = Checked {
    name: "device files",
    advice: "The kernel's driver is not loaded (`sudo modprobe amdgpu`, `dmesg | grep amdgpu`), or this user may not use \
             it: `sudo usermod -a -G render,video $USER`, then log in again. In a container: `--device /dev/kfd --device \
             /dev/dri --group-add render --group-add video`",
};
const LIBRARY: Checked = Checked {
    name: "driver library",
    advice: "The runtime's libraries can't be loaded, or lack a function. Install ROCm 6 or newer with HIP's development \
             packages and export ROCM_PATH if it is not in the loader's path; for NVIDIA, the driver and the CUDA toolkit's \
             NVRTC",
};
const COMPILER: Checked = Checked {
    name: "run-time compiler",
    advice: "What compiles kernels does not answer: the library beside the driver's (look for two versions of it in ROCM_PATH, \
             HIP_PATH and LD_LIBRARY_PATH), for the emulator clang, which the finding says how to install",
};
const DEVICES: Checked = Checked {
    name: "devices visible",
    advice: "The runtime does not start or sees no GPU. Look at HIP_VISIBLE_DEVICES, ROCR_VISIBLE_DEVICES and CUDA_VISIBLE_DEVICES, which it \
             obeys before greta counts, at `rocminfo` or `nvidia-smi`, and at the device files",
};
const OPENED: Checked = Checked {
    name: "device opens",
    advice: "There are kernels for gfx942 (MI300X, MI300A) and for NVIDIA from sm_80 on; another device is refused by name. \
             `-b hip:DRIVER:NUMBER` takes another one",
};

/// Where Linux has the device of AMD's compute driver, and those of its GPUs.
const KFD: &str = "/dev/kfd";
const DRI: &str = "/dev/dri";

/// Variables that the runtimes read and that decide which devices there are.
pub const VISIBLE: &[&str] =
    &["HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"];

/// Checks the driver and device that `which` names, as [`crate::Hip::open`] reads it. Without a name GPUs alone are looked
/// for: that the emulator works says nothing about this machine's.
pub fn check_up(which: &str, options: &HipOptions, stop: &Interrupt) -> Result<Checkup, BackendError> {
    let (word, ordinal) = parse(which)?;
    let all = drivers(options);
    let named: Vec<&(&str, Box<dyn Driver>)> =
        all.iter().filter(|(_, d)| if word.is_empty() { !d.emulated() } else { d.name() == word }).collect();
    if named.is_empty() {
        return Err(BackendError::Device(format!("hip{which} names no driver whose devices could be checked")));
    }
    let has = |d: &dyn Driver| d.devices().is_ok_and(|l| !l.is_empty());
    let loads = |d: &dyn Driver| d.files().is_ok();
    let chosen = named.iter().find(|(_, d)| has(&**d)).or_else(|| named.iter().find(|(_, d)| loads(&**d)));
    let mut run = Sequence { checks: Vec::new(), failed: None };
    let amd = named.iter().any(|(_, d)| d.name() == "amd");
    run.checks.push(access(amd, chosen.is_some_and(|(_, d)| d.name() == "amd") || word == "amd"));
    run.step(LIBRARY, || match chosen {
        Some((name, d)) => d.files().map(|f| format!("{name}: {}", f.join(", "))).map_err(|e| e.to_string()),
        None => {
            let why = |(name, d): &&(&str, Box<dyn Driver>)| d.files().err().map(|e| format!("{name}: {e}"));
            Err(named.iter().filter_map(why).collect::<Vec<_>>().join("; "))
        }
    });
    let none = || "no driver was found".to_string();
    let driver = || chosen.map(|(_, d)| &**d).ok_or_else(none);
    run.step(COMPILER, || driver()?.compiler().map_err(|e| e.to_string()));
    let mut list: Vec<DeviceInfo> = Vec::new();
    run.step(DEVICES, || {
        list = driver()?.devices().map_err(|e| e.to_string())?;
        let set = VISIBLE.iter().filter_map(|v| Some(format!("{v}={}", std::env::var_os(v)?.display())));
        let set: Vec<String> = set.collect();
        let set = if set.is_empty() { "no variable hides one".into() } else { set.join(", ") };
        let one = |(i, d): (usize, &DeviceInfo)| format!("{i}: {} ({}, {})", d.name, d.arch, d.driver);
        let found: Vec<String> = list.iter().enumerate().map(one).collect();
        if found.is_empty() { Err(format!("none; {set}")) } else { Ok(format!("{}; {set}", found.join(", "))) }
    });
    let mut device = None;
    run.step(OPENED, || {
        let opened = driver()?.open(ordinal).map_err(|e| e.to_string())?;
        let info = opened.info();
        let found = format!("{}, {} compute units, {} MiB", info.name, info.units, info.memory >> 20);
        device = Some(opened);
        Ok(found)
    });
    stop.check()?;
    let failed = run.failed.map(|name| format!("`{name}` failed"));
    on_device(device.as_ref(), failed.as_deref(), stop, &mut run.checks)?;
    let name = chosen.map(|(name, _)| format!("{name}:{ordinal}"));
    let kernels = !run.checks.iter().any(|c| c.name == MODULE.name && c.status == CheckStatus::Fail);
    Ok(Checkup { checks: run.checks, device: name.filter(|_| device.is_some()), kernels })
}

/// Checks of which the first that fails keeps the others from being made.
struct Sequence {
    checks: Vec<Check>,
    failed: Option<&'static str>,
}

impl Sequence {
    fn step(&mut self, what: Checked, check: impl FnOnce() -> Result<String, String>) {
        let done = match self.failed {
            Some(name) => what.skipped(format!("`{name}` failed")),
            None => {
                let result = check();
                self.failed = result.is_err().then_some(what.name);
                what.ended(result)
            }
        };
        self.checks.push(done);
    }
}

/// Whether the device files of AMD's driver can be used. `asked`: an AMD GPU might be meant; `wanted`: it is.
fn access(asked: bool, wanted: bool) -> Check {
    if !cfg!(target_os = "linux") || !asked {
        return ACCESS.skipped("no AMD GPU of a Linux machine is asked for");
    }
    if !Path::new(KFD).exists() {
        // The library says whether a device can be had without; here it is what is usually missing.
        return ACCESS.skipped(match wanted {
            true => format!("there is no {KFD}: the amdgpu driver is not loaded, or this container has no GPU"),
            false => format!("there is no {KFD}: this machine has no AMD GPU that computes"),
        });
    }
    let dri = std::fs::read_dir(DRI).into_iter().flatten().flatten().map(|e| e.path());
    let render = dri.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("renderD")));
    let mut files: Vec<PathBuf> = [PathBuf::from(KFD)].into_iter().chain(render).collect();
    files.sort();
    let mut refused = Vec::new();
    for path in &files {
        if let Err(e) = std::fs::OpenOptions::new().read(true).write(true).open(path) {
            refused.push(format!("{}: {e}{}", path.display(), owner(path)));
        }
    }
    let shown: Vec<String> = files.iter().map(|p| p.display().to_string()).collect();
    let usable = files.len() - refused.len();
    // One GPU of several may be this user's.
    let kfd = refused.iter().any(|r| r.starts_with(KFD));
    ACCESS.ended(match (kfd, usable, files.len()) {
        (false, 2.., _) => Ok(format!("{} can be read and written", shown.join(", "))),
        (_, _, 1) => Err(format!("there is {KFD} and no {DRI}/renderD*")),
        _ => Err(refused.join("; ")),
    })
}

/// Who may use a file, and in which groups this process is.
#[cfg(unix)]
fn owner(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let Ok(file) = std::fs::metadata(path) else { return String::new() };
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let groups = status.lines().find_map(|l| l.strip_prefix("Groups:")).unwrap_or("unknown").trim().to_string();
    format!(" (mode {:o}, group {}; this process is in {groups})", file.mode() & 0o7777, file.gid())
}

#[cfg(not(unix))]
fn owner(_: &Path) -> String {
    String::new()
}
