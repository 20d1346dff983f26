//! The connection: one `ssh` or `scp` for each thing to do, and a log of all they say.

use super::RemoteFlags;
use crate::errors::Interrupted;
use crate::interrupt::Guard;
use crate::output;
use crate::verdict::{JUDGED, WRONG};
use anyhow::Context as _;
use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Begins the lines that are for us: login scripts may print what they like.
pub const MARK: &str = "greta-far";
/// Holds the run's process id there.
pub const PID: &str = "greta.pid";
/// Lines of the log that an error shows.
const SHOWN: usize = 40;
/// What ssh itself ends with where there is no connection.
const NO_CONNECTION: i32 = 255;

/// The run did not come to an end there, or nothing could be asked of that machine.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// What the command ends with.
    pub fn code(&self) -> u8 {
        self.code
    }
}

/// Reads `USER@HOST`. ssh would take a leading `-` for an option, and what else is refused no host is named.
pub fn host(s: &str) -> Result<String, String> {
    let (user, host) = s.rsplit_once('@').unwrap_or(("user", s));
    let plain = |t: &str| {
        !t.is_empty() && !t.starts_with('-') && t.chars().all(|c| c.is_alphanumeric() || "._-+%@".contains(c))
    };
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    match plain(user) && plain(&address.replace(':', "")) {
        true => Ok(s.into()),
        false => Err("expected USER@HOST, a host, or a name from the ssh configuration".into()),
    }
}

/// Reads a folder's path for the other side. Shells and scp's versions differ in what they make of any other character.
pub fn folder(s: &str) -> Result<String, String> {
    let plain = |c: char| c.is_alphanumeric() || "/._-+=,@%".contains(c);
    match !s.is_empty() && !s.starts_with('-') && s.chars().all(plain) {
        true => Ok(s.into()),
        false => Err("a folder there is named with letters, digits and / . _ - + = , @ %".into()),
    }
}

/// A word that a shell takes for what it is.
pub fn quoted(s: &str) -> String {
    format!("'{}'", s.replace('\'', r"'\''"))
}

/// A machine that can be asked.
pub struct Link<'a> {
    host: &'a str,
    flags: &'a RemoteFlags,
    log: PathBuf,
    file: Arc<Mutex<File>>,
    guard: Guard,
    /// Set when only cleaning up is left, which Ctrl-C does not keep from being done.
    closing: Cell<bool>,
}

/// What a program left.
struct Said {
    status: ExitStatus,
    out: String,
    err: String,
}

impl Link<'_> {
    /// Begins a log; nothing is connected yet.
    pub fn open<'a>(host: &'a str, flags: &'a RemoteFlags, log: &Path) -> anyhow::Result<Link<'a>> {
        let file = File::create(log).with_context(|| format!("{}: the log can't be written", log.display()))?;
        let file = Arc::new(Mutex::new(file));
        Ok(Link { host, flags, log: log.into(), file, guard: Guard::arm(), closing: Cell::new(false) })
    }

    /// A failure with the end of the log.
    pub fn failure(&self, code: u8, what: &str) -> Failure {
        let text = tail(&self.log);
        let log = match text.is_empty() {
            true => format!("{} is empty", self.log.display()),
            false => format!("last lines of {}:\n{text}", self.log.display()),
        };
        Failure { code, text: format!("{}: {what}\n{log}", self.host) }
    }

    /// User and host as ssh wants them, or with an address in brackets as scp does.
    fn name(&self, brackets: bool) -> String {
        let (user, host) = match self.host.rsplit_once('@') {
            Some((user, host)) => (format!("{user}@"), host),
            None => (String::new(), self.host),
        };
        let bare = host.trim_matches(['[', ']']);
        if brackets && bare.contains(':') { format!("{user}[{bare}]") } else { format!("{user}{bare}") }
    }

    fn command(&self, program: &str, port: &str) -> Command {
        let mut c = Command::new(program);
        // Nobody is there to answer a question, and a connection that hangs is none. A master connection that is left in
        // the background would hold the pipes open.
        let options = [
            "BatchMode=yes",
            "ConnectTimeout=15",
            "ServerAliveInterval=15",
            "ServerAliveCountMax=8",
            "ControlMaster=no",
        ];
        if let Some(config) = &self.flags.ssh_config {
            c.arg("-F").arg(config);
        }
        for option in options {
            c.args(["-o", option]);
        }
        if let Some(n) = self.flags.ssh_port {
            c.args([port, &n.to_string()]);
        }
        if let Some(identity) = &self.flags.identity {
            c.args(["-o", "IdentitiesOnly=yes", "-i"]).arg(identity);
        }
        c
    }

    /// Has `sh` there run a script. What it prints to standard error is shown as it comes, if `show` says so.
    fn script(&self, script: &str, show: bool) -> anyhow::Result<Said> {
        let mut c = self.command("ssh", "-p");
        c.args(["-T", "--", &self.name(false), "sh"]);
        self.execute(c, &format!("main() {{\n{script}\n}}\nmain\n"), show)
    }

    fn copy(&self, from: &OsStr, to: &OsStr) -> anyhow::Result<Said> {
        self.note(&format!("copying {} to {}", from.to_string_lossy(), to.to_string_lossy()));
        let mut c = self.command("scp", "-P");
        c.args(["-q", "--"]).arg(from).arg(to);
        self.execute(c, "", false)
    }

    fn note(&self, what: &str) {
        append(&self.file, format!("== {what}\n").as_bytes());
    }

    fn execute(&self, mut command: Command, input: &str, show: bool) -> anyhow::Result<Said> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| {
            let text = format!("`{name}` can't be started: {e}; --host takes OpenSSH's ssh and scp");
            Failure { code: JUDGED, text }
        })?;
        let out = child.stdout.take().map(|s| self.read(s, false));
        let err = child.stderr.take().map(|s| self.read(s, show));
        if let Some(mut stdin) = child.stdin.take() {
            // It may end without reading; its exit code then says why.
            let _ = stdin.write_all(input.as_bytes());
        }
        let status = self.wait(&mut child)?;
        let text = |reader: Option<thread::JoinHandle<String>>| {
            reader.map_or(Ok(String::new()), |r| r.join()).unwrap_or_default()
        };
        Ok(Said { status, out: text(out), err: text(err) })
    }

    /// Reads a stream into the log on a thread of its own.
    fn read(&self, mut from: impl Read + Send + 'static, show: bool) -> thread::JoinHandle<String> {
        let file = self.file.clone();
        thread::spawn(move || {
            let (mut all, mut buffer) = (Vec::new(), vec![0u8; 1 << 13]);
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                append(&file, &buffer[..n]);
                all.extend_from_slice(&buffer[..n]);
                if show {
                    let _ = std::io::stderr().lock().write_all(&buffer[..n]);
                }
            }
            String::from_utf8_lossy(&all).into_owned()
        })
    }

    fn wait(&self, child: &mut Child) -> anyhow::Result<ExitStatus> {
        loop {
            let stopped = self.guard.hit() && !self.closing.get();
            match child.try_wait()? {
                // Ctrl-C at a terminal ends ssh as well.
                Some(_) if stopped => return Err(Interrupted.into()),
                Some(status) => return Ok(status),
                None if stopped => child.kill()?,
                None => {}
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn append(file: &Mutex<File>, bytes: &[u8]) {
    // A log that can't be written must not end the run.
    let _ = file.lock().unwrap_or_else(|e| e.into_inner()).write_all(bytes);
}

/// The last lines of a file.
fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(1 << 16)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].iter().map(|l| format!("  {l}")).collect::<Vec<_>>().join("\n")
}

/// What follows this word in the lines that are for us.
fn all_marked<'s>(out: &'s str, key: &str) -> impl Iterator<Item = &'s str> {
    out.lines().filter_map(move |l| l.strip_prefix(MARK)?.strip_prefix(' ')?.strip_prefix(key)?.strip_prefix(' '))
}

fn marked<'s>(out: &'s str, key: &str) -> Option<&'s str> {
    all_marked(out, key).next()
}

/// A folder of our own there; it goes away when this is dropped.
pub struct Far<'a> {
    link: &'a Link<'a>,
    dir: String,
    keep: bool,
    /// Whether a run may still be going on.
    running: bool,
}

/// How a run ended.
pub struct Ended {
    /// The files it left, as far as we want them.
    pub files: Vec<String>,
    /// What went wrong, if anything did.
    pub why: Option<String>,
}

impl<'a> Far<'a> {
    /// Connects, makes sure that this program can run there, and makes a folder below `dir`.
    pub fn begin(link: &'a Link<'a>, dir: &str, keep: bool) -> anyhow::Result<Far<'a>> {
        link.note(&format!("connecting to {}", link.host));
        let script = format!(
            "echo \"{MARK} system $(uname -s) $(uname -m)\"
CDPATH= cd -- {} || exit 3
dir=$(mktemp -d \"$(pwd -P)/greta.XXXXXXXX\") || exit 3
echo \"{MARK} folder $dir\"",
            quoted(dir)
        );
        let said = link.script(&script, false)?;
        let Some(system) = marked(&said.out, "system") else {
            let last = said.err.lines().last().unwrap_or("it answers nothing");
            let what = match said.status.code() {
                Some(NO_CONNECTION) => format!("can't connect: {last}"),
                _ => format!("no shell answers there: {last}"),
            };
            return Err(link.failure(JUDGED, &what).into());
        };
        let made = marked(&said.out, "folder").unwrap_or_default();
        // What is removed in the end is what was made here, and nothing that a login script made of it.
        let ours = made.starts_with('/') && made.rsplit('/').next().is_some_and(|n| n.starts_with("greta."));
        if !ours {
            return Err(link.failure(WRONG, &format!("no folder can be made in {dir} there")).into());
        }
        let far = Far { link, dir: made.into(), keep, running: false };
        if folder(made).is_err() {
            return Err(link
                .failure(WRONG, &format!("{made} has characters that scp may take for its own; give --remote-dir"))
                .into());
        }
        if !same_machine(system) {
            let here = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
            let what =
                format!("it is {system}, and this greta is built for {here}; use one that is built for that machine");
            return Err(link.failure(WRONG, &what).into());
        }
        Ok(far)
    }

    fn at(&self, name: &str) -> String {
        format!("{}:{}/{name}", self.link.name(true), self.dir)
    }

    /// Copies a file there.
    pub fn send(&self, from: &Path, name: &str) -> anyhow::Result<()> {
        let said = self.link.copy(from.as_os_str(), self.at(name).as_ref())?;
        let what = || format!("{} can't be copied there: {}", from.display(), last(&said));
        if said.status.success() { Ok(()) } else { Err(self.link.failure(WRONG, &what()).into()) }
    }

    /// Copies a file here.
    pub fn bring(&self, name: &str, to: &Path) -> anyhow::Result<()> {
        let said = self.link.copy(self.at(name).as_ref(), to.as_os_str())?;
        let what = || format!("{name} can't be brought back: {}", last(&said));
        if said.status.success() { Ok(()) } else { Err(self.link.failure(WRONG, &what()).into()) }
    }

    /// Runs a script in the folder, which tells by marked lines how the run ended.
    pub fn run(&mut self, script: &str) -> anyhow::Result<Ended> {
        self.link.note("running");
        self.running = true;
        let said = self.link.script(&format!("cd {} || exit 3\n{script}", quoted(&self.dir)), true)?;
        let files = all_marked(&said.out, "file").map(String::from).collect();
        let status = marked(&said.out, "status").and_then(|s| s.parse::<i32>().ok());
        self.running = status.is_none();
        let lower = said.err.to_lowercase();
        let memory =
            ["out of memory", "memory allocation of", "cannot allocate memory"].iter().any(|w| lower.contains(w));
        let why = match status {
            Some(0) => None,
            Some(n) if n > 128 => Some(format!("killed, out of memory? (signal {})", n - 128)),
            Some(n) if memory => Some(format!("out of memory (exit code {n})")),
            Some(126 | 127) => Some("the program can't be started there".into()),
            Some(n) => Some(format!("exit code {n}")),
            None if said.status.code() == Some(NO_CONNECTION) => {
                Some("the connection was lost, or the shell there was killed, out of memory?".into())
            }
            None => Some(format!("the shell there ended early, {}", said.status)),
        };
        Ok(Ended { files, why })
    }
}

impl Drop for Far<'_> {
    fn drop(&mut self) {
        let dir = quoted(&self.dir);
        // Of a run that ended, the number may be another process by now.
        let kill = if self.running {
            format!("[ -f {dir}/{PID} ] && kill \"$(cat {dir}/{PID})\" && sleep 1\n")
        } else {
            String::new()
        };
        let remove = if self.keep { String::new() } else { format!("rm -rf -- {dir}\n") };
        if self.keep {
            output::note("kept", "1", &format!("{}:{}", self.link.name(false), self.dir));
        }
        if kill.is_empty() && remove.is_empty() {
            return;
        }
        self.link.note("removing the folder there");
        self.link.closing.set(true);
        let done = self.link.script(&format!("{kill}{remove}"), false);
        if !done.is_ok_and(|said| said.status.success()) {
            output::warn(&format!("{}: {} may still be there", self.link.host, self.dir));
        }
    }
}

/// The last line that says anything.
fn last(said: &Said) -> String {
    let text = said.err.lines().chain(said.out.lines()).map(str::trim).rfind(|l| !l.is_empty());
    text.map_or_else(|| said.status.to_string(), String::from)
}

/// Whether a program for this machine can run on one that `uname -s` and `uname -m` tell of.
fn same_machine(uname: &str) -> bool {
    let (system, machine) = uname.split_once(' ').unwrap_or((uname, ""));
    let system = match system.to_lowercase().as_str() {
        "darwin" => "macos".to_string(),
        other => other.into(),
    };
    let machine = match machine {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "i386" | "i486" | "i586" | "i686" => "x86",
        "ppc64" | "ppc64le" => "powerpc64",
        m if m.starts_with("armv") => "arm",
        other => other,
    };
    (system.as_str(), machine) == (std::env::consts::OS, std::env::consts::ARCH)
}
