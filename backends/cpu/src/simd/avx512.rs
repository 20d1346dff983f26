//! AVX-512 with VNNI: a vector is one register.

use super::{Kernel, Simd};
use std::arch::x86_64::*;

/// Proof of AVX-512 F, BW, DQ, VL and VNNI (with AVX2, FMA and F16C beneath).
#[derive(Clone, Copy)]
pub struct Avx512(());

/// Runs a kernel with these instructions.
///
/// # Safety
/// The CPU has every feature named.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c,bmi1,bmi2,popcnt")]
pub unsafe fn run<K: Kernel>(kernel: K) -> K::Out {
    kernel.run(Avx512(()))
}

/// Methods that are one expression of intrinsics.
macro_rules! ops {
    ($(fn $name:ident($($arg:ident: $t:ty),*) -> $ret:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $t),*) -> $ret {
            // SAFETY: `self` is proof that the CPU has the instructions; none touches memory.
            unsafe { $body }
        }
    )*};
    ($(unsafe fn $name:ident($($arg:ident: $t:ty),*) -> $ret:ty = $body:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name(self, $($arg: $t),*) -> $ret {
            // SAFETY: `self` is proof of the instructions; the caller vouches for the memory.
            unsafe { $body }
        }
    )*};
}

/// The first `n` lanes.
#[inline(always)]
fn mask(n: usize) -> u16 {
    ((1u32 << n) - 1) as u16
}

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type B = __m512i;
    const TILE: usize = 16;

    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: a hint that touches nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    ops! {
        fn splat(v: f32) -> __m512 = _mm512_set1_ps(v);
        fn add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        fn sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        fn mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        fn div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        fn fnma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fnmadd_ps(a, b, c);
        fn max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        fn min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        fn select_lt(x: __m512, y: __m512, a: __m512, b: __m512) -> __m512 =
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, y), b, a);
        fn keep(v: __m512, n: usize, fill: f32) -> __m512 =
            _mm512_mask_blend_ps(mask(n), _mm512_set1_ps(fill), v);
        fn sum(v: __m512) -> f32 = {
            let h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps::<1>(h));
            let d = _mm_add_ps(q, _mm_movehl_ps(q, q));
            _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)))
        };
        fn max_lane(v: __m512) -> f32 = {
            let h = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps::<1>(h));
            let d = _mm_max_ps(q, _mm_movehl_ps(q, q));
            _mm_cvtss_f32(_mm_max_ss(d, _mm_movehdup_ps(d)))
        };
        fn bits(v: __m512) -> __m512i = _mm512_castps_si512(v);
        fn float_of_bits(v: __m512i) -> __m512 = _mm512_castsi512_ps(v);
        fn round(v: __m512) -> __m512i = _mm512_cvtps_epi32(v);
        fn float(v: __m512i) -> __m512 = _mm512_cvtepi32_ps(v);
        fn isplat(v: i32) -> __m512i = _mm512_set1_epi32(v);
        fn iadd(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
        fn isub(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi32(a, b);
        fn imul(a: __m512i, b: __m512i) -> __m512i = _mm512_mullo_epi32(a, b);
        fn imax(a: __m512i, b: __m512i) -> __m512i = _mm512_max_epi32(a, b);
        fn iand(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        fn imax_lane(a: __m512i) -> i32 = _mm512_reduce_max_epi32(a);
        fn bsplat(v: u8) -> __m512i = _mm512_set1_epi8(v as i8);
        fn band(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        fn bor(a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
        fn bshl(a: __m512i, n: u32) -> __m512i = match n {
            0 => a,
            1 => _mm512_slli_epi16::<1>(a),
            2 => _mm512_slli_epi16::<2>(a),
            3 => _mm512_slli_epi16::<3>(a),
            4 => _mm512_slli_epi16::<4>(a),
            _ => _mm512_sll_epi16(a, _mm_cvtsi32_si128(n as i32)),
        };
        fn bshr(a: __m512i, n: u32) -> __m512i = match n {
            0 => a,
            1 => _mm512_srli_epi16::<1>(a),
            2 => _mm512_srli_epi16::<2>(a),
            3 => _mm512_srli_epi16::<3>(a),
            4 => _mm512_srli_epi16::<4>(a),
            _ => _mm512_srl_epi16(a, _mm_cvtsi32_si128(n as i32)),
        };
        fn byte(a: __m512i, j: usize) -> __m512i = match j {
            0 => _mm512_and_si512(a, _mm512_set1_epi32(0xff)),
            1 => _mm512_and_si512(_mm512_srli_epi32::<8>(a), _mm512_set1_epi32(0xff)),
            2 => _mm512_and_si512(_mm512_srli_epi32::<16>(a), _mm512_set1_epi32(0xff)),
            _ => _mm512_srli_epi32::<24>(a),
        };
    }

    ops! {
        unsafe fn load(p: *const f32) -> __m512 = _mm512_loadu_ps(p);
        unsafe fn store(p: *mut f32, v: __m512) -> () = _mm512_storeu_ps(p, v);
        unsafe fn load_n(p: *const f32, n: usize) -> __m512 = _mm512_maskz_loadu_ps(mask(n), p);
        unsafe fn store_n(p: *mut f32, n: usize, v: __m512) -> () = _mm512_mask_storeu_ps(p, mask(n), v);
        unsafe fn load_f16(p: *const u16) -> __m512 = _mm512_cvtph_ps(_mm256_loadu_si256(p.cast()));
        unsafe fn load_f16_n(p: *const u16, n: usize) -> __m512 =
            _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask(n), p.cast()));
        unsafe fn store_f16(p: *mut u16, v: __m512) -> () =
            _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v));
        unsafe fn load_bf16(p: *const u16) -> __m512 =
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()))));
        unsafe fn iload(p: *const i32) -> __m512i = _mm512_loadu_si512(p.cast());
        unsafe fn istore(p: *mut i32, v: __m512i) -> () = _mm512_storeu_si512(p.cast(), v);
        unsafe fn load_i8(p: *const i8) -> __m512i = _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()));
        unsafe fn load_u8(p: *const u8) -> __m512i = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()));
        unsafe fn store_i8(p: *mut i8, v: __m512i) -> () = _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(v));
        unsafe fn bload(p: *const u8) -> __m512i = _mm512_loadu_si512(p.cast());
        unsafe fn bstore(p: *mut u8, v: __m512i) -> () = _mm512_storeu_si512(p.cast(), v);
    }

    #[inline(always)]
    fn ishl<const N: u32>(self, a: __m512i) -> __m512i {
        // SAFETY: `self` is proof of the instruction.
        unsafe { _mm512_slli_epi32::<N>(a) }
    }

    #[inline(always)]
    fn isra<const N: u32>(self, a: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_srai_epi32::<N>(a) }
    }

    #[inline(always)]
    fn dot<const WIDE: bool>(self, acc: __m512i, w: __m512i, x: i32) -> __m512i {
        // SAFETY: as above. The instruction adds four 16-bit products to 32 bits without saturation.
        unsafe { _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(x)) }
    }
}
