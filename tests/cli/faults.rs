//! `greta faults` as a user meets it, and what the debugging chapter does with it.

use super::models::models;
use super::{check, fed, greta, text};
use libtest_mimic::{Failed, Trial};
use std::fs;

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("cli/faults/chapter", chapter),
        Trial::test("cli/faults/list", list),
        Trial::test("cli/faults/not_available", not_available),
        Trial::test("cli/verify/nan_in_a_norm_weight", nan_in_a_norm_weight),
        Trial::test("cli/verify/strict_and_incomplete", strict),
        Trial::test("cli/verify/bundle_folder", bundle_folder),
        Trial::test("cli/verify/another_model", another_model),
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
    check(names.contains(&"tile-transposed") && names.contains(&"bos-missing") && unknown >= 10, || v.to_string())?;
    check(v[0]["available"].is_null(), || v[0].to_string())?;
    // What a backend has, and how many of those are in kernels.
    for (backend, kernels) in [("cpu", names.len() - 1), ("hip:gfx942", 10), ("reference", 0)] {
        let v = greta(&["faults", "list", "-b", backend, "--json"])?.code(0)?.json()?;
        let has = v.as_array().into_iter().flatten().filter(|f| f["available"] == true).count();
        check(has == kernels + 1, || format!("{backend} has {has}"))?;
    }
    let table = greta(&["faults", "list", "-b", "hip:gfx942"])?.code(0)?.out;
    let row = |fault: &str| table.lines().find(|l| l.starts_with(fault)).map_or("", |l| l[fault.len()..].trim());
    check(row("gqa-map").starts_with("yes") && row("eps ").starts_with("no"), || table.clone())
}

/// A fault that the backend lacks is no fault without effect: it is said, and nothing else depends on it.
fn not_available() -> Result<(), Failed> {
    let base = ["faults", "run", "-b", "reference", "--prompts", "p4_sys", "--longest", "4", "--faults"];
    let some = greta(&[&base[..], &["bos-missing,eps"]].concat())?.code(0)?;
    let said = "not available on reference";
    check(some.err.contains("eps") && some.err.contains(said) && some.out.contains("reference: eps"), || {
        some.out.clone() + &some.err
    })?;
    check(!some.out.contains("never eligible"), || some.out.clone())?;
    let none = greta(&[&base[..], &["eps,gqa-map"]].concat())?.code(2)?;
    check(none.err.contains(said) && none.err.contains("gqa-map, eps"), || none.err.clone())?;
    let v = greta(&[&base[..], &["bos-missing,eps", "--json"]].concat())?.code(0)?.json()?;
    check(v["not_available"] == serde_json::json!(["eps"]) && v["total"] == 1 && v["backend"] == "reference", || {
        v.to_string()
    })
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

/// Also where the weight is a whole operand: what it holds is born at the op that reads it.
fn nan_in_a_norm_weight() -> Result<(), Failed> {
    let (path, tensor) = models()?.with_nan("verify-nan.gguf", 3)?;
    let want = tensor.trim_end_matches(".weight");
    for (backend, arith) in [("cpu", "int8"), ("cpu", "exact"), ("reference", "exact")] {
        let args =
            ["verify", "-m", text(&path), "-b", backend, "--arith", arith, "--prompts", "p0_short", "--no-bundle"];
        let v = greta(&[&args[..], &["--json"]].concat())?.code(1)?.json()?;
        let c = &v["culprit"];
        let named = c["node"] == want && c["class"] == "C_weight_layout" && c["hypothesis"] == "weight-non-finite";
        check(named, || format!("{tensor} on {backend}, {arith}: {c}"))?;
    }
    Ok(())
}

/// A run of some values of one prompt, into a folder of this name.
fn recorded(name: &str, extra: &[&str]) -> Result<std::path::PathBuf, Failed> {
    let m = models()?;
    let dir = m.folder.join(name);
    let base = ["trace", "-m", text(&m.whole), "-o", text(&dir), "--force", "--prompts", "p4_sys"];
    greta(&[&base[..], extra].concat())?.code(0)?;
    Ok(dir)
}

/// What could not be judged is listed; it is passed by `--strict` in no case, and in a run that did not end by none.
fn strict() -> Result<(), Failed> {
    let dir = recorded("verify-strict", &[])?;
    let v = greta(&["verify", "--run", text(&dir), "--json"])?.code(0)?.json()?;
    check(v["verdict"] == "CLEAN" && v["not_judged"].as_array().is_some_and(|n| !n.is_empty()), || v.to_string())?;
    check(v["record_with"] == serde_json::json!(["--rows all"]), || v["record_with"].to_string())?;
    let said = greta(&["verify", "--run", text(&dir), "--strict"])?.code(2)?.out;
    check(said.contains("CLEAN as far as it could be judged") && said.contains("greta trace --rows all"), || said)?;
    let whole = recorded("verify-whole", &["--rows", "all"])?;
    greta(&["verify", "--run", text(&whole), "--strict"])?.code(0)?;
    let run = fs::read_to_string(whole.join("run.json"))?.replace("\"complete\"", "\"incomplete\"");
    fs::write(whole.join("run.json"), run)?;
    let done = greta(&["verify", "--run", text(&whole)])?.code(2)?;
    check(done.err.contains("incomplete"), || done.err)
}

/// A folder that holds something else is left alone, and the verdict is said all the same.
fn bundle_folder() -> Result<(), Failed> {
    let m = models()?;
    let dir = m.folder.join("verify-bundle");
    let fault = ["faults", "trace", "--fault", "weight-col-major", "--prompts", "p4_sys", "--rows", "all", "--force"];
    greta(&[&fault[..], &["-m", text(&m.whole), "-o", text(&dir)]].concat())?.code(0)?;
    let done = greta(&["verify", "--run", text(&dir), "--bundle-dir", text(&dir)])?.code(1)?;
    let said = done.out.contains("column-major weight") && done.err.contains("no replay bundle was written");
    check(said, || done.out + &done.err)?;
    greta(&["verify", "--run", text(&dir), "--no-bundle"])?.code(1).map(|_| ())
}

/// A file of the same size is not the same model.
fn another_model() -> Result<(), Failed> {
    let dir = recorded("verify-other", &["--rows", "all"])?;
    let (path, _) = models()?.with_nan("verify-other.gguf", 3)?;
    for args in [&["verify", "--run", text(&dir)][..], &["gate", "--against", text(&dir)]] {
        let done = greta(&[args, &["-m", text(&path)]].concat())?.code(2)?;
        check(done.err.contains("another file of the same size"), || done.err)?;
    }
    Ok(())
}
