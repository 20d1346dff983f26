//! `greta verify --repeat`: each further run is a process of its own, so that what differs from process to process is met too
//! (where memory lies and what it held, when threads and kernels start, what a driver sets up).
//!
//! A further run is this same program with the same flags and the hidden `--hashes`. It gets the prompts as a line of
//! standard input and answers with [`Hashes`] on standard output. Its standard input stays open while it is wanted: once that
//! ends, because this process wants no answer any more or is gone, the run stops as by Ctrl-C. So nothing lies in files that
//! could be left behind, and a run that is stopped can clear away its own.

use crate::errors::INTERRUPTED;
use crate::interrupt;
use anyhow::Context as _;
use greta::trace::prompts::FilePrompt;
use greta::trace::repeats::Hashes;
use greta::trace::{PromptInfo, TraceError};
use std::ffi::OsString;
use std::io::{BufRead, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Lines of a failed run's standard error that are told.
const SHOWN: usize = 40;
/// How long a run that is not wanted any more may take to stop by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// What further runs have in common.
pub struct Further {
    program: PathBuf,
    args: Vec<OsString>,
    prompts: String,
    runs: u32,
}

impl Further {
    /// Runs of `greta verify` with these flags and prompts, `runs` in all with the judged one.
    pub fn new(args: Vec<OsString>, prompts: &[PromptInfo], runs: u32) -> anyhow::Result<Further> {
        let program =
            std::env::current_exe().context("this program's own file, which --repeat runs again, is not known")?;
        let tokens =
            |p: &PromptInfo| FilePrompt { id: p.id.clone(), tokens: Some(p.tokens.clone()), ..FilePrompt::default() };
        let prompts = serde_json::to_string(&prompts.iter().map(tokens).collect::<Vec<_>>())? + "\n";
        Ok(Further { program, args, prompts, runs })
    }

    /// Makes the run of this number. `wanted` is asked again and again whether to go on.
    pub fn run(&self, mode: &str, number: u32, wanted: &dyn Fn() -> bool) -> Result<Hashes, TraceError> {
        let failed = |why: String| TraceError::Repeat { run: number, runs: self.runs, why };
        let mut command = Command::new(&self.program);
        command.arg("verify").arg(format!("--hashes={mode}")).args(&self.args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|e| failed(format!("{} can't be started: {e}", self.program.display())))?;
        let mut running = Running(child);
        let (out, err) = (read(running.0.stdout.take()), read(running.0.stderr.take()));
        if let Some(stdin) = &mut running.0.stdin {
            // It may end without reading; what it says then tells why. It reads before it does anything that takes time.
            let _ = stdin.write_all(self.prompts.as_bytes()).and_then(|()| stdin.flush());
        }
        let status = loop {
            match running.0.try_wait().map_err(|e| failed(format!("can't be waited for: {e}")))? {
                Some(status) => break status,
                None if !wanted() => return Err(TraceError::Interrupted),
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        // Ctrl-C at a terminal reaches both processes, and may reach that one first.
        if status.code() == Some(INTERRUPTED.into()) || !wanted() {
            return Err(TraceError::Interrupted);
        }
        let (out, err) = (text(out), text(err));
        if !status.success() {
            return Err(failed(format!("{status}{}", tail(&err))));
        }
        serde_json::from_str(&out).map_err(|e| failed(format!("gave no hashes of its values: {e}{}", tail(&err))))
    }
}

/// A process that does not outlive this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let start = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) {
            if start.elapsed() > PATIENCE {
                // That it ended meanwhile is as well.
                let _ = self.0.kill();
                let _ = self.0.wait();
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Reads a stream on a thread of its own: a full pipe would hold the process up.
fn read(from: Option<impl Read + Send + 'static>) -> Option<JoinHandle<Vec<u8>>> {
    from.map(|mut from| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // What came until an error is what there is.
            let _ = from.read_to_end(&mut bytes);
            bytes
        })
    })
}

fn text(reader: Option<JoinHandle<Vec<u8>>>) -> String {
    let bytes = reader.and_then(|r| r.join().ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last lines that a run said, to stand below how it ended.
fn tail(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    match &lines[lines.len().saturating_sub(SHOWN)..] {
        [] => "; it said nothing".into(),
        last => last.iter().map(|l| format!("\n  {l}")).collect(),
    }
}

/// The other side: the prompts that a further run is given. From here on its work, which a guard watches, stops when standard
/// input ends.
pub fn asked() -> anyhow::Result<String> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("the prompts can't be read from standard input")?;
    thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        // Where Ctrl-C came before, the work is stopping already.
        let _ = interrupt::note();
    });
    Ok(line)
}
