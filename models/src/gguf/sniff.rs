//! What a file that is not GGUF looks like, so that the message can say what went wrong.

use super::error::{GgufError, GgufErrorKind};

/// The error for a file that does not start with the magic.
pub(super) fn wrong_magic(bytes: &[u8]) -> GgufError {
    let start = &bytes[..bytes.len().min(8)];
    let printable = start.iter().all(|b| b.is_ascii_graphic() || *b == b' ');
    let start = if printable {
        format!("{:?}", String::from_utf8_lossy(start))
    } else {
        start.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
    };
    GgufErrorKind::WrongMagic { start, looks_like: looks_like(bytes) }.into()
}

/// A guess from the first bytes, with advice.
fn looks_like(bytes: &[u8]) -> &'static str {
    let text = bytes[..bytes.len().min(64)].trim_ascii_start().to_ascii_lowercase();
    let any = |starts: &[&[u8]]| starts.iter().any(|s| bytes.starts_with(s));
    if text.starts_with(b"<!doctype") || text.starts_with(b"<html") || text.starts_with(b"<?xml") {
        "it looks like a web page, often what a failed download leaves: download the file itself"
    } else if text.starts_with(b"version https://git-lfs") {
        "it is a Git LFS pointer: fetch the file it stands for with `git lfs pull`"
    } else if safetensors(bytes) {
        "it looks like safetensors: convert the model to GGUF first"
    } else if any(&[b"PK\x03\x04"]) {
        "it looks like a zip archive or a PyTorch checkpoint: unpack it, or convert the model to GGUF"
    } else if any(&[b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"]) {
        "it looks like a Python pickle or an old PyTorch checkpoint: convert the model to GGUF first"
    } else if any(&[b"lmgg", b"fmgg", b"tjgg", b"algg"]) {
        "it looks like a ggml file from before GGUF: convert the original model to GGUF"
    } else if any(&[b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh", b"7z\xbc\xaf"]) {
        "it looks compressed: unpack it first"
    } else if any(&[b"\x89HDF"]) {
        "it looks like HDF5: convert the model to GGUF first"
    } else if text.starts_with(b"{") {
        "it looks like JSON, perhaps a model's configuration: give the .gguf file"
    } else if bytes.iter().take(4096).all(|&b| b == 0) {
        "it starts with zeros, as an unfinished download does: download it again"
    } else {
        "it looks like no model format greta knows: give the path of a .gguf file"
    }
}

/// A length, then JSON of that length, which is longer than the length's own eight bytes.
fn safetensors(bytes: &[u8]) -> bool {
    let Some((len, rest)) = bytes.split_first_chunk::<8>() else {
        return false;
    };
    (2..1 << 32).contains(&u64::from_le_bytes(*len)) && rest.first() == Some(&b'{')
}
