//! Memory that a kernel needs only while it runs: one growing buffer a thread.

use std::cell::Cell;

/// A cache line, so that vectors of the buffer never straddle two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

thread_local! {
    static BUFFER: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with a 64-byte aligned buffer of at least `bytes` initialised bytes of any content.
pub(super) fn with<R>(bytes: usize, f: impl FnOnce(*mut u8) -> R) -> R {
    // Taken out while in use: a nested call would find it empty and make its own.
    let mut buffer = BUFFER.take();
    let lines = bytes.div_ceil(64);
    if buffer.len() < lines {
        buffer.resize(lines, Line([0; 64]));
    }
    let out = f(buffer.as_mut_ptr().cast());
    BUFFER.set(buffer);
    out
}
