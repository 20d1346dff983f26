//! Vectors of sixteen lanes, written once for three instruction sets.
//!
//! A kernel is a struct that implements [`Kernel`]: its one generic `run` is compiled for AVX-512, AVX2 and plain
//! Rust, and [`Level::run`] picks one at run time. Every operation of [`Simd`] has one meaning to the last bit (NaN
//! payloads aside), so a kernel's result does not depend on the level. That is what makes the portable level a
//! reference for the other two, and it is tested.
//!
//! Everything a kernel calls must be `#[inline(always)]` down to the trait's methods: only then does the code end up
//! inside the one function that is compiled with the instruction set. For the same reason kernels hold no closures.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod math;
mod portable;

/// Lanes of a vector of [`Simd::F`] or [`Simd::I`].
pub const LANES: usize = 16;

/// The operations of one instruction set. A value of the type is proof that this CPU has it.
pub trait Simd: Copy + Send + Sync + 'static {
    /// 16 f32 lanes.
    type F: Copy;
    /// 16 i32 lanes.
    type I: Copy;
    /// 64 bytes: four to each i32 lane, in memory order.
    type B: Copy;
    /// Token rows that a matmul tile holds in registers: 16, 8, 4, 2 or 1.
    const TILE: usize;

    /// Asks for the cache line at `p`, which need not be readable.
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        let _ = p;
    }

    /// All lanes `v`.
    fn splat(self, v: f32) -> Self::F;
    /// # Safety
    /// `p` is readable for 16 values.
    unsafe fn load(self, p: *const f32) -> Self::F;
    /// # Safety
    /// `p` is writable for 16 values.
    unsafe fn store(self, p: *mut f32, v: Self::F);
    /// The first `n` lanes from memory, the others zero.
    /// # Safety
    /// `p` is readable for `n` ≤ 16 values.
    unsafe fn load_n(self, p: *const f32, n: usize) -> Self::F;
    /// The first `n` lanes to memory.
    /// # Safety
    /// `p` is writable for `n` ≤ 16 values.
    unsafe fn store_n(self, p: *mut f32, n: usize, v: Self::F);
    /// # Safety
    /// `p` is readable for 16 halves.
    unsafe fn load_f16(self, p: *const u16) -> Self::F;
    /// # Safety
    /// `p` is readable for `n` ≤ 16 halves.
    unsafe fn load_f16_n(self, p: *const u16, n: usize) -> Self::F;
    /// Rounds to nearest, ties to even.
    /// # Safety
    /// `p` is writable for 16 halves.
    unsafe fn store_f16(self, p: *mut u16, v: Self::F);
    /// # Safety
    /// `p` is readable for 16 bfloat16 values.
    unsafe fn load_bf16(self, p: *const u16) -> Self::F;

    /// a + b
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// a − b
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// a · b
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// a / b, correctly rounded.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// a · b + c, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// c − a · b, rounded once.
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a > b ? a : b`: `b` where either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a < b ? a : b`: `b` where either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `x < y ? a : b`
    fn select_lt(self, x: Self::F, y: Self::F, a: Self::F, b: Self::F) -> Self::F;
    /// The first `n` lanes of `v`, the others `fill`.
    fn keep(self, v: Self::F, n: usize, fill: f32) -> Self::F;
    /// The sum of the lanes, folded by halves: lane i + lane i+8, then +4, +2, +1.
    fn sum(self, v: Self::F) -> f32;
    /// The largest lane, folded by halves with the meaning of [`Simd::max`].
    fn max_lane(self, v: Self::F) -> f32;

    /// The lanes' bits.
    fn bits(self, v: Self::F) -> Self::I;
    /// The float with these bits.
    fn float_of_bits(self, v: Self::I) -> Self::F;
    /// Converts to integer, ties to even. The lanes are in the range of i32.
    fn round(self, v: Self::F) -> Self::I;
    /// Converts to float, ties to even.
    fn float(self, v: Self::I) -> Self::F;

    /// All lanes `v`.
    fn isplat(self, v: i32) -> Self::I;
    /// # Safety
    /// `p` is readable for 16 values.
    unsafe fn iload(self, p: *const i32) -> Self::I;
    /// # Safety
    /// `p` is writable for 16 values.
    unsafe fn istore(self, p: *mut i32, v: Self::I);
    /// Sixteen signed bytes, widened.
    /// # Safety
    /// `p` is readable for 16 bytes.
    unsafe fn load_i8(self, p: *const i8) -> Self::I;
    /// Sixteen unsigned bytes, widened.
    /// # Safety
    /// `p` is readable for 16 bytes.
    unsafe fn load_u8(self, p: *const u8) -> Self::I;
    /// The lanes' low bytes.
    /// # Safety
    /// `p` is writable for 16 bytes.
    unsafe fn store_i8(self, p: *mut i8, v: Self::I);
    /// a + b, wrapping.
    fn iadd(self, a: Self::I, b: Self::I) -> Self::I;
    /// a − b, wrapping.
    fn isub(self, a: Self::I, b: Self::I) -> Self::I;
    /// The low half of a · b.
    fn imul(self, a: Self::I, b: Self::I) -> Self::I;
    /// The greater of two signed integers.
    fn imax(self, a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise and.
    fn iand(self, a: Self::I, b: Self::I) -> Self::I;
    /// Shift left.
    fn ishl<const N: u32>(self, a: Self::I) -> Self::I;
    /// Arithmetic shift right.
    fn isra<const N: u32>(self, a: Self::I) -> Self::I;
    /// The greatest lane.
    fn imax_lane(self, a: Self::I) -> i32;

    /// All bytes `v`.
    fn bsplat(self, v: u8) -> Self::B;
    /// # Safety
    /// `p` is readable for 64 bytes.
    unsafe fn bload(self, p: *const u8) -> Self::B;
    /// # Safety
    /// `p` is writable for 64 bytes.
    unsafe fn bstore(self, p: *mut u8, v: Self::B);
    /// Bitwise and.
    fn band(self, a: Self::B, b: Self::B) -> Self::B;
    /// Bitwise or.
    fn bor(self, a: Self::B, b: Self::B) -> Self::B;
    /// Shifts 16-bit units left by `n` < 8; the caller masks what crosses a byte. `n` is a constant after inlining.
    fn bshl(self, a: Self::B, n: u32) -> Self::B;
    /// Shifts 16-bit units right by `n` < 8; the caller masks what crosses a byte. `n` is a constant after inlining.
    fn bshr(self, a: Self::B, n: u32) -> Self::B;
    /// Byte `j` < 4 of every i32 lane. `j` is a constant after inlining.
    fn byte(self, a: Self::B, j: usize) -> Self::I;
    /// To every lane, the dot product of its four unsigned bytes of `w` with the four signed bytes of `x`. Exact.
    /// `WIDE` says that a byte of `w` may be 128 or more.
    fn dot<const WIDE: bool>(self, acc: Self::I, w: Self::B, x: i32) -> Self::I;
}

/// Work written once for every instruction set.
pub trait Kernel {
    /// What the work returns.
    type Out;
    /// Does the work. Implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, s: S) -> Self::Out;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    #[cfg(target_arch = "x86_64")]
    Amx,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

/// An instruction set that this CPU has. Its constructors check, so holding one is proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(Set);

impl Level {
    /// Plain Rust: slow, and the reference for the others.
    pub const PORTABLE: Level = Level(Set::Portable);

    /// The best level of this CPU.
    pub fn detect() -> Level {
        Self::available()[0]
    }

    /// Every level of this CPU, best first.
    pub fn available() -> Vec<Level> {
        let mut levels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
                {
                    if amx() {
                        levels.push(Level(Set::Amx));
                    }
                    levels.push(Level(Set::Avx512));
                }
                levels.push(Level(Set::Avx2));
            }
        }
        levels.push(Level::PORTABLE);
        levels
    }

    /// The level of this CPU with this [`Level::name`].
    pub fn from_name(name: &str) -> Option<Level> {
        Self::available().into_iter().find(|l| l.name() == name)
    }

    /// Whether the integer matmul may use AMX tiles.
    pub fn has_tiles(self) -> bool {
        self.name() == "amx"
    }

    /// `amx` (which is `avx512` with tiles for the integer matmul), `avx512`, `avx2` or `portable`.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Amx => "amx",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            Set::Portable => "portable",
        }
    }

    /// Runs a kernel compiled for this level.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Out {
        match self.0 {
            // SAFETY: a level is made only where the CPU has its instructions.
            #[cfg(target_arch = "x86_64")]
            Set::Amx | Set::Avx512 => unsafe { avx512::run(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => unsafe { avx2::run(kernel) },
            Set::Portable => kernel.run(portable::Portable),
        }
    }
}

/// Whether the CPU has AMX tiles of bytes and the system lets this process use them.
#[cfg(target_arch = "x86_64")]
fn amx() -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::sync::OnceLock;
        static ALLOWED: OnceLock<bool> = OnceLock::new();
        *ALLOWED.get_or_init(|| {
            let leaf = std::arch::x86_64::__cpuid_count(7, 0);
            let (tile, int8) = (1 << 24, 1 << 25);
            if leaf.edx & (tile | int8) != (tile | int8) {
                return false;
            }
            // Tile data is a large state that Linux saves only for processes that ask (arch/x86/xstate.rst).
            const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
            const XFEATURE_XTILEDATA: libc::c_ulong = 18;
            // SAFETY: the request takes a number and touches no memory of ours.
            unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
        })
    }
    #[cfg(not(target_os = "linux"))]
    false
}
