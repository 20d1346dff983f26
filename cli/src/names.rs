//! Words for what a file holds.

use greta::gguf::Gguf;
use greta::synth::Mix;

/// Values of all tensors. A tied output matrix is in the file once, and counted once.
pub fn parameters(gguf: &Gguf) -> u64 {
    gguf.tensors().iter().map(|t| t.cols() * t.rows()).sum()
}

/// The file's mix of types, as `general.file_type` names it; the most common type of its values if it does not.
pub fn file_type(gguf: &Gguf) -> String {
    let known = gguf.metadata().u32("general.file_type").ok().flatten().and_then(file_type_name);
    known.map_or_else(|| main_type(gguf), Into::into)
}

/// Architecture, size and mix, such as `llama 135M Q4_K_M`.
pub fn model_type(gguf: &Gguf) -> String {
    let text = |key| gguf.metadata().str(key).ok().flatten();
    let arch = text("general.architecture").unwrap_or("?");
    let size = text("general.size_label").map_or_else(|| size_label(parameters(gguf)), Into::into);
    format!("{arch} {size} {}", file_type(gguf))
}

fn size_label(parameters: u64) -> String {
    match parameters {
        1_000_000_000.. => format!("{:.0}B", parameters as f64 / 1e9),
        1_000_000.. => format!("{:.0}M", parameters as f64 / 1e6),
        _ => format!("{:.0}K", parameters as f64 / 1e3),
    }
}

fn file_type_name(id: u32) -> Option<&'static str> {
    Mix::ALL.iter().find(|m| m.file_type() == id).map(|m| m.name())
}

fn main_type(gguf: &Gguf) -> String {
    let mut sizes = std::collections::BTreeMap::<_, u64>::new();
    for t in gguf.tensors() {
        *sizes.entry(t.dtype).or_default() += t.bytes;
    }
    sizes.into_iter().max_by_key(|(_, bytes)| *bytes).map_or("?".into(), |(t, _)| t.name().into())
}
