//! Runs of other engines: what is read, and what is refused.

use crate::support::{Outcome, all, trial};
use greta_backend::Phase;
use greta_trace::import::{self, Format, Heads, ImportOptions, Layout};
use greta_trace::{Recording, names};
use libtest_mimic::Trial;
use std::path::{Path, PathBuf};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("import/names", every_name),
        trial("import/points", points),
        trial("import/hf_layout", hf_layout),
        trial("import/eval_callback", eval_callback),
        trial("import/events", events),
        trial("import/refused", refused),
    ]
}

fn every_name() -> Result<(), Outcome> {
    let mut failures = Vec::new();
    for (name, want) in [
        ("blk.0.attn_out", Some("blk.0.attn_out")),
        ("attn_out-0", Some("blk.0.attn_out")),
        ("layer0.attn_out", Some("blk.0.attn")),
        ("attn_out.layer3", Some("blk.3.attn")),
        ("l12_wo_out", Some("blk.12.attn_out")),
        ("layers.4.x_in", Some("blk.3.out")),
        ("x_in@0", Some("embd")),
        ("layer0.attn_norm_in", None),
        ("lm_head_in", None),
        ("final_norm", Some("output_norm")),
        ("Qcur-0", None),
        ("kqv_out-7", Some("blk.7.attn")),
        ("model.embed_tokens", Some("embd")),
        ("model.layers.1.self_attn.q_proj", Some("blk.1.q")),
        ("model.layers.1.input_layernorm", Some("blk.1.attn_norm")),
        ("model.layers.1.post_attention_layernorm.in", Some("blk.1.ffn_inp")),
        ("model.layers.1.self_attn.o_proj.in", Some("blk.1.attn")),
        ("model.layers.1.mlp.act_fn", None),
        ("model.layers.1", Some("blk.1.out")),
        ("lm_head", Some("logits")),
        ("ffn_norm", None),
    ] {
        let got = names::any(name);
        if got.as_deref() != want {
            failures.push(format!("{name}: {got:?}, expected {want:?}"));
        }
    }
    for point in ["q", "q_rope", "attn", "attn_out", "ffn_act", "out"] {
        let node = format!("blk.5.{point}");
        let back = names::to_llama_cpp(&node).and_then(|(n, op)| names::llama_cpp(&n, op));
        if back.as_deref() != Some(&node) {
            failures.push(format!("{node} comes back from llama.cpp's names as {back:?}"));
        }
    }
    all(failures)
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/import").join(name)
}

/// Values of a row: prompt 0, sequence 0.
fn row(r: &Recording, name: &str, order: u32, position: u32) -> Option<Vec<f32>> {
    let s = r.get(name)?;
    s.find(0, order, 0, position).map(|row| s.reals[row.data.clone()].to_vec())
}

/// Holds rows against what they should be.
fn expect(r: &Recording, wanted: &[(&str, u32, u32, &[f32])]) -> Vec<String> {
    let mut failures = Vec::new();
    for &(name, order, position, want) in wanted {
        let got = row(r, name, order, position);
        let same = got.as_ref().is_some_and(|g| g.len() == want.len() && g.iter().zip(want).all(|(a, b)| a == b));
        if !same {
            failures.push(format!("{name}, step {order}, position {position}: {got:?}, expected {want:?}"));
        }
    }
    failures
}

/// Files that NumPy wrote, in formats 1.0, 2.0 and 3.0.
fn points() -> Result<(), Outcome> {
    let r = import::read(&[data("points")], &ImportOptions::default())?;
    let last: Vec<f32> = (16..24).map(|i| i as f32 / 8.0 - 1.0).collect();
    let first: Vec<f32> = (0..8).map(|i| i as f32 / 8.0 - 1.0).collect();
    let mut failures = expect(
        &r,
        &[
            ("embd", 0, 0, &first),
            ("embd", 0, 2, &last),
            ("blk.0.q", 0, 0, &first),
            ("blk.0.attn", 0, 2, &last),
            ("blk.0.ffn_out", 0, 2, &last),
            ("my_own_point", 0, 2, &last),
        ],
    );
    let s = import::summary(&r);
    if (s.mapped, s.rows, s.not_mapped.as_slice()) != (4, 11, &["my_own_point".to_string()][..]) {
        failures.push(format!("{s:?}"));
    }
    if r.info.prompts[0].tokens != [1, 5, 2] || r.get("embd").map(|s| s.rows[1].at.token) != Some(5) {
        failures.push(format!("tokens are {:?}", r.info.prompts[0].tokens));
    }
    if r.series.iter().map(|s| s.name.as_str()).next() != Some("embd") {
        failures.push("points are not in the graph's order".into());
    }
    all(failures)
}

fn hf_layout() -> Result<(), Outcome> {
    let heads = Some(Heads { heads: 2, kv_heads: 1 });
    let options = ImportOptions { layout: Some(Layout::Hf), heads, ..ImportOptions::default() };
    let r = import::read(&[data("points")], &options)?;
    // Of each head of four, Hugging Face's 0 1 2 3 are GGUF's 0 2 1 3.
    let want = [-1.0, -0.75, -0.875, -0.625, -0.5, -0.25, -0.375, -0.125];
    all(expect(&r, &[("blk.0.q", 0, 0, &want)]))
}

fn eval_callback() -> Result<(), Outcome> {
    let r = import::read(&[data("eval.txt")], &ImportOptions::default())?;
    let mut failures = expect(
        &r,
        &[
            ("embd", 0, 0, &[-0.0781, 0.0430, 0.1250]),
            ("embd", 0, 3, &[0.0510, 0.0610, 0.0710]),
            ("embd.sum", 0, 3, &[7.091028]),
            ("blk.0.q", 0, 1, &[1.1, 1.2, 1.3]),
            ("blk.0.q_rope", 0, 0, &[0.1, 0.2, 0.3]),
            ("blk.0.q_rope", 0, 3, &[3.01, 3.02, 3.03]),
            ("logits", 0, 3, &[10.0, 11.0, 12.0]),
            ("norm-0", 0, 0, &[-0.7810, 0.4300, 1.2500]),
        ],
    );
    match r.get("blk.0.q_rope") {
        Some(s) if s.cols == 576 && s.rows.len() == 4 && !s.is_whole(&s.rows[0]) => {}
        other => failures.push(format!("blk.0.q_rope: {other:?}")),
    }
    // A sum that is no number is a fact; it can't be of the printed values alone, of which one is no number either.
    if !row(&r, "blk.0.q.sum", 0, 3).is_some_and(|v| v[0].is_nan()) {
        failures.push("the sum that is no number is gone".into());
    }
    all(failures)
}

fn events() -> Result<(), Outcome> {
    let r = import::read(&[data("events.jsonl")], &ImportOptions::default())?;
    let mut failures = expect(
        &r,
        &[
            ("blk.0.attn_norm_in", 0, 1, &[0.5, -2.0]),
            ("blk.0.attn_norm", 0, 1, &[1.0, 2.0, 3.0, 4.0]),
            ("blk.0.q", 0, 1, &[1.0, 2.0]),
            ("blk.0.attn", 0, 1, &[7.0, 8.0]),
            ("logits", 0, 1, &[1.0, 2.0]),
            ("blk.0.attn_norm", 1, u32::MAX, &[0.25, -1.0]),
        ],
    );
    match r.get("embd").map(|s| (s.cols, s.rows[0].stats.zeros, s.rows[0].stats.sum, s.rows[0].data.len())) {
        Some((8, 1, 2.0, 3)) => {}
        other => failures.push(format!("embd: {other:?}")),
    }
    let phases: Vec<Phase> =
        r.get("blk.0.attn_norm").map(|s| s.rows.iter().map(|r| r.at.phase).collect()).unwrap_or_default();
    if phases != [Phase::Prefill, Phase::Decode] || r.info.prompts[0].id != "p0_short" {
        failures.push(format!("{phases:?}, {:?}", r.info.prompts));
    }
    all(failures)
}

/// An .npy file's bytes.
fn npy(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// Each source is refused with a message that holds these words.
fn refused() -> Result<(), Outcome> {
    let f4 = "'<f4'";
    type Files = Vec<(&'static str, Vec<u8>)>;
    let line = |s: &str| s.as_bytes().to_vec();
    let table: Vec<(Files, &[&str])> = vec![
        (vec![], &["no .npy"]),
        (vec![("q.txt", line("x"))], &["no .npy"]),
        (vec![("embd.npy", b"NUMPY".to_vec())], &["embd.npy", "no .npy file"]),
        (vec![("embd.npy", b"\x93NUMPY\x01\x00\xff\x00{".to_vec())], &["embd.npy", "truncated"]),
        (vec![("embd.npy", npy(f4, "False", "(2, 4)", &[0; 31]))], &["truncated", "32 bytes", "31"]),
        (vec![("embd.npy", npy(f4, "False", "(2, 4)", &[0; 33]))], &["33 bytes", "more"]),
        (vec![("embd.npy", npy(f4, "True", "(2, 4)", &[0; 32]))], &["Fortran"]),
        (vec![("embd.npy", npy("'|O'", "False", "(2, 4)", &[0; 32]))], &["Python objects"]),
        (vec![("embd.npy", npy("'>f4'", "False", "(2, 4)", &[0; 32]))], &["big-endian"]),
        (vec![("embd.npy", npy("[('a', '<f4')]", "False", "(8,)", &[0; 32]))], &["fields"]),
        (vec![("embd.npy", npy(f4, "False", "(4294967296, 4294967296, 4)", &[]))], &["shape"]),
        (vec![("embd.npy", npy(f4, "False", "(0, 4)", &[]))], &["empty"]),
        (vec![("embd.npy", npy(f4, "False", "()", &[0; 4]))], &["single number"]),
        (vec![("embd.npy", npy(f4, "False", "(2, 2, 2)", &[0; 32]))], &["expected [cols]"]),
        (
            vec![
                ("embd.npy", npy(f4, "False", "(3, 4)", &[0; 48])),
                ("logits.npy", npy(f4, "False", "(2, 4)", &[0; 32])),
            ],
            &["logits.npy", "2 rows", "positions"],
        ),
        (
            vec![("embd.npy", npy(f4, "False", "(3, 4)", &[0; 48])), ("meta.json", line("{\"tokens\": [1, 2]}"))],
            &["embd.npy", "3 rows", "(2)"],
        ),
        (
            vec![("embd.npy", npy(f4, "False", "(4,)", &[0; 16])), ("x_in@0.npy", npy(f4, "False", "(2,)", &[0; 8]))],
            &["x_in@0", "rows of 2 values", "4"],
        ),
        (
            vec![("embd.npy", npy(f4, "False", "(1,)", &[0; 4])), ("x_in@0.npy", npy(f4, "False", "(1,)", &[1; 4]))],
            &["x_in@0", "second, different row"],
        ),
        (
            vec![("embd.npy", npy(f4, "False", "(1,)", &[0; 4])), ("meta.json", line("{\"phase\": \"warmup\"}"))],
            &["meta.json", "warmup"],
        ),
        (vec![("embd.npy", npy(f4, "False", "(1,)", &[0; 4])), ("meta.json", line("{"))], &["meta.json", "EOF"]),
        (
            vec![("blk.0.q.npy", npy(f4, "False", "(8,)", &[0; 32])), ("meta.json", line("{\"layout\": \"hf\"}"))],
            &["blk.0.q", "heads"],
        ),
        (vec![("embd.safetensors", vec![1; 40])], &["embd.safetensors"]),
        (
            vec![(
                "e.jsonl",
                line(
                    "{\"event\":\"stage_trace\",\"prompt_id\":\"p\",\"phase\":\"decode0\",\"point\":\"q\",\"layer\":0,\"sample\":[1]}\nnonsense",
                ),
            )],
            &["e.jsonl", "line 2", "JSON"],
        ),
        (
            vec![(
                "e.jsonl",
                line("{\"event\":\"stage_trace\",\"prompt_id\":\"p\",\"phase\":\"decode0\",\"sample\":[1]}"),
            )],
            &["line 1", "`point`"],
        ),
        (
            vec![(
                "e.jsonl",
                line(
                    "{\"event\":\"rmsnorm_trace\",\"prompt_id\":\"p\",\"phase\":\"decode0\",\"layer\":0,\"input_sample\":[1]}",
                ),
            )],
            &["line 1", "`output_sample`"],
        ),
        (vec![("e.jsonl", line("{\"event\":\"warp\",\"prompt_id\":\"p\",\"phase\":\"decode0\"}"))], &["`warp`"]),
        (
            vec![(
                "e.jsonl",
                line(
                    "{\"event\":\"stage_trace\",\"prompt_id\":\"p\",\"phase\":\"later\",\"point\":\"q\",\"layer\":0,\"sample\":[1]}",
                ),
            )],
            &["`later`"],
        ),
        (vec![("e.jsonl", line("\n"))], &["no event"]),
    ];
    let mut failures = Vec::new();
    for (files, words) in table {
        let folder = tempfile::tempdir()?;
        for (name, bytes) in &files {
            std::fs::write(folder.path().join(name), bytes)?;
        }
        let names: Vec<&str> = files.iter().map(|f| f.0).collect();
        match import::read(&[folder.path().into()], &ImportOptions::default()) {
            Ok(_) => failures.push(format!("{names:?} {words:?} was read")),
            Err(e) => {
                let text = e.to_string();
                failures.extend(
                    words.iter().filter(|w| !text.contains(*w)).map(|w| format!("{names:?}: no `{w}` in: {text}")),
                );
            }
        }
    }
    let folder = tempfile::tempdir()?;
    let cut = std::fs::read_to_string(data("eval.txt"))?;
    let path = folder.path().join("cut.txt");
    for (text, words) in [
        (cut.split("sum = 7").next().unwrap_or_default().to_string(), ["line", "cut off"]),
        (cut.replace("0.0430", "0.04x"), ["line 5", "`0.04x`"]),
        (cut.replace("= {576, 4, 1, 1}", "= {576, 4}"), ["line 2", "sizes"]),
    ] {
        std::fs::write(&path, text)?;
        let options = ImportOptions { format: Some(Format::EvalCallback), ..ImportOptions::default() };
        let said = import::read(std::slice::from_ref(&path), &options)
            .map_or_else(|e| e.to_string(), |_| "it was read".into());
        failures.extend(words.iter().filter(|w| !said.contains(*w)).map(|w| format!("no `{w}` in: {said}")));
    }
    all(failures)
}
