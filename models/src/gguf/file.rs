//! An open GGUF file: mapped, parsed and checked.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::error::{GgufError, GgufErrorKind};
use super::metadata::Metadata;
use super::parse::{Header, parse_header};
use super::tensor::TensorInfo;

/// An open GGUF file.
///
/// The file stays mapped while this lives. It must not be cut short or written to meanwhile: no reader
/// that maps a file can turn that into an error.
pub struct Gguf {
    path: PathBuf,
    map: Mmap,
    header: Header,
}

impl Gguf {
    /// Maps the file at `path`, and parses and checks its header. Tensor data is not read yet.
    pub fn open(path: &Path) -> Result<Gguf, GgufError> {
        Self::open_unnamed(path).map_err(|e| e.in_file(Some(path)))
    }

    /// [`Gguf::open`], with errors that do not say the path yet.
    fn open_unnamed(path: &Path) -> Result<Gguf, GgufError> {
        // Looked at before it is opened: opening a pipe waits for its other end.
        let kind = fs::metadata(path).map_err(|e| GgufError::io("look at", e))?.file_type();
        if !kind.is_file() {
            let what = if kind.is_dir() { "a directory" } else { "a device, pipe or socket" };
            return Err(GgufErrorKind::NotAFile { what }.into());
        }
        let file = File::open(path).map_err(|e| GgufError::io("open", e))?;
        let len = file.metadata().map_err(|e| GgufError::io("measure", e))?.len();
        if len == 0 {
            return Err(GgufErrorKind::Empty.into());
        }
        // SAFETY: the mapping is read-only and private to this value. That no one changes the file
        // underneath is a condition of this type, stated in its documentation, as for every mapped file.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| GgufError::io("map", e))?;
        let mut header = parse_header(&map, map.len() as u64)?;
        header.set_path(path);
        Ok(Gguf { path: path.to_owned(), map, header })
    }

    /// The path it was opened with.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The GGUF version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version()
    }

    /// The length of the file in bytes.
    pub fn file_len(&self) -> u64 {
        self.map.len() as u64
    }

    /// The alignment of the data section and of each tensor in it.
    pub fn alignment(&self) -> u64 {
        self.header.alignment()
    }

    /// The parsed header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        self.header.metadata()
    }

    /// The tensors in the order of the header.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.header.tensors()
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.header.tensor(name)
    }

    /// The data of a tensor of this file, read from disk as it is touched.
    ///
    /// # Panics
    ///
    /// If `t` describes bytes outside the file, which a tensor of this file never does.
    pub fn bytes(&self, t: &TensorInfo) -> &[u8] {
        let part = usize::try_from(t.offset).ok().zip(usize::try_from(t.bytes).ok());
        part.and_then(|(start, len)| self.map.get(start..start.checked_add(len)?))
            .unwrap_or_else(|| panic!("tensor {:?} is not of {}", t.name, self.path.display()))
    }

    /// Tells the system that a tensor's data is no longer needed in this process's memory.
    ///
    /// The whole pages inside the tensor leave the resident set; touching them again reads them again.
    /// Without effect on systems other than Unix.
    ///
    /// # Panics
    ///
    /// As [`Gguf::bytes`].
    pub fn release(&self, t: &TensorInfo) {
        #[cfg(unix)]
        release_pages(self.bytes(t));
        #[cfg(not(unix))]
        let _ = t;
    }
}

/// Drops the whole pages inside a part of a read-only file mapping.
#[cfg(unix)]
fn release_pages(mapped: &[u8]) {
    // SAFETY: `sysconf` reads a constant of the system and has no conditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let Some(page) = usize::try_from(page).ok().filter(|p| p.is_power_of_two()) else {
        return;
    };
    let skip = mapped.as_ptr().addr().next_multiple_of(page) - mapped.as_ptr().addr();
    let Some(inner) = mapped.get(skip..) else {
        return;
    };
    let len = inner.len() - inner.len() % page;
    if len == 0 {
        return;
    }
    // SAFETY: the range is whole pages of a live, read-only, shared file mapping. Its pages are never
    // dirty, so what the system drops it reads back from the file, and every slice stays valid.
    // A refusal changes nothing, so the result is not looked at.
    unsafe { libc::madvise(inner.as_ptr().cast_mut().cast(), len, libc::MADV_DONTNEED) };
}

impl std::fmt::Debug for Gguf {
    /// The outline alone: the vocabulary and the data would fill the screen.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gguf")
            .field("path", &self.path)
            .field("version", &self.version())
            .field("metadata", &self.metadata().len())
            .field("tensors", &self.tensors().len())
            .finish_non_exhaustive()
    }
}
