//! The CPU backend's kernels: each against an f64 reference with a derived bound, every instruction set against the
//! others bit for bit, and one row alone against the same row among many.

use greta_cpu::kernels::attention::{Cache, Queries, attention};
use greta_cpu::kernels::cache::{PAGE, PageShape, Side, cache_read, cache_write};
use greta_cpu::kernels::matmul_exact::matmul_exact;
use greta_cpu::kernels::matmul_int8::{Acts, matmul_int8};
use greta_cpu::kernels::panel::{Panels, panel_bytes, panel_count};
use greta_cpu::kernels::{add, quantize, repack, rmsnorm, rope, swiglu};
use greta_cpu::simd::Level;
use greta_ops::DType;
use greta_ops::quant::{self, Rng};
use libtest_mimic::{Failed, Trial};

/// Half an ulp of f32, relative.
const U: f64 = 1.0 / (1u64 << 24) as f64;

/// Every test of this file.
pub fn trials() -> Vec<Trial> {
    let tests: &[(&str, fn() -> Vec<String>)] = &[
        ("panels_unpack_exactly", panels_unpack_exactly),
        ("matmul_int8", int8),
        ("matmul_int8_nan_scale", int8_nan_scale),
        ("matmul_exact", exact),
        ("rmsnorm", rmsnorm_rows),
        ("quantize", quantize_blocks),
        ("swiglu", swiglu_values),
        ("add_and_rope", add_and_rope),
        ("attention", attention_rows),
        ("attention_ignores_later_slots", attention_later_slots),
        ("cache_rows", cache_rows),
    ];
    tests
        .iter()
        .map(|&(name, test)| {
            Trial::test(format!("kernels::{name}"), move || {
                let failures = test();
                if failures.is_empty() { Ok(()) } else { Err(Failed::from(failures.join("\n"))) }
            })
        })
        .collect()
}

const QUANTISED: [DType; 10] = [
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q8_0,
    DType::Q2_K,
    DType::Q3_K,
    DType::Q4_K,
    DType::Q5_K,
    DType::Q6_K,
];
const PLAIN: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// A random matrix: the file's bytes, its values, its panels.
struct Weights {
    dtype: DType,
    n: usize,
    k: usize,
    bytes: Vec<u8>,
    values: Vec<f32>,
    panels: Vec<u8>,
}

impl Weights {
    fn new(dtype: DType, n: usize, k: usize, rng: &mut Rng) -> Weights {
        let mut bytes = vec![0; n * dtype.row_bytes(k).unwrap()];
        quant::random_row(dtype, rng, 0.5, &mut bytes);
        Weights::from_bytes(dtype, n, k, bytes)
    }

    fn from_bytes(dtype: DType, n: usize, k: usize, bytes: Vec<u8>) -> Weights {
        let mut values = vec![0.0; n * k];
        quant::dequantize_row(dtype, &bytes, &mut values);
        let mut panels = vec![0xa5; panel_count(n) * panel_bytes(dtype, k).unwrap()];
        repack::repack(dtype, &bytes, n, k, 0..panel_count(n), &mut panels);
        Weights { dtype, n, k, bytes, values, panels }
    }

    fn view(&self) -> Panels<'_> {
        Panels::new(self.dtype, self.n, self.k, &self.panels).unwrap()
    }
}

/// The shapes that a type is tried with: (rows of weights, values in a row).
fn shapes(dtype: DType) -> Vec<(usize, usize)> {
    match dtype.block_len() {
        1 => vec![(16, 32), (33, 96), (5, 7), (17, 301), (40, 576)],
        32 => vec![(16, 32), (33, 96), (5, 64), (40, 576)],
        _ => vec![(16, 256), (33, 512), (5, 768)],
    }
}

fn random(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.normal()).collect()
}

/// Bits, with every NaN the same.
fn bits(v: &[f32]) -> Vec<u32> {
    v.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// Runs a computation at every level; all must agree with the portable one, whose result is returned.
fn levels(what: &str, bad: &mut Vec<String>, mut run: impl FnMut(Level) -> Vec<f32>) -> Vec<f32> {
    let reference = run(Level::PORTABLE);
    for level in Level::available() {
        let other = run(level);
        let differ = bits(&other).iter().zip(bits(&reference)).filter(|(a, b)| **a != *b).count();
        if differ > 0 {
            bad.push(format!("{what}: {} differs from portable in {differ} of {} values", level.name(), other.len()));
        }
    }
    reference
}

/// Reports values further from the reference than their bound.
fn judge(what: &str, bad: &mut Vec<String>, got: &[f32], want: impl Fn(usize) -> (f64, f64)) {
    let mut worst: Option<(f64, String)> = None;
    for (i, &y) in got.iter().enumerate() {
        let (r, bound) = want(i);
        let error = (f64::from(y) - r).abs();
        let fine = error <= bound || (r.is_nan() && y.is_nan());
        let ratio = if error.is_nan() { f64::INFINITY } else { error / bound };
        if !fine && worst.as_ref().is_none_or(|(w, _)| ratio > *w) {
            worst = Some((ratio, format!("{what}: value {i} is {y}, not {r} ± {bound:e}")));
        }
    }
    bad.extend(worst.map(|(_, text)| text));
}

fn panels_unpack_exactly() -> Vec<String> {
    let mut bad = Vec::new();
    let mut rng = Rng::new(1);
    for dtype in QUANTISED {
        for (n, k) in shapes(dtype) {
            let w = Weights::new(dtype, n, k, &mut rng);
            let (each, blocks) = (dtype.block_bytes(), k / dtype.block_len());
            for row in 0..n {
                for b in 0..blocks {
                    let want = (quant::format(dtype).unwrap().parts)(&w.bytes[(row * blocks + b) * each..][..each]);
                    let got = repack::panel_parts(dtype, w.view().panel(row / 16), row % 16, b).unwrap();
                    if got != want {
                        bad.push(format!("{dtype} [{n}, {k}] row {row} block {b}: not the file's parts"));
                    }
                }
            }
            let parts = repack::panel_parts(dtype, w.view().panel((n - 1) / 16), 15, 0);
            if n % 16 != 0 && parts.is_some_and(|p| p.d != 0.0) {
                bad.push(format!("{dtype} [{n}, {k}]: rows past the end are not zero"));
            }
        }
    }
    bad
}

/// Random quantised activations.
struct Codes {
    codes: Vec<i8>,
    scales: Vec<f32>,
    k: usize,
}

impl Codes {
    fn new(t: usize, k: usize, rng: &mut Rng) -> Codes {
        let (mut codes, mut scales) = (vec![0; t * k], vec![0.0; t * k / 32]);
        quantize::quantize(Level::detect(), &random(rng, t * k), &mut codes, &mut scales);
        // The extremes of the type, which no quantiser writes but the dots must bear.
        codes[0] = -128;
        codes[k / 2..k / 2 + 8].fill(-128);
        Codes { codes, scales, k }
    }

    fn view(&self) -> Acts<'_> {
        Acts { codes: &self.codes, scales: &self.scales, k: self.k }
    }

    fn rows(&self) -> usize {
        self.codes.len() / self.k
    }
}

fn run_int8(level: Level, w: &Weights, x: &Codes) -> Vec<f32> {
    let mut out = vec![-7.0; x.rows() * w.n];
    // SAFETY: `out` holds every row and column.
    unsafe { matmul_int8(level, &w.view(), 0..w.view().count(), &x.view(), 0..x.rows(), out.as_mut_ptr(), w.n) };
    out
}

fn int8() -> Vec<String> {
    let mut bad = Vec::new();
    let mut rng = Rng::new(2);
    for dtype in QUANTISED {
        for (n, k) in shapes(dtype) {
            let w = Weights::new(dtype, n, k, &mut rng);
            for t in [1, 3, 8, 33] {
                let what = format!("{dtype} [{n}, {k}] × {t}");
                let x = Codes::new(t, k, &mut rng);
                let got = levels(&what, &mut bad, |level| run_int8(level, &w, &x));
                judge(&what, &mut bad, &got, |i| int8_reference(&w, &x, i / n, i % n));
                for row in 0..t {
                    let mut alone = vec![-7.0; t * n];
                    // SAFETY: `alone` holds every row and column.
                    unsafe {
                        let (level, to) = (Level::detect(), alone.as_mut_ptr());
                        for p in 0..w.view().count() {
                            matmul_int8(level, &w.view(), p..p + 1, &x.view(), row..row + 1, to, n);
                        }
                    }
                    let (before, rest) = alone.split_at(row * n);
                    if bits(&rest[..n]) != bits(&got[row * n..][..n]) {
                        bad.push(format!("{what}: row {row} alone differs"));
                    }
                    if before.iter().chain(&rest[n..]).any(|&v| v != -7.0) {
                        bad.push(format!("{what}: row {row} alone wrote elsewhere"));
                    }
                }
            }
        }
    }
    bad
}

/// The f64 dot and its bound: per block at most four roundings of each product, then one for each of the K/32 sums
/// (twice where there are minima).
fn int8_reference(w: &Weights, x: &Codes, t: usize, j: usize) -> (f64, f64) {
    let format = quant::format(w.dtype).unwrap();
    let (len, each) = (w.dtype.block_len(), w.dtype.block_bytes());
    let (mut sum, mut size) = (0.0, 0.0);
    for b in 0..w.k / len {
        let parts = (format.parts)(&w.bytes[(j * (w.k / len) + b) * each..][..each]);
        for sub in 0..len / format.sub {
            let at = t * w.k + b * len + sub * format.sub;
            let scale = f64::from(x.scales[at / 32]);
            let (mut dot, mut all) = (0i64, 0i64);
            for i in 0..format.sub {
                let code = i64::from(x.codes[at + i]);
                dot += (i64::from(parts.codes[sub * format.sub + i]) - i64::from(format.offset)) * code;
                all += code;
            }
            let product = f64::from(parts.d) * f64::from(parts.scales[sub]) * dot as f64 * scale;
            let min = f64::from(parts.dmin) * f64::from(parts.mins[sub]) * all as f64 * scale;
            let min = if format.has_min { min } else { 0.0 };
            sum += product - min;
            size += product.abs() + min.abs();
        }
    }
    (sum, size * U * (4.0 + 2.0 * (w.k / 32) as f64))
}

fn int8_nan_scale() -> Vec<String> {
    let mut bad = Vec::new();
    let mut rng = Rng::new(3);
    for dtype in QUANTISED {
        let w = Weights::new(dtype, 20, 512, &mut rng);
        let mut x = Codes::new(9, 512, &mut rng);
        let clean = run_int8(Level::detect(), &w, &x);
        x.scales[5 * 16 + 3] = f32::NAN;
        let got = levels(&dtype.to_string(), &mut bad, |level| run_int8(level, &w, &x));
        for (i, (y, c)) in got.iter().zip(clean).enumerate() {
            if (i / 20 == 5) != y.is_nan() || (i / 20 != 5 && y.to_bits() != c.to_bits()) {
                bad.push(format!("{dtype}: value {i} is {y}"));
            }
        }
    }
    bad
}

fn run_exact(level: Level, w: &Weights, x: &[f32], rows: std::ops::Range<usize>) -> Vec<f32> {
    let mut out = vec![-7.0; rows.end * w.n];
    // SAFETY: `out` holds every row and column.
    unsafe { matmul_exact(level, &w.view(), 0..w.view().count(), x, rows, out.as_mut_ptr(), w.n) };
    out
}

fn exact() -> Vec<String> {
    let mut bad = Vec::new();
    let mut rng = Rng::new(4);
    for dtype in QUANTISED.into_iter().chain(PLAIN) {
        for (n, k) in shapes(dtype) {
            let w = Weights::new(dtype, n, k, &mut rng);
            for t in [1, 3, 8, 33] {
                let what = format!("{dtype} [{n}, {k}] × {t}");
                let x = random(&mut rng, t * k);
                let got = levels(&what, &mut bad, |level| run_exact(level, &w, &x, 0..t));
                judge(&what, &mut bad, &got, |i| {
                    let terms = w.values[i % n * k..][..k].iter().zip(&x[i / n * k..][..k]);
                    let products = terms.map(|(a, b)| f64::from(*a) * f64::from(*b));
                    let (sum, size) = products.fold((0.0, 0.0), |(s, a), p: f64| (s + p, a + p.abs()));
                    (sum, size * U * (k as f64 / 4.0 + 3.0))
                });
                for row in 0..t {
                    let alone = run_exact(Level::detect(), &w, &x, row..row + 1);
                    if bits(&alone[row * n..]) != bits(&got[row * n..][..n]) {
                        bad.push(format!("{what}: row {row} alone differs"));
                    }
                }
                // Unit rows read single weights: the dequantised bits themselves.
                let mut unit = vec![0.0; k];
                unit[k - 1] = 1.0;
                let got = run_exact(Level::detect(), &w, &unit, 0..1);
                if got.iter().enumerate().any(|(j, y)| *y != w.values[j * k + k - 1]) {
                    bad.push(format!("{what}: a weight is not as dequantised"));
                }
            }
        }
    }
    bad
}

fn rmsnorm_rows() -> Vec<String> {
    let mut bad = Vec::new();
    let mut rng = Rng::new(5);
    for n in [1, 15, 16, 33, 576, 4096] {
        let (x, w) = (random(&mut rng, n), random(&mut rng, n));
        let what = format!("rmsnorm of {n}");
        let got = levels(&what, &mut bad, |level| {
            let mut out = vec![0.0; n];
            rmsnorm::rmsnorm(level, &x, &w, 1e-5, &mut out);
            out
        });
        let ss: f64 = x.iter().map(|v| f64::from(*v).powi(2)).sum();
        let inv = 1.0 / (ss / n as f64 + f64::from(1e-5f32)).sqrt();
        judge(&what, &mut bad, &got, |i| {
            let y = f64::from(x[i]) * inv * f64::from(w[i]);
            (y, y.abs() * U * (n as f64 / 16.0 + 10.0))
        });
    }
    bad
}

fn quantize_blocks() -> Vec<String> {
    let mut bad = Vec::new();
    let mut rng = Rng::new(6);
    let mut x = random(&mut rng, 64 * 32);
    for (b, size) in [1e-30f32, 1e-38, 1e-41, 1e30, 3e38].into_iter().enumerate() {
        x[b * 32..][..32].iter_mut().for_each(|v| *v = (*v * size).clamp(f32::MIN, f32::MAX));
    }
    x[5 * 32..][..32].fill(0.0);
    x[6 * 32 + 7] = f32::NAN;
    x[7 * 32 + 31] = f32::NEG_INFINITY;
    for (i, v) in x[8 * 32..][..32].iter_mut().enumerate() {
        // 127 at the end makes the scale 1, so that halves are ties.
        *v = if i == 31 { 127.0 } else { i as f32 - 15.5 };
    }
    let got = levels("quantize", &mut bad, |level| {
        let (mut codes, mut scales) = (vec![1i8; x.len()], vec![1.0; x.len() / 32]);
        quantize::quantize(level, &x, &mut codes, &mut scales);
        codes.iter().map(|c| f32::from(*c)).chain(scales).collect()
    });
    let (codes, scales) = got.split_at(x.len());
    for (b, (x, codes)) in x.chunks(32).zip(codes.chunks(32)).enumerate() {
        let amax = x.iter().fold(0.0, |a: f32, v| if v.abs() > a || v.is_nan() { v.abs() } else { a });
        if !amax.is_finite() {
            if !scales[b].is_nan() || codes.iter().any(|c| *c != 0.0) {
                bad.push(format!("block {b} hides that it is not finite"));
            }
            continue;
        }
        if scales[b] != amax / 127.0 {
            bad.push(format!("block {b}: scale {} for {amax}", scales[b]));
        }
        for (v, c) in x.iter().zip(codes) {
            let exact = if amax == 0.0 { 0.0 } else { f64::from(*v) * 127.0 / f64::from(amax) };
            if (exact - f64::from(*c)).abs() > 0.5 + 127.0 * 3.0 * U || c.abs() > 127.0 {
                bad.push(format!("block {b}: {v} became {c}, not {exact}"));
            }
        }
    }
    let ties: Vec<f32> = codes[8 * 32..][..31].to_vec();
    if ties.iter().any(|c| c % 2.0 != 0.0) {
        bad.push(format!("ties do not go to even: {ties:?}"));
    }
    bad
}

fn swiglu_values() -> Vec<String> {
    let mut bad = Vec::new();
    let mut gate: Vec<f32> = (0..400_000).map(|i| (i as f32 - 200_000.0) * 5e-4).collect();
    gate.extend([f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.0, -0.0, 1e-40, -1e-40, f32::MAX, f32::MIN, -300.0]);
    let up = vec![1.0; gate.len()];
    let got = levels("swiglu", &mut bad, |level| {
        let mut out = vec![0.0; gate.len()];
        swiglu::swiglu(level, &gate, &up, &mut out);
        out
    });
    judge("swiglu", &mut bad, &got, |i| {
        let g = f64::from(gate[i]);
        let y = if g == f64::NEG_INFINITY { 0.0 } else { g / (1.0 + (-g).exp()) };
        if y.is_infinite() {
            return (f64::NAN, if got[i] == f32::INFINITY { f64::INFINITY } else { 0.0 });
        }
        // One ulp of a denormal where the factor e^g already is one, |g| times.
        (y, y.abs() * U * 8.0 + g.abs().min(120.0) * f64::from(f32::from_bits(1)))
    });
    bad.retain(|text| !text.contains("value 400000 is inf"));
    bad
}

fn add_and_rope() -> Vec<String> {
    let mut bad = Vec::new();
    let mut rng = Rng::new(7);
    let (a, b) = (random(&mut rng, 1001), random(&mut rng, 1001));
    let got = levels("add", &mut bad, |level| {
        let mut out = vec![0.0; a.len()];
        add::add(level, &a, &b, &mut out);
        out
    });
    judge("add", &mut bad, &got, |i| (f64::from(a[i] + b[i]), 0.0));
    for (head_dim, half, adjacent) in [(64, 32, true), (64, 32, false), (40, 12, true), (8, 4, false)] {
        let what = format!("rope of {half} pairs of {head_dim}, adjacent {adjacent}");
        let row = random(&mut rng, 3 * head_dim);
        let (sin, cos): (Vec<f32>, Vec<f32>) = (0..half).map(|i| (i as f32 * 0.3).sin_cos()).unzip();
        let got = levels(&what, &mut bad, |level| {
            let mut row = row.clone();
            rope::rope(level, &mut row, head_dim, &cos, &sin, adjacent);
            row
        });
        judge(&what, &mut bad, &got, |i| {
            let (head, d) = (i / head_dim * head_dim, i % head_dim);
            if d >= 2 * half {
                return (f64::from(row[i]), 0.0);
            }
            let (pair, second) = if adjacent { (d / 2, d % 2 == 1) } else { (d % half, d >= half) };
            let (first, last) = if adjacent { (2 * pair, 2 * pair + 1) } else { (pair, pair + half) };
            let (x, y) = (f64::from(row[head + first]), f64::from(row[head + last]));
            let (c, s) = (f64::from(cos[pair]), f64::from(sin[pair]));
            let value = if second { x * s + y * c } else { x * c - y * s };
            (value, 2.0 * U * ((x * c).abs() + (y * s).abs() + (x * s).abs() + (y * c).abs()))
        });
    }
    bad
}

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

fn attention_rows() -> Vec<String> {
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

fn attention_later_slots() -> Vec<String> {
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

fn cache_rows() -> Vec<String> {
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
