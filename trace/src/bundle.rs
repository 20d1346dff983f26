//! Run folders as one file: a gzip-compressed tar that can be carried from the machine that ran to the one that judges.
//!
//! A bundle holds `NAME/run.json`, `NAME/graph.json`, `NAME/taps.jsonl` and `NAME/tensors.safetensors`, as far as the run
//! has them; the same folder gives the same bytes. A run that did not end says so in its `run.json`.
//!
//! A bundle comes from elsewhere: it is read whole, its checksum too, before anything of it is written, and it can make
//! nothing but files below the folder it is unpacked to.

use crate::folder::{self, GRAPH, RUN, TAPS, TENSORS};
use crate::{Status, TraceError, error::io};
use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use serde::Serialize;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Component, Path, PathBuf};

/// Bytes that a bundle may unpack to. A few kilobytes of gzip can stand for any number of zeros.
pub const LARGEST: u64 = 64 << 30;
/// Entries that a bundle may have.
const MOST: usize = 100_000;
/// Bytes of an entry that holds nothing but another's name: readers take those into memory whole.
const LONGEST_NAME: u64 = 64 << 10;
/// Bytes that begin every gzip file.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A bundle that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Packed {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The files in it.
    pub files: Vec<String>,
    /// Whether the run in it ended.
    pub complete: bool,
}

/// Packs a run folder. The bundle is there whole or not at all.
pub fn pack(dir: &Path, path: &Path) -> Result<Packed, TraceError> {
    let complete = folder::info(dir)?.status == Status::Complete;
    let part = beside(path);
    let parts = [RUN, GRAPH, TAPS, TENSORS].map(PathBuf::from);
    let result = write(dir, &parts, &part)
        .and_then(|files| fs::rename(&part, path).map(|()| files).map_err(io(path, "the bundle can't be written")));
    if result.is_err() {
        let _ = fs::remove_file(&part);
    }
    let files = result?;
    let bytes = fs::metadata(path).map_err(io(path, "can't be read"))?.len();
    Ok(Packed { path: path.into(), bytes, files, complete })
}

/// Packs a folder of any files, those of folders in it too, in the order of their names; gives the bundle's size.
pub fn pack_all(dir: &Path, path: &Path) -> Result<u64, TraceError> {
    let mut parts = Vec::new();
    below(dir, PathBuf::new(), &mut parts)?;
    let part = beside(path);
    let result = write(dir, &parts, &part)
        .and_then(|_| fs::rename(&part, path).map_err(io(path, "the bundle can't be written")));
    if result.is_err() {
        let _ = fs::remove_file(&part);
    }
    result?;
    Ok(fs::metadata(path).map_err(io(path, "can't be read"))?.len())
}

/// The files below a folder, as paths from it.
fn below(dir: &Path, at: PathBuf, out: &mut Vec<PathBuf>) -> Result<(), TraceError> {
    let here = dir.join(&at);
    let entries = fs::read_dir(&here).map_err(io(&here, "can't be read"))?;
    let mut names = entries.map(|e| e.map(|e| e.file_name())).collect::<Result<Vec<_>, _>>();
    names.as_mut().ok().into_iter().for_each(|n| n.sort());
    for name in names.map_err(io(&here, "can't be read"))? {
        let next = at.join(name);
        match dir.join(&next).is_dir() {
            true => below(dir, next, out)?,
            false => out.push(next),
        }
    }
    Ok(())
}

/// `bundle.tgz.part`: on the same file system, so that renaming it is one step.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

fn write(dir: &Path, parts: &[PathBuf], path: &Path) -> Result<Vec<String>, TraceError> {
    let bad = || io(path, "the bundle can't be written");
    let name = own_name(dir);
    let file = File::create(path).map_err(bad())?;
    // Neither a name nor a time goes into gzip's header: one run gives one bundle.
    let gzip = GzBuilder::new().write(BufWriter::new(file), Compression::default());
    let mut tar = tar::Builder::new(gzip);
    let mut files = Vec::new();
    for part in parts {
        let from = dir.join(part);
        if !from.exists() {
            continue;
        }
        let file = File::open(&from).map_err(io(&from, "can't be read"))?;
        let size = file.metadata().map_err(io(&from, "can't be read"))?.len();
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(size);
        let at = Path::new(&name).join(part);
        tar.append_data(&mut header, at, file.take(size)).map_err(bad())?;
        files.push(part.display().to_string());
    }
    let mut out = tar.into_inner().and_then(|gzip| gzip.finish()).map_err(bad())?;
    out.flush().map_err(bad())?;
    Ok(files)
}

/// The folder's own name; one given as `.` has it in the file system alone.
fn own_name(dir: &Path) -> OsString {
    let of = |p: &Path| p.file_name().map(ToOwned::to_owned);
    of(dir).or_else(|| dir.canonicalize().ok().as_deref().and_then(of)).unwrap_or_else(|| "run".into())
}

/// Unpacks a bundle into a folder that is empty or not there; gives the run folders in it.
pub fn unpack(path: &Path, dir: &Path) -> Result<Vec<PathBuf>, TraceError> {
    unpack_within(path, dir, LARGEST)
}

/// [`unpack`], of no more bytes than this.
pub fn unpack_within(path: &Path, dir: &Path, limit: u64) -> Result<Vec<PathBuf>, TraceError> {
    if fs::read_dir(dir).is_ok_and(|mut d| d.next().is_some()) {
        return Err(bad(dir, "is not empty: a bundle is unpacked into a folder of its own"));
    }
    check(path, limit)?;
    fs::create_dir_all(dir).map_err(io(dir, "the folder can't be made"))?;
    let mut runs = Vec::new();
    let mut tar = open(path)?;
    for entry in tar.entries().map_err(unreadable(path))? {
        let mut entry = entry.map_err(unreadable(path))?;
        let kind = entry.header().entry_type();
        let name = entry.path().map_err(unreadable(path))?.into_owned();
        let to = dir.join(inside(path, &name)?);
        if kind.is_dir() {
            fs::create_dir_all(&to).map_err(io(&to, "the folder can't be made"))?;
            continue;
        }
        if !is_file(kind) {
            return Err(no_file(path, &name));
        }
        let parent = to.parent().unwrap_or(dir);
        fs::create_dir_all(parent).map_err(io(parent, "the folder can't be made"))?;
        // Never through what is there already.
        let mut file = match File::create_new(&to) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(bad(path, format!("the entry `{}` is in it twice", name.display())));
            }
            file => file.map_err(io(&to, "can't be created"))?,
        };
        copy(&mut entry, &mut file, path, &to)?;
        if to.file_name().is_some_and(|n| n == RUN) {
            runs.push(parent.to_path_buf());
        }
    }
    match runs.is_empty() {
        true => Err(bad(path, format!("holds no run folder: no {RUN} is in it"))),
        false => Ok(runs),
    }
}

/// Reads a bundle to its end and writes nothing: what it would make, how much of it, and gzip's checksum.
fn check(path: &Path, limit: u64) -> Result<(), TraceError> {
    let mut tar = open(path)?;
    let (mut total, mut count) = (0u64, 0usize);
    // Raw: a name that takes gigabytes must be refused before it is read.
    for entry in tar.entries().map_err(unreadable(path))?.raw(true) {
        let mut entry = entry.map_err(unreadable(path))?;
        let kind = entry.header().entry_type();
        let name = entry.path().map_err(unreadable(path))?.into_owned();
        let size = entry.size();
        total = total.saturating_add(size);
        count += 1;
        if is_name(kind) {
            if size > LONGEST_NAME {
                return Err(bad(path, format!("the name of an entry takes {size} bytes")));
            }
        } else if is_file(kind) || kind.is_dir() {
            inside(path, &name)?;
        } else {
            return Err(no_file(path, &name));
        }
        if total > limit {
            let what =
                format!("it is too large: with `{}` it unpacks to {total} bytes; {limit} at most", name.display());
            return Err(bad(path, what));
        }
        if count > MOST {
            return Err(bad(path, format!("it has more than {MOST} entries")));
        }
        io::copy(&mut entry, &mut io::sink()).map_err(unreadable(path))?;
    }
    // The tar ends before the gzip file does, and only its end says whether all of it arrived.
    let rest = io::copy(&mut tar.into_inner().take(limit.saturating_add(1)), &mut io::sink());
    match rest.map_err(unreadable(path))? > limit {
        true => Err(bad(path, format!("it is too large: more than {limit} bytes follow its entries"))),
        false if count == 0 => Err(bad(path, "is an empty bundle")),
        false => Ok(()),
    }
}

fn open(path: &Path) -> Result<tar::Archive<GzDecoder<BufReader<File>>>, TraceError> {
    let mut file = File::open(path).map_err(io(path, "can't be read"))?;
    let mut magic = [0; 2];
    let read = file.read_exact(&mut magic).and_then(|()| io::Seek::rewind(&mut file));
    match read {
        Ok(()) if magic == MAGIC => Ok(tar::Archive::new(GzDecoder::new(BufReader::new(file)))),
        Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => Err(io_error(path, e)),
        _ => Err(bad(path, "is no bundle: it is not gzip-compressed")),
    }
}

/// The path of an entry, if it leads nowhere but further in.
fn inside(bundle: &Path, name: &Path) -> Result<PathBuf, TraceError> {
    let mut out = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => out.push(part),
            Component::CurDir => {}
            _ => return Err(bad(bundle, format!("the entry `{}` leads out of its folder", name.display()))),
        }
    }
    Ok(out)
}

fn is_file(kind: tar::EntryType) -> bool {
    kind.is_file() || kind.is_contiguous()
}

/// Entries that are part of the one after them.
fn is_name(kind: tar::EntryType) -> bool {
    kind.is_gnu_longname()
        || kind.is_gnu_longlink()
        || kind.is_pax_local_extensions()
        || kind.is_pax_global_extensions()
}

fn copy(from: &mut impl Read, file: &mut File, bundle: &Path, to: &Path) -> Result<(), TraceError> {
    let mut buffer = vec![0u8; 1 << 16];
    loop {
        // Which side failed makes another message.
        match from.read(&mut buffer).map_err(unreadable(bundle))? {
            0 => return Ok(()),
            n => file.write_all(&buffer[..n]).map_err(io(to, "can't be written"))?,
        }
    }
}

fn bad(path: &Path, what: impl Into<String>) -> TraceError {
    TraceError::Format { path: path.into(), what: what.into() }
}

fn no_file(path: &Path, name: &Path) -> TraceError {
    bad(
        path,
        format!("the entry `{}` is neither file nor folder; a bundle has no links and no devices", name.display()),
    )
}

/// What an error inside the archive says about the bundle.
fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> TraceError {
    let path = path.to_path_buf();
    move |e| match e.kind() {
        io::ErrorKind::UnexpectedEof => bad(&path, "the bundle is cut off: it ends in the middle"),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => bad(&path, format!("the bundle is damaged: {e}")),
        _ => damaged(&path, e),
    }
}

/// The tar reader has its own words, of no kind, for an archive that ends early.
fn damaged(path: &Path, e: io::Error) -> TraceError {
    let text = e.to_string();
    match e.raw_os_error() {
        Some(_) => io_error(path, e),
        None => bad(path, format!("the bundle is damaged or cut off: {text}")),
    }
}

fn io_error(path: &Path, source: io::Error) -> TraceError {
    io(path, "can't be read")(source)
}
