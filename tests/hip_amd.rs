//! The driver `amd` against a stand-in for AMD's libraries: which functions it calls, in which order it gives arguments,
//! and what it says when something fails. No kernel of gfx942 runs here, and nothing of it has run on AMD hardware.
//!
//! A process loads the libraries once, so each test runs `greta` as a child with ROCM_PATH at a folder of its own.

use crate::support::{Need, Outcome, all, trial};
use greta_models::synth::{self, SynthSpec};
use libtest_mimic::Trial;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("hip/amd/lists_devices", lists),
        trial("hip/amd/every_function_is_looked_for", functions),
        trial("hip/amd/absent", absent),
        trial("hip/amd/another_architecture", another),
        trial("hip/amd/runs_and_replays", runs),
        trial("hip/amd/failures_are_named", failures),
        trial("hip/amd/out_of_memory", memory),
        trial("hip/amd/doctor", doctor),
        trial("hip/amd/profile", profile),
    ]
}

const CC: Need = Need { key: "cc", install: "apt-get install gcc (any C compiler named cc will do)" };

/// The libraries' folder, as ROCM_PATH has it, and a model.
struct StandIn {
    root: PathBuf,
    model: PathBuf,
}

/// A folder that tests may leave files in.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("amd-{}-{name}", std::process::id()))
}

/// Compiles a library; `without`: a function that it is not to have.
fn library(lib: &Path, name: &str, without: Option<&str>) -> Result<(), String> {
    std::fs::create_dir_all(lib).map_err(|e| e.to_string())?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hip_amd/standin.c");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1"]).arg(source).arg("-o").arg(lib.join(format!("lib{name}.so")));
    if name == "hiprtc" {
        cc.arg("-DRTC");
    }
    // What has another name is not there.
    cc.args(without.map(|f| format!("-D{f}=renamed")));
    let out = cc.output().map_err(|e| e.to_string())?;
    if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
}

fn stand_in() -> Result<&'static StandIn, Outcome> {
    static MADE: OnceLock<Result<StandIn, String>> = OnceLock::new();
    if Command::new("cc").arg("--version").output().is_err() {
        return Err(Outcome::Lacks(CC, PathBuf::from("cc")));
    }
    let make = || {
        let root = folder("rocm");
        for name in ["amdhip64", "hiprtc"] {
            library(&root.join("lib"), name, None)?;
        }
        let model = root.join("tiny.gguf");
        let spec = SynthSpec::preset("tiny").ok_or("no preset `tiny`")?;
        synth::write(&spec, &model, &mut |_, _| true).map_err(|e| e.to_string())?;
        Ok(StandIn { root, model })
    };
    MADE.get_or_init(make).as_ref().map_err(|e: &String| Outcome::Failed(e.clone()))
}

/// What a child left.
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Done {
    fn json(&self) -> Result<Value, Outcome> {
        serde_json::from_str(&self.out).map_err(|e| Outcome::Failed(format!("{e}: {}{}", self.out, self.err)))
    }

    /// Holds the exit code and that each of these was said.
    fn says(&self, code: i32, words: &[&str]) -> Result<(), Outcome> {
        let missing: Vec<_> = words.iter().filter(|w| !self.err.contains(**w) && !self.out.contains(**w)).collect();
        match self.code == Some(code) && missing.is_empty() && !self.err.contains("panicked") {
            true => Ok(()),
            false => {
                Err(Outcome::Failed(format!("code {:?}, {missing:?} not in:\n{}{}", self.code, self.out, self.err)))
            }
        }
    }
}

/// Runs `greta` on the libraries in this folder.
fn greta(root: &Path, args: &[&str], settings: &[(&str, &str)]) -> Result<Done, Outcome> {
    let mut c = Command::new(env!("CARGO_BIN_EXE_greta"));
    c.args(args).env("ROCM_PATH", root).env("GRETA_KERNEL_CACHE", root.join("cache"));
    for v in ["HIP_PATH", "GRETA_MODEL", "GRETA_KERNELS", "HIP_VISIBLE_DEVICES"] {
        c.env_remove(v);
    }
    let out = c.envs(settings.iter().copied()).output()?;
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    Ok(Done { code: out.status.code(), out: text(&out.stdout), err: text(&out.stderr) })
}

/// The driver `amd` in the JSON of `greta backends`.
fn amd(root: &Path, settings: &[(&str, &str)]) -> Result<Value, Outcome> {
    let done = greta(root, &["backends", "--json", "--bandwidth"], settings)?;
    done.says(0, &[])?;
    let listed = done.json()?;
    let hip = listed.as_array().into_iter().flatten().find(|b| b["name"] == "hip").cloned().unwrap_or_default();
    let drivers = hip["drivers"].as_array().cloned().unwrap_or_default();
    drivers.into_iter().find(|d| d["name"] == "hip:amd").ok_or_else(|| Outcome::Failed(format!("no hip:amd: {hip}")))
}

fn expect(at: &Value, wanted: &[(&str, Value)]) -> Result<(), Outcome> {
    let wrong = wanted.iter().filter(|(p, v)| at.pointer(p) != Some(v));
    all(wrong.map(|(p, v)| format!("{p} is {:?}, expected {v}; {at}", at.pointer(p))).collect())
}

/// Name, architecture, memory and versions are where the runtime's structures have them.
fn lists() -> Result<(), Outcome> {
    let s = stand_in()?;
    let found = amd(&s.root, &[("STANDIN_DEVICES", "2"), ("STANDIN_MEMORY", "3000000000")])?;
    expect(
        &found,
        &[
            ("/devices/0/name", "hip:amd:0".into()),
            ("/devices/0/about", "Stand-in 0".into()),
            ("/devices/0/arch", "gfx942".into()),
            ("/devices/0/units", 304.into()),
            ("/devices/0/memory", 3_000_000_000u64.into()),
            ("/devices/0/free", 3_000_000_000u64.into()),
            ("/devices/0/driver", "HIP 6.4.43483".into()),
            ("/devices/0/compiler", "hiprtc 6.4 of HIP 6.4.43483".into()),
            ("/devices/0/usable", true.into()),
            ("/devices/1/name", "hip:amd:1".into()),
            ("/devices/1/about", "Stand-in 1".into()),
        ],
    )?;
    // It computes no sums, and a figure of a read that did not happen is none.
    let why = found["devices"][0]["bandwidth"]["why"].to_string();
    if why.contains("add up to") { Ok(()) } else { Err(Outcome::Failed(format!("bandwidth of nothing: {found}"))) }
}

/// Names in the driver's source that begin like a function of the runtime and are called.
fn called() -> BTreeSet<String> {
    let source = include_str!("../backends/hip/src/driver/gpu/amd.rs");
    let words = source.split(|c: char| !c.is_alphanumeric() && c != '_');
    let named = |w: &str| {
        ["hiprtc", "hip"].iter().any(|p| w.strip_prefix(p).is_some_and(|r| r.starts_with(char::is_uppercase)))
    };
    words.filter(|w| named(w) && source.contains(&format!("{w}("))).map(String::from).collect()
}

/// A library that lacks a function the driver calls is refused by the function's name; nothing panics.
fn functions() -> Result<(), Outcome> {
    stand_in()?;
    let names = called();
    if names.len() < 40 {
        return Err(Outcome::Failed(format!("only {} functions were found in the source: {names:?}", names.len())));
    }
    let root = folder("lacking");
    for name in ["amdhip64", "hiprtc"] {
        library(&root.join("lib"), name, None).map_err(Outcome::Failed)?;
    }
    let mut wrong = Vec::new();
    for f in &names {
        let lib = if f.starts_with("hiprtc") { "hiprtc" } else { "amdhip64" };
        library(&root.join("lib"), lib, Some(f)).map_err(Outcome::Failed)?;
        let found = amd(&root, &[])?;
        let why = found["why"].as_str().unwrap_or_default();
        if !why.contains(&format!("has no `{f}`")) {
            wrong.push(format!("{f}: {found}"));
        }
        library(&root.join("lib"), lib, None).map_err(Outcome::Failed)?;
    }
    all(wrong)
}

/// Without the libraries the reason is one line that names one, and so it is where one of the two is there.
fn absent() -> Result<(), Outcome> {
    stand_in()?;
    let root = folder("absent");
    std::fs::create_dir_all(root.join("lib"))?;
    // A machine with ROCm has libraries of its own.
    let own = amd(&root, &[])?;
    if own["why"].is_null() {
        return Ok(());
    }
    let said = |v: &Value, word: &str| match v["why"].as_str() {
        Some(w) if w.contains(word) && !w.contains('\n') => Ok(()),
        _ => Err(Outcome::Failed(v.to_string())),
    };
    said(&own, "libamdhip64.so is not there; it comes with ROCm")?;
    library(&root.join("lib"), "amdhip64", None).map_err(Outcome::Failed)?;
    said(&amd(&root, &[])?, "libhiprtc.so is not there")?;
    std::fs::write(root.join("lib/libhiprtc.so"), "no library")?;
    said(&amd(&root, &[])?, "libhiprtc.so: ")
}

/// A device there are no kernels for is listed, and refused by what it is.
fn another() -> Result<(), Outcome> {
    let s = stand_in()?;
    let settings = [("STANDIN_ARCH", "gfx1100")];
    let found = amd(&s.root, &settings)?;
    let why = "Stand-in 0: it is gfx1100; the kernels are for gfx942";
    expect(
        &found,
        &[("/devices/0/arch", "gfx1100".into()), ("/devices/0/usable", false.into()), ("/devices/0/why", why.into())],
    )?;
    let model = s.model.display().to_string();
    greta(&s.root, &["run", "-b", "hip:amd", "-m", &model, "-n", "1", "Hi"], &settings)?.says(1, &[why])?;
    greta(&s.root, &["run", "-b", "hip:amd:1", "-m", &model, "-n", "1", "Hi"], &[])?
        .says(1, &["there is no device 1; the only one is number 0"])
}

/// A model's launches arrive with the arguments that lowering gave them, and decode steps are captured, then replayed.
fn runs() -> Result<(), Outcome> {
    let s = stand_in()?;
    let model = s.model.display().to_string();
    let args = ["run", "-b", "hip:amd", "-m", &model, "-n", "6", "--ignore-eos", "--temp", "0", "Hi"];
    let log = |name: &str, args: &[&str]| -> Result<Vec<String>, Outcome> {
        let path = s.root.join(name);
        let cache = s.root.join(format!("{name}-cache")).display().to_string();
        let settings = [("STANDIN_LOG", path.display().to_string()), ("GRETA_KERNEL_CACHE", cache)];
        let settings: Vec<(&str, &str)> = settings.iter().map(|(k, v)| (*k, &**v)).collect();
        // Its logits are no numbers or zeros; whether text comes of them is not what is tested.
        greta(&s.root, args, &settings)?.says(0, &[])?;
        Ok(std::fs::read_to_string(&path)?.lines().map(String::from).collect())
    };
    let lines = log("log", &args)?;
    let mut wrong = Vec::new();
    let count = |lines: &[String], word: &str| lines.iter().filter(|l| l.starts_with(word)).count();
    for option in ["--offload-arch=gfx942", "-ffp-contract=off"] {
        if count(&lines, option) == 0 {
            wrong.push(format!("no kernel was compiled with {option}"));
        }
    }
    // The residual: out, a and b at the addresses of buffers, 64 values a token of the tiny model or more, in one row.
    let add = lines.iter().find(|l| l.starts_with("launch add ")).map(|l| l.rsplit(' ').next().unwrap_or_default());
    let bytes: Vec<u8> = add
        .unwrap_or_default()
        .as_bytes()
        .chunks_exact(2)
        .filter_map(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok())
        .collect();
    match bytes.as_slice().split_at_checked(24) {
        Some((pointers, count)) => {
            let at: Vec<u64> = pointers.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
            let n = count.try_into().map_or(0, u32::from_le_bytes);
            if at.contains(&0) || n == 0 || n % 32 != 0 {
                wrong.push(format!("add was given {at:?} and {n} values"));
            }
        }
        None => {
            wrong.push(format!("add was given {} bytes: {:?}", bytes.len(), lines.iter().take(9).collect::<Vec<_>>()))
        }
    }
    if count(&lines, "noted ") == 0 || count(&lines, "replay ") < 3 {
        wrong.push(format!("{} launches noted, {} replays", count(&lines, "noted "), count(&lines, "replay ")));
    }
    let eager = log("eager", &[&args[..], &["--eager"]].concat())?;
    if count(&eager, "noted ") + count(&eager, "replay ") > 0 {
        wrong.push("--eager captured or replayed".into());
    }
    all(wrong)
}

/// What the runtime refuses is said with its call and its words; of a step also with node and kernel.
fn failures() -> Result<(), Outcome> {
    let s = stand_in()?;
    let model = s.model.display().to_string();
    let with = |fail: &str, more: &[&str]| {
        let cache = folder(fail).display().to_string();
        let args = ["run", "-b", "hip:amd", "-m", &model, "-n", "4", "--ignore-eos", "--temp", "0", "Hi"];
        greta(&s.root, &[&args, more].concat(), &[("STANDIN_FAIL", fail), ("GRETA_KERNEL_CACHE", &cache)])
    };
    let run = |fail: &str| with(fail, &[]);
    let code = "unspecified launch failure (hipErrorLaunchFailure, code 719)";
    run("hipModuleLaunchKernel")?.says(1, &["node `embd`", "kernel `embed`", "hipModuleLaunchKernel", code])?;
    run("hiprtcCompileProgram")?.says(1, &["embed.hip", "the stand-in does not like this source"])?;
    run("hipModuleLoadData")?.says(1, &["node `embd`", "module embed.hip", "hipModuleLoadData", code])?;
    run("hipGraphLaunch")?.says(1, &["hipGraphLaunch", code])?;
    // The first wait is the upload's.
    run("1,hipStreamSynchronize")?.says(1, &["hipStreamSynchronize", code, "--eager=wait"])?;
    // An error of some launch before: then nothing works any more, and no kernel is named that may have done nothing.
    let late = with("40,hipModuleLaunchKernel,hipMemGetInfo", &[])?;
    late.says(1, &["hipModuleLaunchKernel", code, "a kernel launched before did it", "--eager=wait"])?;
    if late.err.contains("node `") {
        return Err(Outcome::Failed(format!("names a node: {}", late.err)));
    }
    with("1,hipStreamSynchronize", &["--eager=wait"])?.says(1, &["node `embd`", "kernel `embed`", code])?;
    with("hipModuleLaunchKernel", &["--eager=log"])?.says(1, &["launch embd: embed of ", code])?;
    run("hipMemcpyHtoDAsync")?.says(1, &["token_embd.weight: hipMemcpyHtoDAsync", code])?;
    run("hipInit")?.says(1, &["hip:amd", "hipInit", code])
}

/// Memory that does not suffice: how much was wanted for what, and how much is free.
fn memory() -> Result<(), Outcome> {
    let s = stand_in()?;
    let model = s.model.display().to_string();
    let args = ["run", "-b", "hip:amd", "-m", &model, "-n", "1", "Hi"];
    greta(&s.root, &args, &[("STANDIN_MEMORY", "100000")])?.says(1, &[" bytes for ", ", of which ", " are free"])
}

/// Launches of many steps lie on one line of time, each between two events.
fn profile() -> Result<(), Outcome> {
    let s = stand_in()?;
    let (model, file) = (s.model.display().to_string(), s.root.join("timeline.json"));
    let to = file.display().to_string();
    let args =
        ["profile", "-b", "hip:amd", "-m", &model, "-p", "5", "-n", "60", "--perfetto", &to, "--force", "--json"];
    let done = greta(&s.root, &args, &[])?;
    // It computes no sums, so that nothing is measured to hold times against.
    done.says(0, &["was not measured"])?;
    let profile = done.json()?;
    let launches: u64 =
        profile["kernels"].as_array().into_iter().flatten().filter_map(|k| k["launches"].as_u64()).sum();
    let shown: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let kernels: Vec<&Value> =
        shown["traceEvents"].as_array().into_iter().flatten().filter(|e| e["cat"] == "kernel").collect();
    let starts: Vec<f64> = kernels.iter().filter_map(|e| e["ts"].as_f64()).collect();
    let apart = |w: &[f64]| w[0] <= w[1];
    match starts.len() as u64 == launches && launches > 2000 && starts.windows(2).all(apart) && starts[0] == 0.0 {
        true => Ok(()),
        false => Err(Outcome::Failed(format!("{} events of {launches} launches: {:?}", starts.len(), starts.first()))),
    }
}

/// `greta doctor` passes what the stand-in does, fails what it does not, and sees a replay with old inputs.
fn doctor() -> Result<(), Outcome> {
    let s = stand_in()?;
    let status = |report: &Value, name: &str| {
        let list = report["checks"].as_array().cloned().unwrap_or_default();
        list.iter().find(|c| c["name"] == name).map_or(Value::Null, |c| c["status"].clone())
    };
    let args = ["doctor", "-b", "hip:amd", "--json"];
    let mut wrong = Vec::new();
    let mut hold = |settings: &[(&str, &str)], code: i32, wanted: &[(&str, &str)]| -> Result<(), Outcome> {
        let done = greta(&s.root, &args, settings)?;
        let report = done.json()?;
        if done.code != Some(code) {
            wrong.push(format!("{settings:?}: code {:?}, expected {code}", done.code));
        }
        let differs = wanted.iter().filter(|(name, want)| status(&report, name) != *want);
        wrong.extend(differs.map(|(name, want)| format!("{settings:?}: `{name}` is not {want}: {report}")));
        Ok(())
    };
    let works = ["driver library", "run-time compiler", "devices visible", "device opens", "memory free"];
    let kernels = ["module compiles", "memory keeps bytes", "kernel adds", "events advance", "graph replays"];
    let ok: Vec<_> = works.iter().chain(&kernels).map(|n| (*n, "ok")).collect();
    // It multiplies nothing, and that is seen.
    hold(
        &[],
        1,
        &[&ok[..], &[("op add", "ok"), ("op matmul, exact", "fail"), ("logits as on the CPU", "fail")]].concat(),
    )?;
    hold(&[("STANDIN_STALE", "1")], 1, &[("kernel adds", "ok"), ("graph replays", "fail")])?;
    hold(&[("STANDIN_DEVICES", "0")], 2, &[("devices visible", "fail"), ("kernel adds", "skipped")])?;
    hold(&[("STANDIN_FAIL", "hipInit")], 2, &[("driver library", "ok"), ("devices visible", "fail")])?;
    hold(&[("STANDIN_ARCH", "gfx90a")], 2, &[("devices visible", "ok"), ("device opens", "fail")])?;
    hold(&[("STANDIN_FAIL", "hipModuleLaunchKernel")], 1, &[("module compiles", "ok"), ("kernel adds", "fail")])?;
    hold(&[("STANDIN_FAIL", "hiprtcVersion")], 2, &[("run-time compiler", "fail"), ("device opens", "skipped")])?;
    hold(&[("STANDIN_FAIL", "hipMemcpyDtoDAsync")], 1, &[("memory keeps bytes", "fail"), ("kernel adds", "ok")])?;
    all(wrong)
}
