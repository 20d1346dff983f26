//! Ctrl-C. Outside a [`Guard`] it ends the process at once; inside, the work asks [`Guard::hit`] and stops cleanly, and
//! only a second Ctrl-C ends the process.

use crate::errors::INTERRUPTED;
use crate::output::{self, Stream};
use std::sync::atomic::{AtomicU8, Ordering};

const OFF: u8 = 0;
const ARMED: u8 = 1;
const HIT: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(OFF);

/// Sets the handler. Without one (the system refused), Ctrl-C ends the process as it does any other.
pub fn install() {
    let _ = ctrlc::set_handler(|| {
        if !note() {
            // The terminal has written `^C`; the shell's next prompt belongs on a line of its own.
            if Stream::Err.is_terminal() {
                output::say("");
            }
            std::process::exit(INTERRUPTED.into());
        }
    });
}

/// Has the work of a [`Guard`] stop; false where there is none, or where it was told before.
pub fn note() -> bool {
    STATE.compare_exchange(ARMED, HIT, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

/// Whether Ctrl-C has come since a [`Guard`] was armed.
pub fn noted() -> bool {
    STATE.load(Ordering::SeqCst) == HIT
}

/// While this lives, Ctrl-C is noted instead of obeyed.
pub struct Guard(());

impl Guard {
    /// From here on Ctrl-C is noted.
    pub fn arm() -> Guard {
        STATE.store(ARMED, Ordering::SeqCst);
        Guard(())
    }

    /// Whether Ctrl-C has come.
    pub fn hit(&self) -> bool {
        noted()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        STATE.store(OFF, Ordering::SeqCst);
    }
}
