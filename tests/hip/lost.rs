//! A kernel that touches memory it does not have: the error names it, and the process goes on.
//!
//! On a GPU the error costs the process its context, with all that others do on it: there each case runs in a process of its
//! own. Whether the process can have another is the driver's choice (CUDA's does not give one); the CPU is always there.

use crate::support::{HipKind, Outcome, all, cpu, engine, synth_tiny, trial};
use greta_backend::{Backend, RowsWanted};
use greta_hip::{Hip, HipOptions, Launching};
use greta_models::{Context, EngineOptions};
use libtest_mimic::Trial;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set for the process that is there to lose its device.
const HERE: &str = "GRETA_TEST_LOSE_DEVICE";

/// The token at which the broken kernel goes wrong.
const TOKEN: u32 = 7;

pub fn trials(kinds: &[HipKind]) -> Vec<Trial> {
    let here = std::env::var_os(HERE).is_some();
    let of = |(&(label, open), launching): (&HipKind, Launching)| {
        let name = format!("hip/device_error/{label}/{launching:?}");
        match here || label == "hip-sim" {
            true => trial(name, move || lose(label, open()?, launching)),
            false => trial(name.clone(), move || elsewhere(&name)),
        }
    };
    let ways = [Launching::Replayed, Launching::Eager, Launching::Waited];
    kinds.iter().flat_map(|kind| ways.map(|how| (kind, how))).map(of).collect()
}

/// Runs the test of this name alone, in another process.
fn elsewhere(name: &str) -> Result<(), Outcome> {
    let out = Command::new(std::env::current_exe()?).args(["--exact", name]).env(HERE, "1").output()?;
    let said = String::from_utf8_lossy(&out.stdout);
    match out.status.success() && said.contains("1 passed") {
        true => Ok(()),
        false => Err(Outcome::Failed(format!("{said}{}", String::from_utf8_lossy(&out.stderr)))),
    }
}

/// The kernels' sources, with an `embed` that writes far outside when it is given a certain token.
fn broken(launching: Launching) -> Result<PathBuf, Outcome> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("backends/hip/kernels");
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("broken-{}-{launching:?}", std::process::id()));
    std::fs::create_dir_all(&to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let mut text = std::fs::read_to_string(entry.path())?;
        if entry.file_name() == "embed.hip" {
            let known = "  float *to = out + (u64)token * k;\n";
            let fault = format!("  if (ids[token] == {TOKEN}) *(volatile u32 *)16 = 1;\n{known}");
            if !text.contains(known) {
                return Err(Outcome::Failed("embed.hip: the place to break is gone".into()));
            }
            text = text.replace(known, &fault);
        }
        std::fs::write(to.join(entry.file_name()), text)?;
    }
    Ok(to)
}

fn bits(context: &mut Context, token: u32) -> Result<Vec<u32>, Outcome> {
    Ok(context.step(&[token], RowsWanted::Last)?.logits.iter().map(|x| x.to_bits()).collect())
}

/// A prompt and the decode steps that have a graph captured and replayed.
fn begun(context: &mut Context) -> Result<Vec<u32>, Outcome> {
    context.prefill(&[1, 2, 3], &mut |_, _| true)?;
    [4, 5, 6].iter().try_for_each(|t| bits(context, *t).map(|_| ()))?;
    bits(context, 8)
}

fn lose(label: &str, hip: Hip, launching: Launching) -> Result<(), Outcome> {
    let which = hip.name().trim_start_matches("hip").to_string();
    let model = synth_tiny("Q4_0")?;
    let kernels = broken(launching)?;
    let good = |backend: &dyn Backend| -> Result<Vec<u32>, Outcome> {
        begun(&mut engine(&model, backend, &EngineOptions::default())?.context()?)
    };
    let want = [good(&hip)?, good(&cpu(1)?)?];
    // Its device goes with the other's.
    drop(hip);
    let said = |r: Result<Vec<u32>, Outcome>| match r {
        Err(Outcome::Failed(text)) => text,
        _ => "nothing".into(),
    };
    let options = HipOptions { launching, kernels: Some(kernels.clone()), ..HipOptions::threads(1) };
    let broken = Hip::open(&which, options)?;
    let mut context = engine(&model, &broken, &EngineOptions::default())?.context()?;
    begun(&mut context)?;
    let (first, second) = (said(bits(&mut context, TOKEN)), said(bits(&mut context, 4)));
    let in_use = Hip::open(&which, HipOptions::threads(1)).map(|_| ());
    drop((context, broken));

    let mut failures = Vec::new();
    // The emulator always knows which launch it is at; a GPU where each is waited for.
    let sim = label == "hip-sim";
    let named = sim || launching == Launching::Waited;
    let expected = if named { ["embd", "kernel"] } else { ["launched before", "--eager=wait"] };
    if let Some(missing) = expected.iter().find(|w| !first.contains(**w)) {
        failures.push(format!("`{missing}` is not in `{first}`"));
    }
    let lost = |text: &str| text.contains("the device is lost since");
    let known = lost(&second) && in_use.is_err_and(|e| lost(&e.to_string()));
    if !sim && !known {
        failures.push(format!("after the error: `{second}`"));
    }
    match Hip::open(&which, HipOptions::threads(1)) {
        Ok(again) => {
            if good(&again).ok().as_ref() != Some(&want[0]) {
                failures.push(format!("the next request: {}", said(good(&again))));
            }
        }
        Err(e) if !sim && lost(&e.to_string()) && e.to_string().contains("start greta again") => {}
        Err(e) => failures.push(format!("opened again: {e}")),
    }
    if good(&cpu(1)?)? != want[1] {
        failures.push("the CPU gives other numbers now".into());
    }
    std::fs::remove_dir_all(kernels)?;
    all(failures)
}
