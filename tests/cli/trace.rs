//! `greta trace` and `greta diff` as a user meets them.

use super::models::{Models, models};
use super::{Done, check, command, fed, greta, text};
use greta::trace::{Recording, Status, folder};
use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

pub fn trials() -> Vec<Trial> {
    let mut list = vec![
        Trial::test("cli/trace/summary", summary),
        Trial::test("cli/trace/folder_is_kept", folder_is_kept),
        Trial::test("cli/trace/taps_rows_phases", taps_rows_phases),
        Trial::test("cli/trace/nan_is_named", nan_is_named),
        Trial::test("cli/diff/one_run", one_run),
        Trial::test("cli/diff/verdicts_and_exit_codes", verdicts),
        Trial::test("cli/diff/lines", lines),
        #[cfg(unix)]
        Trial::test("cli/trace/killed", unix::killed),
        #[cfg(unix)]
        Trial::test("cli/trace/ctrl_c", unix::ctrl_c),
        #[cfg(unix)]
        Trial::test("cli/trace/full_disk", unix::full_disk),
    ];
    list.extend(BAD.iter().map(|b| Trial::test(format!("cli/bad_trace/{}", b.0), move || bad(b))));
    list
}

fn fresh(m: &Models, name: &str) -> Result<PathBuf, Failed> {
    let dir = m.folder.join(format!("trace-{name}"));
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    Ok(dir)
}

/// Traces two prompts into a folder of this name.
fn traced(name: &str, extra: &[&str]) -> Result<PathBuf, Failed> {
    let m = models()?;
    let dir = fresh(m, name)?;
    let base = ["trace", "-m", text(&m.whole), "-o", text(&dir), "--prompts", "p0_short,p5_ba"];
    greta(&[&base[..], extra].concat())?.code(0)?;
    Ok(dir)
}

fn summary() -> Result<(), Failed> {
    let m = models()?;
    let dir = fresh(m, "summary")?;
    let args = ["trace", "-m", text(&m.whole), "-o", text(&dir), "--label", "E1", "--decode", "2", "--json"];
    let mut c = command(&args);
    c.env("GRETA_TRACE_PROMPT_ID", "p4_sys");
    let v = fed(c, b"")?.code(0)?.json()?;
    let prompts: Vec<&str> = v["prompts"].as_array().into_iter().flatten().filter_map(|p| p["id"].as_str()).collect();
    check(prompts == ["p0_short", "p4_sys", "p5_ba", "p6_long"], || format!("{prompts:?}"))?;
    check(v["complete"] == true && v["label"] == "E1" && v["nan_rows"] == 0, || v.to_string())?;
    check(v["phases"] == serde_json::json!(["decode0", "decode1", "prefill"]), || v["phases"].to_string())?;
    let run: Value = serde_json::from_str(&fs::read_to_string(dir.join("run.json"))?)?;
    let command: Vec<&str> = run["command"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    check(command.get(1..) == Some(&args[..]), || format!("{command:?}"))?;
    let flags = run["flags"].to_string();
    check(flags.contains("GRETA_TRACE_PROMPT_ID"), || flags.clone())?;
    let hash = greta::trace::sha256(fs::File::open(&m.whole)?)?;
    check(run["model"]["sha256"] == hash.as_str(), || run["model"].to_string())?;
    let rec = Recording::open(&dir)?;
    check(rec.rows() as u64 == v["rows"].as_u64().unwrap_or(0) && rec.rows() > 300, || v["rows"].to_string())?;
    check(rec.info.prompts[3].tokens.len() >= 200, || "p6_long is short".into())?;
    let said =
        greta(&["trace", "-m", text(&m.whole), "-o", text(&dir), "--force", "--taps", "logits", "Hi"])?.code(0)?;
    check(said.out.contains("1 prompts × 2 phases × 1 values, 2 rows"), || said.out.clone())
}

fn folder_is_kept() -> Result<(), Failed> {
    let dir = traced("kept", &["--taps", "logits"])?;
    let m = models()?;
    let args = ["trace", "-m", text(&m.whole), "-o", text(&dir), "--taps", "embd", "--tokens", "5,6"];
    let done = greta(&args)?.code(1)?;
    check(done.err.contains("--force") && done.err.contains(text(&dir)), || done.err.clone())?;
    check(Recording::open(&dir)?.get("logits").is_some(), || "the run is gone".into())?;
    greta(&[&args[..], &["--force"]].concat())?.code(0)?;
    let rec = Recording::open(&dir)?;
    check(rec.get("embd").is_some() && rec.info.prompts[0].tokens == [5, 6], || format!("{:?}", rec.info.prompts))?;
    // Without -o the folder is named by the label.
    let home = fresh(m, "home")?;
    fs::create_dir_all(&home)?;
    let mut c = command(&["trace", "-m", text(&m.whole), "--label", "E2", "--taps", "logits", "--tokens", "5"]);
    c.current_dir(&home);
    fed(c, b"")?.code(0)?;
    check(home.join("greta-run-E2/run.json").exists(), || "no folder greta-run-E2".into())
}

fn taps_rows_phases() -> Result<(), Failed> {
    let args = ["--taps", "blk.0.{q,k},output_norm", "--taps", "*_cache", "--rows", "0,3-4", "--detail", "sample:4"];
    let dir = traced("rows", &[&args[..], &["--chunk", "4", "--arith", "exact", "--kv", "f32"]].concat())?;
    let rec = Recording::open(&dir)?;
    let names: Vec<&str> = rec.series.iter().map(|s| s.name.as_str()).collect();
    let want = ["blk.0.q", "blk.0.k", "blk.0.k_cache", "blk.0.v_cache", "blk.1.k_cache", "blk.1.v_cache"];
    check(want.iter().all(|w| names.contains(w)) && !names.contains(&"blk.1.q"), || format!("{names:?}"))?;
    let s = rec.get("blk.1.v_cache").ok_or("no cache")?;
    let at: Vec<_> =
        s.rows.iter().filter(|r| r.at.prompt == 1).map(|r| (r.at.phase_name(), r.at.position, r.data.len())).collect();
    check(at == [("prefill".into(), 0, 4), ("prefill".into(), 3, 4), ("prefill".into(), 4, 4)], || format!("{at:?}"))?;
    check(rec.info.arith == "exact" && rec.info.kv == "f32" && rec.info.chunk == 4, || format!("{:?}", rec.info))
}

fn nan_is_named() -> Result<(), Failed> {
    let (path, _) = models()?.with_nan("trace-nan.gguf", 3)?;
    let dir = fresh(models()?, "nan")?;
    let args = ["trace", "-m", text(&path), "-o", text(&dir), "--decode", "0", "--tokens", "1,2,3"];
    let done = greta(&args)?.code(0)?;
    check(done.err.contains("NaN") && done.err.contains("the first is `"), || done.err.clone())?;
    let v = greta(&[&args[..], &["--force", "--json"]].concat())?.code(0)?.json()?;
    check(v["nan_rows"].as_u64() > Some(0) && v["first_not_finite"]["node"].is_string(), || v.to_string())?;
    Recording::open(&dir)?;
    Ok(())
}

fn one_run() -> Result<(), Failed> {
    let dir = traced("one", &[])?;
    let done = greta(&["diff", text(&dir)])?.code(0)?;
    let words = ["prefill_last", "decode0", "p5_ba", "NONE", "EQUAL: ", "equal to the bit"];
    check(words.iter().all(|w| done.out.contains(w)), || done.out.clone())?;
    let v = greta(&["diff", text(&dir), "--json", "--node", "blk.0.*"])?.code(0)?.json()?;
    let pointers = [
        ("/verdict", "EQUAL"),
        ("/rule", "bits"),
        ("/a/phases", "prefill_last"),
        ("/b/phases", "decode0"),
        ("/prompts/0/prompt", "p0_short"),
        ("/prompts/0/nodes/0/node", "blk.0.attn_norm"),
    ];
    for (at, want) in pointers {
        check(v.pointer(at).and_then(Value::as_str) == Some(want), || format!("{at}: {:?}", v.pointer(at)))?;
    }
    for at in ["/prompts/0/nodes/0/mae", "/prompts/0/nodes/0/rows/0/at_a/position", "/joined", "/limits/drift"] {
        check(v.pointer(at).is_some_and(Value::is_number), || format!("{at}: {:?}", v.pointer(at)))?;
    }
    let v = greta(&["diff", text(&dir), "--json"])?.code(0)?.json()?;
    let l = &v["prompts"][1]["logits"];
    check(l["kl"] == 0.0 && l["top1_equal"] == true && l["top_overlap"] == 10, || l.to_string())?;
    let table = greta(&["diff", text(&dir), "--all"])?.code(0)?;
    check(table.out.lines().filter(|l| l.contains("rmsnorm")).count() == 10, || table.out.clone())
}

fn verdicts() -> Result<(), Failed> {
    let runs = fresh(models()?, "verdicts")?;
    fs::create_dir_all(&runs)?;
    let run = |label: &str, extra: &[&str]| -> Result<String, Failed> {
        let m = models()?;
        let dir = runs.join(label);
        let base = ["trace", "-m", text(&m.whole), "-o", text(&dir), "--label", label];
        let prompt: &[&str] = if extra.contains(&"--tokens") { &[] } else { &["--tokens", "9,8,7,6"] };
        greta(&[&base[..], prompt, extra].concat())?.code(0)?;
        Ok(text(&dir).to_owned())
    };
    let exact = run("exact", &["--arith", "exact"])?;
    let int8 = run("int8", &[])?;
    let slow = run("slow", &["--arith", "exact", "-b", "reference"])?;
    let other = run("other", &["--arith", "exact", "--tokens", "9,8,7,5"])?;
    let prefill = run("prefill", &["--arith", "exact", "--phases", "prefill_last"])?;
    let all = text(&runs);
    // Sides, exit code, verdict.
    let cases: [(&[&str], i32, &str); 14] = [
        (&[&exact, &exact], 0, "EQUAL"),
        (&[&exact, &slow], 0, "WITHIN_BOUNDS"),
        (&[&exact, &slow, "--no-bounds"], 0, "WITHIN_BOUNDS"),
        (&[&exact, &int8], 0, "EXPECTED_DRIFT"),
        (&[&exact, &int8, "--drift", "0.000001"], 1, "DIFFERS"),
        (&[&exact, &slow, "--tolerance", "0.000000001"], 1, "DIFFERS"),
        (&[&exact, &other], 2, "TRACE_MISMATCH"),
        (&[&prefill], 2, "INCOMPLETE"),
        (&[&format!("{exact}:decode0"), &format!("{int8}:prefill_last")], 0, "EXPECTED_DRIFT"),
        (&[&format!("{all}@exact"), &format!("{all}@slow")], 0, "WITHIN_BOUNDS"),
        (&[&format!("{all}@exact:decode0"), &format!("{all}@prefill:prefill_last")], 0, "EQUAL"),
        (&[&exact, &prefill], 0, "EQUAL"),
        (&[&exact, &exact, "--node", "nothing"], 2, "INCOMPLETE"),
        (&[&format!("{exact}:decode0"), &format!("{exact}:decode3")], 2, "INCOMPLETE"),
    ];
    for (args, code, verdict) in cases {
        let done = greta(&[&["diff"], args].concat())?;
        let last = done.out.lines().last().unwrap_or_default().to_owned();
        check(done.code == Some(code) && last.starts_with(verdict), || {
            format!("{args:?}: exit code {:?}, expected {code} and {verdict}\n{}{}", done.code, done.out, done.err)
        })?;
        let v = greta(&[&["diff", "--json"], args].concat())?.code(code)?.json()?;
        check(v["verdict"] == verdict, || format!("{args:?}: {}", v["verdict"]))?;
    }
    Ok(())
}

fn lines() -> Result<(), Failed> {
    let dir = traced("lines", &["--taps", "blk.*.out,logits"])?;
    let out = models()?.folder.join("diff.jsonl");
    greta(&["diff", text(&dir), "--out", text(&out)])?.code(0)?;
    let lines: Vec<Value> = fs::read_to_string(&out)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    check(lines.len() == 6, || format!("{} lines", lines.len()))?;
    check(lines[0]["prompt"] == "p0_short" && lines[0]["node"] == "blk.0.out" && lines[0]["mae"] == 0.0, || {
        lines[0].to_string()
    })
}

/// Name, arguments (`RUN` is a run folder, `MODEL` a model), exit code, words.
const BAD: &[(&str, &[&str], i32, &[&str])] = &[
    ("pattern", &["trace", "-o", "NEW", "--taps", "blk.0.quark"], 1, &["blk.0.quark", "blk.0.q"]),
    ("glob", &["trace", "-o", "NEW", "--taps", "blk.{0"], 1, &["can't be read"]),
    ("empty_pattern", &["trace", "-o", "NEW", "--taps", "logits,"], 1, &["empty"]),
    ("rows", &["trace", "-o", "NEW", "--rows", "some"], 2, &["some", "last, all"]),
    ("phases", &["trace", "-o", "NEW", "--phases", "dusk"], 2, &["dusk", "prefill_last"]),
    ("phase_of_prefill", &["trace", "-o", "NEW", "--phases", "prefill0"], 2, &["prefill0", "are not told apart"]),
    ("detail", &["trace", "-o", "NEW", "--detail", "sample:0"], 2, &["sample:0"]),
    ("prompt_name", &["trace", "-o", "NEW", "--prompts", "p9"], 1, &["p9", "p0_short"]),
    ("two_prompts", &["trace", "-o", "NEW", "--prompts", "p0_short", "Hi"], 2, &["cannot be used with"]),
    ("token", &["trace", "-o", "NEW", "--tokens", "99999"], 1, &["99999"]),
    ("label", &["trace", "-o", "NEW", "--label", "a@b"], 2, &["label"]),
    ("chunk", &["trace", "-o", "NEW", "--chunk", "0"], 1, &["--chunk 0"]),
    ("route", &["trace", "-o", "NEW", "--route", "blk.0.q"], 2, &["no route"]),
    ("route_pattern", &["trace", "-o", "NEW", "--route", "blk.0.quark=portable"], 1, &["blk.0.quark"]),
    ("route_kernel", &["trace", "-o", "NEW", "--route", "blk.0.q=abacus"], 1, &["abacus"]),
    ("too_long", &["trace", "-o", "NEW", "--decode", "400", "--tokens", "1"], 1, &["the context holds", "256"]),
    ("output_is_file", &["trace", "-o", "MODEL"], 1, &["is a file"]),
    ("diff_nothing", &["diff"], 2, &["<A>"]),
    ("diff_no_folder", &["diff", "no-such-run"], 2, &["no-such-run", "no such folder"]),
    ("diff_no_run", &["diff", "tests"], 2, &["run.json"]),
    ("diff_file", &["diff", "MODEL"], 2, &["is a file"]),
    ("diff_phase", &["diff", "RUN:dusk"], 2, &["dusk", "prefill_last"]),
    ("diff_phase_of_prefill", &["diff", "RUN:prefill0"], 2, &["prefill0", "are not told apart"]),
    ("diff_phase_alone", &["diff", "RUN:decode0"], 2, &["with what?"]),
    ("diff_label", &["diff", "RUN@E7"], 2, &["E7"]),
    ("diff_limit", &["diff", "RUN", "--drift=-1"], 2, &["drift"]),
    ("diff_model", &["diff", "RUN", "-m", "no-such.gguf"], 2, &["no-such.gguf"]),
    ("diff_out", &["diff", "RUN", "--out", "/no/such/folder/x"], 2, &["/no/such/folder/x"]),
];

fn bad(&(name, args, code, words): &(&str, &[&str], i32, &[&str])) -> Result<(), Failed> {
    static RUN: std::sync::OnceLock<Result<PathBuf, String>> = std::sync::OnceLock::new();
    let run = RUN.get_or_init(|| traced("for-bad", &["--taps", "logits"]).map_err(|e| format!("{e:?}")));
    let (m, run) = (models()?, run.as_ref().map_err(|e| Failed::from(e.as_str()))?);
    let new = fresh(m, &format!("bad-{name}"))?;
    let args: Vec<String> = args
        .iter()
        .map(|a| a.replace("RUN", text(run)).replace("NEW", text(&new)).replace("MODEL", text(&m.whole)))
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut c = command(&args);
    c.env("GRETA_MODEL", &m.whole).current_dir(env!("CARGO_MANIFEST_DIR"));
    let done = fed(c, b"")?.code(code)?;
    let missing: Vec<_> = words.iter().filter(|w| !done.err.contains(**w)).collect();
    check(missing.is_empty() && done.out.is_empty(), || format!("{missing:?} not in: {}{}", done.err, done.out))?;
    check(!new.exists(), || "a folder was left".into())
}

#[cfg(unix)]
mod unix {
    use super::*;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    /// A trace that takes a while, some steps on its way.
    fn slow(dir: &std::path::Path) -> Result<Child, Failed> {
        let m = models()?;
        let args = ["trace", "-m", text(&m.whole), "-b", "reference", "-o", text(dir), "--chunk", "2", "--rows", "all"];
        let child = command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (start, lines) = (Instant::now(), dir.join(folder::TAPS));
        while fs::metadata(&lines).map_or(0, |m| m.len()) < 200_000 {
            check(start.elapsed() < Duration::from_secs(60), || "nothing is recorded".into())?;
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(child)
    }

    fn readable(dir: &std::path::Path) -> Result<Recording, Failed> {
        let rec = Recording::open(dir)?;
        check(rec.rows() > 100 && rec.info.status != Status::Complete, || {
            format!("{} rows, {:?}", rec.rows(), rec.info.status)
        })?;
        let kept = rec.series.iter().flat_map(|s| &s.rows).filter(|r| !r.data.is_empty()).count();
        check(kept > 100, || format!("{kept} rows with values"))?;
        // What there is can be compared; that it is all can't be said.
        let done = greta(&["diff", text(dir), text(dir)])?.code(2)?;
        check(done.out.contains("INCOMPLETE"), || done.out.clone())?;
        Ok(rec)
    }

    pub fn killed() -> Result<(), Failed> {
        let dir = fresh(models()?, "killed")?;
        let mut child = slow(&dir)?;
        child.kill()?;
        child.wait()?;
        readable(&dir).map(|_| ())
    }

    pub fn ctrl_c() -> Result<(), Failed> {
        let dir = fresh(models()?, "interrupted")?;
        let child = slow(&dir)?;
        Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
        let out = child.wait_with_output()?;
        check(out.status.code() == Some(130), || format!("{:?}", out.status))?;
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        check(said.contains("incomplete"), || said.clone())?;
        let rec = readable(&dir)?;
        check(rec.info.status == Status::Incomplete && !rec.info.steps.is_empty(), || format!("{:?}", rec.info.status))
    }

    /// A limit on the size of files stands for a full disk: writes fail with an error of their own.
    pub fn full_disk() -> Result<(), Failed> {
        let m = models()?;
        for (blocks, file) in [(1200, folder::TAPS), (700, folder::TENSORS)] {
            let dir = fresh(m, &format!("full-{blocks}"))?;
            let detail = if file == folder::TAPS { "stats" } else { "full" };
            let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
            let mut c = Command::new("bash");
            c.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_greta"), "trace", "-m", text(&m.whole), "-o", text(&dir)]);
            c.args(["--rows", "all", "--chunk", "8", "--detail", detail]);
            let done: Done = fed(c, b"")?.code(1)?;
            check(done.err.contains(file) && done.err.contains("too large"), || done.err.clone())?;
            let rec = Recording::open(&dir)?;
            check(rec.rows() > 50 && rec.info.status != Status::Complete, || format!("{} rows", rec.rows()))?;
        }
        Ok(())
    }
}
