//! `greta plan` and `greta profile`: what is counted, and which kernels are forced.

use super::models::models;
use super::{Done, check, greta, text};
use crate::support::{Outcome, hip_sim, trial};
use libtest_mimic::{Failed, Trial};
use serde_json::Value;

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("cli/plan/costs", costs),
        Trial::test("cli/plan/route_of_another_phase", other_phase),
        trial("cli/profile/depth_and_route", depth_and_route),
        trial("cli/profile/timeline", || hip_sim(1).and_then(|_| timeline().map_err(failed))),
    ]
}

/// Heads, key-value heads and head size of the whole model, and its width.
const HEADS: u64 = 4;
const KV_HEADS: u64 = 2;
const HEAD_DIM: u64 = 64;
const WIDTH: u64 = HEADS * HEAD_DIM;

fn plan(extra: &[&str]) -> Result<Done, Failed> {
    let base = ["plan", "-m", text(&models()?.whole), "-b", "hip:gfx942", "--json"];
    greta(&[&base[..], extra].concat())?.code(0)
}

fn launches(plan: &Value) -> impl Iterator<Item = &Value> {
    plan["launches"].as_array().into_iter().flatten()
}

fn number(v: &Value, of: &str) -> u64 {
    v[of].as_u64().unwrap_or(0)
}

/// Operations and bytes of one kernel in a step of `tokens` after `depth` others, by hand.
fn costs() -> Result<(), Failed> {
    // f16 keys and values, queries and outputs, positions and sequences, the block table.
    let reads = |tokens: u64, context: u64| {
        2 * 2 * context * KV_HEADS * HEAD_DIM + 4 * tokens * WIDTH + 8 * tokens + 4 * context.div_ceil(32)
    };
    let scores = |tokens: u64, seen: u64| HEADS * (seen * (4 * HEAD_DIM + 5) + tokens * HEAD_DIM);
    let partial = 4 * HEADS * 2 * (HEAD_DIM + 2);
    let row = 4 * WIDTH;
    let cases: [(&str, u64, u64, u64, u64); 8] = [
        // One token sees all 200; two segments of 128 keys lie between the two kernels.
        ("attention_part", 1, 199, reads(1, 200) + partial, scores(1, 200)),
        ("attention_merge", 1, 199, partial + row, partial / 4 * 2),
        // Of 32 tokens the first sees 101, the last 132.
        ("attention_tile", 32, 100, reads(32, 132) + 32 * row, scores(32, (101 + 132) * 16)),
        // Rows as the table packs them: 34 bytes for 32 values.
        ("embed", 1, 0, WIDTH / 32 * 34 + 4 + row, 0),
        ("add", 1, 0, 3 * row, WIDTH),
        ("rope", 1, 0, 2 * row + 4, WIDTH / 2 * 6),
        ("quantize", 1, 0, row + WIDTH + WIDTH / 32 * 4, 4 * WIDTH),
        ("rmsnorm_quantize", 1, 0, 2 * row + WIDTH + WIDTH / 32 * 4, 8 * WIDTH),
    ];
    for (kernel, tokens, depth, bytes, flops) in cases {
        let plan = plan(&["--tokens", &tokens.to_string(), "--depth", &depth.to_string()])?.json()?;
        let all = launches(&plan).all(|l| number(l, "bytes") > 0);
        let found = launches(&plan).find(|l| l["kernel"] == kernel).ok_or(kernel)?;
        check(all && (number(found, "bytes"), number(found, "flops")) == (bytes, flops), || {
            format!("expected {bytes} bytes, {flops} operations: {found}")
        })?;
    }
    Ok(())
}

/// A rule for steps of another kind than the one planned is said to change nothing.
fn other_phase() -> Result<(), Failed> {
    for (rule, tokens, noted) in [
        ("blk.*.q:prefill=matmul", "1", true),
        ("blk.*.q:decode=matmul", "1", false),
        ("blk.*.q:decode=matmul", "16", true),
        ("blk.*.q=matmul", "1", false),
    ] {
        let done = plan(&["--tokens", tokens, "--route", rule])?;
        check(done.err.contains("changes nothing here") == noted, || format!("{rule}, {tokens}: {}", done.err))?;
    }
    Ok(())
}

/// Tokens before the measured ones are run and not counted, and a decode step comes after all of them.
fn depth_and_route() -> Result<(), Outcome> {
    hip_sim(1)?;
    counted().map_err(failed)
}

fn failed(e: Failed) -> Outcome {
    Outcome::Failed(e.message().unwrap_or("failed").into())
}

/// The file for Perfetto has every launch that was counted, with its node, inside the step it is of.
fn timeline() -> Result<(), Failed> {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("timeline-{}.json", std::process::id()));
    let args =
        ["profile", "-m", text(&models()?.whole), "-b", "hip:sim", "-p", "3", "-n", "2", "--perfetto", text(&file)];
    let profile = greta(&[&args[..], &["--json"]].concat())?.code(0)?.json()?;
    let launches: u64 =
        profile["kernels"].as_array().into_iter().flatten().filter_map(|k| k["launches"].as_u64()).sum();
    let shown: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let events = |category: &'static str| {
        let list = shown["traceEvents"].as_array().into_iter().flatten().filter(move |e| e["cat"] == category);
        list.map(|e| {
            let at = |k: &str| e[k].as_f64().unwrap_or(f64::NAN);
            (e["name"].as_str().unwrap_or_default().to_string(), at("ts"), at("ts") + at("dur"))
        })
    };
    let steps: Vec<_> = events("step").collect();
    let names: Vec<&str> = steps.iter().map(|s| &*s.0).collect();
    check(names == ["prefill", "decode 0", "decode 1"], || format!("{names:?}"))?;
    let kernels: Vec<_> = events("kernel").collect();
    check(kernels.len() as u64 == launches && launches > 0, || format!("{} of {launches}", kernels.len()))?;
    let inside = |(_, from, to): &&(String, f64, f64)| steps.iter().any(|s| s.1 <= *from && *to <= s.2 + 1e-3);
    check(kernels.iter().filter(inside).count() == kernels.len(), || format!("{steps:?}"))?;
    check(kernels.windows(2).all(|w| w[0].2 <= w[1].1 + 1e-3), || "launches overlap".into())?;
    check(kernels[0].0 == "embd" && kernels.iter().any(|k| k.0 == "blk.0.attn"), || kernels[0].0.clone())?;
    // What is there is kept unless it is to go.
    let kept = greta(&args)?.code(1)?;
    check(kept.err.contains("--force"), || kept.err.clone())?;
    greta(&[&args[..], &["--force"]].concat())?.code(0)?;
    Ok(std::fs::remove_file(file)?)
}

fn counted() -> Result<(), Failed> {
    let base = ["profile", "-m", text(&models()?.whole), "-b", "hip:sim", "-t", "1", "--json"];
    let profile = |extra: &[&str]| greta(&[&base[..], extra].concat())?.code(0)?.json();
    let sum = |p: &Value, kernel: &str, of: &str| -> u64 {
        let all = p["kernels"].as_array().into_iter().flatten().filter(|k| k["kernel"] == kernel);
        all.map(|k| k[of].as_u64().unwrap_or_else(|| k["counters"][of].as_u64().unwrap_or(0))).sum()
    };
    let layers = launches(&plan(&[])?.json()?).filter(|l| l["kernel"] == "attention_part").count() as u64;
    let shallow = profile(&["-p", "0", "-n", "1"])?;
    let deep = profile(&["-p", "0", "-n", "1", "--depth", "100"])?;
    let after = profile(&["-p", "100", "-n", "1"])?;
    let (a, b) = (sum(&shallow, "attention_part", "bytes_read"), sum(&deep, "attention_part", "bytes_read"));
    check(a > 0 && b > 2 * a && b == sum(&after, "attention_part", "bytes_read"), || format!("{a}, {b}\n{after}"))?;
    check(sum(&deep, "attention_part", "launches") == layers && sum(&deep, "attention_tile", "launches") == 0, || {
        deep.to_string()
    })?;
    let forced = profile(&["-p", "4", "-n", "1", "--route", "blk.*.attn=attention-tile"])?;
    check(sum(&forced, "attention_tile", "launches") == 2 * layers, || forced.to_string())
}
