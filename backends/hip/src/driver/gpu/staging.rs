//! Pinned memory of the host, through which everything goes to and from the device.

use super::api::{Api, Called, Handle};
use crate::driver::DriverError;
use std::marker::PhantomData;

/// Bytes of a half: one is filled while the device reads the other.
const HALF: usize = 16 << 20;

/// Two halves of pinned memory.
pub(super) struct Staging<A: Api> {
    base: *mut u8,
    /// The half in use, and how much of it is taken.
    half: usize,
    taken: usize,
    /// Reached when the device is through with a half; `None`: nothing was sent from it.
    done: [Option<Handle>; 2],
    events: [Handle; 2],
    api: PhantomData<A>,
}

// SAFETY: the memory belongs to this value alone, and the driver's functions may be called from any thread.
unsafe impl<A: Api> Send for Staging<A> {}

impl<A: Api> Staging<A> {
    pub fn new() -> Called<Staging<A>> {
        let base = A::alloc_host(2 * HALF)?;
        let events = [A::event()?, A::event()?];
        Ok(Staging { base, half: 0, taken: 0, done: [None; 2], events, api: PhantomData })
    }

    /// Sends bytes, which may change as soon as this returns.
    pub fn write(&mut self, mut to: u64, mut bytes: &[u8], stream: Handle) -> Called<()> {
        while !bytes.is_empty() {
            if self.taken == HALF {
                self.turn(stream)?;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(HALF - self.taken));
            // SAFETY: `taken + now.len() <= HALF`, so that the copy stays inside its half, which the device is through with.
            unsafe {
                let at = self.base.add(self.half * HALF + self.taken);
                std::ptr::copy_nonoverlapping(now.as_ptr(), at, now.len());
                A::write(to, at, now.len(), stream)?;
            }
            // Rows of a cache line each: what is written next does not share one with what is being read.
            self.taken = (self.taken + now.len()).next_multiple_of(64).min(HALF);
            to += now.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// The other half from here on, once the device is through with it.
    fn turn(&mut self, stream: Handle) -> Called<()> {
        A::record(self.events[self.half], stream)?;
        self.done[self.half] = Some(self.events[self.half]);
        self.half = 1 - self.half;
        self.taken = 0;
        self.done[self.half].take().map_or(Ok(()), A::wait_event)
    }

    /// Fetches bytes when everything before is done; `wait` waits for that.
    pub fn read(
        &mut self,
        mut from: u64,
        mut out: &mut [u8],
        stream: Handle,
        wait: impl Fn() -> Result<(), DriverError>,
    ) -> Called<()> {
        // What was sent from a half must be gone before something else is put there.
        self.turn(stream)?;
        while !out.is_empty() {
            let (now, rest) = out.split_at_mut(out.len().min(HALF));
            // SAFETY: a half is as long; nothing reads it until the wait is over, and then the bytes are there.
            unsafe {
                let at = self.base.add(self.half * HALF);
                A::read(at, from, now.len(), stream)?;
                wait()?;
                std::ptr::copy_nonoverlapping(at, now.as_mut_ptr(), now.len());
            }
            from += now.len() as u64;
            out = rest;
        }
        Ok(())
    }
}

impl<A: Api> Drop for Staging<A> {
    fn drop(&mut self) {
        // What can't be given back goes with the process.
        let _ = A::free_host(self.base);
        self.events.iter().for_each(|e| {
            let _ = A::drop_event(*e);
        });
    }
}
