//! `greta doctor`: from a bare machine to the first verified token, one check after the other.

use super::backends::driver_json;
use crate::args::LaunchFlag;
use crate::errors::Interrupted;
use crate::interrupt::Guard;
use crate::output::{self, Stream};
use crate::verdict::{self, JUDGED, WRONG};
use crate::{json, system};
use anyhow::Context as _;
use greta::backends::{Check, CheckStatus, Interrupt};
use greta::trace::bundle;
use greta::trace::checkup::Subject;
use greta::{BACKENDS, BackendOptions};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Check a machine, from its driver's library to the first verified token
///
/// In order: the driver's device files, library, run-time compiler and devices; memory, a compiled module, a copy there and
/// back, a kernel's sums, events, and a captured launch that is replayed with other inputs; then ops held against their
/// definitions, and a tiny model, made on the spot, whose prefill and decode must agree, whose every op is judged, and whose
/// logits are compared with the CPU's. Each check that fails says what that means and what to do. `-b hip` looks for GPUs
/// alone; the emulator is checked when it is named. docs/mi300x.md has the order of things on a new machine.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Exit codes: 0 all is well, 1 something is wrong, 2 could not judge: there is no device that could be used.

Examples:
  greta doctor                              # the first GPU
  greta doctor -b hip:amd:1 --bundle doctor.tgz   # one file to send: report, versions, devices, a trace
  greta doctor -b hip:sim                   # the emulator: no GPU, but clang
  greta doctor --json | jq '.checks[] | select(.status == \"fail\")'"
)]
pub struct Doctor {
    /// Backend to check; `greta backends` lists them
    #[arg(short, long, value_name = "NAME", default_value = "hip")]
    backend: String,
    /// Threads of the host, for the CPU and the emulator [default: physical cores]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    threads: Option<usize>,
    #[command(flatten)]
    launch: LaunchFlag,
    /// Also pack report, environment, versions, devices, kernels and a trace of the tiny model into this file, a
    /// gzip-compressed tar; variables are those of GPUs and greta alone, paths in them included
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// Replace the file that --bundle names
    #[arg(long)]
    force: bool,
    /// Print one JSON value on standard output and nothing else
    #[arg(long)]
    json: bool,
}

/// The folder in a bundle.
const FOLDER: &str = "greta-doctor";

/// What was found, all in all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Well,
    Wrong,
    NoDevice,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Well => "WELL",
            Verdict::Wrong => "WRONG",
            Verdict::NoDevice => "NO_DEVICE",
        }
    }
}

impl Doctor {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        verdict::judged(self.check())
    }

    fn check(&self) -> anyhow::Result<ExitCode> {
        if let Some(path) = &self.bundle {
            output::new_file(path, self.force)?;
        }
        let options = BackendOptions { threads: self.threads, launching: self.launch.launching() };
        let guard = Guard::arm();
        let stop = Interrupt::when(crate::interrupt::noted);
        let room = tempfile::tempdir().context("no temporary folder can be made")?;
        let folder = room.path().join(FOLDER);
        std::fs::create_dir(&folder).with_context(|| format!("{}: can't be made", folder.display()))?;
        if !self.json {
            output::print(&format!(
                "checking {}; nothing of greta has been run on AMD hardware by its authors\n\n",
                self.backend
            ))?;
        }
        let found = greta::check_up(&self.backend, &options, &stop).map_err(|e| match guard.hit() {
            true => Interrupted.into(),
            false => anyhow::Error::from(e),
        })?;
        let mut checks = found.checks;
        self.show(&checks)?;
        if !found.kernels {
            let skipped = Subject::skipped("no kernel compiles");
            self.show(&skipped)?;
            checks.extend(skipped);
        } else if let Some(name) = &found.device {
            let backend = greta::backend(name, &options)?;
            let against = greta::backend(BACKENDS[0].name, &options)?;
            let subject = Subject { backend: &*backend, against: &*against, interrupt: &stop, room: &folder };
            // The reader of the lines may be gone, which ends the checks.
            let unsaid = RefCell::new(None);
            let told =
                |check: &Check| self.show(std::slice::from_ref(check)).map_err(|e| unsaid.replace(Some(e))).is_ok();
            let made = subject.checks(&told);
            if let Some(error) = unsaid.take() {
                return Err(error);
            }
            checks.extend(made?);
        }
        let verdict = match (&found.device, checks.iter().any(|c| c.status == CheckStatus::Fail)) {
            (None, _) => Verdict::NoDevice,
            (Some(_), true) => Verdict::Wrong,
            (Some(_), false) => Verdict::Well,
        };
        let mut report = json!({
            "backend": self.backend,
            "device": found.device,
            "verdict": verdict.name(),
            "checks": checks.iter().map(check_json).collect::<Vec<_>>(),
            "system": system::facts(),
        });
        if let Some(path) = &self.bundle {
            report["bundle"] = self.pack(&folder, path, &options, &report)?;
        }
        match self.json {
            true => json::print(&report)?,
            false => self.end(verdict, &checks, found.device.as_deref())?,
        }
        Ok(match verdict {
            Verdict::Well => ExitCode::SUCCESS,
            Verdict::Wrong => WRONG.into(),
            Verdict::NoDevice => JUDGED.into(),
        })
    }

    /// A line for each check, as soon as it is made, and what to do about those that failed.
    fn show(&self, checks: &[Check]) -> anyhow::Result<()> {
        if self.json {
            return Ok(());
        }
        for c in checks {
            let (word, colour) = match c.status {
                CheckStatus::Ok => ("ok", "32"),
                CheckStatus::Fail => ("FAIL", "31;1"),
                CheckStatus::Skipped => ("skipped", "2"),
            };
            // Padded before it is coloured: a colour has no width.
            let word = Stream::Out.paint(colour, &format!("{word:<8}"));
            let mut text = format!("{word} {:<22} {}\n", c.name, c.found.trim());
            if c.status == CheckStatus::Fail {
                text += &format!("{:>31} {}\n", "→", c.advice);
            }
            output::print(&text)?;
        }
        Ok(())
    }

    fn end(&self, verdict: Verdict, checks: &[Check], device: Option<&str>) -> anyhow::Result<()> {
        let failed = checks.iter().filter(|c| c.status == CheckStatus::Fail).count();
        let device = device.unwrap_or(&self.backend);
        let text = match verdict {
            Verdict::Well => format!("{device} is well: its numbers are those of the definitions"),
            Verdict::Wrong => {
                format!("{failed} of {} checks of {device} failed; docs/mi300x.md says more of each", checks.len())
            }
            Verdict::NoDevice => {
                let emulator = if device.contains("sim") { "" } else { "; `-b hip:sim` checks the emulator" };
                format!("{device}: no device that could be judged{emulator}")
            }
        };
        output::print(&format!("\n{} {text}\n", verdict.name()))?;
        if let Some(path) = &self.bundle {
            output::print(&format!("{}: everything above, to send\n", path.display()))?;
        }
        Ok(())
    }

    /// Writes the report beside what the checks left, and packs all but the model.
    fn pack(&self, folder: &Path, path: &Path, options: &BackendOptions, report: &Value) -> anyhow::Result<Value> {
        let drivers: Vec<Value> =
            BACKENDS.iter().flat_map(|b| b.drivers(options, false)).map(|d| driver_json(&d)).collect();
        for (name, value) in [("doctor.json", report), ("devices.json", &drivers.into())] {
            let to = folder.join(name);
            std::fs::write(&to, format!("{value:#}\n"))
                .with_context(|| format!("{}: can't be written", to.display()))?;
        }
        // Everybody can make it again.
        let _ = std::fs::remove_file(folder.join("tiny.gguf"));
        let bytes = bundle::pack_all(folder, path)?;
        Ok(json!({"path": path, "bytes": bytes}))
    }
}

fn check_json(c: &Check) -> Value {
    let status = match c.status {
        CheckStatus::Ok => "ok",
        CheckStatus::Fail => "fail",
        CheckStatus::Skipped => "skipped",
    };
    json!({"name": c.name, "status": status, "found": c.found, "advice": c.advice})
}
