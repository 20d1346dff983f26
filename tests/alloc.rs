//! The test binary's allocator: the system's, with a tally per thread of what was asked for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static ALLOCATOR: Tally = Tally;

struct Tally;

/// What a piece of code asked the allocator for, on its own thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The largest single request, in bytes.
    pub largest: usize,
    /// All requests together, in bytes, whether given back or not.
    pub total: usize,
}

thread_local! {
    // Constant and without a destructor, so that reaching it never allocates.
    static ASKED: Cell<Asked> = const { Cell::new(Asked { largest: 0, total: 0 }) };
}

/// Runs `f` and tells what it asked for.
pub fn measured<R>(f: impl FnOnce() -> R) -> (R, Asked) {
    let before = ASKED.replace(Asked::default());
    let result = f();
    let asked = ASKED.get();
    // An enclosing measurement counts this one as its own.
    ASKED.set(Asked { largest: before.largest.max(asked.largest), total: before.total.saturating_add(asked.total) });
    (result, asked)
}

fn note(size: usize) {
    // A thread that is ending has no tally left, and nothing to measure.
    let _ = ASKED.try_with(|tally| {
        let Asked { largest, total } = tally.get();
        tally.set(Asked { largest: largest.max(size), total: total.saturating_add(size) });
    });
}

// SAFETY: every call goes to the system's allocator unchanged; the tally does not allocate.
unsafe impl GlobalAlloc for Tally {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note(new_size);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}
