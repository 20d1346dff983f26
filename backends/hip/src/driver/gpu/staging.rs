//! Pinned memory of the host, through which everything goes to and from the device.

use super::Shared;
use super::api::{Api, Called, Handle};
use crate::driver::Pointer;
use std::marker::PhantomData;

/// Bytes of a half: one is filled while the device reads the other.
const HALF: usize = 16 << 20;

/// Two halves of pinned memory.
pub(super) struct Staging<A: Api> {
    base: *mut u8,
    /// The half in use, and how much of it is taken.
    half: usize,
    taken: usize,
    /// Reached when the device is through with a half.
    events: [Handle; 2],
    /// Whether it may still be sending from it.
    sent: [bool; 2],
    api: PhantomData<A>,
}

// SAFETY: the memory belongs to this value alone, and the driver's functions may be called from any thread.
unsafe impl<A: Api> Send for Staging<A> {}

impl<A: Api> Staging<A> {
    pub fn new() -> Called<Staging<A>> {
        let base = A::alloc_host(2 * HALF)?;
        let events = [A::event()?, A::event()?];
        Ok(Staging { base, half: 0, taken: 0, events, sent: [false; 2], api: PhantomData })
    }

    /// Sends bytes, which may change as soon as this returns.
    pub fn write(&mut self, device: &Shared<A>, mut to: u64, mut bytes: &[u8], stream: Handle) -> Called<()> {
        while !bytes.is_empty() {
            if self.taken == HALF {
                self.turn(device, stream)?;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(HALF - self.taken));
            // SAFETY: `taken + now.len() <= HALF`, so that the copy stays inside its half, which the device is through with.
            unsafe {
                let at = self.base.add(self.half * HALF + self.taken);
                std::ptr::copy_nonoverlapping(now.as_ptr(), at, now.len());
                device.called(A::write(to, at, now.len(), stream))?;
            }
            // Rows of a cache line each: what is written next does not share one with what is being read.
            self.taken = (self.taken + now.len()).next_multiple_of(64).min(HALF);
            to += now.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// The other half from here on, once the device is through with it.
    fn turn(&mut self, device: &Shared<A>, stream: Handle) -> Called<()> {
        device.called(A::record(self.events[self.half], stream))?;
        self.sent[self.half] = true;
        self.half = 1 - self.half;
        self.taken = 0;
        match std::mem::take(&mut self.sent[self.half]) {
            true => device.waited(A::wait_event(self.events[self.half])),
            false => Ok(()),
        }
    }

    /// Fetches bytes from some places when everything before is done: one wait for as much as a half holds.
    pub fn read(&mut self, device: &Shared<A>, parts: &mut [(Pointer, &mut [u8])], stream: Handle) -> Called<()> {
        // What was sent from a half must be gone before something else is put there.
        self.turn(device, stream)?;
        let done = self.fetch(device, parts, stream);
        if done.is_err() {
            // What is still coming must not arrive over what is sent next. An error of waiting is not the one to tell.
            let _ = device.waited(A::wait(stream));
        }
        done
    }

    fn fetch(&self, device: &Shared<A>, parts: &mut [(Pointer, &mut [u8])], stream: Handle) -> Called<()> {
        // SAFETY: there are two halves, of `HALF` bytes each, and no other pointer is into this one.
        let half = unsafe { self.base.add(self.half * HALF) };
        let mut coming: Vec<(usize, &mut [u8])> = Vec::new();
        let mut taken = 0;
        let arrived = |coming: &mut Vec<(usize, &mut [u8])>| {
            device.waited(A::wait(stream))?;
            for (at, out) in coming.drain(..) {
                // SAFETY: the bytes from `at` on were asked for below, inside the half, and the wait for them is over.
                unsafe { std::ptr::copy_nonoverlapping(half.add(at), out.as_mut_ptr(), out.len()) };
            }
            Ok(())
        };
        for (from, out) in parts {
            let (mut from, mut out) = (from.0, &mut **out);
            while !out.is_empty() {
                if taken == HALF {
                    arrived(&mut coming)?;
                    taken = 0;
                }
                let (now, rest) = out.split_at_mut(out.len().min(HALF - taken));
                // SAFETY: `taken + now.len() <= HALF`; nothing reads it until the wait is over.
                device.called(unsafe { A::read(half.add(taken), from, now.len(), stream) })?;
                from += now.len() as u64;
                out = rest;
                let at = taken;
                taken = (taken + now.len()).next_multiple_of(64).min(HALF);
                coming.push((at, now));
            }
        }
        arrived(&mut coming)
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
