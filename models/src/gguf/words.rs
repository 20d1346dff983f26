//! Wording that the errors share.

use greta_ops::DType;

/// The advice for a file that contradicts itself.
pub(super) const AGAIN: &str = "the file is damaged or incomplete: download or convert it again";

/// A name from a file, quoted, escaped and cut to a length fit for one line.
pub(super) fn quote(text: &str) -> String {
    const MOST: usize = 96;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A ggml type by its name, where it has one, and its number.
pub(super) fn type_label(id: u32, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{name} ({id})"),
        None => format!("number {id}"),
    }
}

/// What to do about a type that greta does not read.
pub(super) fn type_advice(name: Option<&str>) -> String {
    match name {
        None => format!("ggml has no such type that greta knows; either {AGAIN}, or it is newer than greta"),
        Some(_) => {
            let read: Vec<_> =
                DType::ALL.iter().filter(|t| t.is_real() && t.ggml_id().is_some()).map(|t| t.name()).collect();
            format!("greta does not read it: quantise the model to one of {}", read.join(" "))
        }
    }
}
