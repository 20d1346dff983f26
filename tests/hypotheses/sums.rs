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
    all
}
