//! AVX2 with FMA and F16C: a vector is two registers, lanes 0–7 and 8–15.

use super::{Kernel, Simd};
use std::arch::x86_64::*;

/// Proof of AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx2(());

/// Runs a kernel with these instructions.
///
/// # Safety
/// The CPU has every feature named.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn run<K: Kernel>(kernel: K) -> K::Out {
    kernel.run(Avx2(()))
}

type F2 = [__m256; 2];
type I2 = [__m256i; 2];

/// Methods that apply one intrinsic to both halves.
macro_rules! halves {
    ($(fn $name:ident($($arg:ident: $t:ty),*) -> $ret:ty = $h:ident => $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $t),*) -> $ret {
            // SAFETY: `self` is proof that the CPU has the instructions; none touches memory.
            unsafe { [{ let $h = 0; $body }, { let $h = 1; $body }] }
        }
    )*};
    ($(unsafe fn $name:ident($($arg:ident: $t:ty),*) -> $ret:ty = $h:ident => $body:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name(self, $($arg: $t),*) -> $ret {
            // SAFETY: `self` is proof of the instructions; the caller vouches for the memory.
            unsafe { [{ let $h = 0; $body }, { let $h = 1; $body }] }
        }
    )*};
}

/// Folds lane i with lane i+4, i+2 and i+1.
macro_rules! fold {
    ($h:expr, $op:ident, $op_ss:ident) => {{
        let q = $op(_mm256_castps256_ps128($h), _mm256_extractf128_ps::<1>($h));
        let d = $op(q, _mm_movehl_ps(q, q));
        _mm_cvtss_f32($op_ss(d, _mm_movehdup_ps(d)))
    }};
}

/// Ones in the lanes of half `h` that lie below `n`.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn mask(h: usize, n: usize) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32 - 8 * h as i32), lane)
    }
}

impl Simd for Avx2 {
    type F = F2;
    type I = I2;
    type B = I2;
    const TILE: usize = 4;

    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: a hint that touches nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    halves! {
        fn splat(v: f32) -> F2 = _h => _mm256_set1_ps(v);
        fn add(a: F2, b: F2) -> F2 = h => _mm256_add_ps(a[h], b[h]);
        fn sub(a: F2, b: F2) -> F2 = h => _mm256_sub_ps(a[h], b[h]);
        fn mul(a: F2, b: F2) -> F2 = h => _mm256_mul_ps(a[h], b[h]);
        fn div(a: F2, b: F2) -> F2 = h => _mm256_div_ps(a[h], b[h]);
        fn fma(a: F2, b: F2, c: F2) -> F2 = h => _mm256_fmadd_ps(a[h], b[h], c[h]);
        fn fnma(a: F2, b: F2, c: F2) -> F2 = h => _mm256_fnmadd_ps(a[h], b[h], c[h]);
        fn max(a: F2, b: F2) -> F2 = h => _mm256_max_ps(a[h], b[h]);
        fn min(a: F2, b: F2) -> F2 = h => _mm256_min_ps(a[h], b[h]);
        fn select_lt(x: F2, y: F2, a: F2, b: F2) -> F2 = h =>
            _mm256_blendv_ps(b[h], a[h], _mm256_cmp_ps::<_CMP_LT_OQ>(x[h], y[h]));
        fn keep(v: F2, n: usize, fill: f32) -> F2 = h =>
            _mm256_blendv_ps(_mm256_set1_ps(fill), v[h], _mm256_castsi256_ps(mask(h, n)));
        fn bits(v: F2) -> I2 = h => _mm256_castps_si256(v[h]);
        fn float_of_bits(v: I2) -> F2 = h => _mm256_castsi256_ps(v[h]);
        fn round(v: F2) -> I2 = h => _mm256_cvtps_epi32(v[h]);
        fn float(v: I2) -> F2 = h => _mm256_cvtepi32_ps(v[h]);
        fn isplat(v: i32) -> I2 = _h => _mm256_set1_epi32(v);
        fn iadd(a: I2, b: I2) -> I2 = h => _mm256_add_epi32(a[h], b[h]);
        fn isub(a: I2, b: I2) -> I2 = h => _mm256_sub_epi32(a[h], b[h]);
        fn imul(a: I2, b: I2) -> I2 = h => _mm256_mullo_epi32(a[h], b[h]);
        fn imax(a: I2, b: I2) -> I2 = h => _mm256_max_epi32(a[h], b[h]);
        fn iand(a: I2, b: I2) -> I2 = h => _mm256_and_si256(a[h], b[h]);
        fn bsplat(v: u8) -> I2 = _h => _mm256_set1_epi8(v as i8);
        fn band(a: I2, b: I2) -> I2 = h => _mm256_and_si256(a[h], b[h]);
        fn bor(a: I2, b: I2) -> I2 = h => _mm256_or_si256(a[h], b[h]);
        fn bshl(a: I2, n: u32) -> I2 = h => _mm256_sll_epi16(a[h], _mm_cvtsi32_si128(n as i32));
        fn bshr(a: I2, n: u32) -> I2 = h => _mm256_srl_epi16(a[h], _mm_cvtsi32_si128(n as i32));
        fn byte(a: I2, j: usize) -> I2 = h => _mm256_and_si256(
            _mm256_srl_epi32(a[h], _mm_cvtsi32_si128(8 * j as i32)), _mm256_set1_epi32(0xff));
    }

    halves! {
        unsafe fn load(p: *const f32) -> F2 = h => _mm256_loadu_ps(p.add(8 * h));
        unsafe fn load_n(p: *const f32, n: usize) -> F2 = h => _mm256_maskload_ps(p.wrapping_add(8 * h), mask(h, n));
        unsafe fn load_f16(p: *const u16) -> F2 = h => _mm256_cvtph_ps(_mm_loadu_si128(p.add(8 * h).cast()));
        unsafe fn load_bf16(p: *const u16) -> F2 = h => _mm256_castsi256_ps(_mm256_slli_epi32::<16>(
            _mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(8 * h).cast()))));
        unsafe fn iload(p: *const i32) -> I2 = h => _mm256_loadu_si256(p.add(8 * h).cast());
        unsafe fn load_i8(p: *const i8) -> I2 = h => _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.add(8 * h).cast()));
        unsafe fn load_u8(p: *const u8) -> I2 = h => _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.add(8 * h).cast()));
        unsafe fn bload(p: *const u8) -> I2 = h => _mm256_loadu_si256(p.add(32 * h).cast());
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: F2) {
        // SAFETY: `self` is proof of the instructions; the caller vouches for the memory. So below.
        unsafe {
            _mm256_storeu_ps(p, v[0]);
            _mm256_storeu_ps(p.add(8), v[1]);
        }
    }

    #[inline(always)]
    unsafe fn store_n(self, p: *mut f32, n: usize, v: F2) {
        // SAFETY: as above; a masked lane is not touched, so the second address may lie outside.
        unsafe {
            _mm256_maskstore_ps(p, mask(0, n), v[0]);
            _mm256_maskstore_ps(p.wrapping_add(8), mask(1, n), v[1]);
        }
    }

    #[inline(always)]
    unsafe fn load_f16_n(self, p: *const u16, n: usize) -> F2 {
        let mut t = [0u16; 16];
        // SAFETY: as above; AVX2 has no masked load of 16-bit units.
        unsafe {
            std::ptr::copy_nonoverlapping(p, t.as_mut_ptr(), n);
            self.load_f16(t.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16, v: F2) {
        // SAFETY: as above.
        unsafe {
            _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[0]));
            _mm_storeu_si128(p.add(8).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[1]));
        }
    }

    #[inline(always)]
    unsafe fn istore(self, p: *mut i32, v: I2) {
        // SAFETY: as above.
        unsafe {
            _mm256_storeu_si256(p.cast(), v[0]);
            _mm256_storeu_si256(p.add(8).cast(), v[1]);
        }
    }

    #[inline(always)]
    unsafe fn store_i8(self, p: *mut i8, v: I2) {
        let mut t = [0i32; 16];
        // SAFETY: as above.
        unsafe {
            self.istore(t.as_mut_ptr(), v);
            for (i, x) in t.iter().enumerate() {
                *p.add(i) = *x as i8;
            }
        }
    }

    #[inline(always)]
    unsafe fn bstore(self, p: *mut u8, v: I2) {
        // SAFETY: as above.
        unsafe {
            _mm256_storeu_si256(p.cast(), v[0]);
            _mm256_storeu_si256(p.add(32).cast(), v[1]);
        }
    }

    #[inline(always)]
    fn sum(self, v: F2) -> f32 {
        // SAFETY: `self` is proof of the instructions. So below.
        unsafe { fold!(_mm256_add_ps(v[0], v[1]), _mm_add_ps, _mm_add_ss) }
    }

    #[inline(always)]
    fn max_lane(self, v: F2) -> f32 {
        // SAFETY: as above.
        unsafe { fold!(_mm256_max_ps(v[0], v[1]), _mm_max_ps, _mm_max_ss) }
    }

    #[inline(always)]
    fn imax_lane(self, a: I2) -> i32 {
        // SAFETY: as above.
        unsafe {
            let h = _mm256_max_epi32(a[0], a[1]);
            let q = _mm_max_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256::<1>(h));
            let d = _mm_max_epi32(q, _mm_shuffle_epi32::<0b01_00_11_10>(q));
            _mm_cvtsi128_si32(_mm_max_epi32(d, _mm_shuffle_epi32::<0b10_11_00_01>(d)))
        }
    }

    #[inline(always)]
    fn ishl<const N: u32>(self, a: I2) -> I2 {
        // SAFETY: as above.
        unsafe {
            [_mm256_sll_epi32(a[0], _mm_cvtsi32_si128(N as i32)), _mm256_sll_epi32(a[1], _mm_cvtsi32_si128(N as i32))]
        }
    }

    #[inline(always)]
    fn isra<const N: u32>(self, a: I2) -> I2 {
        // SAFETY: as above.
        unsafe {
            [_mm256_sra_epi32(a[0], _mm_cvtsi32_si128(N as i32)), _mm256_sra_epi32(a[1], _mm_cvtsi32_si128(N as i32))]
        }
    }

    #[inline(always)]
    fn dot<const WIDE: bool>(self, acc: I2, w: I2, x: i32) -> I2 {
        let mut out = acc;
        // SAFETY: as above.
        unsafe {
            let x = _mm256_set1_epi32(x);
            for h in 0..2 {
                let sums = if WIDE {
                    // The byte multiply-add saturates at 16 bits, which codes of 128 and more would reach: so even
                    // and odd bytes are widened and multiplied apart.
                    let even = _mm256_madd_epi16(
                        _mm256_and_si256(w[h], _mm256_set1_epi16(0xff)),
                        _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x)),
                    );
                    let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(w[h]), _mm256_srai_epi16::<8>(x));
                    _mm256_add_epi32(even, odd)
                } else {
                    // Two products of at most 127 · 128 fit 16 bits.
                    _mm256_madd_epi16(_mm256_maddubs_epi16(w[h], x), _mm256_set1_epi16(1))
                };
                out[h] = _mm256_add_epi32(out[h], sums);
            }
        }
        out
    }
}
