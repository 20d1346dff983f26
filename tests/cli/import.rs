//! `greta import`, and the old trace flags of `greta run`.

use super::models::models;
use super::{Done, check, command, fed, greta, text};
use libtest_mimic::{Failed, Trial};
use std::path::Path;

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("cli/import/says_what_is_there", says),
        Trial::test("cli/import/bad_input", bad_input),
        Trial::test("cli/import/old_flags", old_flags),
    ]
}

fn data(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/import").join(name).display().to_string()
}

fn says() -> Result<(), Failed> {
    let done = greta(&["import", &data("points"), "--json"])?.code(0)?;
    let j = done.json()?;
    check(j["mapped"] == 4 && j["rows"] == 11 && j["not_mapped"][0] == "my_own_point", || j.to_string())?;
    check(j["prompts"][0]["tokens"] == 3, || j.to_string())?;
    let done = greta(&["import", &data("points")])?.code(0)?;
    check(done.out.starts_with("5 points, 11 rows") && done.err.contains("my_own_point"), || done.out + &done.err)?;
    let j = greta(&["import", &data("eval.txt"), "--json", "--arith", "f32"])?.code(0)?.json()?;
    check(j["engine"] == "llama.cpp eval-callback" && j["arith"] == "f32", || j.to_string())
}

fn bad_input() -> Result<(), Failed> {
    for (args, code, word) in [
        (vec!["import"], 2, "SOURCE"),
        (vec!["import", "/nowhere/at/all"], 1, "/nowhere/at/all"),
        (vec!["import", &data("events.jsonl"), "--format", "points"], 1, "events.jsonl"),
        (vec!["import", &data("points"), &data("points")], 1, "several sources"),
        (vec!["import", &data("points"), "--layout", "hf"], 1, "heads"),
        (vec!["import", &data("points/embd.npy")], 1, "the folder it lies in"),
    ] {
        let done = greta(&args)?.code(code)?;
        check(done.err.contains(word), || format!("{args:?}: no `{word}` in {}", done.err))?;
    }
    Ok(())
}

/// What the flags write is read back, and the text is the same as without them.
fn old_flags() -> Result<(), Failed> {
    let models = models()?;
    let folder = tempfile::tempdir()?;
    let run = |flags: &[(&str, &str)]| -> Result<Done, Failed> {
        let mut c = command(&["run", "-m", text(&models.whole), "-n", "4", "--json", "Hello there"]);
        c.current_dir(folder.path()).env("GRETA_SEED", "7").env("GRETA_MAX_SEQ_LEN", "64");
        c.envs(flags.iter().copied());
        fed(c, b"")?.code(0)
    };
    let plain = run(&[])?.json()?;
    check(plain["seed"] == 7 && plain["settings"]["context"] == 64, || plain.to_string())?;
    let traced = run(&[
        ("GRETA_TRACE_ATTN_L0_PIPE", "1"),
        ("GRETA_TRACE_ATTN_L0_NORM", "1"),
        ("GRETA_TRACE_ATTN_L0_PIPE_OUT", "pipe.jsonl"),
        ("GRETA_TRACE_QKV_W_VERIFY", "1"),
        ("GRETA_TRACE_WO_W_VERIFY", "1"),
        ("GRETA_TRACE_STAGE", "1"),
        ("GRETA_TRACE_STAGE_LAYERS", "1"),
        ("GRETA_TRACE_STAGE_POINTS", "x_in,q,logits"),
        ("GRETA_TRACE_STAGE_DEBUG_INPUT", "1"),
        ("GRETA_TRACE_RMSNORM", "1"),
        ("GRETA_TRACE_RMSNORM_SAMPLE", "5"),
        ("GRETA_TRACE_RMSNORM_PHASES", "decode0"),
        ("GRETA_TRACE_PROMPT_ID", "p9"),
    ])?
    .json()?;
    check(traced["text"] == plain["text"], || format!("{traced}\nwithout flags: {plain}"))?;
    let read = |name: &str| -> Result<Vec<serde_json::Value>, Failed> {
        let text = std::fs::read_to_string(folder.path().join(name))?;
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    };
    let list = |events: &[serde_json::Value], key: &str| -> String {
        events.iter().map(|e| e[key].as_str().map_or(e[key].to_string(), String::from)).collect::<Vec<_>>().join(" ")
    };
    let stage = read("stage_trace.jsonl")?;
    let (points, phases) = (list(&stage, "point"), list(&stage, "phase"));
    check(points == "x_in x_in q logits x_in x_in q logits", || points.clone())?;
    check(phases.starts_with("prefill_last") && phases.ends_with("decode0 decode0 decode0 decode0"), || {
        phases.clone()
    })?;
    // decode0 runs the prompt's last token again: the same numbers as the prefill gave.
    check(
        stage[..4].iter().zip(&stage[4..]).all(|(a, b)| a["hash"] == b["hash"] && a["pos_id"] == b["pos_id"]),
        || format!("{stage:?}"),
    )?;
    let norm = read("rmsnorm_trace.jsonl")?;
    check(
        norm.iter().all(|e| e["phase"] == "decode0" && e["input_sample"].as_array().map(Vec::len) == Some(5)),
        || format!("{norm:?}"),
    )?;
    let pipe = read("pipe.jsonl")?;
    let verified: Vec<_> = pipe.iter().filter(|e| !e["weight"].is_null()).collect();
    check(verified.len() == 8 && verified.iter().all(|e| e["layout_best"] == "row"), || format!("{verified:?}"))?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let args = ["import", &path("pipe.jsonl"), &path("stage_trace.jsonl"), &path("rmsnorm_trace.jsonl"), "--json"];
    let j = greta(&args)?.code(0)?.json()?;
    check(j["prompts"][0]["id"] == "p9" && j["mapped"].as_u64() > Some(8), || j.to_string())?;
    for (name, value) in [("GRETA_TRACE_STAGE_POINTS", "q,nonsense"), ("GRETA_TRACE_STAGE_LAYERS", "first")] {
        let mut c = command(&["run", "-m", text(&models.whole), "-n", "1", "Hi"]);
        c.current_dir(folder.path()).env("GRETA_TRACE_STAGE", "1").env(name, value);
        let done = fed(c, b"")?.code(1)?;
        check(done.err.contains(name) && done.err.contains(value), || done.err.clone())?;
    }
    Ok(())
}
