//! Runs over ssh, on a server of our own on the loopback.

use super::*;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SSHD: Need = Need { key: "sshd", install: "apt-get install openssh-server" };

pub fn trials() -> Vec<Trial> {
    vec![
        trial("cli/remote/run_comes_back_analysed", success),
        trial("cli/remote/model_missing_there", no_model),
        trial("cli/remote/killed_there", killed),
        trial("cli/remote/out_of_memory_there", out_of_memory),
        trial("cli/remote/bundle_missing", no_bundle),
        trial("cli/remote/bundle_damaged", bad_bundle),
        trial("cli/remote/folder_not_writable", not_writable),
        trial("cli/remote/another_machine", another_machine),
        trial("cli/remote/no_connection", no_connection),
        trial("cli/remote/ctrl_c", ctrl_c),
    ]
}

/// An ssh server with keys and settings of its own; it ends when this is dropped.
struct Server {
    folder: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts one. Every command that comes in goes through the shell script `through`, where there is one: the command is
    /// `$SSH_ORIGINAL_COMMAND`.
    fn start(through: Option<&str>) -> Result<Server, Outcome> {
        let sshd = crate::support::file(SSHD, "/usr/sbin/sshd".into())?;
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        for name in ["host", "user"] {
            let args = ["-q", "-t", "ed25519", "-N", "", "-f"];
            let made = Command::new("ssh-keygen").args(args).arg(at(name)).stdin(Stdio::null()).status()?;
            ensure(made.success(), || format!("ssh-keygen: {made}"))?;
        }
        fs::copy(at("user.pub"), at("authorized"))?;
        // Its privileges are dropped there; only root needs it.
        let _ = fs::create_dir_all("/run/sshd");
        fs::create_dir(at("work"))?;
        let forced = match through {
            Some(script) => {
                let script = script.replace("WORK", text(&at("work")));
                fs::write(at("through"), format!("#!/bin/sh\n{script}\n"))?;
                fs::set_permissions(at("through"), fs::Permissions::from_mode(0o755))?;
                format!("ForceCommand {}\n", at("through").display())
            }
            None => String::new(),
        };
        let mut last = String::new();
        // The port may be taken between our asking for a free one and the server's start.
        for _ in 0..5 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            let config = format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
                 UsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n{forced}",
                at("host").display(),
                at("authorized").display()
            );
            // With a forced command the built-in server would not be asked for by its path.
            let config = match through {
                Some(_) => config.replace("internal-sftp", "/usr/lib/openssh/sftp-server"),
                None => config,
            };
            fs::write(at("sshd.conf"), config)?;
            let key = fs::read_to_string(at("host.pub"))?;
            fs::write(at("known"), format!("[127.0.0.1]:{port} {key}"))?;
            let known = at("known");
            fs::write(at("ssh.conf"), format!("UserKnownHostsFile {}\nStrictHostKeyChecking yes\n", known.display()))?;
            let mut child = Command::new(&sshd)
                .args(["-D", "-f", text(&at("sshd.conf")), "-E", text(&at("sshd.log"))])
                .stdin(Stdio::null())
                .spawn()?;
            let start = Instant::now();
            while child.try_wait()?.is_none() && start.elapsed() < Duration::from_secs(20) {
                if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                    return Ok(Server { folder, port, child });
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            child.wait()?;
            last = fs::read_to_string(at("sshd.log")).unwrap_or_default();
        }
        Err(Outcome::Failed(format!("the ssh server does not start: {last}")))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `greta trace` there, of one prompt, into `run` here.
    fn trace(&self, model: &Path, extra: &[&str]) -> Command {
        let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok();
        let name =
            || Command::new("id").arg("-un").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_string());
        let user = name().ok().filter(|n| !n.is_empty()).or(user).unwrap_or_default();
        let (host, port) = (format!("{user}@127.0.0.1"), self.port.to_string());
        let mut args = vec!["trace", "--host", &host, "--ssh-port", &port, "-m", text(model)];
        let (identity, config, work, run) = (self.at("user"), self.at("ssh.conf"), self.at("work"), self.at("run"));
        args.extend(["--identity", text(&identity), "--ssh-config", text(&config), "-o", text(&run)]);
        if !extra.iter().any(|e| e.starts_with("--remote-dir")) {
            args.extend(["--remote-dir", text(&work)]);
        }
        args.extend(extra);
        if !extra.iter().any(|e| e.starts_with("--prompt")) {
            args.extend(["--prompts", "p0_short"]);
        }
        let mut c = command(&args);
        c.current_dir(self.folder.path());
        c
    }

    /// Nothing may be left where the run was.
    fn is_clean(&self) -> Result<(), Outcome> {
        let left: Vec<_> = fs::read_dir(self.at("work"))?.flatten().map(|e| e.file_name()).collect();
        ensure(left.is_empty(), || format!("left there: {left:?}"))
    }

    /// Runs a command that must fail, and holds what it says: these words, and the log's path.
    fn fails(&self, c: Command, code: i32, words: &[&str]) -> Result<Done, Outcome> {
        let done = ended(c, code)?;
        let log = self.at("run.log").display().to_string();
        let missing: Vec<_> = words.iter().copied().chain([&*log]).filter(|w| !done.err.contains(w)).collect();
        ensure(missing.is_empty(), || format!("{missing:?} not in: {}", done.err))?;
        ensure(self.at("run.log").exists(), || "there is no log".into())?;
        Ok(done)
    }
}

fn ensure(ok: bool, what: impl FnOnce() -> String) -> Result<(), Outcome> {
    if ok { Ok(()) } else { Err(Outcome::Failed(what())) }
}

fn lift<T>(r: Result<T, Failed>) -> Result<T, Outcome> {
    r.map_err(|e| Outcome::Failed(e.message().unwrap_or("failed").into()))
}

fn ended(c: Command, code: i32) -> Result<Done, Outcome> {
    lift(fed(c, b"").and_then(|d| d.code(code)))
}

fn model() -> Result<PathBuf, Outcome> {
    lift(models()).map(|m| m.whole.clone())
}

fn success() -> Result<(), Outcome> {
    let server = Server::start(None)?;
    let bundle = server.at("kept.tgz");
    let extra =
        ["--bundle", text(&bundle), "--label", "E1", "--taps", "blk.0.{attn_norm,q}", "--prompts", "p4_sys,p6_long"];
    let mut c = server.trace(&model()?, &[&extra[..], &["--json"]].concat());
    c.env("GRETA_TRACE_STAGE", "1")
        .env("GRETA_TRACE_STAGE_OUT", "here.jsonl")
        .env("GRETA_NOTE", "it's $HOME \"quoted\"");
    let done = ended(c, 0)?;
    let v = lift(done.json())?;
    let run = &v["runs"][0];
    ensure(run["label"] == "E1" && run["compared"] == "EQUAL" && run["prompts"][1]["q_mae"] == 0.0, || v.to_string())?;
    ensure(v["host"].as_str().is_some_and(|h| h.ends_with("@127.0.0.1")), || v.to_string())?;
    let info: Value = serde_json::from_str(&fs::read_to_string(server.at("run/run.json"))?)?;
    let note = info["flags"].as_array().into_iter().flatten().any(|f| f[1] == "it's $HOME \"quoted\"");
    ensure(note && info["prompts"][0]["text"].as_str().is_some_and(|t| t.contains("France")), || info.to_string())?;
    ensure(fs::read_to_string(server.at("here.jsonl"))?.lines().count() > 0, || "no events came back".into())?;
    ensure(bundle.exists() && done.err.contains("prompts"), || done.err.clone())?;
    server.is_clean()?;
    // Again: the run is there already.
    let refused = ended(server.trace(&model()?, &[]), 1)?;
    ensure(refused.err.contains("--force"), || refused.err.clone())?;
    let mut kept = server.trace(&model()?, &["--force", "--keep-remote", "-t", "1"]);
    kept.env("GRETA_MODEL", "/nowhere");
    let done = ended(kept, 0)?;
    ensure(done.out.contains("verdict      CLEAN") && done.err.contains("kept"), || done.out + &done.err)?;
    ensure(fs::read_dir(server.at("work"))?.count() == 1, || "it was not kept".into())
}

fn no_model() -> Result<(), Outcome> {
    let server = Server::start(None)?;
    let gone = server.at("gone.gguf");
    server.fails(server.trace(&gone, &[]), 1, &["the run failed: exit code 1", "gone.gguf: no such file"])?;
    ensure(!server.at("run").exists(), || "a run folder was made of nothing".into())?;
    server.is_clean()
}

/// The run is killed as the kernel does it where memory is short, after some of it was recorded.
fn killed() -> Result<(), Outcome> {
    let kill = "case $SSH_ORIGINAL_COMMAND in sh) ;; *) exec $SSH_ORIGINAL_COMMAND ;; esac
( i=0; while [ $i -lt 600 ]; do
    if [ -s WORK/*/run/taps.jsonl ]; then kill -9 $(cat WORK/*/greta.pid); exit; fi
    i=$((i+1)); sleep 0.05
  done ) >/dev/null 2>&1 </dev/null &
$SSH_ORIGINAL_COMMAND";
    let server = Server::start(Some(kill))?;
    let slow = ["-b", "reference", "--prompts", "p0_short,p6_long"];
    let done = server.fails(server.trace(&model()?, &slow), 1, &["killed, out of memory? (signal 9)"])?;
    // What was recorded until then came back.
    ensure(done.err.contains("what it had recorded is in"), || done.err.clone())?;
    let run = server.at("run");
    let analysis = lift(greta(&["analyze", "--dir", text(&run)]).and_then(|d| d.code(2)))?;
    ensure(analysis.out.contains("INCOMPLETE: it did not end"), || analysis.out.clone())?;
    server.is_clean()
}

fn out_of_memory() -> Result<(), Outcome> {
    let server = Server::start(Some("ulimit -v 40000; $SSH_ORIGINAL_COMMAND"))?;
    let args = ["-t", "1", "--rows", "all", "--prompts", "p6_long", "--context", "256"];
    let done = server.fails(server.trace(&model()?, &args), 1, &["the run failed"])?;
    ensure(["memory", "killed", "can't be started"].iter().any(|w| done.err.contains(w)), || done.err.clone())?;
    server.is_clean()
}

fn no_bundle() -> Result<(), Outcome> {
    // The marks that tell of files are taken out on their way: as if the run had left none.
    let server = Server::start(Some(
        "case $SSH_ORIGINAL_COMMAND in
    sh) sh | grep -v 'greta-far file' ;;
    *) exec $SSH_ORIGINAL_COMMAND ;; esac",
    ))?;
    server.fails(server.trace(&model()?, &[]), 1, &["left no bundle"])?;
    server.is_clean()
}

fn bad_bundle() -> Result<(), Outcome> {
    let cut = "$SSH_ORIGINAL_COMMAND; code=$?
for f in WORK/*/bundle.tgz; do [ -f \"$f\" ] && truncate -s 1000 \"$f\"; done
exit $code";
    let server = Server::start(Some(cut))?;
    server.fails(server.trace(&model()?, &[]), 1, &["can't be taken over", "bundle.tgz: the bundle is cut off"])?;
    let gone = Server::start(Some("$SSH_ORIGINAL_COMMAND; code=$?; rm -f WORK/*/bundle.tgz; exit $code"))?;
    gone.fails(gone.trace(&model()?, &[]), 1, &["bundle.tgz can't be brought back"])?;
    gone.is_clean()
}

fn not_writable() -> Result<(), Outcome> {
    let server = Server::start(None)?;
    // Not even root writes there.
    let c = server.trace(&model()?, &["--remote-dir=/proc"]);
    server.fails(c, 1, &["no folder can be made in /proc"])?;
    let c = server.trace(&model()?, &["--remote-dir=/nowhere/at/all"]);
    server.fails(c, 1, &["no folder can be made in /nowhere/at/all"]).map(|_| ())
}

fn another_machine() -> Result<(), Outcome> {
    let fake = "PATH=WORK/../bin:$PATH; export PATH; $SSH_ORIGINAL_COMMAND";
    let server = Server::start(Some(fake))?;
    fs::create_dir(server.at("bin"))?;
    fs::write(server.at("bin/uname"), "#!/bin/sh\ncase $1 in -m) echo vax ;; *) echo Ultrix ;; esac\n")?;
    fs::set_permissions(server.at("bin/uname"), fs::Permissions::from_mode(0o755))?;
    let done = server.fails(server.trace(&model()?, &[]), 1, &["it is Ultrix vax"])?;
    ensure(!done.err.contains("copying"), || done.err.clone())?;
    server.is_clean()
}

fn no_connection() -> Result<(), Outcome> {
    let mut server = Server::start(None)?;
    let stranger = server.at("stranger");
    let args = ["-q", "-t", "ed25519", "-N", "", "-f", text(&stranger)];
    Command::new("ssh-keygen").args(args).stdin(Stdio::null()).status()?;
    let right = std::mem::replace(&mut server.port, 1);
    server.fails(server.trace(&model()?, &[]), 2, &["can't connect", "Connection refused"])?;
    server.port = right;
    fs::copy(&stranger, server.at("user"))?;
    server.fails(server.trace(&model()?, &[]), 2, &["can't connect", "Permission denied"])?;
    // Without OpenSSH.
    let mut c = server.trace(&model()?, &[]);
    c.env("PATH", server.at("work"));
    let done = ended(c, 2)?;
    ensure(done.err.contains("`ssh` can't be started"), || done.err.clone())
}

/// Ctrl-C here ends the run there, and leaves nothing.
fn ctrl_c() -> Result<(), Outcome> {
    let server = Server::start(None)?;
    let mut c = server.trace(&model()?, &["-b", "reference", "--decode", "200", "--prompts", "p0_short"]);
    let child = c.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let start = Instant::now();
    let running = || {
        fs::read_dir(server.at("work")).into_iter().flatten().flatten().any(|e| e.path().join("run/run.json").exists())
    };
    while !running() && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(20));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    let out = child.wait_with_output()?;
    let err = String::from_utf8_lossy(&out.stderr);
    ensure(out.status.code() == Some(130), || format!("{:?} {err}", out.status))?;
    server.is_clean()
}
