//! The paged cache and attention over it.

use super::{U, bits, judge, levels, random};
use greta_cpu::kernels::attention::{Cache, Queries, attention};
use greta_cpu::kernels::cache::{PAGE, PageShape, Side, cache_read, cache_write};
use greta_cpu::simd::Level;
use greta_ops::DType;
use greta_ops::quant::Rng;

/// A cache filled with random rows, and the rows as stored.
struct Store {
    shape: PageShape,
    keys: Vec<Vec<u32>>,
    values: Vec<Vec<u32>>,
    rows: [Vec<Vec<f32>>; 2],
}

impl Store {
    fn new(dtype: DType, kv_heads: usize, head_dim: usize, tokens: usize, fill: u32, rng: &mut Rng) -> Store {
        let shape = PageShape::new(dtype, kv_heads, head_dim).unwrap();
        let pages = || vec![vec![fill; shape.bytes() / 4]; tokens.div_ceil(PAGE)];
        let mut store = Store { shape, keys: pages(), values: pages(), rows: [Vec::new(), Vec::new()] };
        for t in 0..tokens {
            for (i, side) in [Side::Keys, Side::Values].into_iter().enumerate() {
                let pages = if i == 0 { &mut store.keys } else { &mut store.values };
                let page = pages[t / PAGE].as_mut_ptr().cast::<u8>();
                let mut row = random(rng, kv_heads * head_dim);
                // SAFETY: the page is of the shape's size and this test's own.
                unsafe {
                    cache_write(Level::detect(), &shape, side, page, t % PAGE, &row);
                    cache_read(&shape, side, page, t % PAGE, &mut row);
                }
                store.rows[i].push(row);
            }
        }
        store
    }

    fn run(
        &self,
        level: Level,
        heads: usize,
        q: &[f32],
        positions: &[u32],
        tokens: std::ops::Range<usize>,
    ) -> Vec<f32> {
        let pointers = |pages: &[Vec<u32>]| pages.iter().map(|p| p.as_ptr().cast::<u8>()).collect::<Vec<_>>();
        let (keys, values) = (pointers(&self.keys), pointers(&self.values));
        let cache = Cache { shape: self.shape, keys: &keys, values: &values };
        let scale = 1.0 / (self.shape.head_dim() as f32).sqrt();
        let queries = Queries { q, heads, positions, scale };
        let mut out = vec![-7.0; q.len()];
        for kv_head in 0..self.shape.kv_heads() {
            let ldo = heads * self.shape.head_dim();
            // SAFETY: the pages are whole and `out` holds every row.
            unsafe { attention(level, &cache, &queries, tokens.clone(), kv_head, out.as_mut_ptr(), ldo) };
        }
        out
    }
}

/// kv heads, query heads, head dim, tokens in the cache, of which the last so many ask.
const ATTENTION: [(usize, usize, usize, usize, usize); 7] = [
    (3, 9, 64, 1, 1),
    (3, 9, 64, 70, 70),
    (3, 9, 64, 131, 1),
    (2, 8, 128, 100, 37),
    (1, 1, 8, 33, 33),
    (1, 5, 40, 65, 20),
    (2, 2, 256, 40, 9),
];

pub fn attention_rows() -> Vec<String> {
    let mut bad = Vec::new();
    let mut rng = Rng::new(8);
    for dtype in [DType::F16, DType::F32] {
        for (kv_heads, heads, hd, total, asking) in ATTENTION {
            let what = format!("attention {dtype} {heads}/{kv_heads} heads of {hd}, {asking} of {total} tokens");
            // Slots that were never written hold NaN.
            let store = Store::new(dtype, kv_heads, hd, total, u32::MAX, &mut rng);
            let q = random(&mut rng, asking * heads * hd);
            let positions: Vec<u32> = (0..asking).map(|t| (total - asking + t) as u32).collect();
            let got = levels(&what, &mut bad, |level| store.run(level, heads, &q, &positions, 0..asking));
            judge(&what, &mut bad, &got, |i| attention_reference(&store, heads, &q, &positions, i));
            for t in 0..asking {
                let alone = store.run(Level::detect(), heads, &q, &positions, t..t + 1);
                let row = t * heads * hd..(t + 1) * heads * hd;
                if bits(&alone[row.clone()]) != bits(&got[row]) {
                    bad.push(format!("{what}: token {t} alone differs"));
                }
            }
        }
    }
    bad
}

/// The softmax in f64. A score is off by at most (head_dim / 4 + 4) roundings of Σ|q k|, which makes every weight off
/// by a factor; the rest are roundings of the weighted sum.
fn attention_reference(store: &Store, heads: usize, q: &[f32], positions: &[u32], i: usize) -> (f64, f64) {
    let hd = store.shape.head_dim();
    let (t, h, d) = (i / (heads * hd), i / hd % heads, i % hd);
    let kv = h / (heads / store.shape.kv_heads()) * hd;
    let q = &q[(t * heads + h) * hd..][..hd];
    let scale = f64::from(1.0 / (hd as f32).sqrt());
    let n = positions[t] as usize + 1;
    let (mut scores, mut off) = (Vec::new(), 0f64);
    for row in &store.rows[0][..n] {
        let products = q.iter().zip(&row[kv..]).map(|(a, b)| f64::from(*a) * f64::from(*b));
        let (s, size) = products.fold((0.0, 0.0), |(s, a), p: f64| (s + p, a + p.abs()));
        scores.push(s * scale);
        off = off.max(size * scale * U * (hd as f64 / 4.0 + 4.0));
    }
    let max = scores.iter().fold(f64::MIN, |a, b| a.max(*b));
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let (mut y, mut size) = (0.0, 0.0);
    for (w, row) in weights.iter().zip(&store.rows[1]) {
        y += w / sum * f64::from(row[kv + d]);
        size += w / sum * f64::from(row[kv + d]).abs();
    }
    (y, size * (2.0 * off + U * (2.0 * n as f64 + 20.0)))
}

pub fn attention_later_slots() -> Vec<String> {
    let mut bad = Vec::new();
    let mut rng = Rng::new(9);
    // Later tokens of the same batch are NaN: earlier rows must not notice.
    let mut store = Store::new(DType::F32, 1, 16, 40, 0, &mut rng);
    let q = random(&mut rng, 40 * 3 * 16);
    let positions: Vec<u32> = (0..40).collect();
    let clean = store.run(Level::detect(), 3, &q, &positions, 0..40);
    let nan = vec![f32::NAN; 16];
    // SAFETY: the pages are of the shape's size and this test's own.
    unsafe {
        cache_write(Level::detect(), &store.shape, Side::Keys, store.keys[1].as_mut_ptr().cast(), 3, &nan);
        cache_write(Level::detect(), &store.shape, Side::Values, store.values[0].as_mut_ptr().cast(), 20, &nan);
    }
    let got = levels("NaN in slot 20", &mut bad, |level| store.run(level, 3, &q, &positions, 0..40));
    for (i, (a, b)) in got.iter().zip(clean).enumerate() {
        if (i / 48 >= 20) != a.is_nan() || (i / 48 < 20 && a.to_bits() != b.to_bits()) {
            bad.push(format!("token {}: {a}, without the NaN {b}", i / 48));
        }
    }
    bad
}

pub fn cache_rows() -> Vec<String> {
    let mut bad = Vec::new();
    let shape = PageShape::new(DType::F16, 2, 24).unwrap();
    let mut row: Vec<f32> = (0..48).map(|i| (i as f32 - 20.0) * 0.3).collect();
    row[..6].copy_from_slice(&[65520.0, 6e-8, 2049.0, 2051.0, -1e-9, f32::INFINITY]);
    for level in Level::available() {
        for side in [Side::Keys, Side::Values] {
            let mut page = vec![0u16; shape.bytes() / 2];
            let mut back = vec![0.0; 48];
            // SAFETY: the page is of the shape's size and this test's own.
            unsafe {
                cache_write(level, &shape, side, page.as_mut_ptr().cast(), 31, &row);
                cache_read(&shape, side, page.as_ptr().cast(), 31, &mut back);
            }
            let want: Vec<f32> = row.iter().map(|x| half::f16::from_f32(*x).to_f32()).collect();
            if back != want {
                bad.push(format!("{} {side:?}: {back:?}", level.name()));
            }
            if page.iter().filter(|b| **b != 0).count() > 48 {
                bad.push(format!("{} {side:?}: wrote more than a row", level.name()));
            }
        }
    }
    bad
}
