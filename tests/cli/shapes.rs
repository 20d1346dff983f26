//! What each command prints with `--json`, and the forms of those that print text.

use super::models::{CONTEXT, models};
use super::{check, greta, text};
use libtest_mimic::{Failed, Trial};
use serde_json::Value;

pub fn trials() -> Vec<Trial> {
    let mut list = vec![
        Trial::test("cli/version", version),
        Trial::test("cli/help_ends_with_examples", help),
        Trial::test("cli/completions", completions),
        Trial::test("cli/graph_reads_back_equal", graph_reads_back),
        Trial::test("cli/graph_forms", graph_forms),
        Trial::test("cli/bench_leaves_out", bench_leaves_out),
        Trial::test("cli/logits_dump", logits_dump),
        Trial::test("cli/synth_is_repeatable", synth_repeats),
    ];
    list.extend(SHAPES.iter().map(|s| Trial::test(format!("cli/json/{}", s.0), move || shape(s))));
    list
}

/// Name, arguments (`MODEL` and `TEXT` stand for files), and JSON pointers that must be there with their kind.
type Shape = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

const SHAPES: &[Shape] = &[
    (
        "run",
        &["run", "-m", "MODEL", "--json", "-n", "5", "--seed", "3", "--ignore-eos", "Hello"],
        &[
            ("/prompt_tokens/0", "integer"),
            ("/generated_tokens/4", "integer"),
            ("/text", "string"),
            ("/stop", "\"length\""),
            ("/seed", "3"),
            ("/settings/backend", "\"cpu\""),
            ("/settings/arith", "\"int8\""),
            ("/settings/model", "string"),
            ("/timings/load_ms", "number"),
            ("/timings/prompt_ms", "number"),
            ("/timings/prompt_tokens_per_second", "number"),
            ("/timings/generation_tokens_per_second", "number"),
            ("/timings/first_token_ms", "number"),
        ],
    ),
    (
        "run_nothing",
        &["run", "-m", "MODEL", "--json", "-n", "0", "Hello"],
        &[("/generated_tokens", "[]"), ("/text", "\"\""), ("/timings/first_token_ms", "null")],
    ),
    (
        "logits",
        &["logits", "-m", "MODEL", "--json", "--tokens", "1,2,3", "--top", "4"],
        &[
            ("/tokens", "[1,2,3]"),
            ("/top/3/id", "integer"),
            ("/top/3/logit", "number"),
            ("/top/3/piece", "string"),
            ("/rms", "number"),
        ],
    ),
    (
        "perplexity",
        &["perplexity", "-m", "MODEL", "--json", "-f", "TEXT", "-c", "64", "--chunks", "2"],
        &[
            ("/perplexity", "number"),
            ("/error", "number"),
            ("/tokens", "62"),
            ("/chunks", "2"),
            ("/running/1", "number"),
        ],
    ),
    (
        "bench",
        &["bench", "-m", "MODEL", "--json", "-p", "16", "-n", "4", "-r", "2", "-t", "1"],
        &[
            ("/0/n_prompt", "16"),
            ("/0/n_gen", "0"),
            ("/1/n_prompt", "0"),
            ("/1/n_gen", "4"),
            ("/0/avg_ns", "integer"),
            ("/0/stddev_ns", "integer"),
            ("/0/avg_ts", "number"),
            ("/0/stddev_ts", "number"),
            ("/0/samples_ns/1", "integer"),
            ("/0/samples_ts/1", "number"),
            ("/0/n_threads", "1"),
            ("/0/model_filename", "string"),
            ("/0/model_type", "string"),
            ("/0/model_size", "integer"),
            ("/0/model_n_params", "integer"),
            ("/0/type_k", "\"f16\""),
            ("/0/type_v", "\"f16\""),
            ("/0/backends", "\"cpu\""),
        ],
    ),
    (
        "inspect",
        &["inspect", "-m", "MODEL", "--json", "--check"],
        &[
            ("/runs", "true"),
            ("/why_not", "null"),
            ("/parameters", "integer"),
            ("/metadata/general.architecture", "\"llama\""),
            ("/metadata/tokenizer.ggml.tokens/length", "integer"),
            ("/metadata/tokenizer.ggml.tokens/first/0", "string"),
            ("/types/0/type", "\"Q8_0\""),
            ("/types/0/tensors", "integer"),
            ("/types/0/bytes", "integer"),
            ("/tensors/0/name", "string"),
            ("/tensors/0/shape/0", "integer"),
            ("/check/ok", "true"),
        ],
    ),
    ("graph", &["graph", "-m", "MODEL", "--json"], &[("/nodes/0/name", "string"), ("/outputs/0", "object")]),
    (
        "graph_plan",
        &["graph", "-m", "MODEL", "--json", "--plan"],
        &[("/ops/0/node", "string"), ("/slots/0/size/per_token", "integer"), ("/steps/0/buffer_bytes", "integer")],
    ),
    (
        "graph_passes",
        &["graph", "-m", "MODEL", "--json", "--passes", "--without", "fuse_norm_quantize"],
        &[("/passes/0/pass", "string"), ("/passes/0/rewritten", "integer"), ("/events/0/node", "string")],
    ),
    (
        "plan",
        &["plan", "-m", "MODEL", "--json", "-b", "hip:gfx942", "--tokens", "20", "--depth", "100"],
        &[
            ("/backend", "\"hip:gfx942\""),
            ("/tokens", "20"),
            ("/context", "120"),
            ("/launches/0/node", "\"embd\""),
            ("/launches/0/kernel", "\"embed\""),
            ("/launches/0/grid", "[20,1,1]"),
            ("/launches/0/block", "256"),
            ("/launches/0/lds", "0"),
            ("/launches/0/args/5", "\"20\""),
            ("/launches/0/bytes", "integer"),
            ("/launches/0/flops", "integer"),
        ],
    ),
    (
        "backends",
        &["backends", "--json"],
        &[("/0/name", "\"cpu\""), ("/0/available", "true"), ("/1/name", "\"hip\""), ("/2/name", "\"reference\"")],
    ),
];

fn shape(&(_, args, expected): &Shape) -> Result<(), Failed> {
    let m = models()?;
    // One file a shape: another test may be reading its own.
    let prose = format!("prose-{}.txt", args.join("-").len());
    let prose = m.file(&prose, "The quick brown fox jumps over the lazy dog. ".repeat(40).as_bytes())?;
    let args: Vec<&str> = args
        .iter()
        .map(|a| match *a {
            "MODEL" => text(&m.whole),
            "TEXT" => text(&prose),
            a => a,
        })
        .collect();
    let value = greta(&args)?.code(0)?.json()?;
    let wrong: Vec<String> = expected
        .iter()
        .filter(|(pointer, kind)| !value.pointer(pointer).is_some_and(|v| fits(v, kind)))
        .map(|(pointer, kind)| format!("{pointer} is {:?}, expected {kind}", value.pointer(pointer)))
        .collect();
    check(wrong.is_empty(), || wrong.join("\n"))
}

fn fits(value: &Value, kind: &str) -> bool {
    match kind {
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "object" => value.is_object(),
        literal => serde_json::from_str::<Value>(literal).is_ok_and(|wanted| *value == wanted),
    }
}

fn version() -> Result<(), Failed> {
    let done = greta(&["--version"])?.code(0)?;
    check(done.out == format!("greta {}\n", env!("CARGO_PKG_VERSION")), || done.out)
}

fn help() -> Result<(), Failed> {
    let names = [
        "run",
        "chat",
        "inspect",
        "graph",
        "logits",
        "perplexity",
        "bench",
        "plan",
        "profile",
        "synth",
        "trace",
        "diff",
        "backends",
        "doctor",
        "completions",
    ];
    let mut wrong = Vec::new();
    for name in names {
        let done = greta(&[name, "--help"])?.code(0)?;
        if !done.out.contains("Examples:\n  greta ") && !done.out.contains(&format!("greta {name}")) {
            wrong.push(name);
        }
    }
    check(wrong.is_empty(), || format!("no examples in the help of {wrong:?}"))
}

fn completions() -> Result<(), Failed> {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let done = greta(&["completions", shell])?.code(0)?;
        check(done.out.contains("perplexity"), || format!("{shell}: {}", done.out))?;
    }
    Ok(())
}

fn graph_reads_back() -> Result<(), Failed> {
    let m = models()?;
    for extra in [&[][..], &["--raw"], &["--arith", "exact"]] {
        let args = [&["graph", "--json", "-m", text(&m.whole)], extra].concat();
        let done = greta(&args)?.code(0)?;
        let graph = greta::graph::Graph::from_json(&done.out)?;
        check(graph.to_json().trim() == done.out.trim(), || format!("{extra:?}: read back, the graph is another"))?;
    }
    Ok(())
}

fn graph_forms() -> Result<(), Failed> {
    let m = models()?;
    let cases: [(&[&str], &str); 6] = [
        (&["graph"], "blk.0.attn"),
        (&["graph", "--text"], "→ logits"),
        (&["graph", "--dot"], "digraph"),
        (&["graph", "--plan"], "slot 0"),
        (&["graph", "--passes", "--arith", "exact"], "quantize_activations: not part of the exact arithmetic"),
        (&["graph", "--passes", "--without", "drop_dead"], "drop_dead: switched off"),
    ];
    for (args, needle) in cases {
        let done = greta(&[args, &["-m", text(&m.whole)]].concat())?.code(0)?;
        check(done.out.contains(needle), || format!("{args:?}: no {needle:?} in\n{}", done.out))?;
    }
    Ok(())
}

fn bench_leaves_out() -> Result<(), Failed> {
    let m = models()?;
    let args = ["bench", "-m", text(&m.whole), "--json", "-p", "8,16", "-n", "0", "-r", "1"];
    let value = greta(&args)?.code(0)?.json()?;
    let prompts: Vec<_> = value.as_array().into_iter().flatten().map(|t| t["n_prompt"].clone()).collect();
    check(prompts == [8, 16], || format!("{value}"))?;
    let table = greta(&["bench", "-m", text(&m.whole), "-p", "0", "-n", "2", "-r", "1"])?.code(0)?;
    let lines: Vec<_> = table.out.lines().collect();
    check(lines.len() == 3 && lines[2].contains("tg2"), || table.out.clone())
}

fn logits_dump() -> Result<(), Failed> {
    let m = models()?;
    let row = m.folder.join("row.f32");
    let args = ["logits", "-m", text(&m.whole), "--json", "--top", "1", "--tokens", "5,6", "--dump", text(&row)];
    let top = greta(&args)?.code(0)?.json()?["top"][0].clone();
    let bytes = std::fs::read(&row)?;
    let row: Vec<f32> = bytes.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
    let id = top["id"].as_u64().ok_or("no id")? as usize;
    check(row.len() == 1024, || format!("{} logits", row.len()))?;
    check(row.iter().all(|v| *v <= row[id]) && f64::from(row[id]) == top["logit"], || {
        format!("{top}, row has {}", row[id])
    })
}

fn synth_repeats() -> Result<(), Failed> {
    let m = models()?;
    let make = |name: &str, extra: &[&str]| {
        let path = m.folder.join(name);
        let args = ["synth", "--json", "-o", text(&path), "--layers", "1", "--context", "64", "--force"];
        let value = greta(&[&args[..], extra].concat())?.code(0)?.json()?;
        check(value["bytes"].as_u64() == Some(std::fs::metadata(&path)?.len()), || value.to_string())?;
        Ok::<_, Failed>(std::fs::read(&path)?)
    };
    let first = make("a.gguf", &["--mix", "q4_0", "-t", "1"])?;
    check(first == make("b.gguf", &["--mix", "Q4_0", "-t", "2"])?, || "the same flags gave two files".into())?;
    check(first != make("c.gguf", &["--mix", "Q4_0", "--seed", "43"])?, || "two seeds gave one file".into())?;
    check(CONTEXT != 64, || "the override is not seen".into())
}
