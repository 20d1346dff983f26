//! `greta faults` as a user meets it, and what the debugging chapter does with it.

use super::models::models;
use super::{check, fed, greta, text};
use libtest_mimic::{Failed, Trial};
use std::fs;

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("cli/faults/chapter", chapter),
        Trial::test("cli/faults/list", list),
        Trial::test("cli/faults/bad_input", bad),
    ]
}

/// From the symptom to the name: each command of docs/debugging.md on a recorded fault.
fn chapter() -> Result<(), Failed> {
    let m = models()?;
    let dir = m.folder.join("faults-chapter");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let run = |args: &[&str]| -> Result<super::Done, Failed> {
        let mut c = super::command(args);
        c.current_dir(&dir);
        fed(c, b"")
    };
    let (model, taps) = (text(&m.whole), "{tokens,embd,blk.0.*}");
    let fault = ["faults", "trace", "--fault", "tile-transposed"];
    run(&[&fault[..], &["-m", model, "--rows", "all", "--taps", taps, "-o", "broken"]].concat())?.code(0)?;
    let d = run(&["diff", "broken", "--json"])?.code(1)?;
    check(d.out.contains("blk.0.q"), || d.out.clone())?;
    let v = run(&["verify", "--run", "broken", "--json"])?.code(1)?.json()?;
    let c = &v["culprit"];
    check(c["node"] == "blk.0.q" && c["class"] == "D_kernel_math", || v.to_string())?;
    check(c["hypothesis"].as_str().is_some_and(|h| h.starts_with("output tile transposed (tile 16")), || {
        v.to_string()
    })?;
    check(c["bundle"] == "greta-replay-blk.0.q", || c["bundle"].to_string())?;
    // The fault is in the run, not in this greta's kernels.
    let replayed = run(&["replay", "greta-replay-blk.0.q"])?.code(0)?;
    check(replayed.out.contains("right when run alone"), || replayed.out.clone())?;
    let probed = run(&["probe", "norm-qkv", "--run", "broken"])?.code(1)?;
    check(probed.out.contains("the kernel") && probed.out.contains("not the weights"), || probed.out.clone())?;
    run(&["probe", "weights", "--run", "broken"])?.code(1)?;
    run(&["report", "broken", "--md", "report.md", "--html", "report.html", "--lang", "both"])?.code(0)?;
    let made = fs::read_to_string(dir.join("report.md"))?;
    check(made.contains("tile-transposed at blk.0.q") && made.contains("D_kernel_math"), || made.clone())?;
    let quiet = run(&["verify", "--run", "broken", "--no-bundle", "--json"])?.code(1)?.json()?;
    check(quiet["culprit"]["bundle"].is_null(), || quiet.to_string())
}

fn list() -> Result<(), Failed> {
    let v = greta(&["faults", "list", "--json"])?.code(0)?.json()?;
    let names: Vec<&str> = v.as_array().into_iter().flatten().filter_map(|f| f["fault"].as_str()).collect();
    let unknown = v.as_array().into_iter().flatten().filter(|f| f["class"] == "UNKNOWN").count();
    check(names.contains(&"tile-transposed") && names.contains(&"bos-missing") && unknown >= 10, || v.to_string())
}

fn bad() -> Result<(), Failed> {
    let m = models()?;
    let out = m.folder.join("faults-never");
    let base = ["faults", "trace", "-m", text(&m.whole), "-o", text(&out)];
    let cases: [(&[&str], i32, &str); 6] = [
        (&["--fault", "no-such"], 2, "unknown fault `no-such`"),
        (&["--fault", "bos-missing"], 1, "is in the prompt, not in a kernel"),
        (&["--fault", "q4k-scales"], 1, "name it with --node"),
        (&["--fault", "gqa-map", "--node", "blk.0.q"], 1, "blk.0.q"),
        (&["--fault", "eps", "--layer", "99"], 1, "blk.99.attn_norm"),
        (&["--fault", "eps", "--host", "me@nowhere"], 1, "on this machine alone"),
    ];
    for (args, code, word) in cases {
        let done = greta(&[&base[..], args].concat())?.code(code)?;
        check(done.err.contains(word) && !out.exists(), || format!("{args:?}: {}", done.err))?;
    }
    Ok(())
}
