//! Tables of files that must be refused, each with the error and the words it must be refused with.

use std::fs;

use greta_models::gguf::{Gguf, GgufError, GgufWriter, parse_header};
use greta_ops::DType;
use libtest_mimic::Failed;

use super::{Folder, nested, report, sample, variant};

/// A damage to the sample, the error it must give, and words the message must have.
type Case = (&'static str, fn(&mut Vec<u8>), &'static str, &'static [&'static str]);

const HUGE: u64 = 1 << 60;

/// The position after a length-prefixed name.
fn after(file: &[u8], name: &str) -> usize {
    let mut wanted = (name.len() as u64).to_le_bytes().to_vec();
    wanted.extend_from_slice(name.as_bytes());
    let at = file.windows(wanted.len()).position(|w| w == wanted);
    at.expect("the sample has this name") + wanted.len()
}

/// Overwrites the file at `skip` bytes after a name.
fn set(file: &mut [u8], name: &str, skip: usize, new: &[u8]) {
    let at = after(file, name) + skip;
    file[at..at + new.len()].copy_from_slice(new);
}

fn set_u64(file: &mut [u8], name: &str, skip: usize, new: u64) {
    set(file, name, skip, &new.to_le_bytes());
}

fn rename(file: &mut [u8], name: &str, new: &[u8]) {
    let at = after(file, name) - name.len();
    file[at..at + new.len()].copy_from_slice(new);
}

/// Where things stand after the name of a tensor with one dimension.
const DIM: usize = 4;
const TYPE: usize = 12;
const OFFSET: usize = 16;

// One case a line: a table to look things up in.
#[rustfmt::skip]
const CASES: &[Case] = &[
    ("empty", |f| f.clear(), "Empty", &["empty"]),
    ("part of the magic", |f| f.truncate(3), "Truncated", &["ends inside the header"]),
    ("wrong magic", |f| f[0] = b'X', "WrongMagic", &["58 47 55 46"]),
    ("version 0", |f| f[4] = 0, "Version", &["version 0"]),
    ("version 1", |f| f[4] = 1, "Version", &["version 1", "convert"]),
    ("version 4", |f| f[4] = 4, "Version", &["version 4", "newer greta"]),
    ("version of noise", |f| f[5] = 9, "Version", &["damaged"]),
    ("big-endian 3", |f| f[4..8].copy_from_slice(&[0, 0, 0, 3]), "BigEndian", &["version 3", "big-endian"]),
    ("big-endian 2", |f| f[4..8].copy_from_slice(&[0, 0, 0, 2]), "BigEndian", &["version 2"]),
    ("2^60 tensors", |f| f[15] = 0x10, "Count", &["tensor count", "1152921504606846980"]),
    ("2^60 entries", |f| f[23] = 0x10, "Count", &["metadata count"]),
    ("a tensor too many", |f| f[8] += 1, "TensorRank", &["0 dimensions"]),
    ("a tensor too few", |f| f[8] -= 1, "Padding", &["counts do not tell"]),
    ("key past the end", |f| set_u64(f, "k.u8", 5, HUGE), "Count", &["key of metadata entry 3", "bytes of text"]),
    ("key is not UTF-8", |f| rename(f, "k.u8", b"k.\xff8"), "Utf8", &["key of metadata entry 2"]),
    ("key twice", |f| rename(f, "dup.b", b"dup.a"), "DuplicateKey", &["\"dup.a\""]),
    ("value type 13", |f| set(f, "k.u8", 0, &[13]), "ValueType", &["\"k.u8\"", "13"]),
    ("boolean 2", |f| set(f, "k.true", 4, &[2]), "Bool", &["\"k.true\"", "value 2"]),
    ("text past the end", |f| set_u64(f, "general.architecture", 4, HUGE), "Count", &["\"general.architecture\""]),
    ("text is not UTF-8", |f| set(f, "general.architecture", 12, b"\xc3\x28"), "Utf8", &["\"general.architecture\""]),
    ("array type 99", |f| set(f, "a.u8", 4, &[99]), "ValueType", &["\"a.u8\"", "99"]),
    ("array of 2^60 bytes", |f| set_u64(f, "a.u8", 8, HUGE), "Count", &["\"a.u8\""]),
    ("array of 2^61 doubles", |f| set_u64(f, "a.f64", 8, HUGE * 2), "Count", &["\"a.f64\"", "f64"]),
    ("array of 2^60 strings", |f| set_u64(f, "a.str", 8, HUGE), "Count", &["\"a.str\"", "strings"]),
    ("array of 2^60 arrays", |f| set_u64(f, "a.nested", 8, HUGE), "Count", &["\"a.nested\"", "arrays"]),
    ("array boolean 7", |f| set(f, "a.bool", 17, &[7]), "Bool", &["element 1 of", "\"a.bool\""]),
    ("token past the end", |f| set_u64(f, "token-7é", 0, HUGE), "Count", &["element 8 of", "\"a.str\""]),
    ("token is not UTF-8", |f| rename(f, "token-7é", b"\xff"), "Utf8", &["element 7 of", "\"a.str\""]),
    ("alignment 0", |f| set(f, "general.alignment", 4, &[0; 4]), "Alignment", &["is 0"]),
    ("alignment 48", |f| set(f, "general.alignment", 4, &[48]), "Alignment", &["is 48"]),
    ("alignment 4", |f| set(f, "general.alignment", 4, &[4]), "Alignment", &["is 4"]),
    ("alignment 2^31", |f| set(f, "general.alignment", 4, &[0, 0, 0, 0x80]), "Alignment", &["2147483648"]),
    ("alignment is a float", |f| set(f, "general.alignment", 0, &[6]), "MetadataType", &["general.alignment", "f32"]),
    ("tensor name past the end", |f| set_u64(f, "t.a", 32, HUGE), "Count", &["name of tensor 1"]),
    ("tensor name is not UTF-8", |f| rename(f, "t.b", b"\xff"), "Utf8", &["name of tensor 1"]),
    ("tensor twice", |f| rename(f, "t.c", b"t.b"), "DuplicateTensor", &["\"t.b\""]),
    ("0 dimensions", |f| set(f, "t.b", 0, &[0]), "TensorRank", &["\"t.b\"", "0 dimensions"]),
    ("5 dimensions", |f| set(f, "t.b", 0, &[5]), "TensorRank", &["\"t.b\"", "5 dimensions"]),
    ("2^32-1 dimensions", |f| set(f, "t.b", 0, &[255; 4]), "TensorRank", &["4294967295"]),
    ("dimension 0", |f| set_u64(f, "t.b", DIM, 0), "TensorZeroDim", &["\"t.b\"", "[0]"]),
    ("dimensions overflow", |f| set_u64(f, "t.c", DIM + 16, HUGE), "TensorTooLarge", &["\"t.c\""]),
    ("values overflow", |f| { set_u64(f, "t.a", DIM, 1 << 32); set_u64(f, "t.a", DIM + 8, 1 << 32) }, "TensorTooLarge", &["t.a"]),
    ("bytes overflow", |f| set_u64(f, "t.b", DIM, 1 << 62), "TensorTooLarge", &["\"t.b\""]),
    ("half a block", |f| set_u64(f, "t.a", DIM, 255), "TensorRow", &["\"t.a\"", "255", "256", "Q4_K"]),
    ("IQ4_XS", |f| set(f, "t.b", TYPE, &[23]), "TensorType", &["\"t.b\"", "IQ4_XS (23)", "Q4_K"]),
    ("removed type Q4_2", |f| set(f, "t.b", TYPE, &[4]), "TensorType", &["Q4_2 (4)"]),
    ("type 250", |f| set(f, "t.b", TYPE, &[250]), "TensorType", &["\"t.b\"", "number 250"]),
    ("misaligned", |f| set(f, "t.b", OFFSET, &[32]), "TensorMisaligned", &["\"t.b\"", "64"]),
    ("past the end", |f| set_u64(f, "t.b", OFFSET, HUGE), "TensorPastEnd", &["\"t.b\""]),
    ("offset overflows", |f| set_u64(f, "t.b", OFFSET, u64::MAX - 63), "TensorPastEnd", &["\"t.b\""]),
    ("larger than the file", |f| set_u64(f, "t.b", DIM, 1 << 40), "TensorPastEnd", &["\"t.b\"", "4398046511104"]),
    ("data cut short", |f| f.truncate(f.len() - 64), "TensorPastEnd", &["\"t.d\"", "incomplete"]),
    ("overlap", |f| set_u64(f, "t.b", OFFSET, 0), "TensorOverlap", &["\"t.a\"", "\"t.b\""]),
];

/// What is wrong with the way a case was refused, if anything.
fn judge(name: &str, error: Option<GgufError>, expected: &str, words: &[&str]) -> Vec<String> {
    let Some(error) = error else {
        return vec![format!("{name}: no error")];
    };
    let (found, message) = (variant(error.kind()), error.to_string());
    let mut wrong = Vec::new();
    if found != expected {
        wrong.push(format!("{name}: expected {expected}, found {found} ({message})"));
    }
    let absent = words.iter().filter(|w| !message.contains(**w));
    wrong.extend(absent.map(|w| format!("{name}: {w:?} is not in {message:?}")));
    if message.len() > 600 {
        wrong.push(format!("{name}: the message has {} bytes", message.len()));
    }
    wrong
}

pub fn files() -> Result<(), Failed> {
    let mut wrong = Vec::new();
    for (name, damage, expected, words) in CASES {
        let (mut file, _) = sample()?;
        damage(&mut file);
        wrong.extend(judge(name, parse_header(&file, file.len() as u64).err(), expected, words));
    }
    let mut deep = GgufWriter::new(Vec::new());
    deep.add_metadata("deep", nested(9))?;
    deep.write_header()?;
    let deep = deep.finish()?;
    let error = parse_header(&deep, deep.len() as u64).err();
    wrong.extend(judge("nested too deep", error, "Depth", &["\"deep\""]));
    // A name that fills the screen, or controls it, stays out of the message.
    let mut long = GgufWriter::new(Vec::new());
    long.add_tensor(&"\u{1b}[2J".repeat(5000), &[4], DType::F32)?;
    long.write_header()?;
    let long = long.finish().err();
    wrong.extend(judge("long name", long, "WriteLength", &["\\u{1b}[2J", "…"]));
    report(wrong)
}

pub fn not_gguf() -> Result<(), Failed> {
    let safetensors = b"\x20\x00\x00\x00\x00\x00\x00\x00{\"a\":{\"dtype\":\"F32\"}}";
    let cases: [(&[u8], &str); 13] = [
        (safetensors, "safetensors"),
        (b"PK\x03\x04\x14\x00", "PyTorch"),
        (b"\x80\x02}q\x00", "pickle"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\n <HTML>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"tjgg\x01\x00\x00\x00", "before GGUF"),
        (b"\x1f\x8b\x08\x00", "compressed"),
        (b"{\"hidden_size\": 576}", "JSON"),
        (&[0; 4096], "zeros"),
        (b"hello", "no model format"),
        (b"G\0", "47 00"),
        (b"X", "\"X\""),
    ];
    report(
        cases.into_iter().flat_map(|(bytes, word)| {
            judge(word, parse_header(bytes, bytes.len() as u64).err(), "WrongMagic", &[word])
        }),
    )
}

pub fn paths() -> Result<(), Failed> {
    let folder = Folder::new("paths")?;
    let path = |name: &str| folder.0.join(name);
    fs::write(path("empty"), b"")?;
    fs::write(path("page"), b"<html>")?;
    let (file, data_offset) = sample()?;
    fs::write(path("cut"), &file[..data_offset + 10])?;
    let mut cases = vec![
        (path("absent"), "NotFound", "no such file"),
        (folder.0.clone(), "NotAFile", "a directory"),
        (path("empty"), "Empty", "empty"),
        (path("page"), "WrongMagic", "web page"),
        (path("cut"), "TensorPastEnd", "incomplete"),
    ];
    if cfg!(unix) {
        cases.push(("/dev/null".into(), "NotAFile", "a device"));
        cases.push((path("page/below"), "Io", "cannot look at"));
    }
    report(cases.into_iter().flat_map(|(path, expected, word)| {
        let named = path.display().to_string();
        judge(&named, Gguf::open(&path).err(), expected, &[&named, word])
    }))
}
