//! Compiled modules on disk: a file each, named after a hash of everything it depends on.

use crate::compile::{CACHE_VARIABLE, Texts, notice};
use crate::kernels::Source;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The name of what a compiler makes of a module: of its texts, and of `how`, the compiler and its options.
pub(crate) fn key(source: &Source, texts: &Texts, how: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("3 {source} {how}"));
    for (name, text) in texts {
        hash.update(name);
        hash.update(&**text);
    }
    let mut key = source.file.replace(".hip", "-");
    hash.finalize().iter().take(12).for_each(|b| {
        // Writing to a string can't fail.
        let _ = write!(key, "{b:02x}");
    });
    key
}

fn folder() -> Option<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    from(CACHE_VARIABLE)
        .or_else(|| from("XDG_CACHE_HOME").map(|p| p.join("greta/kernels")))
        .or_else(|| from("HOME").map(|p| p.join(".cache/greta/kernels")))
}

/// The parts kept under this name. A damaged file is as good as none.
pub(crate) fn load<const N: usize>(key: &str) -> Option<[Vec<u8>; N]> {
    read(&folder()?, key)
}

fn read<const N: usize>(folder: &Path, key: &str) -> Option<[Vec<u8>; N]> {
    let bytes = std::fs::read(folder.join(key)).ok()?;
    let (hash, mut rest) = bytes.split_first_chunk::<32>()?;
    if Sha256::digest(rest)[..] != hash[..] {
        return None;
    }
    let mut parts = Vec::with_capacity(N);
    for _ in 0..N {
        let (len, after) = rest.split_first_chunk::<8>()?;
        let (part, after) = after.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
        rest = after;
        parts.push(part.to_vec());
    }
    parts.try_into().ok()
}

/// Keeps parts. A cache that can't be written costs time and nothing else, and is said once.
pub(crate) fn store<const N: usize>(key: &str, parts: [&[u8]; N]) {
    let Some(folder) = folder() else { return };
    if let Err(e) = write(&folder, key, &parts) {
        static SAID: std::sync::Once = std::sync::Once::new();
        SAID.call_once(|| {
            notice(&format!(
                "compiled kernels can't be kept in {} ({e}), so every run compiles them again; export \
                 {CACHE_VARIABLE}=FOLDER names another place",
                folder.display()
            ));
        });
    }
}

/// A file: a hash of what follows, then each part with its length before it.
fn write(folder: &Path, key: &str, parts: &[&[u8]]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(*part);
    }
    // Whole or not at all: another process may look.
    let part = folder.join(format!("{key}.{}.part", std::process::id()));
    let hash = Sha256::digest(&bytes);
    std::fs::write(&part, [&hash[..], &bytes].concat())?;
    std::fs::rename(part, folder.join(key))
}
