//! Progress of work that takes longer than a second: a bar where a person looks on, else a line every few seconds.

use crate::output::{self, Stream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::RefCell;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Work this short shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between plain lines, in a log.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things with this name, such as `tokens`.
    Things(&'static str),
}

/// One piece of work. What it showed goes away when it is dropped.
pub struct Progress {
    label: &'static str,
    unit: Unit,
    start: Instant,
    shown: RefCell<Shown>,
}

#[derive(Default)]
struct Shown {
    bar: Option<ProgressBar>,
    line: Option<Instant>,
}

impl Progress {
    /// Work that starts now.
    pub fn new(label: &'static str, unit: Unit) -> Progress {
        Progress { label, unit, start: Instant::now(), shown: RefCell::default() }
    }

    /// So much is done, of so much.
    pub fn set(&self, done: u64, all: u64) {
        self.set_noted(done, all, "");
    }

    /// So much is done, and a word on what came of it so far.
    pub fn set_noted(&self, done: u64, all: u64, note: &str) {
        if self.start.elapsed() < PATIENCE || done >= all {
            return;
        }
        let mut shown = self.shown.borrow_mut();
        if Stream::Err.is_terminal() {
            let bar = shown.bar.get_or_insert_with(|| self.bar());
            bar.set_length(all);
            bar.set_position(done);
            bar.set_message(note.to_owned());
        } else if shown.line.is_none_or(|at| at.elapsed() >= BETWEEN_LINES) {
            shown.line = Some(Instant::now());
            let note = if note.is_empty() { String::new() } else { format!(": {note}") };
            output::say(&format!("{}: {}{note}", self.label, self.unit.of(done, all)));
        }
    }

    fn bar(&self) -> ProgressBar {
        let counts = match self.unit {
            Unit::Bytes => "{binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}".to_string(),
            Unit::Things(name) => format!("{{pos}}/{{len}} {name}  {{per_sec}}"),
        };
        let style = ProgressStyle::with_template(&format!("{{prefix}}  {{wide_bar}}  {counts}  {{eta}}  {{msg}}"));
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_prefix(self.label);
        style.map(|s| bar.with_style(s)).unwrap_or_else(|_| ProgressBar::hidden())
    }
}

impl Unit {
    fn of(self, done: u64, all: u64) -> String {
        let percent = 100 * u128::from(done) / u128::from(all.max(1));
        match self {
            Unit::Bytes => format!("{} of {} ({percent} %)", output::bytes(done), output::bytes(all)),
            Unit::Things(name) => format!("{done} of {all} {name} ({percent} %)"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.shown.get_mut().bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Progress that several threads may tell of; what is being done may change.
pub struct Shared(Mutex<Progress>);

impl Shared {
    /// Work that starts now.
    pub fn new(label: &'static str) -> Shared {
        Shared(Mutex::new(Progress::new(label, Unit::Things("steps"))))
    }

    /// So much of `what` is done, of so much.
    pub fn set(&self, what: &str, done: usize, all: usize) {
        let progress = self.0.lock().unwrap_or_else(|e| e.into_inner());
        // The last of one thing is not the last of all.
        progress.set_noted(done.min(all.saturating_sub(1)) as u64, all as u64, what);
    }
}
