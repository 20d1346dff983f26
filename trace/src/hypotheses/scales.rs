//! How the scales of a block could be unpacked instead.

use super::packing::Blocks;
use greta_ops::DType;
use greta_ops::quant::{Format, Parts};
use std::rc::Rc;

/// What is done to a block's parts.
pub(super) type Change = Rc<dyn Fn(&Blocks<'_>, &mut Parts)>;

/// Twelve bytes of 6-bit scales and minima, read otherwise: `(scale, minimum)` of index `j`.
type Read = fn(&[u8], usize) -> (u8, u8);

/// Of Q4_K and Q5_K, with what is wrong about each.
const SIX_BIT: &[(&str, Read)] = &[
    ("first-half formula for all", |s, j| (s[j] & 63, s[j + 4] & 63)),
    ("scales and minima swapped", |s, j| {
        let (scale, min) = right(s, j);
        (min, scale)
    }),
    ("no upper bits", |s, j| if j < 4 { right(s, j) } else { (s[j + 4] & 15, s[j + 4] >> 4) }),
    ("upper bits swapped", |s, j| match j {
        0..4 => right(s, j),
        _ => ((s[j + 4] & 15) | ((s[j] >> 6) << 4), (s[j + 4] >> 4) | ((s[j - 4] >> 6) << 4)),
    }),
    ("low nibbles swapped", |s, j| match j {
        0..4 => right(s, j),
        _ => ((s[j + 4] >> 4) | ((s[j - 4] >> 6) << 4), (s[j + 4] & 15) | ((s[j] >> 6) << 4)),
    }),
    ("second-half scales and minima swapped", |s, j| {
        let (scale, min) = right(s, j);
        if j < 4 { (scale, min) } else { (min, scale) }
    }),
    ("upper bits of the first half kept", |s, j| if j < 4 { (s[j], s[j + 4]) } else { right(s, j) }),
    ("one stream of bits, scales first", |s, j| (stream(s, 6 * j), stream(s, 48 + 6 * j))),
    ("one stream of bits, pairs", |s, j| (stream(s, 12 * j), stream(s, 12 * j + 6))),
];

/// As the format has it.
fn right(s: &[u8], j: usize) -> (u8, u8) {
    match j {
        0..4 => (s[j] & 63, s[j + 4] & 63),
        _ => ((s[j + 4] & 15) | ((s[j - 4] >> 6) << 4), (s[j + 4] >> 4) | ((s[j] >> 6) << 4)),
    }
}

/// Six bits from bit `at` of little-endian bytes.
fn stream(s: &[u8], at: usize) -> u8 {
    let two = u16::from(s[at / 8]) | u16::from(s.get(at / 8 + 1).copied().unwrap_or(0)) << 8;
    (two >> (at % 8)) as u8 & 63
}

/// Wrong readings of a format's integer scales.
pub(super) fn packings(f: &'static Format) -> Vec<(String, Change)> {
    let mut out: Vec<(String, Change)> = Vec::new();
    if matches!(f.dtype, DType::Q4_K | DType::Q5_K) {
        for (detail, read) in SIX_BIT {
            let change = move |b: &Blocks<'_>, p: &mut Parts| {
                let s = &b.block(0)[4..16];
                for j in 0..8 {
                    let (scale, min) = read(s, j);
                    (p.scales[j], p.mins[j]) = (scale as i8, min);
                }
            };
            out.push(((*detail).into(), Rc::new(change)));
        }
    }
    if f.dtype == DType::Q2_K {
        let change = |_: &Blocks<'_>, p: &mut Parts| {
            for j in 0..16 {
                (p.scales[j], p.mins[j]) = (p.mins[j] as i8, p.scales[j] as u8);
            }
        };
        out.push(("scales and minima swapped".into(), Rc::new(change)));
    }
    if f.has_min {
        out.push(("d and dmin swapped".into(), Rc::new(|_, p| std::mem::swap(&mut p.d, &mut p.dmin))));
    }
    let n = f.dtype.block_len() / f.sub;
    type Order = fn(usize, usize) -> usize;
    let orders: [(&str, Order); 5] = [
        ("halves exchanged", |j, n| (j + n / 2) % n),
        ("pairs exchanged", |j, _| j ^ 1),
        ("reversed", |j, n| n - 1 - j),
        ("even ones first", |j, n| if j < n / 2 { 2 * j } else { 2 * (j - n / 2) + 1 }),
        ("halves interleaved", |j, n| j / 2 + j % 2 * (n / 2)),
    ];
    for (detail, order) in orders.into_iter().filter(|_| n > 1) {
        let scales_too = move |_: &Blocks<'_>, p: &mut Parts| {
            let old = (p.scales, p.mins);
            (0..n).for_each(|j| (p.scales[j], p.mins[j]) = (old.0[order(j, n)], old.1[order(j, n)]));
        };
        out.push((detail.into(), Rc::new(scales_too)));
        if f.has_min {
            let alone = move |_: &Blocks<'_>, p: &mut Parts| {
                let old = p.scales;
                (0..n).for_each(|j| p.scales[j] = old[order(j, n)]);
            };
            out.push((format!("{detail}, minima right"), Rc::new(alone)));
        }
    }
    out
}

/// Scales taken from a neighbour.
pub(super) fn neighbours(f: &'static Format) -> Vec<(String, Change)> {
    let mut out: Vec<(String, Change)> = Vec::new();
    for by in [-1isize, 1] {
        let header = move |b: &Blocks<'_>, p: &mut Parts| {
            let other = b.format.parts(b.block(by));
            (p.d, p.dmin) = (other.d, other.dmin);
        };
        out.push((format!("block {by:+}"), Rc::new(header)));
        if f.has_min {
            let d = move |b: &Blocks<'_>, p: &mut Parts| p.d = b.format.parts(b.block(by)).d;
            out.push((format!("block {by:+}, minimum right"), Rc::new(d)));
        }
        let n = f.dtype.block_len() / f.sub;
        if n == 1 {
            continue;
        }
        let whole = move |b: &Blocks<'_>, p: &mut Parts| {
            let other = b.format.parts(b.block(by));
            (p.d, p.dmin, p.scales, p.mins) = (other.d, other.dmin, other.scales, other.mins);
        };
        out.push((format!("all scales of block {by:+}"), Rc::new(whole)));
        for (detail, wraps) in [("", true), (", held at the ends", false)] {
            let sub = move |_: &Blocks<'_>, p: &mut Parts| {
                let (old, n) = ((p.scales, p.mins), n as isize);
                for j in 0..n {
                    let from = if wraps { (j + by).rem_euclid(n) } else { (j + by).clamp(0, n - 1) } as usize;
                    (p.scales[j as usize], p.mins[j as usize]) = (old.0[from], old.1[from]);
                }
            };
            out.push((format!("sub-block {by:+}{detail}"), Rc::new(sub)));
        }
    }
    out
}
