//! Pages of the key-value cache: [`PAGE`] tokens, every head.
//!
//! ```text
//! keys    [kv head][head_dim][PAGE]    a key to a lane, so that scores need no sum across lanes
//! values  [kv head][PAGE][head_dim]
//! ```
//!
//! Elements are f16 (rounded to nearest, ties to even) or f32.

use crate::simd::{Kernel, LANES, Level, Simd};
use greta_ops::DType;
use half::f16;

/// Tokens in a page.
pub const PAGE: usize = 32;

/// The shape of a page of keys or of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageShape {
    kv_heads: usize,
    head_dim: usize,
    half: bool,
}

/// Keys or values: they lie differently in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `[kv head][head_dim][PAGE]`
    Keys,
    /// `[kv head][PAGE][head_dim]`
    Values,
}

impl PageShape {
    /// `None` unless the type is F16 or F32 and `head_dim` a multiple of 8 up to 256.
    pub fn new(dtype: DType, kv_heads: usize, head_dim: usize) -> Option<PageShape> {
        let fits = matches!(dtype, DType::F16 | DType::F32)
            && head_dim > 0
            && head_dim <= 256
            && head_dim.is_multiple_of(8)
            && kv_heads > 0;
        fits.then_some(PageShape { kv_heads, head_dim, half: dtype == DType::F16 })
    }

    /// Heads of keys and values.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Values in a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Whether elements are f16.
    pub fn is_half(&self) -> bool {
        self.half
    }

    /// Bytes of an element.
    pub fn element(&self) -> usize {
        if self.half { 2 } else { 4 }
    }

    /// Bytes of one head's part of a page.
    pub fn head_bytes(&self) -> usize {
        PAGE * self.head_dim * self.element()
    }

    /// Bytes of a page of keys; a page of values has as many.
    pub fn bytes(&self) -> usize {
        self.kv_heads * self.head_bytes()
    }

    /// The element of head `h`, value `d`, slot `slot`, counted from the page's start.
    fn index(&self, side: Side, h: usize, d: usize, slot: usize) -> usize {
        let head = h * PAGE * self.head_dim;
        match side {
            Side::Keys => head + d * PAGE + slot,
            Side::Values => head + slot * self.head_dim + d,
        }
    }
}

/// Stores one token's row (`kv_heads · head_dim` values) into a page at `slot`.
///
/// # Panics
/// If the row's length or the slot does not fit.
///
/// # Safety
/// `page` is writable for [`PageShape::bytes`], aligned for its elements, and nobody else uses the slot during the call.
pub unsafe fn cache_write(level: Level, shape: &PageShape, side: Side, page: *mut u8, slot: usize, row: &[f32]) {
    assert!(slot < PAGE && row.len() == shape.kv_heads * shape.head_dim, "a row and a slot of the page");
    level.run(Write { shape, side, page, slot, row });
}

/// Reads one token's row back as f32.
///
/// # Panics
/// If the row's length or the slot does not fit.
///
/// # Safety
/// `page` is readable for [`PageShape::bytes`], aligned for its elements, and the slot has been written.
pub unsafe fn cache_read(shape: &PageShape, side: Side, page: *const u8, slot: usize, row: &mut [f32]) {
    assert!(slot < PAGE && row.len() == shape.kv_heads * shape.head_dim, "a row and a slot of the page");
    for (i, x) in row.iter_mut().enumerate() {
        let at = shape.index(side, i / shape.head_dim, i % shape.head_dim, slot);
        // SAFETY: the index lies in the page.
        *x = unsafe {
            if shape.half { f16::from_bits(*page.cast::<u16>().add(at)).to_f32() } else { *page.cast::<f32>().add(at) }
        };
    }
}

struct Write<'a> {
    shape: &'a PageShape,
    side: Side,
    page: *mut u8,
    slot: usize,
    row: &'a [f32],
}

impl Kernel for Write<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Write { shape, side, page, slot, row } = self;
        let step = if side == Side::Keys { PAGE } else { 1 };
        for (h, head) in row.chunks_exact(shape.head_dim).enumerate() {
            for d in (0..shape.head_dim).step_by(LANES) {
                let n = LANES.min(shape.head_dim - d);
                let at = shape.index(side, h, d, slot);
                // SAFETY: `n` values remain in the row; the indices lie in the page.
                unsafe {
                    let v = s.load_n(head.as_ptr().add(d), n);
                    if shape.half {
                        let mut bits = [0u16; LANES];
                        s.store_f16(bits.as_mut_ptr(), v);
                        for (i, b) in bits[..n].iter().enumerate() {
                            *page.cast::<u16>().add(at + i * step) = *b;
                        }
                    } else {
                        for (i, x) in head[d..d + n].iter().enumerate() {
                            *page.cast::<f32>().add(at + i * step) = *x;
                        }
                    }
                }
            }
        }
    }
}
