//! One page of attention for a tile of query rows: the order of operations is that of [`super::attention`].

use super::cache::PAGE;
use super::unroll;
use crate::simd::{LANES, Simd, math};
use std::ops::Range;

/// An element of a page.
pub trait Element: Copy + 'static {
    /// # Safety
    /// `p` is readable for `n` ≤ 16 elements.
    unsafe fn load<S: Simd>(s: S, p: *const Self, n: usize) -> S::F;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const f32, n: usize) -> S::F {
        // SAFETY: the caller's.
        unsafe { if n == LANES { s.load(p) } else { s.load_n(p, n) } }
    }
}

impl Element for u16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u16, n: usize) -> S::F {
        // SAFETY: the caller's.
        unsafe { if n == LANES { s.load_f16(p) } else { s.load_f16_n(p, n) } }
    }
}

/// A query row on its way through the pages.
#[derive(Clone, Copy)]
pub struct Row {
    pub q: *const f32,
    /// Its unscaled output, padded to whole vectors.
    pub o: *mut f32,
    /// The maximum so far and the sum of weights under it.
    pub ml: *mut [f32; 2],
    /// Slots of the page at hand that it sees.
    pub seen: usize,
}

/// Takes `M` rows, each of which sees a slot at least, through one page.
///
/// # Safety
/// `k` and `v` are a head's page (`v` with rows `ldv` apart); the rows' pointers hold `hd` values.
#[inline(always)]
pub unsafe fn tile<S: Simd, E: Element, const M: usize>(
    s: S,
    k: *const E,
    v: *const E,
    ldv: usize,
    rows: &[Row],
    hd: usize,
    scale: f32,
) {
    let mut p = [[0f32; PAGE]; M];
    let mut corr = [0f32; LANES];
    // SAFETY: the caller's.
    unsafe {
        scores::<S, E, M>(s, k, rows, hd, &mut p);
        let mut first = PAGE;
        for (t, row) in rows[..M].iter().enumerate() {
            let seen = row.seen;
            first = first.min(seen);
            let scale = s.splat(scale);
            let a = s.keep(s.mul(s.load(p[t].as_ptr()), scale), seen.min(LANES), f32::NEG_INFINITY);
            let b = s.load(p[t].as_ptr().add(LANES));
            let b = s.keep(s.mul(b, scale), seen.saturating_sub(LANES), f32::NEG_INFINITY);
            let top = s.max_lane(s.max(a, b));
            let old = (*row.ml)[0];
            let new = if top > old { top } else { old };
            (*row.ml)[0] = new;
            corr[t] = old - new;
            let new = s.splat(new);
            s.store(p[t].as_mut_ptr(), s.sub(a, new));
            s.store(p[t].as_mut_ptr().add(LANES), s.sub(b, new));
        }
        s.store(corr.as_mut_ptr(), math::exp(s, s.load(corr.as_ptr())));
        for (t, row) in rows[..M].iter().enumerate() {
            let a = math::exp(s, s.load(p[t].as_ptr()));
            let b = math::exp(s, s.load(p[t].as_ptr().add(LANES)));
            s.store(p[t].as_mut_ptr(), a);
            s.store(p[t].as_mut_ptr().add(LANES), b);
            (*row.ml)[1] = (*row.ml)[1].mul_add(corr[t], s.sum(s.add(a, b)));
        }
        // What all rows see, then each row's rest.
        let whole = hd / (2 * LANES) * (2 * LANES);
        let mut d = 0;
        while d < hd {
            if d < whole {
                weigh::<S, E, M, 2>(s, v.add(d), ldv, rows, d, LANES, &p, Some(&corr), 0..first);
                d += 2 * LANES;
            } else {
                weigh::<S, E, M, 1>(s, v.add(d), ldv, rows, d, LANES.min(hd - d), &p, Some(&corr), 0..first);
                d += LANES;
            }
        }
        for (t, row) in rows[..M].iter().enumerate() {
            if row.seen > first {
                for d in (0..hd).step_by(LANES) {
                    let (row, p) = (std::slice::from_ref(row), std::slice::from_ref(&p[t]));
                    weigh::<S, E, 1, 1>(s, v.add(d), ldv, row, d, LANES.min(hd - d), p, None, first..row[0].seen);
                }
            }
        }
    }
}

/// The unscaled scores of `M` rows with the page's 32 keys.
///
/// # Safety
/// `k` holds `[hd][32]` keys; the rows' `q` hold `hd` values.
#[inline(always)]
unsafe fn scores<S: Simd, E: Element, const M: usize>(
    s: S,
    k: *const E,
    rows: &[Row],
    hd: usize,
    out: &mut [[f32; PAGE]; M],
) {
    // The four chains run one after the other, so that their sums stay in registers for all rows.
    for chain in 0..4 {
        let mut acc = [[s.splat(0.0); 2]; M];
        // SAFETY: the caller's.
        unsafe {
            let mut d = chain;
            while d < hd {
                let a = E::load(s, k.add(d * PAGE), LANES);
                let b = E::load(s, k.add(d * PAGE + LANES), LANES);
                unroll!(8: T < M => {
                    let q = s.splat(*rows[T].q.add(d));
                    acc[T] = [s.fma(a, q, acc[T][0]), s.fma(b, q, acc[T][1])];
                });
                d += 4;
            }
            unroll!(8: T < M => {
                unroll!(2: H < 2 => {
                    let to = out[T].as_mut_ptr().add(H * LANES);
                    s.store(to, if chain == 0 { acc[T][H] } else { s.add(s.load(to), acc[T][H]) });
                });
            });
        }
    }
}

/// Adds the slots `slots` of `N` vectors of values, weighted, to `M` rows' sums at `d`, after multiplying those by
/// `corr` where it is given.
///
/// # Safety
/// `v` holds the slots' values from `d` on, `lanes` of them in the last vector.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the innermost loop: everything it reads, by name")]
unsafe fn weigh<S: Simd, E: Element, const M: usize, const N: usize>(
    s: S,
    v: *const E,
    ldv: usize,
    rows: &[Row],
    d: usize,
    lanes: usize,
    p: &[[f32; PAGE]],
    corr: Option<&[f32; LANES]>,
    slots: Range<usize>,
) {
    // SAFETY: the caller's; sums are padded to whole vectors.
    unsafe {
        let mut acc = [[s.splat(0.0); N]; M];
        unroll!(8: T < M => {
            unroll!(2: H < N => {
                let o = s.load(rows[T].o.add(d + H * LANES));
                acc[T][H] = match corr {
                    Some(corr) => s.mul(o, s.splat(corr[T])),
                    None => o,
                };
            });
        });
        for j in slots {
            let mut x = [s.splat(0.0); N];
            unroll!(2: H < N => {
                x[H] = E::load(s, v.add(j * ldv + H * LANES), if N == 1 { lanes } else { LANES });
            });
            unroll!(8: T < M => {
                let w = s.splat(p[T][j]);
                unroll!(2: H < N => { acc[T][H] = s.fma(w, x[H], acc[T][H]); });
            });
        }
        unroll!(8: T < M => {
            unroll!(2: H < N => { s.store(rows[T].o.add(d + H * LANES), acc[T][H]); });
        });
    }
}
