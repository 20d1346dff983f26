//! `greta doctor` and `greta backends` as a user meets them.

use super::models::models;
use super::{Done, check, command, fed, greta, text};
use crate::support::{Outcome, hip_sim, trial};
use greta_hip::driver::Driver;
use greta_hip::driver::sim::Sim;
use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use std::fs;

pub fn trials() -> Vec<Trial> {
    let mut list = vec![
        Trial::test("cli/doctor/cpu", cpu),
        Trial::test("cli/doctor/no_device", no_device),
        Trial::test("cli/doctor/bad_input", bad_input),
        trial("cli/doctor/emulator", || in_emulator(emulator)),
        trial("cli/doctor/wrong_kernel", || in_emulator(wrong_kernel)),
        trial("cli/backends/devices", || in_emulator(devices)),
        trial("hip/rates_are_of_work_that_was_done", bandwidth),
    ];
    #[cfg(unix)]
    list.push(trial("cli/doctor/ctrl_c", || in_emulator(ctrl_c)));
    list
}

/// A test that needs clang.
fn in_emulator(run: fn() -> Result<(), Failed>) -> Result<(), Outcome> {
    hip_sim(1)?;
    run().map_err(|e| Outcome::Failed(e.message().unwrap_or_default().into()))
}

/// The checks of a report that ended so.
fn ended(report: &Value, status: &str) -> Vec<String> {
    let list = report["checks"].as_array().cloned().unwrap_or_default();
    let names = list.iter().filter(|c| c["status"] == status);
    names.map(|c| c["name"].as_str().unwrap_or_default().to_string()).collect()
}

fn cpu() -> Result<(), Failed> {
    let report = greta(&["doctor", "-b", "cpu", "--json"])?.code(0)?.json()?;
    check(report["verdict"] == "WELL" && ended(&report, "ok").len() == 7, || report.to_string())?;
    check(report["system"]["versions"]["greta"] == env!("CARGO_PKG_VERSION"), || report.to_string())
}

/// Where every GPU is hidden there is nothing to judge, and each variable that hides one is told.
fn no_device() -> Result<(), Failed> {
    let hidden = |args: &[&str]| {
        let mut c = command(args);
        c.env("HIP_VISIBLE_DEVICES", "-1").env("ROCR_VISIBLE_DEVICES", "-1").env("CUDA_VISIBLE_DEVICES", "-1");
        fed(c, b"")
    };
    let report = hidden(&["doctor", "--json"])?.code(2)?.json()?;
    check(report["verdict"] == "NO_DEVICE" && report["device"].is_null(), || report.to_string())?;
    check(report["system"]["environment"]["HIP_VISIBLE_DEVICES"] == "-1", || report.to_string())?;
    check(!ended(&report, "fail").is_empty() && ended(&report, "ok").len() < 4, || report.to_string())?;
    let plain = hidden(&["doctor"])?.code(2)?;
    check(plain.out.contains("NO_DEVICE") && plain.out.contains('→'), || plain.out.clone())
}

fn bad_input() -> Result<(), Failed> {
    let said = |args: &[&str], word: &str| -> Result<(), Failed> {
        let done: Done = greta(args)?.code(2)?;
        check(done.err.contains(word), || done.err.clone())
    };
    said(&["doctor", "-b", "abacus"], "unknown backend `abacus`")?;
    said(&["doctor", "-b", "hip:gfx942"], "names no driver")?;
    said(&["doctor", "-b", "hip:sim:one"], "expected hip:sim:NUMBER")?;
    said(&["doctor", "-b", "cpu", "--bundle", "no-such-folder/d.tgz"], "there is no folder no-such-folder")?;
    let there = models()?.file("doctor-there.tgz", b"mine")?;
    said(&["doctor", "-b", "cpu", "--bundle", text(&there)], "--force replaces it")
}

/// All is well in the emulator; the bundle holds what the report says and a run that can be analysed; the guide knows
/// every check.
fn emulator() -> Result<(), Failed> {
    let path = models()?.folder.join("doctor.tgz");
    let args = ["doctor", "-b", "hip:sim", "-t", "1", "--json", "--force", "--bundle", text(&path)];
    let report = greta(&args)?.code(0)?.json()?;
    check(report["verdict"] == "WELL" && report["device"] == "hip:sim:0", || report.to_string())?;
    check(ended(&report, "ok").len() >= 17 && ended(&report, "fail").is_empty(), || report.to_string())?;
    let guide = include_str!("../../docs/mi300x.md");
    let all = ["ok", "skipped"].map(|s| ended(&report, s)).concat();
    let unknown: Vec<_> = all.iter().filter(|name| !guide.contains(&format!("| {name} |"))).collect();
    check(unknown.is_empty(), || format!("docs/mi300x.md says nothing of {unknown:?}"))?;
    let mut files = Vec::new();
    let mut kept = Value::Null;
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(&path)?));
    for entry in archive.entries()? {
        let entry = entry?;
        let name = entry.path()?.display().to_string();
        if name.ends_with("doctor.json") {
            kept = serde_json::from_reader(entry)?;
        }
        files.push(name);
    }
    let want = ["devices.json", "doctor.json", "kernels.json", "run/graph.json", "run/run.json", "run/taps.jsonl"];
    let missing: Vec<_> = want.iter().filter(|w| !files.contains(&format!("greta-doctor/{w}"))).collect();
    check(missing.is_empty() && kept["checks"] == report["checks"], || format!("{missing:?} not in {files:?}"))?;
    greta(&["analyze", "--dir", text(&path)])?.code(0)?;
    Ok(())
}

/// A kernel that subtracts where it should add is noticed before any model is.
fn wrong_kernel() -> Result<(), Failed> {
    let folder = models()?.folder.join("doctor-kernels");
    fs::create_dir_all(&folder)?;
    for (name, source) in greta_hip::kernels::FILES {
        fs::write(folder.join(name), source.replace("out[i] = a[i] + b[i]", "out[i] = a[i] - b[i]"))?;
    }
    let mut c = command(&["doctor", "-b", "hip:sim", "-t", "1", "--json"]);
    c.env("GRETA_KERNELS", &folder);
    let report = fed(c, b"")?.code(1)?.json()?;
    let failed = ended(&report, "fail");
    let want = ["kernel adds", "graph replays", "op add", "verify", "logits as on the CPU"];
    check(report["verdict"] == "WRONG" && want.iter().all(|w| failed.iter().any(|f| f == w)), || report.to_string())?;
    check(!failed.iter().any(|f| f == "memory keeps bytes" || f == "events advance"), || report.to_string())
}

/// Every driver is listed: its devices, or why there are none, in one line.
fn devices() -> Result<(), Failed> {
    let list = greta(&["backends", "--json"])?.code(0)?.json()?;
    let drivers = list[1]["drivers"].as_array().cloned().unwrap_or_default();
    let names: Vec<_> = drivers.iter().map(|d| d["name"].as_str().unwrap_or_default()).collect();
    check(names == ["hip:amd", "hip:nvidia", "hip:sim"], || list.to_string())?;
    for d in &drivers {
        let (devices, why) = (d["devices"].as_array().map_or(0, Vec::len), d["why"].as_str().unwrap_or_default());
        check((devices == 0 || why.is_empty()) && !why.contains('\n'), || d.to_string())?;
    }
    let sim = &drivers[2]["devices"][0];
    check(sim["name"] == "hip:sim:0" && sim["arch"] == "gfx942" && sim["memory"].is_u64(), || sim.to_string())?;
    check(sim["compiler"].as_str().is_some_and(|c| c.contains("clang")), || sim.to_string())
}

/// The kernel whose time is taken reads every word.
fn bandwidth() -> Result<(), Outcome> {
    hip_sim(1)?;
    let device = Sim { threads: 2, kernels: None }.open(0)?;
    let rates = greta_hip::bandwidth(&device, 3 << 20)?;
    let matrix = greta_hip::matrix_rate(&device, 3, 20)?;
    match rates[0] > 0.0 && rates[1] > 0.0 && matrix > 0.0 && device.used() == 0 {
        true => Ok(()),
        false => Err(Outcome::Failed(format!("{rates:?}, {matrix}, {} bytes are still used", device.used()))),
    }
}

#[cfg(unix)]
fn ctrl_c() -> Result<(), Failed> {
    use std::io::Read;
    use std::process::{Command, Stdio};
    let mut child =
        command(&["doctor", "-b", "hip:sim", "-t", "1"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // Once the first check is shown, the others take seconds.
    let mut seen = Vec::new();
    while !seen.ends_with(b"op add") {
        let mut one = [0];
        child.stdout.as_mut().ok_or("no pipe")?.read_exact(&mut one)?;
        seen.extend(one);
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    let out = child.wait_with_output()?;
    check(out.status.code() == Some(130), || format!("{:?} {}", out.status, String::from_utf8_lossy(&out.stdout)))
}
