//! Zeroed memory, aligned for any vector and, where large, in huge pages.

use greta_backend::BackendError;
use memmap2::{MmapMut, MmapOptions};

/// A cache line, and the widest vector.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// From this size on, memory is mapped: the system zeroes it page by page when it is first touched, on whichever thread
/// touches it, and gives it back when it is dropped.
const MAPPED: usize = 1 << 20;

/// A block of memory that threads write to in parts.
pub(crate) struct Block {
    base: *mut u8,
    len: usize,
    _owner: Owner,
}

#[allow(dead_code, reason = "held to keep the memory")]
enum Owner {
    Mapped(MmapMut),
    Lines(Vec<Line>),
}

// SAFETY: the block owns its memory; whoever writes through `base` answers for exclusive use of the part it writes.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// `len` zero bytes.
    pub fn zeroed(len: usize, what: &str) -> Result<Block, BackendError> {
        let error = || BackendError::OutOfMemory { what: what.into(), bytes: len };
        if len >= MAPPED {
            let mut map = MmapOptions::new().len(len).map_anon().map_err(|_| error())?;
            // Only advice: without huge pages all works, at the price of more page faults.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Ok(Block { base: map.as_mut_ptr(), len, _owner: Owner::Mapped(map) });
        }
        let mut lines = Vec::new();
        let count = len.div_ceil(size_of::<Line>());
        lines.try_reserve_exact(count).map_err(|_| error())?;
        lines.resize(count, Line([0; 64]));
        Ok(Block { base: lines.as_mut_ptr().cast(), len, _owner: Owner::Lines(lines) })
    }

    /// A copy of these bytes.
    pub fn copy_of(bytes: &[u8], what: &str) -> Result<Block, BackendError> {
        let mut b = Block::zeroed(bytes.len(), what)?;
        b.bytes_mut().copy_from_slice(bytes);
        Ok(b)
    }

    /// All bytes. Nobody may be writing to them.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the memory is initialised; callers read only what no thread writes at the time.
        unsafe { std::slice::from_raw_parts(self.base, self.len) }
    }

    /// All bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the block is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.base, self.len) }
    }

    /// Where the block begins: at a multiple of 64.
    pub fn base(&self) -> *mut u8 {
        self.base
    }
}
