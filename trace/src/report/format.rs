//! Numbers and names as Markdown writes them.

use super::nodes::Num;

/// A number that may not be known.
pub(super) fn mae(n: Option<Num>) -> String {
    n.map_or("–".into(), |n| number(n.0))
}

/// A number in seven digits at most; an exact zero is `0.0`.
pub(super) fn number(v: f64) -> String {
    let size = v.abs();
    match () {
        () if v == 0.0 => "0.0".into(),
        () if v.is_nan() => "NaN".into(),
        () if v.is_infinite() => if v > 0.0 { "∞" } else { "−∞" }.into(),
        () if (1e-3..1e6).contains(&size) => {
            let decimals = 6 - (size.log10().floor() as i32).clamp(-1, 6);
            let text = format!("{v:.*}", decimals as usize);
            let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
            text.into()
        }
        () => format!("{v:.3e}"),
    }
}

/// Text from a file as a code span that it can't leave.
pub(super) fn code(text: &str) -> String {
    format!("`{}`", text.replace('`', "'").replace(['\n', '\r'], " "))
}

/// Text from a file outside a code span: nothing of it is markup.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '\n' | '\r' => out.push(' '),
            '[' | ']' | '`' | '*' | '\\' => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}

/// greta's own words about a file, with code spans of their own.
pub(super) fn prose(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    // A span that is not closed is none.
    if parts.len().is_multiple_of(2) {
        return plain(text);
    }
    let part = |(i, p): (usize, &&str)| if i % 2 == 0 { plain(p) } else { code(p) };
    parts.iter().enumerate().map(part).collect()
}

/// What stands in a table's cell.
pub(super) fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// A command in a block of its own.
pub(super) fn fence(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let marks = "`".repeat(longest.max(2) + 1);
    format!("{marks}bash\n{text}\n{marks}")
}

/// A command line, quoted for a shell.
pub(super) fn command(words: &[String]) -> String {
    let quote = |w: &String| match !w.is_empty() && w.chars().all(|c| c.is_alphanumeric() || "_-./=:,@%+".contains(c)) {
        true => w.clone(),
        false => format!("'{}'", w.replace('\'', "'\\''")),
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// The beginning of a text, in one line.
pub(super) fn short(text: &str) -> String {
    const LONGEST: usize = 72;
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("\"{}…\"", &line[..end]),
        None => format!("\"{line}\""),
    }
}
