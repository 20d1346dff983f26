//! Where text goes: results to standard output, everything about them to standard error; colour on terminals only.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

static START: OnceLock<Instant> = OnceLock::new();

/// Notes when the process started, for the time to the first token.
pub fn mark_start() {
    START.get_or_init(Instant::now);
}

/// Time since the process started.
pub fn since_start() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}

/// A stream that may be coloured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Results.
    Out,
    /// Notes, warnings, progress.
    Err,
}

impl Stream {
    /// Whether a person reads it.
    pub fn is_terminal(self) -> bool {
        match self {
            Stream::Out => io::stdout().is_terminal(),
            Stream::Err => io::stderr().is_terminal(),
        }
    }

    /// Text in a colour (an SGR code such as `2` for dim), plain where colour is not wanted (<https://no-color.org>).
    pub fn paint(self, code: &str, text: &str) -> String {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        if refused || !self.is_terminal() { text.into() } else { format!("\x1b[{code}m{text}\x1b[0m") }
    }
}

/// A line to standard error: `label: text`. That it can't be written is no reason to stop.
pub fn note(label: &str, colour: &str, text: &str) {
    let _ = writeln!(io::stderr().lock(), "{} {text}", Stream::Err.paint(colour, &format!("{label}:")));
}

/// A warning to standard error.
pub fn warn(text: &str) {
    note("warning", "33;1", text);
}

/// A line to standard error as it is.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes text to standard output and flushes it. An error is the caller's to pass on: it may be a closed pipe.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Lines of columns, each as wide as its widest cell; the columns of numbers are flush right.
pub fn table(rows: &[Vec<String>], right: &[bool]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width: Vec<usize> = (0..columns)
        .map(|i| rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, cell) in row.iter().enumerate() {
            let pad = " ".repeat(width[i] - cell.chars().count());
            line.push_str(if i > 0 { "  " } else { "" });
            match right.get(i) {
                Some(true) => line.extend([pad.as_str(), cell]),
                _ => line.extend([cell.as_str(), &pad]),
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Bytes for people: `86.1 MiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.2} {}", UNITS[unit]) }
}

/// A count for people: `134.52 M`.
pub fn count(n: u64) -> String {
    match n {
        1_000_000_000.. => format!("{:.2} B", n as f64 / 1e9),
        1_000_000.. => format!("{:.2} M", n as f64 / 1e6),
        10_000.. => format!("{:.2} K", n as f64 / 1e3),
        _ => n.to_string(),
    }
}

/// Whether a file can be written, asked before the work that fills it.
pub fn new_file(path: &Path, force: bool) -> anyhow::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    anyhow::ensure!(parent.is_dir(), "{}: there is no folder {}", path.display(), parent.display());
    anyhow::ensure!(!path.is_dir(), "{}: is a folder; a file is written", path.display());
    anyhow::ensure!(force || !path.exists(), "{}: is there already; --force replaces it", path.display());
    Ok(())
}
