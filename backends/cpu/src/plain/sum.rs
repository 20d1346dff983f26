//! Sums of products, and the ways one goes wrong.
//!
//! Sixteen sums of the terms with k ≡ 0 … 15 (mod 16), each in ascending order from 0, every product and sum rounded to
//! f32; then the sixteen are added in order. Nothing but the length decides.

use super::flaw::Flaw;
use greta_backend::Fault;
use half::f16;

const LANES: usize = 16;

/// Σ a·b.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let (a, b) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.0.iter().zip(b.0) {
        for i in 0..LANES {
            sums[i] += a[i] * b[i];
        }
    }
    for ((sum, a), b) in sums.iter_mut().zip(a.1).zip(b.1) {
        *sum += a * b;
    }
    sums.iter().sum()
}

/// Σ a·b with the running sum in half precision.
fn dot_f16(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |sum, (a, b)| to_f16(sum + a * b))
}

/// Rounded to half precision.
pub(super) fn to_f16(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

/// The sum of products as a kernel with this fault makes it; terms left out are zeroed by [`mask`] beforehand.
pub(super) fn dot_of(flaw: Flaw) -> fn(&[f32], &[f32]) -> f32 {
    if flaw.is(Fault::F16Accumulate) { dot_f16 } else { dot }
}

/// Which of `n` terms a sum with this fault takes; `None`: all.
fn taken(flaw: Flaw, n: usize) -> Option<impl Fn(usize) -> bool> {
    let wave = 64.min(n).max(1);
    let middle = n / 32 / 2 * 32;
    let limit = flaw.param(n / 2);
    let fault = flaw.fault().filter(|f| matches!(f, Fault::HalfWave | Fault::KTruncated | Fault::BlockDropped))?;
    Some(move |k: usize| match fault {
        Fault::HalfWave => k % wave < wave.div_ceil(2),
        Fault::KTruncated => k < limit,
        _ => k < middle || k >= middle + 32,
    })
}

/// Zeroes the factors of terms that a sum with this fault leaves out.
pub(super) fn mask<T: Default>(flaw: Flaw, factors: &mut [T]) {
    if let Some(takes) = taken(flaw, factors.len()) {
        factors.iter_mut().enumerate().filter(|(k, _)| !takes(*k)).for_each(|(_, x)| *x = T::default());
    }
}
