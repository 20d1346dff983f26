//! Bad input: each a named error and an exit code, with nothing on standard output.

use super::models::{CONTEXT, Models, models};
use super::{check, command, fed, greta, text};
use greta::gguf::Value;
use libtest_mimic::{Failed, Trial};
use std::path::PathBuf;

pub fn trials() -> Vec<Trial> {
    let mut list: Vec<Trial> =
        FILES.iter().map(|row| Trial::test(format!("cli/bad_file/{}", row.0), move || bad_file(row))).collect();
    list.extend(FLAGS.iter().map(|row| Trial::test(format!("cli/bad_flag/{}", row.0), move || bad_flag(row))));
    list.extend([
        Trial::test("cli/no_vocabulary_but_tokens", no_vocabulary_but_tokens),
        Trial::test("cli/nan_is_named_by_check", nan_is_named),
        Trial::test("cli/unsupported_architecture_is_inspected", unsupported_is_inspected),
        Trial::test("cli/prompt_file_not_utf8", prompt_not_utf8),
        Trial::test("cli/stdin_not_utf8", stdin_not_utf8),
        Trial::test("cli/synth_keeps_files", synth_keeps_files),
        Trial::test("cli/emulator_limit_is_a_number", emulator_limit),
    ]);
    list
}

type Make = fn(&Models, &str) -> Result<PathBuf, Failed>;

/// Name, how the file is made, words of the error. `run` must name each.
const FILES: &[(&str, Make, &[&str])] = &[
    ("truncated_header", |m, name| m.patched(name, |b| b.truncate(2000)), &["damaged or incomplete", "download"]),
    ("truncated_data", |m, name| m.patched(name, |b| b.truncate(b.len() - 100_000)), &["tensor", "bytes"]),
    ("empty", |m, name| m.file(name, b""), &["the file is empty"]),
    ("wrong_magic", |m, name| m.patched(name, |b| b[0] = b'g'), &["not a GGUF file", "67 47 55 46"]),
    ("web_page", |m, name| m.file(name, b"<!DOCTYPE html><html></html>"), &["web page"]),
    ("version_1", |m, name| m.patched(name, |b| b[4] = 1), &["GGUF version 1"]),
    ("big_endian", |m, name| m.patched(name, |b| b[4..8].reverse()), &["big-endian"]),
    (
        "tensors_2_60",
        |m, name| m.patched(name, |b| b[8..16].copy_from_slice(&(1u64 << 60).to_le_bytes())),
        &["claims", "tensors"],
    ),
    (
        "metadata_2_60",
        |m, name| m.patched(name, |b| b[16..24].copy_from_slice(&(1u64 << 60).to_le_bytes())),
        &["claims"],
    ),
    ("absent", |m, name| Ok(m.folder.join(name)), &["no such file"]),
    ("folder", |m, _| Ok(m.folder.clone()), &["a directory"]),
    (
        "unsupported_architecture",
        |m, name| {
            m.rewritten(
                name,
                |k, v| Some(if k == "general.architecture" { "gpt9".into() } else { v.clone() }),
                |_| true,
            )
        },
        &["unsupported architecture `gpt9`", "known: llama"],
    ),
    ("missing_vocabulary", |m, name| m.without_vocabulary(name), &["tokenizer.ggml.model", "missing"]),
    (
        "missing_merges",
        |m, name| m.rewritten(name, |k, v| (k != "tokenizer.ggml.merges").then(|| v.clone()), |_| true),
        &["no merges"],
    ),
    (
        "unknown_pre_tokenizer",
        |m, name| {
            m.rewritten(name, |k, v| Some(if k == "tokenizer.ggml.pre" { "odd".into() } else { v.clone() }), |_| true)
        },
        &["pre-tokenizer `odd`", "known"],
    ),
    (
        "missing_tensor",
        |m, name| m.rewritten(name, |_, v| Some(v.clone()), |t| t != "blk.1.ffn_up.weight"),
        &["blk.1.ffn_up.weight", "missing"],
    ),
    (
        "wrong_shape",
        |m, name| {
            m.rewritten(
                name,
                |k, v| Some(if k == "llama.feed_forward_length" { 256u32.into() } else { v.clone() }),
                |_| true,
            )
        },
        &["ffn_gate.weight", "calls for"],
    ),
    (
        "zero_heads",
        |m, name| {
            m.rewritten(
                name,
                |k, v| Some(if k == "llama.attention.head_count" { 0u32.into() } else { v.clone() }),
                |_| true,
            )
        },
        &["llama.attention.head_count", "0"],
    ),
    (
        "metadata_of_wrong_type",
        |m, name| {
            m.rewritten(
                name,
                |k, v| Some(if k == "llama.block_count" { Value::from("two") } else { v.clone() }),
                |_| true,
            )
        },
        &["llama.block_count"],
    ),
    ("nan_weights", |m, name| Ok(m.with_nan(name, 0)?.0), &["NaN"]),
];

fn bad_file(&(name, make, words): &(&str, Make, &[&str])) -> Result<(), Failed> {
    let path = make(models()?, &format!("bad-{name}.gguf"))?;
    let done = greta(&["run", "-m", text(&path), "-n", "1", "--json", "Hello"])?.code(1)?;
    named(&done, words)?;
    check(name == "nan_weights" || done.err.contains(text(&path)), || format!("the file is not named: {}", done.err))
}

/// An error, its words, and nothing on standard output.
fn named(done: &super::Done, words: &[&str]) -> Result<(), Failed> {
    check(done.out.is_empty(), || format!("on standard output: {}", done.out))?;
    let missing: Vec<_> = words.iter().filter(|w| !done.err.contains(**w)).collect();
    check(done.err.contains("error: ") && missing.is_empty(), || format!("{missing:?} not in: {}", done.err))
}

/// Name, arguments after `-m MODEL`, exit code, words.
const FLAGS: &[(&str, &[&str], i32, &[&str])] = &[
    ("threads_0", &["run", "-t", "0", "x"], 1, &["0 threads"]),
    ("threads_100000", &["run", "-t", "100000", "x"], 1, &["100000 threads"]),
    ("threads_negative", &["run", "-t", "-1", "x"], 2, &["-1"]),
    ("context_0", &["run", "-c", "0", "x"], 1, &["-c 0"]),
    ("context_too_large", &["run", "-c", "1000000", "x"], 1, &["-c 1000000", "256"]),
    ("n_minus_2", &["run", "-n", "-2", "x"], 1, &["-n -2"]),
    ("temp_negative", &["run", "--temp", "-1", "x"], 1, &["--temp is -1"]),
    ("temp_nan", &["run", "--temp", "NaN", "x"], 1, &["--temp is NaN"]),
    ("temp_inf", &["run", "--temp", "inf", "x"], 1, &["--temp is inf"]),
    ("top_p_2", &["run", "--top-p", "2", "x"], 1, &["--top-p is 2"]),
    ("min_p_negative", &["run", "--min-p", "-0.1", "x"], 1, &["--min-p is -0.1"]),
    ("repeat_penalty_0", &["run", "--repeat-penalty", "0", "x"], 1, &["--repeat-penalty is 0"]),
    ("seed_word", &["run", "--seed", "lucky", "x"], 2, &["--seed", "-1"]),
    ("arith_unknown", &["run", "--arith", "fp8", "x"], 2, &["fp8", "exact", "int8"]),
    ("kv_unknown", &["run", "--kv", "q4", "x"], 2, &["q4", "f16", "f32"]),
    ("backend_unknown", &["run", "-b", "abacus", "x"], 1, &["unknown backend `abacus`", "cpu, hip, reference"]),
    (
        "driver_unknown",
        &["run", "-b", "hip:abacus", "x"],
        1,
        &["hip:abacus", "drivers: amd, nvidia, sim; targets to plan for: gfx942"],
    ),
    ("driver_empty", &["run", "-b", "hip:", "x"], 1, &["hip: names no driver after the colon"]),
    ("driver_empty_with_number", &["run", "-b", "hip::0", "x"], 1, &["hip::0 names no driver after the colon"]),
    ("target_with_number", &["plan", "-b", "hip:gfx942:0"], 1, &["gfx942 is a target", "no device number"]),
    ("target_is_no_device", &["run", "-b", "hip:gfx942", "x"], 1, &["names a target, not a device", "hip:sim"]),
    ("plan_without_kernels", &["plan"], 1, &["backend `cpu` has no kernels", "hip:gfx942"]),
    ("plan_no_tokens", &["plan", "-b", "hip:gfx942", "--tokens", "0"], 1, &["--tokens 0"]),
    ("plan_too_deep", &["plan", "-b", "hip:gfx942", "--depth", "256"], 1, &["--depth 256", "256"]),
    (
        "plan_route_unknown",
        &["plan", "-b", "hip:gfx942", "--route", "blk.0.q=abacus"],
        1,
        &["unknown kernel `abacus`", "matvec, matmul"],
    ),
    ("plan_route_syntax", &["plan", "-b", "hip:gfx942", "--route", "blk.0.q"], 2, &["PATTERN:decode=KERNEL"]),
    ("profile_route", &["profile", "-b", "reference", "--route", "blk.0.q=matvec"], 1, &["route `blk.0.q=matvec`"]),
    ("profile_too_deep", &["profile", "--depth", "256"], 1, &["--depth", "the context is 256"]),
    ("profile_without_counts", &["profile"], 1, &["backend `cpu` counts nothing", "hip:sim"]),
    ("pass_unknown", &["run", "--without", "fuse_everything", "x"], 1, &["fuse_everything", "fuse_dequant"]),
    ("no_prompt", &["run"], 2, &["PROMPT", "--file"]),
    ("two_prompts", &["run", "-f", "a.txt", "x"], 2, &["cannot be used with"]),
    ("prompt_file_absent", &["run", "-f", "no-such-file.txt"], 1, &["no-such-file.txt", "can't be read"]),
    ("system_without_chat", &["run", "--system", "s", "x"], 2, &["--chat"]),
    ("unknown_flag", &["run", "--frobnicate", "x"], 2, &["--frobnicate"]),
    ("unknown_command", &["frobnicate"], 2, &["frobnicate"]),
    ("logits_no_prompt", &["logits"], 2, &["--tokens"]),
    ("logits_token_too_large", &["logits", "--tokens", "1,99999"], 1, &["token id 99999", "1024"]),
    ("logits_tokens_negative", &["logits", "--tokens=-1"], 2, &["-1"]),
    ("logits_tokens_empty", &["logits", "--tokens="], 2, &["--tokens"]),
    ("logits_tokens_and_prompt", &["logits", "--tokens", "1", "x"], 2, &["cannot be used with"]),
    ("logits_dump_nowhere", &["logits", "--tokens", "1", "--dump", "/no/such/folder/row"], 1, &["/no/such/folder/row"]),
    ("perplexity_chunks_0", &["perplexity", "-f", "Cargo.toml", "--chunks", "0"], 1, &["--chunks 0"]),
    ("perplexity_window_2", &["perplexity", "-f", "Cargo.toml", "-c", "2"], 1, &["-c 2"]),
    ("perplexity_no_file", &["perplexity"], 2, &["--file"]),
    ("perplexity_too_short", &["perplexity", "-f", "rustfmt.toml", "-c", "250"], 1, &["tokens", "500"]),
    ("bench_r_0", &["bench", "-r", "0"], 1, &["-r 0"]),
    ("bench_nothing", &["bench", "-p", "0", "-n", "0"], 1, &["nothing to measure"]),
    ("bench_too_long", &["bench", "-p", "100000"], 1, &["100000", "256"]),
    ("graph_two_forms", &["graph", "--dot", "--plan"], 2, &["cannot be used with"]),
    ("graph_dot_and_json", &["graph", "--dot", "--json"], 2, &["cannot be used with"]),
    ("verify_repeat_0", &["verify", "--repeat", "0"], 2, &["--repeat"]),
    ("verify_rows_0", &["verify", "--rows", "0"], 2, &["--rows"]),
    ("inspect_threads_0", &["inspect", "--check", "-t", "0"], 1, &["0 threads"]),
];

fn bad_flag(&(_, args, code, words): &(&str, &[&str], i32, &[&str])) -> Result<(), Failed> {
    let m = models()?;
    let mut c = command(args);
    // An environment variable, so that commands without -m can stand in the table.
    c.env("GRETA_MODEL", &m.whole).current_dir(env!("CARGO_MANIFEST_DIR"));
    named(&fed(c, b"")?.code(code)?, words)
}

fn no_vocabulary_but_tokens() -> Result<(), Failed> {
    let m = models()?;
    let bare = m.without_vocabulary("bare.gguf")?;
    let args = |model| vec!["logits", "--json", "--arith", "exact", "--tokens", "1,2,3", "-m", model];
    let (a, b) = (greta(&args(text(&bare)))?.code(0)?.json()?, greta(&args(text(&m.whole)))?.code(0)?.json()?);
    check(a["top"][0]["piece"] == "", || format!("a piece without a vocabulary: {a}"))?;
    check(a["top"][0]["logit"] == b["top"][0]["logit"] && a["rms"] == b["rms"], || format!("{a}\n{b}"))?;
    let long = vec!["1"; CONTEXT + 1].join(",");
    let done = greta(&["logits", "-m", text(&bare), "--tokens", &long])?.code(1)?;
    named(&done, &["257 tokens", "holds 256"])
}

fn nan_is_named() -> Result<(), Failed> {
    let (path, tensor) = models()?.with_nan("nan.gguf", 3)?;
    let done = greta(&["inspect", "-m", text(&path), "--check", "--json"])?.code(1)?;
    let value = done.json()?;
    let problem = &value["check"]["problems"][0];
    check(value["check"]["ok"] == false && problem["tensor"] == tensor && problem["block"] == 3, || {
        value["check"].to_string()
    })?;
    let done = greta(&["inspect", "-m", text(&path), "--check"])?.code(1)?;
    check(done.out.contains(&tensor) && done.out.contains("value 3"), || done.out.clone())?;
    // A score of such a model is no score.
    let words = models()?.file("words.txt", "one two three four ".repeat(60).as_bytes())?;
    let done = greta(&["perplexity", "-m", text(&path), "-c", "32", "--chunks", "1", "-f", text(&words)])?.code(1)?;
    check(done.out.is_empty() && done.err.contains("NaN or infinite"), || done.err.clone())
}

fn unsupported_is_inspected() -> Result<(), Failed> {
    let m = models()?;
    let foreign = m.rewritten(
        "foreign.gguf",
        |k, v| Some(if k == "general.architecture" { "gpt9".into() } else { v.clone() }),
        |_| true,
    )?;
    let bare = m.without_vocabulary("bare-inspect.gguf")?;
    for (path, why) in [(foreign, "unsupported architecture"), (bare, "tokenizer.ggml.model")] {
        let value = greta(&["inspect", "-m", text(&path), "--json"])?.code(0)?.json()?;
        let said = value["why_not"].as_str().unwrap_or_default();
        check(value["runs"] == false && said.contains(why), || format!("{why} not in {said:?}"))?;
        check(value["metadata"]["llama.block_count"] == 2, || "the metadata is not listed".into())?;
    }
    Ok(())
}

fn prompt_not_utf8() -> Result<(), Failed> {
    let m = models()?;
    let path = m.file("latin1.txt", b"caf\xe9 noir")?;
    named(&greta(&["run", "-m", text(&m.whole), "-f", text(&path)])?.code(1)?, &[text(&path), "byte 3", "0xe9"])
}

fn stdin_not_utf8() -> Result<(), Failed> {
    let m = models()?;
    let done = fed(command(&["run", "-m", text(&m.whole), "-"]), b"ab\xff")?.code(1)?;
    named(&done, &["standard input", "byte 2"])?;
    let done = fed(command(&["chat", "-m", text(&m.whole), "-n", "1"]), b"\xff\n")?.code(1)?;
    named(&done, &["line 1 of standard input"])
}

fn emulator_limit() -> Result<(), Failed> {
    let m = models()?;
    for bad in ["soon", "0"] {
        let mut c = command(&["run", "-m", text(&m.whole), "-b", "hip:sim", "x"]);
        c.env("GRETA_SIM_INSTRUCTIONS", bad);
        named(&fed(c, b"")?.code(1)?, &[&format!("GRETA_SIM_INSTRUCTIONS={bad}"), "a number of instructions"])?;
    }
    Ok(())
}

fn synth_keeps_files() -> Result<(), Failed> {
    let m = models()?;
    let path = m.file("precious.gguf", b"mine")?;
    named(&greta(&["synth", "-o", text(&path)])?.code(1)?, &["there is a file already", "--force"])?;
    check(std::fs::read(&path)? == b"mine", || "the file was changed".into())?;
    let odd = m.folder.join("odd.gguf");
    named(&greta(&["synth", "-o", text(&odd), "--heads", "3"])?.code(1)?, &["heads"])?;
    named(&greta(&["synth", "-o", text(&odd), "--preset", "huge"])?.code(2)?, &["huge", "tiny"])?;
    named(&greta(&["synth", "-o", text(&odd), "--mix", "Q9"])?.code(2)?, &["Q9", "Q4_K_M"])?;
    check(!odd.exists(), || "a file was left".into())
}
