//! Causal attention of grouped query heads over a paged cache, with an online softmax (Milakov and Gimelshein, arXiv
//! 1805.02867).
//!
//! For a query row (one head of one token at position p), pages in ascending order, in each the slots at or before p:
//!
//! ```text
//! s_j  = (((c₀ + c₁) + c₂) + c₃) · scale      cᵢ = Σ fma(k[d], q[d], ·) over d ≡ i (mod 4), ascending from 0
//! m'   = max(m, s_j …)                        m starts at the lowest finite f32
//! p_j  = exp(s_j − m')                        0 for slots past p
//! l    = fma(l, exp(m − m'), Σ p)             Σ: lane i + lane i+16, then folded by halves
//! o    = o · exp(m − m'), then fma(p_j, v_j, o) in ascending j
//! out  = o / l
//! ```
//!
//! A slot past p is never used, whatever lies there. Rows are worked on in tiles that share the loads of a page, each
//! with this very order, so a row's bits do not depend on its neighbours.

use super::attention_tile::{Element, Row, tile};
use super::cache::{PAGE, PageShape};
use super::scratch;
use crate::simd::{Kernel, LANES, Level, Simd};
use std::ops::Range;

/// One sequence's cache in one layer, and how queries read it.
#[derive(Clone, Copy, Debug)]
pub struct Cache<'a> {
    /// The pages' shape.
    pub shape: PageShape,
    /// Pages of keys, that of positions 0 … 31 first.
    pub keys: &'a [*const u8],
    /// Pages of values.
    pub values: &'a [*const u8],
}

/// Query rows of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// `[tokens, heads · head_dim]`
    pub q: &'a [f32],
    /// Query heads: a multiple of the kv heads; query head h reads kv head h / (heads / kv heads).
    pub heads: usize,
    /// Position of each token.
    pub positions: &'a [u32],
    /// Multiplied on the scores, usually 1 / √head_dim.
    pub scale: f32,
}

/// Query rows that are worked on while a page is at hand.
const CHUNK: usize = 48;

/// Computes `out[t · ldo + h · head_dim + d]` for the tokens `tokens` and the query heads of `kv_head`. Nothing else of
/// `out` is touched.
///
/// # Panics
/// If heads, lengths or positions do not fit the cache.
///
/// # Safety
/// Every page up to that of the largest position is readable for [`PageShape::bytes`] of initialised memory, aligned for
/// its elements, and not written during the call. `out` is writable at every index named, and nobody else uses those
/// elements.
pub unsafe fn attention(
    level: Level,
    cache: &Cache,
    queries: &Queries,
    tokens: Range<usize>,
    kv_head: usize,
    out: *mut f32,
    ldo: usize,
) {
    let shape = &cache.shape;
    assert!(queries.heads.is_multiple_of(shape.kv_heads()) && kv_head < shape.kv_heads(), "heads");
    assert!(queries.q.len() >= tokens.end * queries.heads * shape.head_dim(), "queries");
    let Some(last) = queries.positions[tokens.clone()].iter().max() else { return };
    let pages = *last as usize / PAGE + 1;
    assert!(cache.keys.len() >= pages && cache.values.len() >= pages, "pages of every position");
    let width = shape.head_dim().next_multiple_of(LANES);
    let group = queries.heads / shape.kv_heads();
    let rows = group * tokens.len().min((CHUNK / group).max(1));
    scratch::with(4 * (rows * (width + 2) + 2 * PAGE * width), |buffer| {
        let job = Attention { cache: *cache, queries: *queries, tokens, kv_head, out, ldo, buffer: buffer.cast() };
        if shape.is_half() {
            level.run(Of::<u16>(job, std::marker::PhantomData));
        } else {
            level.run(Of::<f32>(job, std::marker::PhantomData));
        }
    });
}

struct Attention<'a> {
    cache: Cache<'a>,
    queries: Queries<'a>,
    tokens: Range<usize>,
    kv_head: usize,
    out: *mut f32,
    ldo: usize,
    /// Room for a chunk's sums and one page each of keys and values in f32.
    buffer: *mut f32,
}

/// Attention over pages of elements of a type.
struct Of<'a, E>(Attention<'a>, std::marker::PhantomData<E>);

impl<E: Element> Kernel for Of<'_, E> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Attention { cache, queries, tokens, kv_head, out, ldo, buffer } = self.0;
        let hd = cache.shape.head_dim();
        let width = hd.next_multiple_of(LANES);
        let group = queries.heads / cache.shape.kv_heads();
        let largest = if S::TILE >= 16 { 8 } else { S::TILE.min(2) };
        let (keys, rest) = (buffer, buffer.wrapping_add(PAGE * width));
        let (values, sums) = (rest, rest.wrapping_add(PAGE * width));
        let mut token = tokens.start;
        while token < tokens.end {
            let count = (tokens.end - token).min((CHUNK / group).max(1));
            let positions = &queries.positions[token..token + count];
            let rows = count * group;
            let state = sums.wrapping_add(rows * width).cast::<[f32; 2]>();
            // SAFETY: the buffer holds `rows` sums and states.
            unsafe {
                for i in 0..rows * width / LANES {
                    s.store(sums.add(i * LANES), s.splat(0.0));
                }
                for r in 0..rows {
                    *state.add(r) = [f32::MIN, 0.0];
                }
            }
            let row = |r: usize, page: usize| {
                let head = kv_head * group + r % group;
                let q = queries.q[((token + r / group) * queries.heads + head) * hd..].as_ptr();
                let seen = (positions[r / group] as usize + 1).saturating_sub(page * PAGE).min(PAGE);
                Row { q, o: sums.wrapping_add(r * width), ml: state.wrapping_add(r), seen }
            };
            let last = positions.iter().fold(0, |a, &b| a.max(b)) as usize;
            for page in 0..=last / PAGE {
                let at = kv_head * cache.shape.head_bytes();
                // SAFETY: the pages are readable; a head's part begins there.
                let (k, v) = unsafe { (cache.keys[page].add(at).cast::<E>(), cache.values[page].add(at).cast::<E>()) };
                // Converting a page pays when several tiles read it.
                let convert = size_of::<E>() == 2 && rows > largest;
                // Few rows are done with a page before memory has brought the next one.
                if rows <= largest && page < last / PAGE {
                    for line in (0..cache.shape.head_bytes()).step_by(64) {
                        s.prefetch(cache.keys[page + 1].wrapping_add(at + line));
                        s.prefetch(cache.values[page + 1].wrapping_add(at + line));
                    }
                }
                if convert {
                    // SAFETY: the buffer holds a page of each.
                    unsafe { widen(s, k, keys, PAGE * hd, v, values, hd, width) };
                }
                let mut r = 0;
                while r < rows {
                    let m = match rows - r {
                        8.. if largest == 8 => 8,
                        4.. if largest == 8 => 4,
                        3 if largest == 8 => 3,
                        2.. if largest >= 2 => 2,
                        _ => 1,
                    };
                    let mut tile = [row(r, page); 8];
                    let mut see = tile[0].seen > 0;
                    for (i, to) in tile.iter_mut().enumerate().take(m) {
                        *to = row(r + i, page);
                        see &= to.seen > 0;
                    }
                    let kv = (k, v, keys.cast_const(), values.cast_const());
                    let geometry = (hd, width, queries.scale);
                    // SAFETY: rows, pages and buffers are as described.
                    unsafe {
                        match m {
                            8 if const { S::TILE >= 16 } && see => either::<S, E, 8>(s, convert, kv, &tile, geometry),
                            4 if const { S::TILE >= 16 } && see => either::<S, E, 4>(s, convert, kv, &tile, geometry),
                            3 if const { S::TILE >= 16 } && see => either::<S, E, 3>(s, convert, kv, &tile, geometry),
                            2 if const { S::TILE >= 2 } && see => either::<S, E, 2>(s, convert, kv, &tile, geometry),
                            _ => {
                                for row in &tile[..m] {
                                    if row.seen > 0 {
                                        either::<S, E, 1>(s, convert, kv, std::slice::from_ref(row), geometry);
                                    }
                                }
                            }
                        }
                    }
                    r += m;
                }
            }
            for r in 0..rows {
                let head = kv_head * group + r % group;
                // SAFETY: the caller vouches for `out`.
                unsafe {
                    let to = out.add((token + r / group) * ldo + head * hd);
                    let l = s.splat((*state.add(r))[1]);
                    for d in (0..hd).step_by(LANES) {
                        let o = s.load(sums.add(r * width + d));
                        s.store_n(to.add(d), LANES.min(hd - d), s.div(o, l));
                    }
                }
            }
            token += count;
        }
    }
}

/// Converts one head's page of keys (`elements` of them) and of values (32 rows of `hd`, padded to `width`) to f32.
///
/// # Safety
/// The pages are readable and the buffers large enough.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "two pages and two buffers with their sizes")]
unsafe fn widen<S: Simd, E: Element>(
    s: S,
    k: *const E,
    keys: *mut f32,
    elements: usize,
    v: *const E,
    values: *mut f32,
    hd: usize,
    width: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        for i in 0..elements / LANES {
            s.store(keys.add(i * LANES), E::load(s, k.add(i * LANES), LANES));
        }
        for j in 0..PAGE {
            for d in (0..hd).step_by(LANES) {
                s.store(values.add(j * width + d), E::load(s, v.add(j * hd + d), LANES.min(hd - d)));
            }
        }
    }
}

/// Runs a tile over the page itself or its f32 copy.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn either<S: Simd, E: Element, const M: usize>(
    s: S,
    converted: bool,
    (k, v, keys, values): (*const E, *const E, *const f32, *const f32),
    rows: &[Row],
    (hd, width, scale): (usize, usize, f32),
) {
    // SAFETY: the caller's.
    unsafe {
        if converted {
            tile::<S, f32, M>(s, keys, values, width, rows, hd, scale);
        } else {
            tile::<S, E, M>(s, k, v, hd, rows, hd, scale);
        }
    }
}
