//! Plain Rust: the meaning of every operation, lane by lane.
//!
//! Operations are functions of their own, not inlined: a kernel unrolled to single lanes takes minutes to compile.

use super::Simd;
use half::{bf16, f16};

/// Needs nothing of the CPU.
#[derive(Clone, Copy)]
pub struct Portable;

type F = [f32; 16];
type I = [i32; 16];
type B = [u8; 64];

/// Methods that do one thing to every lane.
macro_rules! lanes {
    ($(fn $name:ident($($arg:ident: $t:ty),*) -> $ret:ty, $n:literal = $i:ident => $body:expr;)*) => {$(
        #[inline(never)]
        fn $name(self, $($arg: $t),*) -> $ret {
            let mut out = [Default::default(); $n];
            for $i in 0..$n { out[$i] = $body; }
            out
        }
    )*};
    ($(unsafe fn $name:ident($($arg:ident: $t:ty),*) -> $ret:ty, $n:literal = $i:ident => $body:expr;)*) => {$(
        #[inline(never)]
        unsafe fn $name(self, $($arg: $t),*) -> $ret {
            let mut out = [Default::default(); $n];
            // SAFETY: the caller vouches for the memory.
            for $i in 0..$n { out[$i] = unsafe { $body }; }
            out
        }
    )*};
}

/// Folds lane i with lane i + 8, then 4, 2 and 1.
#[inline(always)]
fn fold<T: Copy>(mut v: [T; 16], op: impl Fn(T, T) -> T) -> T {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            v[i] = op(v[i], v[i + half]);
        }
    }
    v[0]
}

impl Simd for Portable {
    type F = F;
    type I = I;
    type B = B;
    const TILE: usize = 1;

    lanes! {
        fn splat(v: f32) -> F, 16 = _i => v;
        fn add(a: F, b: F) -> F, 16 = i => a[i] + b[i];
        fn sub(a: F, b: F) -> F, 16 = i => a[i] - b[i];
        fn mul(a: F, b: F) -> F, 16 = i => a[i] * b[i];
        fn div(a: F, b: F) -> F, 16 = i => a[i] / b[i];
        fn fma(a: F, b: F, c: F) -> F, 16 = i => a[i].mul_add(b[i], c[i]);
        fn fnma(a: F, b: F, c: F) -> F, 16 = i => (-a[i]).mul_add(b[i], c[i]);
        fn max(a: F, b: F) -> F, 16 = i => if a[i] > b[i] { a[i] } else { b[i] };
        fn min(a: F, b: F) -> F, 16 = i => if a[i] < b[i] { a[i] } else { b[i] };
        fn select_lt(x: F, y: F, a: F, b: F) -> F, 16 = i => if x[i] < y[i] { a[i] } else { b[i] };
        fn keep(v: F, n: usize, fill: f32) -> F, 16 = i => if i < n { v[i] } else { fill };
        fn bits(v: F) -> I, 16 = i => v[i].to_bits() as i32;
        fn float_of_bits(v: I) -> F, 16 = i => f32::from_bits(v[i] as u32);
        fn round(v: F) -> I, 16 = i => v[i].round_ties_even() as i32;
        fn float(v: I) -> F, 16 = i => v[i] as f32;
        fn isplat(v: i32) -> I, 16 = _i => v;
        fn iadd(a: I, b: I) -> I, 16 = i => a[i].wrapping_add(b[i]);
        fn isub(a: I, b: I) -> I, 16 = i => a[i].wrapping_sub(b[i]);
        fn imul(a: I, b: I) -> I, 16 = i => a[i].wrapping_mul(b[i]);
        fn imax(a: I, b: I) -> I, 16 = i => a[i].max(b[i]);
        fn iand(a: I, b: I) -> I, 16 = i => a[i] & b[i];
        fn byte(a: B, j: usize) -> I, 16 = i => i32::from(a[4 * i + j]);
    }

    lanes! {
        unsafe fn load(p: *const f32) -> F, 16 = i => p.add(i).read_unaligned();
        unsafe fn load_n(p: *const f32, n: usize) -> F, 16 = i => if i < n { p.add(i).read_unaligned() } else { 0.0 };
        unsafe fn load_f16(p: *const u16) -> F, 16 = i => f16::from_bits(p.add(i).read_unaligned()).to_f32();
        unsafe fn load_f16_n(p: *const u16, n: usize) -> F, 16 = i =>
            if i < n { f16::from_bits(p.add(i).read_unaligned()).to_f32() } else { 0.0 };
        unsafe fn load_bf16(p: *const u16) -> F, 16 = i => bf16::from_bits(p.add(i).read_unaligned()).to_f32();
        unsafe fn iload(p: *const i32) -> I, 16 = i => p.add(i).read_unaligned();
        unsafe fn load_i8(p: *const i8) -> I, 16 = i => i32::from(*p.add(i));
        unsafe fn load_u8(p: *const u8) -> I, 16 = i => i32::from(*p.add(i));
    }

    #[inline(never)]
    unsafe fn store(self, p: *mut f32, v: F) {
        // SAFETY: the caller's. So below.
        unsafe { p.cast::<F>().write_unaligned(v) }
    }

    #[inline(never)]
    unsafe fn store_n(self, p: *mut f32, n: usize, v: F) {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(v.as_ptr(), p, n) }
    }

    #[inline(never)]
    unsafe fn store_f16(self, p: *mut u16, v: F) {
        for (i, x) in v.iter().enumerate() {
            // SAFETY: the caller's.
            unsafe { p.add(i).write_unaligned(f16::from_f32(*x).to_bits()) }
        }
    }

    #[inline(never)]
    unsafe fn istore(self, p: *mut i32, v: I) {
        // SAFETY: the caller's.
        unsafe { p.cast::<I>().write_unaligned(v) }
    }

    #[inline(never)]
    unsafe fn store_i8(self, p: *mut i8, v: I) {
        for (i, x) in v.iter().enumerate() {
            // SAFETY: the caller's.
            unsafe { *p.add(i) = *x as i8 }
        }
    }

    #[inline(never)]
    fn sum(self, v: F) -> f32 {
        fold(v, |a, b| a + b)
    }

    #[inline(never)]
    fn max_lane(self, v: F) -> f32 {
        fold(v, |a, b| if a > b { a } else { b })
    }

    #[inline(never)]
    fn imax_lane(self, a: I) -> i32 {
        fold(a, i32::max)
    }

    #[inline(never)]
    fn ishl<const N: u32>(self, a: I) -> I {
        a.map(|x| x << N)
    }

    #[inline(never)]
    fn isra<const N: u32>(self, a: I) -> I {
        a.map(|x| x >> N)
    }

    #[inline(never)]
    fn bsplat(self, v: u8) -> B {
        [v; 64]
    }

    #[inline(never)]
    unsafe fn bload(self, p: *const u8) -> B {
        // SAFETY: the caller's.
        unsafe { p.cast::<B>().read() }
    }

    #[inline(never)]
    unsafe fn bstore(self, p: *mut u8, v: B) {
        // SAFETY: the caller's.
        unsafe { p.cast::<B>().write(v) }
    }

    #[inline(never)]
    fn band(self, mut a: B, b: B) -> B {
        for i in 0..64 {
            a[i] &= b[i];
        }
        a
    }

    #[inline(never)]
    fn bor(self, mut a: B, b: B) -> B {
        for i in 0..64 {
            a[i] |= b[i];
        }
        a
    }

    #[inline(never)]
    fn bshl(self, mut a: B, n: u32) -> B {
        for u in a.chunks_exact_mut(2) {
            let v = u16::from_le_bytes([u[0], u[1]]) << n;
            u.copy_from_slice(&v.to_le_bytes());
        }
        a
    }

    #[inline(never)]
    fn bshr(self, mut a: B, n: u32) -> B {
        for u in a.chunks_exact_mut(2) {
            let v = u16::from_le_bytes([u[0], u[1]]) >> n;
            u.copy_from_slice(&v.to_le_bytes());
        }
        a
    }

    #[inline(never)]
    fn dot<const WIDE: bool>(self, mut acc: I, w: B, x: i32) -> I {
        let x = x.to_le_bytes();
        for i in 0..16 {
            for j in 0..4 {
                acc[i] += i32::from(w[4 * i + j]) * i32::from(x[j] as i8);
            }
        }
        acc
    }
}
