//! GGUF files: what is written is read back, and no file, however damaged, does worse than an error.

mod bad;
mod damage;
mod writing;

use std::fs;
use std::path::{Path, PathBuf};

use greta_models::gguf::{Array, GgufError, GgufErrorKind, GgufWriter, Value, parse_header};
use greta_ops::DType;
use libtest_mimic::{Failed, Trial};

/// The tests of this module.
pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("gguf/round_trip", round_trip),
        Trial::test("gguf/version_2_reads_as_3", version_2),
        Trial::test("gguf/getters", getters),
        Trial::test("gguf/file_is_streamed_and_mapped", writing::streamed),
        Trial::test("gguf/header_alone", writing::header_alone),
        Trial::test("gguf/writer_misuse", writing::misuse),
        Trial::test("gguf/paths_that_are_no_file", bad::paths),
        Trial::test("gguf/bad_files", bad::files),
        Trial::test("gguf/not_gguf", bad::not_gguf),
        Trial::test("gguf/truncated_at_every_byte", damage::truncated),
        Trial::test("gguf/ten_thousand_damaged_headers", damage::damaged),
    ]
}

/// The metadata of the sample: every type of value, and the shapes that matter.
fn sample_metadata() -> Vec<(&'static str, Value)> {
    let words = |n: usize| (0..n).map(|i| format!("token-{i}é")).collect::<Vec<_>>();
    vec![
        ("general.architecture", "llama".into()),
        ("general.alignment", 64u32.into()),
        ("k.u8", 200u8.into()),
        ("k.i8", (-3i8).into()),
        ("k.u16", 60_000u16.into()),
        ("k.i16", (-30_000i16).into()),
        ("k.u32", 4_000_000_000u32.into()),
        ("k.i32", (-2_000_000_000i32).into()),
        ("k.u64", u64::MAX.into()),
        ("k.i64", i64::MIN.into()),
        ("k.f32", 1.5f32.into()),
        ("k.f64", 0.1f64.into()),
        ("k.true", true.into()),
        ("k.empty", "".into()),
        ("a.u8", vec![1u8, 2, 255].into()),
        ("a.i16", vec![-1i16, 2].into()),
        ("a.i32", vec![-1i32, 2, 3].into()),
        ("a.f32", vec![0.5f32, -0.25].into()),
        ("a.f64", vec![0.1f64, 1e300].into()),
        ("a.u64", vec![u64::MAX, 0].into()),
        ("a.bool", Array::Bools(vec![true, false, true]).into()),
        ("a.str", words(40).into()),
        ("a.none", Array::Strings(vec![]).into()),
        ("a.nested", nested(2)),
        ("dup.a", 1u32.into()),
        ("dup.b", 2u32.into()),
    ]
}

/// Arrays of strings and numbers, `depth` arrays down.
fn nested(depth: usize) -> Value {
    let leaves = vec![Array::Strings(vec!["deep".into()]), Array::U16(vec![7]), Array::Arrays(vec![])];
    Array::Arrays((2..depth).fold(leaves, |inner, _| vec![Array::Arrays(inner)])).into()
}

/// The tensors of the sample, with data that fills each of them.
const TENSORS: [(&str, &[u64], DType); 4] = [
    ("t.a", &[256, 3], DType::Q4_K),
    ("t.b", &[64], DType::F32),
    ("t.c", &[32, 2, 2], DType::Q8_0),
    ("t.d", &[3, 5, 1, 2], DType::BF16),
];

fn size((_, dims, dtype): (&str, &[u64], DType)) -> usize {
    let row = dtype.row_bytes(dims[0] as usize).expect("whole blocks");
    row * dims[1..].iter().product::<u64>() as usize
}

/// A whole, valid file, and where its header ends.
fn sample() -> Result<(Vec<u8>, usize), GgufError> {
    let mut writer = GgufWriter::new(Vec::new());
    for (key, value) in sample_metadata() {
        writer.add_metadata(key, value)?;
    }
    for (name, dims, dtype) in TENSORS {
        writer.add_tensor(name, dims, dtype)?;
    }
    writer.write_header()?;
    for (i, tensor) in TENSORS.into_iter().enumerate() {
        writer.write_data(tensor.0, &vec![i as u8 + 1; size(tensor)])?;
    }
    let file = writer.finish()?;
    let header = parse_header(&file, file.len() as u64)?;
    Ok((file, header.data_offset() as usize))
}

fn round_trip() -> Result<(), Failed> {
    let (file, data_offset) = sample()?;
    let header = parse_header(&file, file.len() as u64)?;
    assert_eq!((header.version(), header.alignment()), (3, 64));
    let read: Vec<_> = header.metadata().iter().map(|(k, v)| (k, v.clone())).collect();
    assert_eq!(read, sample_metadata());
    for (key, value) in sample_metadata() {
        assert_eq!(header.metadata().get(key), Some(&value), "{key}");
    }
    assert_eq!(header.metadata().get("absent"), None);
    assert_eq!(header.tensors().len(), TENSORS.len());
    for (i, tensor) in TENSORS.into_iter().enumerate() {
        let (name, dims, dtype) = tensor;
        let t = &header.tensors()[i];
        assert_eq!((t.name.as_str(), &t.dims[..], t.dtype), (name, dims, dtype));
        assert_eq!((t.cols(), t.rows()), (dims[0], dims[1..].iter().product()));
        assert_eq!(t.bytes as usize, size(tensor), "{name}");
        assert_eq!(header.tensor(name), Some(t));
        let data = &file[t.offset as usize..][..t.bytes as usize];
        assert!(data.iter().all(|&b| b == i as u8 + 1), "{name} holds another tensor's data");
    }
    assert_eq!(header.tensor("t"), None);
    // The header alone, with the file's length beside it, says the same.
    let alone = parse_header(&file[..data_offset], file.len() as u64)?;
    assert_eq!(alone.tensors(), header.tensors());
    Ok(())
}

fn version_2() -> Result<(), Failed> {
    let (mut file, _) = sample()?;
    file[4] = 2;
    let header = parse_header(&file, file.len() as u64)?;
    assert_eq!(header.version(), 2);
    assert_eq!(header.metadata().len(), sample_metadata().len());
    Ok(())
}

fn getters() -> Result<(), Failed> {
    let (file, _) = sample()?;
    let header = parse_header(&file, file.len() as u64)?;
    let m = header.metadata();
    assert_eq!(m.u32("k.u8")?, Some(200));
    assert_eq!(m.u32("k.u32")?, Some(4_000_000_000));
    assert_eq!(m.i32("k.i8")?, Some(-3));
    assert_eq!(m.u64("k.u64")?, Some(u64::MAX));
    assert_eq!(m.f32("k.f32")?, Some(1.5));
    assert_eq!(m.f32("k.f64")?, Some(0.1));
    assert_eq!(m.bool("k.true")?, Some(true));
    assert_eq!(m.str("k.empty")?, Some(""));
    assert_eq!(m.str_array("a.str")?.map(<[_]>::len), Some(40));
    assert_eq!(m.bool_array("a.bool")?, Some(&[true, false, true][..]));
    assert_eq!(m.f32_array("a.f32")?, Some(vec![0.5, -0.25]));
    assert_eq!(m.i32_array("a.i16")?, Some(vec![-1, 2]));
    assert_eq!(m.u32_array("a.u8")?, Some(vec![1, 2, 255]));
    assert_eq!(m.array("a.nested")?.map(Array::len), Some(3));
    assert_eq!(m.u32("absent")?, None);
    assert_eq!(m.str_array("absent")?, None);
    let said = [
        (m.u32("k.i8").err(), "\"k.i8\" holds -3, which does not fit u32"),
        (m.u32("k.u64").err(), "does not fit u32"),
        (m.u32("k.f32").err(), "holds the f32 1.5, and u32 is needed"),
        (m.f32("k.u32").err(), "holds the u32 4000000000, and f32 is needed"),
        (m.str("a.str").err(), "an array of string of length 40"),
        (m.str_array("general.architecture").err(), "the string \"llama\""),
        (m.i32_array("a.u64").err(), "holds 18446744073709551615"),
        (m.f32_array("a.f64").err(), "does not fit array of f32"),
        (Some(m.missing("x.y")), "\"x.y\" is missing"),
    ];
    report(said.into_iter().filter_map(|(error, wanted)| {
        let error = error.map_or("no error".to_owned(), |e| e.to_string());
        (!error.contains(wanted)).then(|| format!("{wanted:?} is not in {error:?}"))
    }))
}

/// A folder of this process, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> std::io::Result<Folder> {
        let name = format!("gguf-{name}-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder left over does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The name of an error's variant.
fn variant(kind: &GgufErrorKind) -> String {
    let text = format!("{kind:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

/// Fails with every line, or passes where there is none.
fn report(wrong: impl IntoIterator<Item = String>) -> Result<(), Failed> {
    let wrong: Vec<String> = wrong.into_iter().collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}
