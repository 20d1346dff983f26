//! The device's global memory: allocations with gaps between them, and a bit for each byte that says whether it was ever
//! written.
//!
//! Several host threads run workgroups over the same memory, and a kernel may race on it as it may on a GPU. So bytes are
//! only touched through relaxed atomics of up to 8 bytes; a torn wider access is what the hardware may give as well.

use crate::cpu::Lanes;
use crate::view::MemoryError;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

/// Where allocations begin; far from zero and from the apertures.
const FIRST: u64 = 0x7000_0000_0000;
/// At least this much lies between two allocations.
const GAP: u64 = 0x1_0000;

/// One allocation.
pub(crate) struct Region {
    pub base: u64,
    pub len: u64,
    pub label: String,
    data: NonNull<u8>,
    layout: Layout,
    /// A bit for each byte: it was written.
    shadow: Box<[AtomicU8]>,
    /// Every byte was written, so that `shadow` need not be asked.
    whole: AtomicBool,
}

// SAFETY: `data` is owned by the region and only accessed through atomics, so it may be sent and shared.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `data` came from `alloc_zeroed` with this layout and is freed once.
        unsafe { dealloc(self.data.as_ptr(), self.layout) }
    }
}

impl Region {
    pub(crate) fn new(base: u64, len: u64, label: &str) -> Option<Region> {
        // Padded, so that the dword after any byte is there to be read.
        let layout =
            Layout::from_size_align(usize::try_from(len).ok()?.next_multiple_of(4).checked_add(4)?, 256).ok()?;
        // SAFETY: the layout's size is not zero.
        let data = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let shadow = (0..len.div_ceil(8)).map(|_| AtomicU8::new(0)).collect();
        Some(Region { base, len, label: label.into(), data, layout, shadow, whole: AtomicBool::new(false) })
    }

    #[inline(always)]
    pub(crate) fn contains(&self, addr: u64, bytes: u64) -> bool {
        addr >= self.base && bytes <= self.len && addr - self.base <= self.len - bytes
    }

    #[inline(always)]
    fn byte(&self, off: u64) -> &AtomicU8 {
        assert!(off < self.len);
        // SAFETY: the offset is inside the allocation, which lives as long as `self`, and is never accessed but atomically.
        unsafe { AtomicU8::from_ptr(self.data.as_ptr().add(off as usize)) }
    }

    /// The aligned dword at `off`.
    #[inline(always)]
    pub(crate) fn dword(&self, off: u64) -> &AtomicU32 {
        assert!(off & 3 == 0 && off + 4 <= self.len);
        // SAFETY: inside the allocation (aligned to 256) and aligned, see the assertion; accessed atomically alone.
        unsafe { AtomicU32::from_ptr(self.data.as_ptr().add(off as usize).cast()) }
    }

    /// The aligned 8 bytes at `off`.
    pub(crate) fn qword(&self, off: u64) -> &AtomicU64 {
        assert!(off & 7 == 0 && off + 8 <= self.len);
        // SAFETY: as for `dword`.
        unsafe { AtomicU64::from_ptr(self.data.as_ptr().add(off as usize).cast()) }
    }

    /// `n` ≤ 4 bytes at an offset that was checked.
    #[inline(always)]
    pub(crate) fn load(&self, off: u64, n: u32) -> u32 {
        match n {
            4 if off & 3 == 0 => self.dword(off).load(Relaxed),
            1 => u32::from(self.byte(off).load(Relaxed)),
            _ => (0..n).fold(0, |x, b| x | u32::from(self.byte(off + u64::from(b)).load(Relaxed)) << (8 * b)),
        }
    }

    #[inline(always)]
    pub(crate) fn store(&self, off: u64, n: u32, x: u32) {
        match n {
            4 if off & 3 == 0 => self.dword(off).store(x, Relaxed),
            1 => self.byte(off).store(x as u8, Relaxed),
            _ => (0..n).for_each(|b| self.byte(off + u64::from(b)).store((x >> (8 * b)) as u8, Relaxed)),
        }
    }

    #[inline(always)]
    pub(crate) fn is_whole(&self) -> bool {
        self.whole.load(Relaxed)
    }

    /// Whether all `n` ≤ 16 bytes were written.
    #[inline(always)]
    pub(crate) fn known(&self, off: u64, n: u32) -> bool {
        let mut mask = ((1u32 << n) - 1) << (off & 7);
        let mut at = (off / 8) as usize;
        while mask != 0 {
            let m = mask as u8;
            if self.shadow[at].load(Relaxed) & m != m {
                return false;
            }
            mask >>= 8;
            at += 1;
        }
        true
    }

    /// Says that `n` ≤ 16 bytes are written.
    #[inline(always)]
    pub(crate) fn mark(&self, off: u64, n: u32) {
        if self.is_whole() {
            return;
        }
        let mut mask = ((1u32 << n) - 1) << (off & 7);
        let mut at = (off / 8) as usize;
        while mask != 0 {
            let m = mask as u8;
            if self.shadow[at].load(Relaxed) & m != m {
                self.shadow[at].fetch_or(m, Relaxed);
            }
            mask >>= 8;
            at += 1;
        }
    }

    /// Loads `N` dwords in a row for each of 64 lanes, of which `bytes` are meant; false if they don't all lie inside.
    #[inline(always)]
    pub(crate) fn load_lanes<const N: usize>(&self, off: &[u64; 64], bytes: u32, out: &mut [Lanes; N]) -> bool {
        let (top, low) = off.iter().fold((0, 0), |(top, low), o| (top.max(*o), low | o));
        if u64::from(bytes) > self.len || top > self.len - u64::from(bytes) || N as u32 > bytes.div_ceil(4) {
            return false;
        }
        let dword = |off: u64| {
            // SAFETY: `off` is aligned and begins at most 4 after the dword of the last byte that is accessed, by which
            // the allocation is padded; accessed atomically alone.
            unsafe { AtomicU32::from_ptr(self.data.as_ptr().add(off as usize).cast()) }.load(Relaxed)
        };
        let qword = |off: u64| {
            // SAFETY: only used for whole accesses, see the check above, that are aligned to 8; accessed atomically alone.
            unsafe { AtomicU64::from_ptr(self.data.as_ptr().add(off as usize).cast()) }.load(Relaxed)
        };
        if low & 7 == 0 && N.is_multiple_of(2) {
            for l in 0..64 {
                for w in 0..N / 2 {
                    let x = qword(off[l] + 8 * w as u64);
                    out[2 * w].0[l] = x as u32;
                    out[2 * w + 1].0[l] = (x >> 32) as u32;
                }
            }
        } else if low & 3 == 0 {
            for l in 0..64 {
                for w in 0..N {
                    out[w].0[l] = dword(off[l] + 4 * w as u64);
                }
            }
        } else {
            for l in 0..64 {
                let (at, shift) = (off[l] & !3, 8 * (off[l] & 3));
                let mut x = u64::from(dword(at));
                for w in 0..N {
                    x |= u64::from(dword(at + 4 * w as u64 + 4)) << 32;
                    out[w].0[l] = (x >> shift) as u32;
                    x >>= 32;
                }
            }
        }
        true
    }

    /// Stores a dword of each lane, `step` bytes apart from `off` on.
    pub(crate) fn store_lanes(&self, off: u64, step: u32, x: &Lanes) {
        for l in 0..64 {
            self.dword(off + l as u64 * u64::from(step)).store(x.0[l], Relaxed);
        }
    }

    fn mark_range(&self, off: u64, n: u64) {
        if off == 0 && n == self.len {
            self.whole.store(true, Relaxed);
            return;
        }
        let (first, last) = (off.next_multiple_of(8).min(off + n), (off + n) & !7);
        if first < last {
            self.mark(off, (first - off) as u32);
            self.shadow[(first / 8) as usize..(last / 8) as usize].iter().for_each(|s| s.store(0xff, Relaxed));
            self.mark(last, (off + n - last) as u32);
        } else {
            (off..off + n).for_each(|o| self.mark(o, 1));
        }
    }

    /// Says that 64 lanes wrote `bytes` each, one after the other from `off` on.
    pub(crate) fn mark_row(&self, off: u64, bytes: u32) {
        if !self.is_whole() {
            self.mark_range(off, 64 * u64::from(bytes));
        }
    }

    /// Whether all of `n` bytes were written, piece by piece; of every byte it is noted.
    pub(crate) fn written(&self, off: u64, n: u64) -> bool {
        if self.is_whole() || n == 0 {
            return true;
        }
        let (first, last) = (off.next_multiple_of(8).min(off + n), (off + n) & !7);
        let all = if first < last {
            let bytes = &self.shadow[(first / 8) as usize..(last / 8) as usize];
            self.known(off, (first - off) as u32)
                && bytes.iter().all(|s| s.load(Relaxed) == 0xff)
                && self.known(last, (off + n - last) as u32)
        } else {
            (off..off + n).all(|o| self.known(o, 1))
        };
        if all && n == self.len {
            self.whole.store(true, Relaxed);
        }
        all
    }

    pub(crate) fn write(&self, off: u64, bytes: &[u8]) {
        let head = (off.next_multiple_of(4) - off).min(bytes.len() as u64) as usize;
        let (first, rest) = bytes.split_at(head);
        first.iter().enumerate().for_each(|(i, b)| self.byte(off + i as u64).store(*b, Relaxed));
        let at = off + head as u64;
        let mut words = rest.chunks_exact(4);
        for (i, w) in words.by_ref().enumerate() {
            self.dword(at + 4 * i as u64).store(u32::from_le_bytes([w[0], w[1], w[2], w[3]]), Relaxed);
        }
        let tail = words.remainder();
        let at = off + (bytes.len() - tail.len()) as u64;
        tail.iter().enumerate().for_each(|(i, b)| self.byte(at + i as u64).store(*b, Relaxed));
        self.mark_range(off, bytes.len() as u64);
    }

    fn read(&self, off: u64, out: &mut [u8]) -> Result<(), u64> {
        if !self.is_whole() {
            let bad = (off..off + out.len() as u64).find(|o| !self.known(*o, 1));
            if let Some(bad) = bad {
                return Err(bad);
            }
        }
        self.raw(off, out);
        Ok(())
    }

    fn raw(&self, off: u64, out: &mut [u8]) {
        if off & 3 == 0 {
            let mut words = out.chunks_exact_mut(4);
            let mut at = off;
            for w in words.by_ref() {
                w.copy_from_slice(&self.dword(at).load(Relaxed).to_le_bytes());
                at += 4;
            }
            words
                .into_remainder()
                .iter_mut()
                .enumerate()
                .for_each(|(i, b)| *b = self.byte(at + i as u64).load(Relaxed));
        } else {
            out.iter_mut().enumerate().for_each(|(i, b)| *b = self.byte(off + i as u64).load(Relaxed));
        }
    }
}

#[derive(Default)]
struct Table {
    regions: Vec<Arc<Region>>,
    next: u64,
    used: u64,
}

/// The device's global memory.
pub struct Memory {
    limit: u64,
    table: RwLock<Table>,
}

impl Memory {
    /// Memory of which at most `limit_bytes` can be allocated.
    pub fn new(limit_bytes: u64) -> Memory {
        Memory { limit: limit_bytes, table: RwLock::new(Table { next: FIRST, ..Table::default() }) }
    }

    /// Allocates uninitialised memory and gives its address, a multiple of 256. Allocations never touch.
    pub fn alloc(&self, bytes: usize, label: &str) -> Result<u64, MemoryError> {
        let mut t = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let len = bytes as u64;
        let refused = || MemoryError::OutOfMemory { label: label.into(), bytes: len, used: t.used, limit: self.limit };
        if t.used.checked_add(len).is_none_or(|sum| sum > self.limit) {
            return Err(refused());
        }
        let region = Region::new(t.next, len, label).ok_or_else(refused)?;
        let base = t.next;
        t.next = (base + len).next_multiple_of(GAP) + GAP;
        t.used += len;
        t.regions.push(Arc::new(region));
        Ok(base)
    }

    /// Gives an allocation back. Its addresses are never used again.
    pub fn free(&self, addr: u64) -> Result<(), MemoryError> {
        let mut t = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let at = t.regions.iter().position(|r| r.base == addr).ok_or(MemoryError::NotAllocated { address: addr })?;
        t.used -= t.regions.remove(at).len;
        Ok(())
    }

    pub(crate) fn region(&self, addr: u64, bytes: u64) -> Result<(Arc<Region>, u64), MemoryError> {
        let t = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let at = t.regions.partition_point(|r| r.base <= addr);
        let region = at.checked_sub(1).map(|i| &t.regions[i]).filter(|r| r.contains(addr, bytes));
        let region = region.ok_or(MemoryError::OutOfBounds { address: addr, bytes })?;
        Ok((region.clone(), addr - region.base))
    }

    /// Copies bytes from the host.
    pub fn write(&self, addr: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let (region, off) = self.region(addr, bytes.len() as u64)?;
        region.write(off, bytes);
        Ok(())
    }

    /// Copies bytes to the host; all must have been written.
    pub fn read(&self, addr: u64, out: &mut [u8]) -> Result<(), MemoryError> {
        let (region, off) = self.region(addr, out.len() as u64)?;
        region
            .read(off, out)
            .map_err(|o| MemoryError::Uninitialised { address: region.base + o, label: region.label.clone() })
    }

    /// Sets bytes.
    pub fn fill(&self, addr: u64, byte: u8, len: u64) -> Result<(), MemoryError> {
        let (region, off) = self.region(addr, len)?;
        (off..off + len).for_each(|o| region.byte(o).store(byte, Relaxed));
        region.mark_range(off, len);
        Ok(())
    }

    /// Copies within the device; uninitialised bytes stay uninitialised.
    pub fn copy(&self, dst: u64, src: u64, len: u64) -> Result<(), MemoryError> {
        let (from, o) = self.region(src, len)?;
        let (to, d) = self.region(dst, len)?;
        let mut bytes = vec![0; len as usize];
        from.raw(o, &mut bytes);
        if from.is_whole() {
            to.write(d, &bytes);
            return Ok(());
        }
        for (i, b) in (0u64..).zip(&bytes) {
            to.byte(d + i).store(*b, Relaxed);
            if from.known(o + i, 1) {
                to.mark(d + i, 1);
            } else {
                to.forget(d + i);
            }
        }
        Ok(())
    }

    /// Bytes allocated.
    pub fn used(&self) -> u64 {
        self.table.read().unwrap_or_else(PoisonError::into_inner).used
    }

    /// Bytes that can be allocated.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Every allocation, by ascending address.
    pub(crate) fn regions(&self) -> Vec<Arc<Region>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).regions.clone()
    }
}

impl Region {
    /// Takes back that a byte was written.
    fn forget(&self, off: u64) {
        if self.whole.swap(false, Relaxed) {
            self.shadow.iter().for_each(|s| s.store(0xff, Relaxed));
        }
        self.shadow[(off / 8) as usize].fetch_and(!(1 << (off & 7)), Relaxed);
    }
}
