//! ARCHITECTURE.md's invariants, checked from manifests and source text.

use crate::support::{Outcome, all, trial};
use libtest_mimic::Trial;
use std::path::{Path, PathBuf};
use std::process::Command;

pub fn trials() -> Vec<Trial> {
    vec![trial("tidy/dependencies_point_up", dependencies), trial("tidy/source_text", source)]
}

/// Each room with the rooms it may use. `dev` and build dependencies count too.
const ROOMS: &[(&str, &[&str])] = &[
    ("greta-ops", &[]),
    ("greta-graph", &["greta-ops"]),
    ("greta-backend", &["greta-ops", "greta-graph"]),
    ("greta-cpu", &["greta-ops", "greta-graph", "greta-backend"]),
    ("greta-gfx942", &[]),
    ("greta-hip", &["greta-ops", "greta-graph", "greta-backend", "greta-gfx942"]),
    ("greta-reference", &["greta-ops", "greta-graph", "greta-backend"]),
    ("greta-models", &["greta-ops", "greta-graph", "greta-backend"]),
    ("greta-trace", &["greta-ops", "greta-graph", "greta-backend", "greta-models"]),
    (
        "greta",
        &[
            "greta-ops",
            "greta-graph",
            "greta-backend",
            "greta-cpu",
            "greta-hip",
            "greta-reference",
            "greta-models",
            "greta-trace",
        ],
    ),
];

fn dependencies() -> Result<(), Outcome> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out =
        Command::new(cargo).args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(root()).output()?;
    let meta: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    let mut failures = Vec::new();
    let packages = meta["packages"].as_array().cloned().unwrap_or_default();
    for p in &packages {
        let name = p["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ROOMS.iter().find(|(room, _)| *room == name) else {
            failures.push(format!("{name} is no known room"));
            continue;
        };
        for d in p["dependencies"].as_array().into_iter().flatten() {
            let dep = d["name"].as_str().unwrap_or_default();
            if dep.starts_with("greta") && !allowed.contains(&dep) {
                failures.push(format!("{name} depends on {dep}"));
            }
        }
    }
    if packages.len() != ROOMS.len() {
        failures.push(format!("{} packages, expected {}", packages.len(), ROOMS.len()));
    }
    all(failures)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Words that may stand in one room alone, files that grew too long, and things that are not to be left lying.
fn source() -> Result<(), Outcome> {
    let mut failures = Vec::new();
    let mut files = Vec::new();
    for room in ["ops", "graph", "backends", "models", "trace", "cli", "tests", "benches", "examples"] {
        collect(&root().join(room), &mut files)?;
    }
    if files.len() < 50 {
        failures.push(format!("only {} files were found", files.len()));
    }
    for path in files {
        let text = std::fs::read_to_string(&path)?;
        let name = path.strip_prefix(root()).unwrap_or(&path).display().to_string().replace('\\', "/");
        let lines = text.lines().count();
        if lines > 400 {
            failures.push(format!("{name} has {lines} lines; 400 at most"));
        }
        let only = |word: &str, room: &str, failures: &mut Vec<String>| {
            if text.contains(word) && !name.starts_with(room) && name != "tests/tidy.rs" {
                failures.push(format!("{name} says `{word}`, which belongs to {room} alone"));
            }
        };
        only("petgraph", "graph/", &mut failures);
        only("arch::x86_64", "backends/cpu/src/simd/", &mut failures);
        if name != "backends/cpu/src/memory.rs" {
            only("memmap2", "models/src/gguf/", &mut failures);
        }

        let may = ["src/driver/", "sim/src/memory.rs", "sim/src/inst.rs", "sim/src/launch.rs", "sim/src/tests"];
        let part = name.strip_prefix("backends/hip/");
        if part.is_some_and(|p| text.contains("unsafe ") && !may.iter().any(|m| p.starts_with(m))) {
            failures.push(format!("{name} has `unsafe`"));
        }
        only("tokenizers::", "models/src/tokenizer/", &mut failures);
        for left in ["todo!(", "unimplemented!(", "dbg!(", "TODO", "FIXME"] {
            if text.contains(left) && name != "tests/tidy.rs" {
                failures.push(format!("{name} has a `{left}`"));
            }
        }
    }
    all(failures)
}

fn collect(dir: &Path, out: &mut Vec<PathBuf>) -> Result<(), Outcome> {
    if !dir.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, out)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    Ok(())
}
