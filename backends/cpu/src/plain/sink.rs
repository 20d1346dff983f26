//! Where computed rows go: a buffer, codes and scales, or a cache.

use super::step::Step;
use crate::kernels::cache::cache_write;
use crate::kv::StateShape;
use crate::ops::Place;
use crate::simd::Level;
use greta_ops::{ACT_BLOCK, PAGE_TOKENS};
use std::ops::Range;

/// What is done with rows of f32.
pub(super) enum Sink {
    /// Stored as they are.
    Store(Place),
    /// Quantised: codes, then scales.
    Quantize(Place, Place),
    /// Written to a cache, at the slots of operand 2.
    Cache(Place, StateShape),
}

impl Sink {
    /// Stores the columns `cols` of the rows `rows`, row after row in `values`; a whole row has `width` values.
    ///
    /// # Safety
    /// The output has these rows, and what is named of them is the caller's alone.
    pub unsafe fn put(&self, s: &Step, rows: Range<usize>, cols: Range<usize>, width: usize, values: &[f32]) {
        for (t, row) in rows.zip(values.chunks_exact(cols.len().max(1))) {
            match self {
                Sink::Store(out) => {
                    // SAFETY: the caller's promise.
                    unsafe { s.m.write::<f32>(out, t * width + cols.start, cols.len()) }.copy_from_slice(row);
                }
                Sink::Quantize(codes, scales) => {
                    let blocks = width / ACT_BLOCK;
                    // SAFETY: the caller's promise.
                    let (codes, scales) =
                        unsafe { (s.m.write(codes, t * width, width), s.m.write(scales, t * blocks, blocks)) };
                    quantize(row, codes, scales);
                }
                Sink::Cache(cache, shape) => {
                    let slot = s.ints(2)[t] as usize;
                    let page = s.m.pages(cache)[slot / PAGE_TOKENS];
                    // SAFETY: pages are whole and aligned; slots of one step differ, so this one is this chunk's.
                    unsafe {
                        cache_write(Level::PORTABLE, &shape.page, shape.side, page, slot % PAGE_TOKENS, row);
                    }
                }
            }
        }
    }
}

/// One scale and 32 codes at a time.
fn quantize(x: &[f32], codes: &mut [i8], scales: &mut [f32]) {
    for ((x, codes), scale) in x.chunks_exact(ACT_BLOCK).zip(codes.chunks_exact_mut(ACT_BLOCK)).zip(scales) {
        let amax = x.iter().fold(0f32, |m, v| m.max(v.abs()));
        if x.iter().any(|v| !v.is_finite()) {
            *scale = f32::NAN;
            codes.fill(0);
            continue;
        }
        *scale = amax / 127.0;
        // Of a tiny block 127 / amax would be infinite; both are made larger first.
        let up = if amax < 2f32.powi(-100) { 2f32.powi(64) } else { 1.0 };
        let id = if amax > 0.0 { 127.0 / (amax * up) } else { 0.0 };
        codes.iter_mut().zip(x).for_each(|(c, v)| *c = (v * up * id).round_ties_even() as i8);
    }
}
