//! Kernels that clang compiled, against references on the host.

mod support;

use support::{Bench, compile};

/// A small generator; tests don't need more.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as u32
    }

    /// In [-1, 1) with few bits, so that f16 holds it.
    fn unit(&mut self) -> f32 {
        (self.next() % 256) as f32 / 128.0 - 1.0
    }
}

fn half(x: f32) -> u16 {
    half::f16::from_f32(x).to_bits()
}

fn full(x: u16) -> f32 {
    half::f16::from_bits(x).to_f32()
}

#[test]
fn rmsnorm() {
    let Some(p) = compile("basic.hip") else { return };
    let (rows, n) = (3usize, 700usize);
    let mut rng = Rng(1);
    let x: Vec<f32> = (0..rows * n).map(|_| rng.unit()).collect();
    let w: Vec<f32> = (0..n).map(|_| rng.unit()).collect();
    let mut b = Bench::new();
    b.u16s("x", &x.iter().map(|v| half(*v)).collect::<Vec<_>>());
    b.u16s("w", &w.iter().map(|v| half(*v)).collect::<Vec<_>>());
    let y = b.output("y", rows * n * 2);
    b.i32(n as i32);
    b.f32(1e-5);
    let counts = b.run(&p, "rmsnorm", rows as u32, 256).unwrap_or_else(|f| panic!("{f}"));
    assert_eq!((counts.workgroups, counts.waves), (3, 12));
    assert_eq!(counts.barrier, 12);
    for (r, row) in b.read_u16(y, rows * n).chunks(n).enumerate() {
        let xs = &x[r * n..][..n];
        let scale = 1.0 / (xs.iter().map(|v| v * v).sum::<f32>() / n as f32 + 1e-5).sqrt();
        for c in 0..n {
            let want = xs[c] * scale * w[c];
            assert!((full(row[c]) - want).abs() < 2e-3, "row {r} column {c}: {} {want}", full(row[c]));
        }
    }
}

/// A matrix product of small integers is exact however it is summed. A kernel of one step alone takes no `k`.
fn mfma(kernel: &str, m: usize, k: usize, takes_k: bool, convert: fn(f32) -> u16) {
    let Some(p) = compile("basic.hip") else { return };
    let mut rng = Rng(2);
    let mut matrix = || (0..m * k).map(|_| (rng.next() % 17) as f32 - 8.0).collect::<Vec<f32>>();
    let (a, bt) = (matrix(), matrix());
    let mut b = Bench::new();
    b.u16s("a", &a.iter().map(|v| convert(*v)).collect::<Vec<_>>());
    b.u16s("b", &bt.iter().map(|v| convert(*v)).collect::<Vec<_>>());
    let c = b.output("c", m * m * 4);
    if takes_k {
        b.i32(k as i32);
    }
    b.run(&p, kernel, 1, 64).unwrap_or_else(|f| panic!("{f}"));
    let got = b.read_f32(c, m * m);
    for i in 0..m {
        for j in 0..m {
            let want: f32 = (0..k).map(|q| a[i * k + q] * bt[j * k + q]).sum();
            assert_eq!(got[i * m + j], want, "{kernel} row {i} column {j}");
        }
    }
}

#[test]
fn mfma_f16_16() {
    mfma("mfma_tile", 16, 48, true, half);
}

#[test]
fn mfma_f16_32() {
    mfma("mfma32", 32, 24, true, half);
}

#[test]
fn mfma_bf16() {
    mfma("bf16_mfma", 16, 16, false, |x| (x.to_bits() >> 16) as u16);
}

#[test]
fn dot4_and_dpp_sum() {
    let Some(p) = compile("basic.hip") else { return };
    let (n, rows) = (150usize, 4usize);
    let mut rng = Rng(3);
    let mut ints = |n: usize| (0..n).map(|_| (rng.next() << 16 ^ rng.next()) as i32).collect::<Vec<_>>();
    let (x, w) = (ints(n), ints(n * rows));
    let mut b = Bench::new();
    b.i32s("x", &x);
    b.i32s("w", &w);
    let o = b.output("o", 4 * rows);
    b.i32(n as i32);
    b.run(&p, "dot4", rows as u32, 64).unwrap_or_else(|f| panic!("{f}"));
    for (r, got) in b.read_f32(o, rows).into_iter().enumerate() {
        let dot = |a: i32, b: i32| {
            (0..4).map(|q| i32::from((a >> (8 * q)) as i8) * i32::from((b >> (8 * q)) as i8)).sum::<i32>()
        };
        let want: i32 = (0..n).map(|i| dot(x[i], w[r * n + i])).sum();
        assert_eq!(got, want as f32, "row {r}");
    }
}

#[test]
fn softmax() {
    let Some(p) = compile("basic.hip") else { return };
    let mut rng = Rng(4);
    let x: Vec<f32> = (0..128).map(|_| rng.unit() * 8.0).collect();
    let mut b = Bench::new();
    b.f32s("x", &x);
    let y = b.output("y", 512);
    b.run(&p, "softmax64", 2, 64).unwrap_or_else(|f| panic!("{f}"));
    for (row, xs) in b.read_f32(y, 128).chunks(64).zip(x.chunks(64)) {
        let m = xs.iter().copied().fold(f32::MIN, f32::max);
        let s: f32 = xs.iter().map(|v| (v - m).exp()).sum();
        for (got, v) in row.iter().zip(xs) {
            assert!((got - (v - m).exp() / s).abs() < 1e-6);
        }
    }
}

#[test]
fn dpp_steps() {
    let Some(p) = compile("basic.hip") else { return };
    let x: Vec<f32> = (0..64).map(|i| i as f32 + 1.0).collect();
    let mut b = Bench::new();
    b.f32s("x", &x);
    let o = b.output("o", 8 * 64 * 4);
    b.run(&p, "dpptest", 1, 64).unwrap_or_else(|f| panic!("{f}"));
    let got = b.read_f32(o, 8 * 64);
    for l in 0..64usize {
        let at = |i: Option<usize>| i.map_or(0.0, |i| x[i]);
        let (row, r) = (l & !15, l & 15);
        assert_eq!(got[l], at((r >= 1).then(|| l.wrapping_sub(1))), "row_shr:1 lane {l}");
        assert_eq!(got[64 + l], at((r >= 8).then(|| l.wrapping_sub(8))), "row_shr:8 lane {l}");
        assert_eq!(got[128 + l], at((l / 16 % 2 == 1).then(|| row.wrapping_sub(1))), "row_bcast:15 lane {l}");
        assert_eq!(got[192 + l], at((l >= 32).then_some(31)), "row_bcast:31 lane {l}");
        assert_eq!(got[256 + l], at(Some(l ^ 1)), "quad_perm lane {l}");
        assert_eq!(got[320 + l], at(Some(row + (r + 8) % 16)), "row_ror:8 lane {l}");
        assert_eq!(got[384 + l], at(Some(row + 15 - r)), "row_mirror lane {l}");
        assert_eq!(got[448 + l], at(Some((l & !7) + 7 - (l & 7))), "row_half_mirror lane {l}");
    }
}

#[test]
fn atomics_and_ballot() {
    let Some(p) = compile("basic.hip") else { return };
    let x: Vec<f32> = (0..64).map(|i| if i % 3 == 0 { 2.0 } else { -1.0 }).collect();
    let mut b = Bench::new();
    b.f32s("x", &x);
    let acc = b.f32s("acc", &[0.0]);
    let m = b.output("m", 8);
    b.run(&p, "misc", 5, 64).unwrap_or_else(|f| panic!("{f}"));
    assert_eq!(b.read_f32(acc, 1), [5.0 * x.iter().sum::<f32>()]);
    let mask = (0..64).filter(|i| i % 3 == 0).fold(0u64, |m, i| m | 1 << i);
    assert_eq!(b.bytes(m, 8), mask.to_le_bytes());
}
