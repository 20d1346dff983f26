//! A file that appears under its name only when it is complete.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::error::SynthError;

/// A file being written beside its target. Unless [`Part::keep`] is reached, it is removed.
pub(super) struct Part<'a> {
    target: &'a Path,
    path: PathBuf,
    kept: bool,
}

impl<'a> Part<'a> {
    /// Starts the file that is to be `target`, in the same directory, so that the last step is a mere renaming.
    pub(super) fn create(target: &'a Path) -> Result<(Part<'a>, File), SynthError> {
        let refuse = |why| SynthError::Target { path: target.to_owned(), why };
        let name = target.file_name().ok_or_else(|| refuse("the path does not end in a file name"))?;
        // Renaming would put a file in the place of a device or pipe instead of writing to it.
        match fs::metadata(target) {
            Ok(m) if m.is_dir() => return Err(refuse("it is a directory")),
            Ok(m) if !m.is_file() => return Err(refuse("it is a device, pipe or socket; name a regular file")),
            _ => {}
        }
        // Two runs of one process or of two can have the same target: each finds a name of its own.
        for n in 0u64.. {
            let mut own = OsString::from(".");
            own.push(name);
            own.push(format!(".{}-{n}.part", std::process::id()));
            let path = target.with_file_name(own);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((Part { target, path, kept: false }, file)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(SynthError::Io { path, doing: "create the file", source }),
            }
        }
        Err(refuse("no name is left for a temporary file beside it"))
    }

    /// Gives the file, complete and closed, its name. Replaces what was there.
    pub(super) fn keep(mut self) -> Result<(), SynthError> {
        let renamed = fs::rename(&self.path, self.target);
        let path = self.target.to_owned();
        renamed.map_err(|source| SynthError::Io { path, doing: "give the finished file its name", source })?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing can be done about a refusal here, and the error that led here is the one to report.
            let _ = fs::remove_file(&self.path);
        }
    }
}
