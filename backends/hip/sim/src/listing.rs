//! Reads `llvm-objdump -d [-l]` text: one instruction a line, its address and words in a comment.

use crate::program::LoadError;

/// An instruction's text in parts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    /// The whole text without the comment.
    pub text: String,
    pub op: String,
    pub operands: Vec<String>,
    /// `name:value` pairs and bare words behind the operands.
    pub modifiers: Vec<(String, String)>,
    pub pc: u64,
    pub size: u64,
    /// Index in [`Listing::sources`].
    pub source: Option<u32>,
}

#[derive(Default)]
pub(crate) struct Listing {
    pub lines: Vec<Line>,
    /// `file:line`, each once.
    pub sources: Vec<String>,
}

pub(crate) fn parse(text: &str) -> Result<Listing, LoadError> {
    let mut out = Listing::default();
    let mut source = None;
    for (number, line) in text.lines().enumerate() {
        if let Some(place) = line.strip_prefix("; ") {
            if place.rsplit_once(':').is_some_and(|(f, n)| !f.is_empty() && n.starts_with(|c: char| c.is_ascii_digit()))
            {
                let place = place.split(" (discriminator").next().unwrap_or(place);
                if out.sources.last().is_none_or(|l| l != place) {
                    out.sources.push(place.into());
                }
                source = Some(out.sources.len() as u32 - 1);
            }
            continue;
        }
        let Some((code, comment)) = line.split_once("//") else { continue };
        let bad = || LoadError::Listing { line: number + 1, text: line.trim().into() };
        let (address, words) = comment.trim().split_once(':').ok_or_else(bad)?;
        let pc = u64::from_str_radix(address.trim(), 16).map_err(|_| bad())?;
        let is_word = |w: &&str| w.len() == 8 && w.chars().all(|c| c.is_ascii_hexdigit());
        let size = 4 * words.split_whitespace().take_while(is_word).count() as u64;
        let mut parsed = instruction(code.trim());
        parsed.pc = pc;
        parsed.size = size.max(4);
        parsed.source = source;
        out.lines.push(parsed);
    }
    Ok(out)
}

/// Splits an instruction's text.
pub(crate) fn instruction(text: &str) -> Line {
    let (op, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let mut line = Line { text: text.into(), op: op.into(), ..Line::default() };
    if op == "s_waitcnt" || rest.trim().is_empty() {
        return line;
    }
    for part in split(rest) {
        let words = tokens(part.trim());
        for (n, word) in words.iter().enumerate() {
            if n == 0 && !is_modifier(word) {
                line.operands.push((*word).into());
            } else {
                let (name, value) = word.split_once(':').unwrap_or((word, ""));
                line.modifiers.push((name.into(), value.into()));
            }
        }
    }
    line
}

/// A first word that belongs to no operand: `name:value`, or a flag of an instruction without operands.
fn is_modifier(word: &str) -> bool {
    let name = word.split_once(':').map(|(name, _)| name);
    name.is_some_and(|n| !n.contains('[') && !n.contains('(')) || matches!(word, "sc0" | "sc1" | "nt" | "gds")
}

/// Splits at commas outside of brackets.
fn split(text: &str) -> Vec<&str> {
    pieces(text, |c| c == ',')
}

/// Splits at white space outside of brackets.
fn tokens(text: &str) -> Vec<&str> {
    pieces(text, char::is_whitespace).into_iter().filter(|t| !t.is_empty()).collect()
}

fn pieces(text: &str, at: impl Fn(char) -> bool) -> Vec<&str> {
    let (mut depth, mut start, mut out) = (0i32, 0, Vec::new());
    for (n, c) in text.char_indices() {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth -= 1,
            c if depth == 0 && at(c) => {
                out.push(&text[start..n]);
                start = n + c.len_utf8();
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}
