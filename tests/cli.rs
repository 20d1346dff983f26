//! The `greta` command as a user meets it: JSON shapes, exit codes, messages, and what goes to which stream.

mod bad_input;
mod doctor;
mod faults;
mod import;
#[cfg(unix)]
mod interrupt;
mod models;
mod plan;
mod remote;
mod repeat;
mod run;
mod shapes;
mod trace;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The tests of this module.
pub fn trials() -> Vec<Trial> {
    let mut all = shapes::trials();
    all.extend(run::trials());
    all.extend(bad_input::trials());
    all.extend(import::trials());
    all.extend(faults::trials());
    all.extend(trace::trials());
    all.extend(plan::trials());
    all.extend(doctor::trials());
    all.extend(remote::trials());
    all.extend(repeat::trials());
    #[cfg(unix)]
    all.extend(interrupt::trials());
    all
}

/// What a call of `greta` left.
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

/// A command with nothing of the tester's own settings.
fn command(args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_greta"));
    c.args(args);
    ["GRETA_MODEL", "GRETA_CACHE_DIR", "NO_COLOR"].iter().for_each(|v| {
        c.env_remove(v);
    });
    c
}

/// Runs `greta` with this on standard input.
fn fed(mut command: Command, input: &[u8]) -> Result<Done, Failed> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // It may end without reading, and then the pipe is closed.
    let _ = child.stdin.take().ok_or("no pipe")?.write_all(input);
    let out = child.wait_with_output()?;
    let text = |bytes| String::from_utf8(bytes).map_err(|e| format!("not UTF-8: {e}"));
    Ok(Done { code: out.status.code(), out: text(out.stdout)?, err: text(out.stderr)? })
}

/// Runs `greta`.
fn greta(args: &[&str]) -> Result<Done, Failed> {
    fed(command(args), b"")
}

impl Done {
    /// Holds the exit code, and that nothing panicked.
    fn code(self, want: i32) -> Result<Done, Failed> {
        check(self.code == Some(want), || {
            format!("exit code {:?}, expected {want}\nstdout: {}\nstderr: {}", self.code, self.out, self.err)
        })?;
        check(!self.err.contains("panicked"), || format!("it panicked: {}", self.err))?;
        Ok(self)
    }

    /// The one JSON value that standard output holds.
    fn json(&self) -> Result<Value, Failed> {
        Ok(serde_json::from_str(&self.out)
            .map_err(|e| format!("standard output is not one JSON value: {e}\n{}", self.out))?)
    }
}

fn check(ok: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if ok { Ok(()) } else { Err(what().into()) }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}
