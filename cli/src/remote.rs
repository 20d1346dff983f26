//! `greta trace --host`: the run happens on another machine, its analysis here.
//!
//! Everything goes through the system's `ssh` and `scp`, so that keys, jump hosts and known hosts are those the user has set
//! up. What the other side is to do is a script for `sh` on standard input: no login shell takes its quotes apart, and
//! since it is one function, half of it does nothing.

mod link;

use crate::commands::analyze::Analysis;
use crate::errors::{self, Interrupted};
use crate::verdict::{self, WRONG};
use crate::{json, output};
use anyhow::Context as _;
use greta::trace::prompts::FilePrompt;
use greta::trace::{bundle, folder};
use link::{Failure, Far, Link, quoted};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where a run happens that does not happen here.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Another machine")]
pub struct RemoteFlags {
    /// Run there: copy this greta and the prompts by scp, run over ssh, bring the run back and analyse it here. The model
    /// is a path there; a relative one begins at the home folder
    #[arg(long, value_name = "USER@HOST", value_parser = link::host)]
    pub host: Option<String>,
    /// Port of its ssh server
    #[arg(long, value_name = "PORT", requires = "host", value_parser = clap::value_parser!(u16).range(1..))]
    pub ssh_port: Option<u16>,
    /// Private key to log in with
    #[arg(long, value_name = "FILE", requires = "host")]
    pub identity: Option<PathBuf>,
    /// Configuration for ssh and scp, instead of your own
    #[arg(long, value_name = "FILE", requires = "host")]
    pub ssh_config: Option<PathBuf>,
    /// Folder there for the run's own folder; a relative one begins at the home folder
    #[arg(long, value_name = "DIR", requires = "host", default_value = "/tmp", value_parser = link::folder)]
    pub remote_dir: String,
    /// Leave the run's own folder there
    #[arg(long, requires = "host")]
    pub keep_remote: bool,
}

/// A run that is to happen on another machine.
pub struct Job<'a> {
    /// Which machine.
    pub flags: &'a RemoteFlags,
    /// Its name.
    pub host: &'a str,
    /// Arguments of `greta trace`, without model, prompts and files.
    pub args: Vec<String>,
    /// The model's path there; `None`: that machine's default model.
    pub model: Option<PathBuf>,
    /// What is run.
    pub prompts: Vec<FilePrompt>,
    /// Folder for the run, here.
    pub folder: PathBuf,
    /// Whether it may replace a run.
    pub force: bool,
    /// Where the bundle is kept, if it is.
    pub bundle: Option<PathBuf>,
    /// JSON instead of a report.
    pub json: bool,
}

/// Names of the files there. A run folder of the same name would be in their way.
const PROGRAM: &str = "greta";
const PROMPTS: &str = "prompts.json";
const BUNDLE: &str = "bundle.tgz";

/// Variables that name places on this machine. The model's is given as `-m`.
const OURS: [&str; 5] = ["GRETA_CACHE_DIR", "GRETA_MODEL", EVENTS[0].1, EVENTS[1].1, EVENTS[2].1];

/// What the old trace flags write, by the names it has without the variables that give others.
const EVENTS: [(&str, &str); 3] = [
    ("attn_l0_pipe.jsonl", "GRETA_TRACE_ATTN_L0_PIPE_OUT"),
    ("stage_trace.jsonl", "GRETA_TRACE_STAGE_OUT"),
    ("rmsnorm_trace.jsonl", "GRETA_TRACE_RMSNORM_OUT"),
];

/// Runs a job and analyses what comes back.
pub fn run(job: &Job<'_>) -> anyhow::Result<ExitCode> {
    match fetch(job) {
        Ok(log) => verdict::judged(analyse(job, &log)),
        Err(e) => match e.downcast_ref::<Failure>() {
            Some(failure) => {
                errors::report(&e);
                Ok(failure.code().into())
            }
            None => Err(e),
        },
    }
}

fn analyse(job: &Job<'_>, log: &Path) -> anyhow::Result<ExitCode> {
    // A run folder needs no room to be unpacked in.
    let analysis = Analysis::of(&job.folder, &job.folder, None, 0)?;
    if job.json {
        let mut value = analysis.json();
        value["host"] = json!(job.host);
        value["folder"] = json!(job.folder);
        value["log"] = json!(log);
        json::print(&value)?;
    } else {
        output::print(&format!("{}: run on {}\n\n{}", job.folder.display(), job.host, analysis.text()))?;
    }
    Ok(analysis.code().into())
}

/// Runs a job; its folder is then here. Gives the log's path.
fn fetch(job: &Job<'_>) -> anyhow::Result<PathBuf> {
    // What would keep the result from being written must be known before anything is run.
    folder::may_write(&job.folder, job.force)?;
    let folder = std::path::absolute(&job.folder)?;
    let parent = folder.parent().context("the run can't be the root folder")?;
    fs::create_dir_all(parent).with_context(|| format!("{}: the folder can't be made", parent.display()))?;
    let own = |what: &str| format!("{}: {what}", parent.display());
    let room =
        tempfile::Builder::new().prefix(".greta-").tempdir_in(parent).with_context(|| own("can't be written"))?;
    let prompts = room.path().join(PROMPTS);
    fs::write(&prompts, serde_json::to_string_pretty(&job.prompts)?).with_context(|| own("can't be written"))?;
    let program = std::env::current_exe().context("this program's own file is not known")?;
    let name = far_name(&folder);
    let script = script(job, &name)?;

    let log = log_path(&folder);
    let link = Link::open(job.host, job.flags, &log)?;
    let mut far = Far::begin(&link, &job.flags.remote_dir, job.flags.keep_remote)?;
    // The name that the script runs it by, whatever it is called here.
    far.send(&program, PROGRAM)?;
    far.send(&prompts, PROMPTS)?;
    let ended = far.run(&script)?;

    let packed = room.path().join(BUNDLE);
    let mut kept = String::new();
    let left = ended.files.iter().any(|f| f == BUNDLE);
    if left {
        let brought = far.bring(BUNDLE, &packed).and_then(|()| place(job, &packed, room.path()));
        match brought {
            Ok(()) => kept = format!("\nwhat it had recorded is in {}", job.folder.display()),
            // The run's own end says more than that nothing came of it.
            Err(e) if ended.why.is_none() => match e.is::<Failure>() || e.is::<Interrupted>() {
                true => return Err(e),
                false => return Err(link.failure(WRONG, &format!("the run can't be taken over: {e}")).into()),
            },
            Err(_) => {}
        }
    }
    for (file, variable) in EVENTS.into_iter().filter(|(file, _)| ended.files.iter().any(|f| f == file)) {
        let to = std::env::var_os(variable).filter(|v| !v.is_empty()).map_or_else(|| file.into(), PathBuf::from);
        let brought = far.bring(file, &std::path::absolute(to)?);
        if ended.why.is_none() {
            brought?;
        }
    }
    match ended.why {
        Some(why) => Err(link.failure(WRONG, &format!("the run failed: {why}{kept}")).into()),
        None if !left => Err(link.failure(WRONG, "the run left no bundle").into()),
        None => Ok(log),
    }
}

/// `DIR.log`, beside the run: there is a log where there is no run.
fn log_path(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".log");
    folder.with_file_name(name)
}

/// The run folder's name there: the one here, if that is plain, so that bundles are told apart.
fn far_name(folder: &Path) -> String {
    let plain = |n: &&str| {
        let taken = [PROGRAM, PROMPTS, BUNDLE, link::PID].contains(n);
        !taken
            && n.starts_with(char::is_alphanumeric)
            && n.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    folder.file_name().and_then(|n| n.to_str()).filter(plain).unwrap_or("run").into()
}

/// What the other side's shell does, in the run's own folder.
fn script(job: &Job<'_>, name: &str) -> anyhow::Result<String> {
    let mut line = String::from("env");
    for (key, value) in std::env::vars_os() {
        let Some(key) = key.to_str().filter(|k| k.starts_with("GRETA_") && !OURS.contains(k)) else { continue };
        let value = value.to_str().with_context(|| format!("{key}: is not valid UTF-8"))?;
        line += &format!(" {}", quoted(&format!("{key}={value}")));
    }
    line += &format!(" ./{PROGRAM} trace");
    if let Some(model) = &job.model {
        let path = model.to_str().with_context(|| format!("{}: is not valid UTF-8", model.display()))?;
        // As scp has it. In the run's own folder no model could lie.
        let home = if path.starts_with('/') { "" } else { "\"$HOME\"/" };
        line += &format!(" -m {home}{}", quoted(path));
    }
    for arg in &job.args {
        line += &format!(" {}", quoted(arg));
    }
    let name = quoted(name);
    line += &format!(" -o {name} --bundle {BUNDLE} --prompt-file {PROMPTS}");
    // A run that was killed packs nothing itself.
    Ok(format!(
        "chmod 700 {PROGRAM} || exit 3
{line} </dev/null 1>&2 &
echo $! >{pid}
wait $!
status=$?
if [ $status -ne 0 ] && [ ! -f {BUNDLE} ] && [ -f {name}/run.json ]; then tar -czf {BUNDLE} {name} 2>/dev/null; fi
for file in {BUNDLE} {events}; do if [ -f $file ]; then echo \"{mark} file $file\"; fi; done
echo \"{mark} status $status\"",
        pid = link::PID,
        mark = link::MARK,
        events = EVENTS.map(|e| e.0).join(" "),
    ))
}

/// Puts the run of a bundle where it belongs, and the bundle where it was asked for.
fn place(job: &Job<'_>, packed: &Path, room: &Path) -> anyhow::Result<()> {
    let runs = bundle::unpack(packed, &room.join("unpacked"))?;
    let [run] = &runs[..] else {
        anyhow::bail!("the bundle holds {} runs; one was made", runs.len());
    };
    let shown = || format!("{}: the run can't be put there", job.folder.display());
    folder::empty(&job.folder, job.force)?;
    fs::create_dir_all(&job.folder).with_context(shown)?;
    for entry in fs::read_dir(run).with_context(shown)? {
        let entry = entry.with_context(shown)?;
        fs::rename(entry.path(), job.folder.join(entry.file_name())).with_context(shown)?;
    }
    if let Some(path) = &job.bundle {
        fs::copy(packed, path).with_context(|| format!("{}: the bundle can't be written", path.display()))?;
    }
    Ok(())
}
