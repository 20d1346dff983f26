//! A tap that is copied before its source is finished, now and then.

use super::output::mix;
use crate::memory::Block;
use crate::ops::{Kernel, Memory, Place};
use crate::taps::TapKernel;
use greta_backend::{Fault, Injection};
use greta_ops::{Bindings, TensorDesc};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

/// A tap's kernel with a fault; `desc` is the tapped value's.
pub(crate) fn tap(kernel: TapKernel, desc: &TensorDesc, fault: &Injection) -> Result<Box<dyn Kernel>, String> {
    match (fault.fault, &kernel.place) {
        (Fault::AsyncCopy, Place::Slot(_)) => {
            Ok(Box::new(Early { kernel, desc: desc.clone(), before: Mutex::default() }))
        }
        (Fault::AsyncCopy, _) => Err("it fits taps of values in a buffer of the plan".into()),
        _ => Err("it is no fault of a tap".into()),
    }
}

/// Steps until the next copy comes too early, for all taps of the process: runs in one process then differ for sure.
static UNTIL: AtomicU64 = AtomicU64::new(u64::MAX);

/// Whether this copy is too early: one in three, at distances of two to four that the clock draws.
fn early() -> bool {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let draw = mix(clock) % 3;
    let next = |left: u64| match left {
        u64::MAX => Some(draw),
        0 => Some(draw + 1),
        n => Some(n - 1),
    };
    let left = UNTIL.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or(0);
    left == 0 || (left == u64::MAX && draw == 2)
}

struct Early {
    kernel: TapKernel,
    desc: TensorDesc,
    /// The value as it was in the step before, by buffer.
    before: Mutex<HashMap<usize, Vec<u8>>>,
}

impl Early {
    /// The value with the second half of each row as it was before: in the step before or, where that was the same or
    /// never was, in a new buffer.
    fn half_copied(&self, now: &[u8], before: &[u8]) -> Vec<u8> {
        let row = self.kernel.cols * self.kernel.dtype.block_bytes();
        let mut out = now.to_vec();
        for (t, row_out) in out.chunks_exact_mut(row.max(1)).enumerate() {
            // At a whole value: the copy is interrupted between two words.
            let half = (self.kernel.cols / 2 * self.kernel.dtype.block_bytes()).min(row_out.len());
            let old = before.get(t * row + half..(t + 1) * row).filter(|old| **old != row_out[half..]);
            match old {
                Some(old) => row_out[half..].copy_from_slice(old),
                None => row_out[half..].fill(0),
            }
        }
        out
    }
}

impl Kernel for Early {
    fn chunks(&self, m: &Memory) -> usize {
        // All rows of a step are too early or none, so one thread takes them all.
        self.kernel.chunks(m).min(1)
    }

    unsafe fn run(&self, m: &Memory, _: usize) {
        let n = self.desc.bytes(&m.at);
        // SAFETY: the value is complete and has these bytes.
        let now: &[u8] = unsafe { m.read(&self.kernel.place, n) };
        let mut all = self.before.lock().unwrap_or_else(|e| e.into_inner());
        let before = all.insert(now.as_ptr() as usize, now.to_vec()).unwrap_or_default();
        let copy = early().then(|| Block::copy_of(&self.half_copied(now, &before), "a copy of a value"));
        let place = match copy {
            Some(Ok(block)) => Place::Small(Arc::new(block)),
            _ => self.kernel.place.clone(),
        };
        let TapKernel { index, level, dtype, cols, kept, .. } = self.kernel;
        let kernel = TapKernel { index, level, place, dtype, cols, kept };
        for row in 0..self.kernel.chunks(m) {
            // SAFETY: the caller's promise; the copy has every row that the value has.
            unsafe { kernel.run(m, row) };
        }
    }

    fn route(&self, at: &Bindings) -> String {
        self.kernel.route(at)
    }

    fn opened(&self) {
        self.before.lock().unwrap_or_else(|e| e.into_inner()).clear();
    }
}
