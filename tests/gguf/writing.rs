//! The writer: files larger than memory, files without tensors, and calls out of order.

use std::fs;

use greta_models::gguf::{Gguf, GgufError, GgufWriter, parse_header};
use greta_ops::DType;
use libtest_mimic::Failed;

use super::{Folder, report, variant};
use crate::alloc;

pub fn streamed() -> Result<(), Failed> {
    let folder = Folder::new("streamed")?;
    let path = folder.0.join("model.gguf");
    let byte = |tensor: usize, i: usize| (i * 31 + i / 4096 + tensor) as u8;
    let tensors = [("small", 64u64), ("large", 1 << 20), ("odd", 1001)];
    let mut writer = GgufWriter::create(&path)?;
    for (name, len) in tensors {
        writer.add_tensor(name, &[len], DType::F32)?;
    }
    writer.write_header()?;
    for (t, (name, len)) in tensors.into_iter().enumerate() {
        let data: Vec<u8> = (0..len as usize * 4).map(|i| byte(t, i)).collect();
        let (written, asked) =
            alloc::measured(|| data.chunks(70_001).try_for_each(|chunk| writer.write_data(name, chunk)));
        written?;
        assert!(asked.total < 4096, "{name}: writing data asked for {asked:?}");
    }
    writer.finish()?;

    let file = Gguf::open(&path)?;
    assert_eq!((file.path(), file.version(), file.alignment()), (path.as_path(), 3, 32));
    assert_eq!(file.file_len(), fs::metadata(&path)?.len());
    for _ in 0..2 {
        for (t, (name, len)) in tensors.into_iter().enumerate() {
            let info = file.tensor(name).ok_or("no tensor")?;
            let data = file.bytes(info);
            assert_eq!(data.len() as u64, len * 4);
            assert!(data.iter().enumerate().all(|(i, &b)| b == byte(t, i)), "{name}");
            file.release(info);
        }
    }
    // Errors found after opening still say the file.
    let error = file.metadata().missing("x").to_string();
    assert!(error.starts_with(&path.display().to_string()), "{error}");
    Ok(())
}

pub fn header_alone() -> Result<(), Failed> {
    let mut writer = GgufWriter::new(Vec::new());
    writer.write_header()?;
    let file = writer.finish()?;
    // No tensors, no metadata, and no padding needed: what other writers leave is read as well.
    for len in [24, file.len()] {
        let header = parse_header(&file[..len], len as u64)?;
        assert!(header.tensors().is_empty() && header.metadata().is_empty());
    }
    Ok(())
}

/// A writer into memory.
type Memory = GgufWriter<Vec<u8>>;

fn add(w: &mut Memory, (name, dims, dtype): (&str, &[u64], DType)) -> Result<(), GgufError> {
    w.add_tensor(name, dims, dtype)
}

/// Declares `x` and `y`, of 16 bytes each, and writes the header.
fn start(w: &mut Memory) -> Result<(), GgufError> {
    w.add_tensor("x", &[4], DType::F32)?;
    w.add_tensor("y", &[4], DType::F32)?;
    w.write_header()
}

/// Writes so many bytes of each tensor named.
fn give(w: &mut Memory, chunks: &[(&str, usize)]) -> Result<(), GgufError> {
    chunks.iter().try_for_each(|(name, len)| w.write_data(name, &vec![0; *len]))
}

// One case a line: a table to look things up in.
#[rustfmt::skip]
pub fn misuse() -> Result<(), Failed> {
    type Step = fn(&mut Memory) -> Result<(), GgufError>;
    const X: (&str, &[u64], DType) = ("x", &[4], DType::F32);
    let cases: [(&str, Step, &str); 13] = [
        ("key twice", |w| w.add_metadata("k", 1u32).and(w.add_metadata("k", 2u32)), "DuplicateKey"),
        ("name twice", |w| add(w, X).and(add(w, X)), "DuplicateTensor"),
        ("no dimensions", |w| add(w, ("x", &[], DType::F32)), "TensorRank"),
        ("five dimensions", |w| add(w, ("x", &[1; 5], DType::F32)), "TensorRank"),
        ("half a block", |w| add(w, ("x", &[48], DType::Q4_0)), "TensorRow"),
        ("too large", |w| add(w, ("x", &[1 << 40, 1 << 40], DType::F32)), "TensorTooLarge"),
        ("bad alignment", |w| w.add_metadata("general.alignment", 24u32).and(w.write_header()), "Alignment"),
        ("late tensor", |w| start(w).and(add(w, ("z", &[1], DType::F32))), "WriteOrder"),
        ("data before header", |w| add(w, X).and(w.write_data("x", &[0; 4])), "WriteOrder"),
        ("wrong order", |w| start(w).and(give(w, &[("y", 16)])), "WriteOrder"),
        ("too many bytes", |w| start(w).and(give(w, &[("x", 9), ("x", 9)])), "WriteLength"),
        ("too few bytes", |w| start(w).and(give(w, &[("x", 15), ("y", 16)])), "WriteLength"),
        ("back again", |w| start(w).and(give(w, &[("x", 16), ("y", 16), ("x", 1)])), "WriteOrder"),
    ];
    let mut wrong = Vec::new();
    for (name, step, expected) in cases {
        let found = step(&mut GgufWriter::new(Vec::new())).map_err(|e| variant(e.kind()));
        if found != Err(expected.to_owned()) {
            wrong.push(format!("{name}: expected {expected}, found {found:?}"));
        }
    }
    let unfinished: [&[(&str, usize)]; 4] = [&[], &[("x", 15)], &[("x", 16)], &[("x", 16), ("y", 15)]];
    for chunks in unfinished {
        let mut w = GgufWriter::new(Vec::new());
        start(&mut w).and(give(&mut w, chunks))?;
        let found = w.finish().map_err(|e| variant(e.kind()));
        if found != Err("WriteLength".to_owned()) {
            wrong.push(format!("finish after {chunks:?}: found {found:?}"));
        }
    }
    report(wrong)
}
