//! Folders that were damaged: each is an error that says what and where.

use super::{fresh, traced};
use crate::support::{Outcome, trial};
use crate::taps::everything;
use greta_models::Arithmetic;
use greta_trace::{Recording, folder};
use libtest_mimic::Trial;
use std::fs;
use std::path::Path;

pub fn trials() -> Vec<Trial> {
    DAMAGES.iter().map(|d| trial(format!("run_folder/bad/{}", d.0), move || bad(d))).collect()
}

/// Changes a file's text.
pub fn edit(dir: &Path, file: &str, change: impl FnOnce(String) -> String) -> Result<(), Outcome> {
    let path = dir.join(file);
    let text = fs::read_to_string(&path)?;
    let new = change(text.clone());
    if new == text {
        return Err(Outcome::Failed(format!("{file}: the edit changes nothing")));
    }
    Ok(fs::write(path, new)?)
}

fn cut(dir: &Path, file: &str, by: usize) -> Result<(), Outcome> {
    let bytes = fs::read(dir.join(file))?;
    Ok(fs::write(dir.join(file), &bytes[..bytes.len() - by])?)
}

/// Line 40 with this text put for that.
fn line40(dir: &Path, from: &str, to: &str) -> Result<(), Outcome> {
    edit(dir, folder::TAPS, |t| {
        let lines = t.lines().enumerate();
        lines.map(|(i, l)| if i == 39 { l.replacen(from, to, 1) + "\n" } else { format!("{l}\n") }).collect()
    })
}

/// Name, what is done to a complete folder, words of the error.
type Damage = (&'static str, fn(&Path) -> Result<(), Outcome>, &'static [&'static str]);

const DAMAGES: &[Damage] = &[
    ("gone", |d| Ok(fs::remove_dir_all(d)?), &["no such folder"]),
    ("no_run_json", |d| Ok(fs::remove_file(d.join(folder::RUN))?), &["no run folder", "run.json"]),
    ("no_taps", |d| Ok(fs::remove_file(d.join(folder::TAPS))?), &["taps.jsonl", "can't be read"]),
    ("no_tensors", |d| Ok(fs::remove_file(d.join(folder::TENSORS))?), &["tensors.safetensors", "can't be read"]),
    ("no_graph", |d| Ok(fs::remove_file(d.join(folder::GRAPH))?), &["graph.json", "can't be read"]),
    (
        "other_schema",
        |d| edit(d, folder::RUN, |t| t.replacen("\"schema\": 1", "\"schema\": 7", 1)),
        &["schema 7", "schema 1"],
    ),
    ("no_schema", |d| edit(d, folder::RUN, |t| t.replacen("\"schema\"", "\"scheme\"", 1)), &["no schema"]),
    ("run_not_json", |d| cut(d, folder::RUN, 20), &["run.json", "no JSON"]),
    ("run_without_model", |d| edit(d, folder::RUN, |t| t.replacen("\"model\"", "\"mod\"", 1)), &["run.json", "model"]),
    ("cut_line", |d| cut(d, folder::TAPS, 30), &["taps.jsonl", "line ", "cut off"]),
    ("edited_line", |d| line40(d, "{", "{{"), &["taps.jsonl: line 40", "no record"]),
    ("edited_prompt", |d| line40(d, "\"prompt\":\"short\"", "\"prompt\":\"shirt\""), &["line 40", "`shirt`"]),
    ("edited_shape", |d| line40(d, "\"shape\":[", "\"shape\":[2,"), &["line 40"]),
    ("edited_statistics", |d| line40(d, "\"sum_sq\":", "\"sum_sq\":1"), &["line 40", "statistics"]),
    ("edited_hash", |d| line40(d, "\"hash\":\"", "\"hash\":\"f"), &["line 40"]),
    (
        "edited_offset",
        // The last offset of a line is that of its values.
        |d| {
            edit(d, folder::TAPS, |t| {
                let at = t.rfind("\"offset\":").map_or(0, |at| at + "\"offset\":".len());
                format!("{}9999999{}", &t[..at], &t[at..])
            })
        },
        &["line ", "tensors.safetensors, which has"],
    ),
    ("cut_tensors", |d| cut(d, folder::TENSORS, 100), &["line ", "tensors.safetensors, which has"]),
    ("edited_tensor", flip, &["line ", "hash differs"]),
    (
        "other_graph",
        |d| edit(d, folder::GRAPH, |t| t.replacen("0.00001", "0.00002", 1)),
        &["graph.json", "fingerprint"],
    ),
    ("broken_graph", |d| cut(d, folder::GRAPH, 50), &["graph.json"]),
];

fn flip(dir: &Path) -> Result<(), Outcome> {
    let mut bytes = fs::read(dir.join(folder::TENSORS))?;
    let last = bytes.len() - 3;
    bytes[last] ^= 4;
    Ok(fs::write(dir.join(folder::TENSORS), bytes)?)
}

fn bad((name, damage, words): &Damage) -> Result<(), Outcome> {
    let dir = fresh(&format!("bad-{name}"))?;
    traced(&dir, "Q8_0", Arithmetic::Int8, vec![everything()])?;
    damage(&dir)?;
    let outcome = match Recording::open(&dir) {
        Ok(_) => Err(Outcome::Failed("it was read".into())),
        Err(e) => {
            let text = e.to_string();
            let missing: Vec<_> = words.iter().filter(|w| !text.contains(**w)).collect();
            match missing.is_empty() && text.contains(&*dir.display().to_string()) {
                true => Ok(()),
                false => Err(Outcome::Failed(format!("{missing:?} or the folder not in: {text}"))),
            }
        }
    };
    let _ = fs::remove_dir_all(&dir);
    outcome
}
