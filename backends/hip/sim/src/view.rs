//! The allocations that a launch sees, and what can be wrong with an access from the host.

use crate::memory::Region;
use std::sync::Arc;

/// Why memory could not be allocated or accessed from the host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The limit given to [`crate::Memory::new`] would be exceeded.
    #[error("out of device memory: {label} needs {bytes} bytes, {used} of {limit} are in use")]
    OutOfMemory {
        /// What the memory was for.
        label: String,
        /// Bytes asked for.
        bytes: u64,
        /// Bytes in use.
        used: u64,
        /// The limit.
        limit: u64,
    },
    /// The range is not inside one allocation.
    #[error("{bytes} bytes at {address:#x} are not inside one allocation")]
    OutOfBounds {
        /// Start of the range.
        address: u64,
        /// Its length.
        bytes: u64,
    },
    /// The range holds bytes that were never written.
    #[error("byte {address:#x} of {label} is read but was never written")]
    Uninitialised {
        /// The first such byte.
        address: u64,
        /// The allocation's label.
        label: String,
    },
    /// The address is not the start of an allocation.
    #[error("{address:#x} is not the start of an allocation")]
    NotAllocated {
        /// The address.
        address: u64,
    },
}

/// The allocations a launch can reach, fixed for its length.
pub(crate) struct View {
    /// Where the regions begin.
    bases: Vec<u64>,
    regions: Vec<Arc<Region>>,
}

impl View {
    pub(crate) fn of(mut regions: Vec<Arc<Region>>) -> View {
        regions.sort_by_key(|r| r.base);
        View { bases: regions.iter().map(|r| r.base).collect(), regions }
    }

    #[inline]
    pub(crate) fn find(&self, addr: u64, bytes: u64) -> Option<&Region> {
        let at = self.bases.partition_point(|base| *base <= addr);
        at.checked_sub(1).map(|i| &*self.regions[i]).filter(|r| r.contains(addr, bytes))
    }

    /// Says how an address lies to the allocation nearest to it.
    pub(crate) fn describe(&self, addr: u64) -> String {
        let distance = |r: &Region| {
            if addr < r.base { r.base - addr } else { (addr + 1).saturating_sub(r.base + r.len) }
        };
        match self.regions.iter().min_by_key(|r| distance(r)) {
            None => "nothing is allocated".into(),
            Some(r) if addr < r.base => format!("{} before `{}` of {} bytes", r.base - addr, r.label, r.len),
            Some(r) if addr - r.base < r.len => format!("byte {} of `{}` of {}", addr - r.base, r.label, r.len),
            Some(r) => format!("{} after the end of `{}` of {} bytes", addr - r.base - r.len, r.label, r.len),
        }
    }
}
