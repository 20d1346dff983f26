//! Panels and the two matmuls over them.

use super::{U, bits, judge, levels, random};
use greta_cpu::kernels::matmul_exact::matmul_exact;
use greta_cpu::kernels::matmul_int8::{Acts, matmul_int8};
use greta_cpu::kernels::panel::{Panels, panel_bytes, panel_count};
use greta_cpu::kernels::{quantize, repack};
use greta_cpu::simd::Level;
use greta_ops::DType;
use greta_ops::quant::{self, Rng};

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

pub fn panels_unpack_exactly() -> Vec<String> {
    let mut bad = Vec::new();
    let mut rng = Rng::new(1);
    for dtype in QUANTISED {
        for (n, k) in shapes(dtype) {
            let w = Weights::new(dtype, n, k, &mut rng);
            let (each, blocks) = (dtype.block_bytes(), k / dtype.block_len());
            for row in 0..n {
                for b in 0..blocks {
                    let want = quant::format(dtype).unwrap().parts(&w.bytes[(row * blocks + b) * each..][..each]);
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

pub fn int8() -> Vec<String> {
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
        let parts = format.parts(&w.bytes[(j * (w.k / len) + b) * each..][..each]);
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

pub fn int8_nan_scale() -> Vec<String> {
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

pub fn exact() -> Vec<String> {
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
