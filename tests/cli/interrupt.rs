//! Ctrl-C in the midst of a long step.

use super::models::models;
use super::{command, greta, text};
use crate::support::{Outcome, all, hip_sim, trial};
use libtest_mimic::{Failed, Trial};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub fn trials() -> Vec<Trial> {
    vec![trial("cli/unix/ctrl_c_in_a_step", in_a_step)]
}

/// A step of minutes ends soon, whatever the command: the work is asked between launches, not only between steps.
fn in_a_step() -> Result<(), Outcome> {
    // Skips without a compiler for kernels.
    hip_sim(1)?;
    let failed = |e: Failed| Outcome::Failed(e.message().unwrap_or("failed").into());
    let deep = models().map_err(failed)?.folder.join("interrupted.gguf");
    let made = greta(&["synth", "--layers", "64", "--context", "1024", "-o", text(&deep)]);
    made.and_then(|d| d.code(0)).map_err(failed)?;
    let cases: [&[&str]; 6] = [
        &["bench", "-p", "512", "-n", "0", "-r", "1"],
        &["profile", "-p", "512", "-n", "0"],
        &["verify", "--prompts", "p6_long", "--no-bundle"],
        &["faults", "run", "--faults", "gqa-map", "--layers", "first", "--prompts", "p6_long"],
        &["gate", "--prompts", "p6_long"],
        &["bench", "-p", "0", "-n", "4", "-d", "512", "-s", "2", "-r", "1"],
    ];
    let mut failures = Vec::new();
    for args in cases {
        let args_all = [args, &["-b", "hip:sim", "-t", "1", "-m", text(&deep)]].concat();
        let child = command(&args_all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // Time to begin a step, and far too little to end it.
        std::thread::sleep(Duration::from_secs(4));
        let start = Instant::now();
        Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
        let out = child.wait_with_output()?;
        let took = start.elapsed();
        if out.status.code() != Some(130) || took > Duration::from_secs(20) {
            let said = String::from_utf8_lossy(&out.stderr);
            failures.push(format!("{args:?}: {:?} after {took:?}: {said}", out.status));
        }
    }
    all(failures)
}
