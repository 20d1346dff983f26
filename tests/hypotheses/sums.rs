//! Sums and values of too few terms or bits.

use super::Case;
use super::run::{product, product_of};
use super::wrong::{ATT, Wrong, case, every};
use greta_models::Arithmetic::{Exact, Int8};
use greta_trace::judge::Class::{DKernelMath, EPrecision};
use half::{bf16, f16};

pub fn cases() -> Vec<Case> {
    let both = |name, hypothesis, class, wrong: Wrong| {
        [("F32", Exact), ("Q4_K_M", Exact), ("Q4_K_M", Int8)]
            .map(|(mix, arith)| case(name, mix, arith, "blk.1.ffn_out", class, hypothesis, wrong))
    };
    const W: &str = "blk.1.ffn_down.weight";
    const X: &str = "blk.1.ffn_act";
    let mut all = Vec::new();
    all.extend(both("half-wave", "half the lanes (first 32 of 64)", DKernelMath, |s| {
        let w = s.weight(W);
        Some(product(&s.x(X), w.rows, |n, k| if k % 64 < 32 { w.at(n, k) } else { 0.0 }))
    }));
    all.extend(both("k-truncated", "first K' terms (K' = 384", DKernelMath, |s| {
        let w = s.weight(W);
        Some(product(&s.x(X), w.rows, |n, k| if k < 384 { w.at(n, k) } else { 0.0 }))
    }));
    all.extend(both("scale-uniform", "uniform scale (2.0", DKernelMath, |s| {
        every(|v| v * 2.0, s.rows("blk.1.ffn_out"))
    }));
    all.extend(both("bf16-truncate", "output truncated to bf16", EPrecision, |s| {
        every(|v| f32::from_bits(v.to_bits() & 0xffff_0000), s.rows("blk.1.ffn_out"))
    }));
    all.extend(both("bf16-round", "output rounded to bf16", EPrecision, |s| {
        every(|v| bf16::from_f32(v).to_f32(), s.rows("blk.1.ffn_out"))
    }));
    all.push(case("f16-accumulate", "F32", Exact, "blk.1.ffn_out", EPrecision, "f16 accumulation", |s| {
        let (w, x) = (s.weight(W), s.x(X));
        let one = |x: &Vec<f32>, n: usize| {
            (0..w.cols).fold(f16::ZERO, |a, k| f16::from_f32(a.to_f32() + w.at(n, k) * x[k])).to_f32()
        };
        Some(x.iter().map(|x| (0..w.rows).map(|n| one(x, n)).collect()).collect())
    }));
    all.push(case("f16-accumulate int8", "Q4_K_M", Int8, "blk.1.ffn_out", EPrecision, "f16 accumulation", |s| {
        let (w, x) = (s.weight(W), s.x(X));
        let dot = |x: &Vec<f32>, n: usize, b: usize| {
            (b..b + 32).map(|k| f64::from(w.at(n, k)) * f64::from(x[k])).sum::<f64>() as f32
        };
        let one = |x: &Vec<f32>, n: usize| {
            (0..w.cols).step_by(32).fold(f16::ZERO, |a, b| f16::from_f32(a.to_f32() + dot(x, n, b))).to_f32()
        };
        Some(x.iter().map(|x| (0..w.rows).map(|n| one(x, n)).collect()).collect())
    }));
    all.push(case("bf16-truncate norm", "F32", Exact, ATT, EPrecision, "output truncated to bf16", |s| {
        every(|v| f32::from_bits(v.to_bits() & 0xffff_0000), s.rows(ATT))
    }));
    all.push(case("f16-accumulate lanes", "F32", Exact, "blk.1.ffn_out", EPrecision, "f16 accumulation (16", |s| {
        let (w, x) = (s.weight(W), s.x(X));
        let one = |x: &Vec<f32>, n: usize| {
            let mut lanes = [0.0f32; 16];
            for k in 0..w.cols {
                lanes[k % 16] = half(lanes[k % 16] + w.at(n, k) * x[k]);
            }
            lanes.into_iter().reduce(|a, b| half(a + b)).unwrap_or(0.0)
        };
        Some(x.iter().map(|x| (0..w.rows).map(|n| one(x, n)).collect()).collect())
    }));
    all.push(case("f16-accumulate norm", "F32", Exact, ATT, EPrecision, "f16 accumulation (1 partial", |s| {
        let w = s.weight("blk.1.attn_norm.weight").values;
        let row = |x: &Vec<f32>| {
            let sum = x.iter().fold(0.0, |a, v| half(a + v * v));
            let inv = 1.0 / (sum / 256.0 + 1e-5).sqrt();
            x.iter().zip(&w).map(|(v, w)| v * inv * w).collect()
        };
        Some(s.rows("blk.0.out").iter().map(row).collect())
    }));
    all.push(case("f16 scores", "F32", Exact, "blk.1.attn", EPrecision, "f16 accumulation (scores, 1 partial", |s| {
        let (p, q) = (s.positions(), s.rows("blk.1.q_rope"));
        let (keys, values) = (s.cache("blk.1.k_cache"), s.cache("blk.1.v_cache"));
        let head = |t: usize, h: usize| {
            let base = h / 2 * 64;
            let dot = |j: usize| (0..64).fold(0.0, |a, i| half(a + q[t][h * 64 + i] * keys[j][base + i]));
            let weights: Vec<f32> = (0..=p[t]).map(|j| (dot(j) * 0.125).exp()).collect();
            let sum: f32 = weights.iter().sum();
            let value = |i: usize| weights.iter().zip(&values).map(|(w, v)| w * v[base + i]).sum::<f32>() / sum;
            (0..64).map(value).collect::<Vec<f32>>()
        };
        Some((0..q.len()).map(|t| (0..4).flat_map(|h| head(t, h)).collect()).collect())
    }));
    all.push(case(
        "operands bf16",
        "F32",
        Exact,
        "blk.1.ffn_out",
        EPrecision,
        "operands truncated to bf16 (both",
        |s| {
            let (w, x) = (s.weight(W), s.x(X));
            let cut = |v: f32| f32::from_bits(v.to_bits() & 0xffff_0000);
            Some(product_of(x.len(), w.rows, w.cols, |n, k| cut(w.at(n, k)), |t, k| cut(x[t][k])))
        },
    ));
    all
}

fn half(v: f32) -> f32 {
    f16::from_f32(v).to_f32()
}
