//! Bundles, `greta analyze`, and runs on another machine: an ssh server on this one's loopback.

use super::models::{Models, models};
use super::{Done, check, command, fed, greta, text};
use crate::support::{Need, Outcome, trial};
use flate2::Compression;
use flate2::write::GzEncoder;
use greta::trace::bundle;
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

pub fn trials() -> Vec<Trial> {
    let mut list = vec![
        Trial::test("cli/bundle/round_trip", round_trip),
        Trial::test("cli/bundle/not_overwritten", not_overwritten),
        Trial::test("cli/bundle/damaged", damaged),
        Trial::test("cli/bundle/hostile_entries", hostile),
        Trial::test("cli/analyze/reports", reports),
        Trial::test("cli/analyze/difference_is_named", difference),
        Trial::test("cli/analyze/damaged_folders", damaged_folders),
        Trial::test("cli/trace/prompt_file", prompt_file),
        Trial::test("cli/trace/bad_hosts", bad_hosts),
    ];
    #[cfg(unix)]
    list.extend(far::trials());
    list
}

/// Traces two prompts into a folder and a bundle of this name; gives both.
fn traced(name: &str, extra: &[&str]) -> Result<(PathBuf, PathBuf), Failed> {
    let m = models()?;
    let (dir, file) = (fresh(m, name)?, m.folder.join(format!("{name}.tgz")));
    let base = ["trace", "-m", text(&m.whole), "-o", text(&dir), "--bundle", text(&file), "--force"];
    greta(&[&base[..], &["--prompts", "p0_short,p4_sys"], extra].concat())?.code(0)?;
    Ok((dir, file))
}

fn fresh(m: &Models, name: &str) -> Result<PathBuf, Failed> {
    let dir = m.folder.join(name);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    Ok(dir)
}

const PARTS: [&str; 4] = ["run.json", "graph.json", "taps.jsonl", "tensors.safetensors"];

fn round_trip() -> Result<(), Failed> {
    let (dir, file) = traced("packed", &[])?;
    let again = file.with_extension("again");
    let packed = bundle::pack(&dir, &again)?;
    check(packed.complete && packed.files == PARTS, || format!("{packed:?}"))?;
    check(fs::read(&file)? == fs::read(&again)?, || "one run gives two bundles".into())?;
    let to = fresh(models()?, "unpacked")?;
    let runs = bundle::unpack(&file, &to)?;
    check(runs == [to.join("packed")], || format!("{runs:?}"))?;
    for part in PARTS {
        check(fs::read(dir.join(part))? == fs::read(runs[0].join(part))?, || format!("{part} is another"))?;
    }
    let twice = bundle::unpack(&file, &to).map_err(|e| e.to_string());
    check(twice.as_ref().is_err_and(|e| e.contains("not empty")), || format!("{twice:?}"))?;
    // A run that did not end gives a bundle that says so.
    let run = fs::read_to_string(dir.join("run.json"))?.replace("\"complete\"", "\"incomplete\"");
    fs::write(dir.join("run.json"), run)?;
    check(!bundle::pack(&dir, &again)?.complete, || "an incomplete run was packed as a whole one".into())?;
    let done = greta(&["analyze", "--dir", text(&again)])?.code(2)?;
    check(done.out.contains("INCOMPLETE: it did not end"), || done.out.clone())
}

fn not_overwritten() -> Result<(), Failed> {
    let m = models()?;
    let file = m.file("mine.tgz", b"mine")?;
    let nowhere = m.folder.join("no/such/place.tgz");
    for (path, word) in [(&file, "--force"), (&nowhere, "there is no folder"), (&m.folder, "is a folder")] {
        let dir = fresh(m, "never")?;
        let args = ["trace", "-m", text(&m.whole), "-o", text(&dir), "--bundle", text(path), "Hi"];
        let done = greta(&args)?.code(1)?;
        check(done.err.contains(word) && !dir.exists(), || done.err.clone())?;
    }
    check(fs::read(&file)? == b"mine", || "it was overwritten".into())
}

fn damaged() -> Result<(), Failed> {
    let (_, file) = traced("whole-bundle", &[])?;
    let m = models()?;
    let whole = fs::read(&file)?;
    let n = whole.len();
    let mut flipped = whole.clone();
    flipped[n / 2] ^= 0x10;
    let mut checksum = whole.clone();
    checksum[n - 8] ^= 1;
    let cases: [(&str, &[u8]); 7] = [
        ("cut-half", &whole[..n / 2]),
        ("cut-checksum", &whole[..n - 1]),
        ("cut-header", &whole[..5]),
        ("empty", b""),
        ("no-gzip", b"this is no bundle at all"),
        ("flipped", &flipped),
        ("checksum", &checksum),
    ];
    for (name, bytes) in cases {
        let path = m.file(&format!("{name}.tgz"), bytes)?;
        let to = fresh(m, "never-unpacked")?;
        let error = bundle::unpack(&path, &to).err().ok_or_else(|| format!("{name}: it was unpacked"))?.to_string();
        check(error.contains(text(&path)) && !to.exists(), || format!("{name}: {error}"))?;
        let done = greta(&["analyze", "--dir", text(&path)])?.code(2)?;
        check(done.err.contains(text(&path)), || format!("{name}: {}", done.err))?;
    }
    Ok(())
}

/// A tar in gzip, of headers that no writer makes.
fn made(
    name: &str,
    fill: impl FnOnce(&mut tar::Builder<GzEncoder<Vec<u8>>>) -> std::io::Result<()>,
) -> Result<PathBuf, Failed> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    fill(&mut tar)?;
    models()?.file(name, &tar.into_inner()?.finish()?)
}

fn header(name: &[u8], size: u64, kind: tar::EntryType) -> tar::Header {
    let mut h = tar::Header::new_ustar();
    h.as_mut_bytes()[..name.len()].copy_from_slice(name);
    h.set_size(size);
    h.set_entry_type(kind);
    h.set_cksum();
    h
}

fn hostile() -> Result<(), Failed> {
    let m = models()?;
    let file = |tar: &mut tar::Builder<_>, name: &[u8], data: &[u8]| {
        tar.append(&header(name, data.len() as u64, tar::EntryType::Regular), data)
    };
    let link = |kind: tar::EntryType| {
        let mut h = header(b"run/link", 0, kind);
        let _ = h.set_link_name("/etc");
        h.set_cksum();
        h
    };
    let cases = [
        ("up", made("up.tgz", |t| file(t, b"run/../../up", b"x"))?, "leads out of its folder"),
        ("root", made("root.tgz", |t| file(t, b"/tmp/greta-root", b"x"))?, "leads out of its folder"),
        ("symlink", made("symlink.tgz", |t| t.append(&link(tar::EntryType::Symlink), &b""[..]))?, "no links"),
        ("hardlink", made("hardlink.tgz", |t| t.append(&link(tar::EntryType::Link), &b""[..]))?, "no links"),
        ("device", made("device.tgz", |t| t.append(&header(b"d", 0, tar::EntryType::Char), &b""[..]))?, "no devices"),
        (
            "huge",
            made("huge.tgz", |t| t.append(&header(b"run/huge", 1 << 40, tar::EntryType::Regular), &b""[..]))?,
            "too large",
        ),
        (
            "long",
            made("long.tgz", |t| t.append(&header(b"x", 1 << 34, tar::EntryType::GNULongName), &b""[..]))?,
            "name of an entry",
        ),
        ("none", made("none.tgz", |t| file(t, b"run/notes.txt", b"x"))?, "no run folder"),
        (
            "twice",
            made("twice.tgz", |t| file(t, b"run/run.json", b"x").and_then(|()| file(t, b"run/run.json", b"y")))?,
            "twice",
        ),
    ];
    for (name, path, word) in cases {
        let room = fresh(m, "hostile")?;
        let to = room.join("a/b");
        let error = bundle::unpack(&path, &to).err().ok_or_else(|| format!("{name}: it was unpacked"))?.to_string();
        check(error.contains(word) && error.contains(text(&path)), || format!("{name}: {error}"))?;
        check(!room.join("up").exists() && !room.join("a/up").exists(), || format!("{name}: it left its folder"))?;
    }
    check(!Path::new("/tmp/greta-root").exists(), || "an absolute path was written".into())?;
    // Many small zeros are a little gzip.
    let zeros = made("zeros.tgz", |t| file(t, b"run/run.json", &vec![0; 1 << 20]))?;
    let error = bundle::unpack_within(&zeros, &fresh(m, "zeros")?, 1 << 16).err().ok_or("it was unpacked")?;
    check(error.to_string().contains("65536 at most"), || error.to_string())
}

fn reports() -> Result<(), Failed> {
    let m = models()?;
    let runs = fresh(m, "runs")?;
    for label in ["E1", "E2"] {
        let dir = runs.join(label);
        greta(&["trace", "-m", text(&m.whole), "-o", text(&dir), "--label", label, "--prompts", "p0_short,p4_sys"])?
            .code(0)?;
    }
    let out = m.folder.join("analysis.txt");
    let done = greta(&["analyze", "--dir", text(&runs.join("E1")), "--out", text(&out)])?.code(0)?;
    check(done.out.contains("EQUAL; CLEAN") && done.out.lines().count() == 1, || done.out.clone())?;
    let report = fs::read_to_string(&out)?;
    let words = ["norm_out MAE", "q MAE", "first mismatch", "p4_sys", "NONE", "EQUAL", "CLEAN"];
    let missing: Vec<_> = words.into_iter().filter(|w| !report.contains(w)).collect();
    check(missing.is_empty() && !report.contains('\x1b'), || format!("{missing:?} not in\n{report}"))?;
    let v = greta(&["analyze", "--dir", text(&runs), "--json"])?.code(0)?.json()?;
    let labels: Vec<_> = v["runs"].as_array().into_iter().flatten().map(|r| r["label"].clone()).collect();
    check(labels == ["E1", "E2"] && v["exit_code"] == 0, || v.to_string())?;
    let p = &v["runs"][0]["prompts"][1];
    check(
        p["prompt"] == "p4_sys" && p["norm_out_mae"] == 0.0 && p["q_mae"] == 0.0 && p["first_mismatch"].is_null(),
        || p.to_string(),
    )?;
    // Without its model a run is compared; with another model given for it, that is an error.
    let other = m.file("other.gguf", &[&fs::read(&m.whole)?[..], b"more"].concat())?;
    let done = greta(&["analyze", "--dir", text(&runs.join("E1")), "-m", text(&other)])?.code(2)?;
    check(done.out.contains("not judged: TRACE_MISMATCH"), || done.out.clone())?;
    let run = runs.join("E2/run.json");
    fs::write(&run, fs::read_to_string(&run)?.replace("whole.gguf", "gone.gguf"))?;
    let done = greta(&["analyze", "--dir", text(&runs.join("E2"))])?.code(0)?;
    check(done.out.contains("gone.gguf, is not here; -m gives it"), || done.out.clone())?;
    greta(&["analyze", "--dir", text(&runs.join("E2")), "-m", text(&m.whole)])?.code(0).map(|_| ())
}

/// Another kernel in decode alone would do; a value changed in the folder, with its hash, needs no second kernel.
fn difference() -> Result<(), Failed> {
    let (dir, _) = traced("different", &["--detail", "stats"])?;
    let path = dir.join("taps.jsonl");
    let mut lines: Vec<Value> =
        fs::read_to_string(&path)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let at = |l: &Value| l["node"] == "blk.0.q" && l["prompt"] == "p4_sys" && l["phase"] == "decode";
    let line = lines.iter_mut().find(|l| at(l)).ok_or("no such record")?;
    line["stats"]["hash"] = json!("0000000000000001");
    let text_of: String = lines.iter().map(|l| format!("{l}\n")).collect();
    fs::write(&path, text_of)?;
    let v = greta(&["analyze", "--dir", text(&dir), "--json"])?.code(1)?.json()?;
    check(v["runs"][0]["first_mismatch"]["node"] == "blk.0.q" && v["runs"][0]["compared"] == "DIFFERS", || {
        v.to_string()
    })?;
    let done = greta(&["analyze", "--dir", text(&dir)])?.code(1)?;
    check(
        done.out.contains("first mismatch: `blk.0.q` (matmul") || done.out.contains("first mismatch: `blk.0.q`"),
        || done.out,
    )
}

fn damaged_folders() -> Result<(), Failed> {
    let m = models()?;
    for part in PARTS {
        let (dir, _) = traced(&format!("without-{part}"), &[])?;
        fs::remove_file(dir.join(part))?;
        let done = greta(&["analyze", "--dir", text(&dir)])?.code(2)?;
        check((done.out + &done.err).contains(part), || format!("{part} is not named"))?;
    }
    let (dir, _) = traced("cut-taps", &[])?;
    let taps = fs::read(dir.join("taps.jsonl"))?;
    fs::write(dir.join("taps.jsonl"), &taps[..taps.len() / 2])?;
    let v = greta(&["analyze", "--dir", text(&dir), "--json"])?.code(2)?.json()?;
    check(v["runs"][0]["error"].as_str().is_some_and(|e| e.contains("taps.jsonl")), || v.to_string())?;
    let empty = fresh(m, "empty-folder")?;
    fs::create_dir_all(&empty)?;
    for (path, word) in [(&empty, "run.json"), (&empty.join("nothing"), "there is no such folder")] {
        let done = greta(&["analyze", "--dir", text(path)])?.code(2)?;
        check((done.out + &done.err).contains(word), || format!("no `{word}`"))?;
    }
    // One bad run does not hide another.
    let runs = fresh(m, "mixed")?;
    fs::create_dir_all(&runs)?;
    fs::rename(traced("good", &[])?.0, runs.join("good"))?;
    fs::rename(dir, runs.join("bad"))?;
    let v = greta(&["analyze", "--dir", text(&runs), "--json"])?.code(2)?.json()?;
    check(v["runs"][1]["compared"] == "EQUAL" && v["runs"][0]["compared"].is_null(), || v.to_string())
}

fn prompt_file() -> Result<(), Failed> {
    let m = models()?;
    let list = json!([{"id": "a", "text": "Hi"}, {"id": "b", "tokens": [3, 1, 4]}, {"id": "c", "text": "word ".repeat(900), "fit": true}]);
    let file = m.file("prompts.json", list.to_string().as_bytes())?;
    let dir = fresh(m, "from-file")?;
    let base = ["trace", "-m", text(&m.whole), "-o", text(&dir), "--taps", "logits", "--json", "--prompt-file"];
    let v = greta(&[&base[..], &[text(&file)]].concat())?.code(0)?.json()?;
    check(v["prompts"][1]["tokens"] == 3 && v["prompts"][2]["tokens"].as_u64() < Some(256), || v.to_string())?;
    let cases: [(&str, &str); 5] = [
        ("{}", "no list of prompts"),
        ("[]", "empty"),
        ("[{\"id\": \"a\"}]", "neither text nor tokens"),
        ("[{\"id\": \"a\", \"txt\": \"Hi\"}]", "txt"),
        ("[{\"id\": \"a\", \"text\": \"Hi\"}, {\"id\": \"a\", \"text\": \"Ho\"}]", "two prompts"),
    ];
    for (content, word) in cases {
        let file = m.file("bad-prompts.json", content.as_bytes())?;
        let dir = fresh(m, "from-bad-file")?;
        let args = ["trace", "-m", text(&m.whole), "-o", text(&dir), "--prompt-file", text(&file)];
        let done = greta(&args)?.code(1)?;
        check(done.err.contains(word), || format!("no `{word}` in {}", done.err))?;
    }
    Ok(())
}

fn bad_hosts() -> Result<(), Failed> {
    for args in [
        ["--host", "-oProxyCommand=x"],
        ["--host", "me@-x"],
        ["--host", "me@a b"],
        ["--host", "a;b"],
        ["--host", ""],
        ["--ssh-port", "22"],
    ] {
        greta(&["trace", args[0], args[1]])?.code(2)?;
    }
    for dir in ["/tmp/$(id)", "-x", "/tmp/a b", "~/x"] {
        greta(&["trace", "--host", "me@there", &format!("--remote-dir={dir}")])?.code(2)?;
    }
    Ok(())
}

#[cfg(unix)]
mod far;
