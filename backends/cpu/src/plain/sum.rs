//! Sums of products, and the ways one goes wrong.
//!
//! Sixteen sums of the terms with k ≡ 0 … 15 (mod 16), each in ascending order from 0, every product and sum rounded to
//! f32; then the sixteen are added in order. Nothing but the length decides.

use super::flaw::Flaw;
use greta_backend::Fault;

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

/// Rounded to half precision, to nearest, ties to even; without a branch, because half-precision sums of whole models
/// take seconds otherwise.
pub(super) fn to_f16(x: f32) -> f32 {
    let (bits, size) = (x.to_bits(), x.abs());
    // Below the normal halves steps are 2⁻²⁴, those of an f32 from 0.5 to 1; above the largest half lies infinity.
    let tiny = (x + 0.75) - 0.75;
    let normal = f32::from_bits(bits.wrapping_add(0xfff + (bits >> 13 & 1)) & !0x1fff);
    let finite = if size < 1.0 / 16384.0 { tiny } else { normal };
    if size < 65520.0 { finite } else { x * f32::INFINITY }
}

/// [`Fault::F16Accumulate`]'s sums of one row of weights with several rows of activations, `w.len()` values each.
pub(super) fn dots_f16(w: &[f32], x: &[f32], mut out: impl FnMut(usize, f32)) {
    const SIDE_BY_SIDE: usize = 8;
    for (i, x) in x.chunks(SIDE_BY_SIDE * w.len()).enumerate() {
        if x.len() < SIDE_BY_SIDE * w.len() {
            x.chunks_exact(w.len()).enumerate().for_each(|(j, x)| out(SIDE_BY_SIDE * i + j, dot_f16(w, x)));
            continue;
        }
        let rows: [&[f32]; SIDE_BY_SIDE] = std::array::from_fn(|j| &x[j * w.len()..][..w.len()]);
        let mut sums = [0f32; SIDE_BY_SIDE];
        for (k, w) in w.iter().enumerate() {
            for j in 0..SIDE_BY_SIDE {
                sums[j] = to_f16(sums[j] + w * rows[j][k]);
            }
        }
        sums.into_iter().enumerate().for_each(|(j, sum)| out(SIDE_BY_SIDE * i + j, sum));
    }
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
