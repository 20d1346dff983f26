//! Zeroed memory, aligned for any vector and, where large, for huge pages.

use greta_backend::BackendError;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// A cache line, and the widest vector.
const LINE: usize = 64;
/// A huge page: from this size on, memory is aligned to and advised for them.
const HUGE: usize = 2 << 20;

/// A block of memory that threads write to in parts.
pub(crate) struct Block {
    at: NonNull<u8>,
    len: usize,
    layout: Layout,
}

// SAFETY: the block is plain memory; whoever writes through `base` answers for exclusive use of the part it writes.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// `len` zero bytes. The system gives the memory when it is first touched.
    pub fn zeroed(len: usize, what: &str) -> Result<Block, BackendError> {
        let error = || BackendError::OutOfMemory { what: what.into(), bytes: len };
        let align = if len >= HUGE { HUGE } else { LINE };
        let layout = Layout::from_size_align(len.max(1), align).map_err(|_| error())?;
        // SAFETY: the layout's size is not zero.
        let at = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(error)?;
        #[cfg(target_os = "linux")]
        if len >= HUGE {
            // SAFETY: the range was just allocated and is aligned to pages; the advice changes no content.
            unsafe { libc::madvise(at.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        }
        Ok(Block { at, len, layout })
    }

    /// A copy of these bytes.
    pub fn copy_of(bytes: &[u8], what: &str) -> Result<Block, BackendError> {
        let mut b = Block::zeroed(bytes.len(), what)?;
        b.bytes_mut().copy_from_slice(bytes);
        Ok(b)
    }

    /// All bytes. Nobody may be writing to them.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the block is initialised; callers read only what no thread writes at the time.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }

    /// All bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the block is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }

    /// Where the block begins.
    pub fn base(&self) -> *mut u8 {
        self.at.as_ptr()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.at.as_ptr(), self.layout) };
    }
}
