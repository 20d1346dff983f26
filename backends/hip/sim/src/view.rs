//! The allocations that a launch sees, and what can be wrong with an access from the host.

use crate::memory::{Memory, Region};
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

/// Bytes a launch can reach, all of one allocation.
struct Span {
    end: u64,
    /// All of them were written before the launch.
    whole: bool,
    region: Arc<Region>,
}

/// What a launch can reach, fixed for its length: the allocations, or of some of them the bytes that are live.
pub(crate) struct View {
    /// Where the spans begin.
    bases: Vec<u64>,
    spans: Vec<Span>,
    fenced: bool,
}

impl View {
    /// The memory as a launch sees it, with regions of its own beside the allocations. `live`: addresses, and how many
    /// bytes from there on are within its reach; with none of them every allocation is.
    pub(crate) fn of(
        memory: &Memory,
        own: impl IntoIterator<Item = Arc<Region>>,
        live: &[(u64, u64)],
    ) -> Result<View, MemoryError> {
        let whole = |region: Arc<Region>| (region.base, region.base + region.len, region);
        let mut parts: Vec<_> = own.into_iter().map(whole).collect();
        if live.is_empty() {
            parts.extend(memory.regions().into_iter().map(whole));
        }
        for &(base, bytes) in live {
            let (region, _) = memory.region(base, bytes)?;
            parts.push((base, base + bytes, region));
        }
        parts.sort_by_key(|(base, ..)| *base);
        let mut view = View { bases: Vec::new(), spans: Vec::new(), fenced: !live.is_empty() };
        for (base, end, region) in parts {
            match (view.bases.last(), view.spans.last_mut()) {
                // One buffer for several arguments: the largest of what they may touch.
                (Some(first), Some(last)) if base < last.end || base == *first => last.end = last.end.max(end),
                _ => {
                    view.bases.push(base);
                    view.spans.push(Span { end, whole: false, region });
                }
            }
        }
        for (base, s) in view.bases.iter().zip(&mut view.spans) {
            s.whole = s.region.written(base - s.region.base, s.end - base);
        }
        Ok(view)
    }

    /// The allocation that bytes lie in, if they are within reach, and whether all around them was written before the
    /// launch.
    #[inline]
    pub(crate) fn find(&self, addr: u64, bytes: u64) -> Option<(&Region, bool)> {
        let at = self.bases.partition_point(|base| *base <= addr).checked_sub(1)?;
        let s = &self.spans[at];
        (addr <= s.end && bytes <= s.end - addr).then_some((&*s.region, s.whole))
    }

    /// Says where an address lies that is within reach.
    pub(crate) fn describe(&self, addr: u64) -> String {
        match self.find(addr, 1) {
            Some((r, _)) => format!("byte {} of `{}` of {}", addr - r.base, r.label, r.len),
            None => "nothing is allocated".into(),
        }
    }

    /// Says how an address that is out of reach lies to what is within, and to the allocations of `memory`.
    pub(crate) fn outside(&self, memory: &Memory, addr: u64) -> String {
        let Ok((region, off)) = memory.region(addr, 1) else {
            return format!("outside every allocation ({})", self.nearest(addr));
        };
        let place = format!("byte {off} of `{}` of {} bytes", region.label, region.len);
        if !self.fenced {
            // It begins inside.
            return format!("past the end of an allocation (it begins at {place})");
        }
        let mut spans = self.bases.iter().zip(&self.spans).filter(|(_, s)| s.region.base == region.base);
        if spans.clone().next().is_none() {
            return format!("in memory that the launch was not given ({place}; {})", self.nearest(addr));
        }
        match spans.rfind(|(base, _)| **base <= addr) {
            Some((base, s)) if *base == region.base => {
                format!("past the live {} bytes of `{}` ({place})", s.end - base, region.label)
            }
            Some((base, s)) => {
                let from = base - region.base;
                format!("past the live {} bytes of `{}` from byte {from} on ({place})", s.end - base, region.label)
            }
            None => format!("before the live bytes of `{}` ({place})", region.label),
        }
    }

    /// The nearest of what is within reach on both sides, the nearer one first.
    fn nearest(&self, addr: u64) -> String {
        let at = self.bases.partition_point(|base| *base <= addr);
        let before = at.checked_sub(1).map(|i| &self.spans[i]).map(|s| {
            let live = if s.end < s.region.base + s.region.len { "live bytes" } else { "end" };
            let far = addr.saturating_sub(s.end);
            (far, format!("{far} after the {live} of `{}` of {} bytes", s.region.label, s.region.len))
        });
        let after = self.bases.get(at).zip(self.spans.get(at)).map(|(base, s)| {
            (base - addr, format!("{} before `{}` of {} bytes", base - addr, s.region.label, s.region.len))
        });
        let mut both: Vec<_> = before.into_iter().chain(after).collect();
        both.sort_by_key(|(far, _)| *far);
        let texts: Vec<String> = both.into_iter().map(|(_, text)| text).collect();
        if texts.is_empty() { "nothing is allocated".into() } else { texts.join(", ") }
    }
}
