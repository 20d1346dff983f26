//! A device's context: one in a process, shared by all who opened the device, and lost to all of them at once.

use super::api::{Api, Called, Handle};
use super::lock;
use crate::driver::DriverError;
use std::sync::{Arc, Mutex, OnceLock};

/// What is on a device belongs to this.
pub(super) struct Context {
    handle: Handle,
    ordinal: usize,
    /// The error that left it useless.
    lost: OnceLock<String>,
}

/// The contexts of this process, by driver and device.
static CONTEXTS: Mutex<Vec<(&'static str, Arc<Context>)>> = Mutex::new(Vec::new());

impl Context {
    /// The device's context. One that is lost is thrown away once nobody has anything on it, and made anew, if the driver
    /// lets the process have another: CUDA does not after an illegal address (driver 580: every way to a new context
    /// gives the old error).
    pub fn of<A: Api>(ordinal: usize) -> Called<Arc<Context>> {
        let mut all = lock(&CONTEXTS);
        if let Some(at) = all.iter().position(|(name, c)| (*name, c.ordinal) == (A::NAME, ordinal)) {
            let known = &all[at].1;
            match known.lost.get() {
                None => return Ok(known.clone()),
                Some(why) if Arc::strong_count(known) > 1 => return Err(DriverError::Lost(why.clone())),
                Some(lost) => {
                    let gone = |e: DriverError| DriverError::Gone { lost: lost.clone(), why: e.to_string() };
                    let handle = A::reset(ordinal).and_then(|()| A::context(ordinal)).map_err(gone)?;
                    let made = Arc::new(Context { handle, ordinal, lost: OnceLock::new() });
                    all[at].1 = made.clone();
                    return Ok(made);
                }
            }
        }
        let made = Arc::new(Context { handle: A::context(ordinal)?, ordinal, lost: OnceLock::new() });
        all.push((A::NAME, made.clone()));
        Ok(made)
    }

    /// Makes it the calling thread's.
    pub fn enter<A: Api>(&self) -> Called<()> {
        match self.lost.get() {
            Some(why) => Err(DriverError::Lost(why.clone())),
            None => A::enter(self.handle, self.ordinal),
        }
    }

    /// Looks at what came back from waiting: an error there is of some work before, and the context is of no use after it.
    pub fn waited(&self, result: Called<()>) -> Called<()> {
        result.map_err(|e| self.lose(e))
    }

    /// Looks at what came back from another call. Its error may be its own, or of some work before; then nothing works any
    /// more, not even asking for the free memory.
    pub fn called<A: Api, T>(&self, result: Called<T>) -> Called<T> {
        result.map_err(|e| if A::memory().is_err() { self.lose(e) } else { e })
    }

    fn lose(&self, e: DriverError) -> DriverError {
        let DriverError::Call { call, why } = e else { return e };
        self.lost.get_or_init(|| format!("{call}: {why}"));
        DriverError::Device { call, why }
    }

    pub fn is_lost(&self) -> bool {
        self.lost.get().is_some()
    }
}
