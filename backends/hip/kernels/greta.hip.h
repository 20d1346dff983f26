// What every kernel of greta is written against. One source for three compilers: clang for gfx942 without ROCm's headers,
// hiprtc, and NVRTC (or clang) for NVIDIA. A kernel that uses nothing but this header runs on all of them.
//
// Contraction is off everywhere (-ffp-contract=off, --fmad=false): a fused multiply-add is written `fma_`. exp, sin and cos
// are the functions below, so that every target gives the same bits.
#pragma once

#if defined(__AMDGCN__) || defined(__HIP_PLATFORM_AMD__)
#define GRETA_AMD 1
#else
#define GRETA_AMD 0
#endif

#if !defined(__HIPCC_RTC__) && !defined(__CUDACC_RTC__)
#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#if GRETA_AMD
#define __launch_bounds__(threads, ...) __attribute__((amdgpu_flat_work_group_size(1, threads)))
#else
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))
#endif
#endif
#define KERNEL extern "C" __global__
// Before a kernel that waits for memory: so many waves on a SIMD are enough, so that the compiler takes the registers to
// have all loads under way before the first is used. It saves them for more waves otherwise.
#if GRETA_AMD
#define ENOUGH_WAVES(n) __attribute__((amdgpu_waves_per_eu(1, n)))
#else
#define ENOUGH_WAVES(n)
#endif
// The same for NVIDIA: `n` workgroups should fit a multiprocessor. Without it, registers are saved for more than there will be.
#if GRETA_AMD
#define WORKGROUPS(n) __launch_bounds__(256)
#else
#define WORKGROUPS(n) __launch_bounds__(256, n)
#endif
#define DEV static __device__ inline __attribute__((always_inline))

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;

// ---- the machine

#if GRETA_AMD
constexpr u32 WAVE = 64; // lanes that run together: gfx9
#else
constexpr u32 WAVE = 32;
#endif

#if GRETA_AMD
DEV u32 thread_x() { return __builtin_amdgcn_workitem_id_x(); }
DEV u32 block_x() { return __builtin_amdgcn_workgroup_id_x(); }
DEV u32 block_y() { return __builtin_amdgcn_workgroup_id_y(); }
DEV u32 block_z() { return __builtin_amdgcn_workgroup_id_z(); }
DEV u32 lane_id() { return __builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0u)); }
#elif defined(__clang__)
DEV u32 thread_x() { return __nvvm_read_ptx_sreg_tid_x(); }
DEV u32 block_x() { return __nvvm_read_ptx_sreg_ctaid_x(); }
DEV u32 block_y() { return __nvvm_read_ptx_sreg_ctaid_y(); }
DEV u32 block_z() { return __nvvm_read_ptx_sreg_ctaid_z(); }
DEV u32 lane_id() { return thread_x() & 31; }
#else
DEV u32 thread_x() { return threadIdx.x; }
DEV u32 block_x() { return blockIdx.x; }
DEV u32 block_y() { return blockIdx.y; }
DEV u32 block_z() { return blockIdx.z; }
DEV u32 lane_id() { return threadIdx.x & 31; }
#endif

// All threads of the workgroup meet; what they wrote to shared memory is seen after.
DEV void barrier() {
#if GRETA_AMD
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
#else
  asm volatile("bar.sync 0;" ::: "memory");
#endif
}

// First in every kernel, before it reads or writes what another kernel writes or reads. NVIDIA's GPUs start a kernel while
// the one before it is still running; from here on that one is through. What no kernel writes, weights that is, may be asked
// for before.
DEV void await_inputs() {
#if !GRETA_AMD && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Brings the lines of a weight's row to the second-level cache, with 32 lanes; nothing waits for them.
DEV void fetch_row([[maybe_unused]] const u8 *row, [[maybe_unused]] u64 bytes, [[maybe_unused]] u32 lane) {
#if !GRETA_AMD
  for (u64 at = lane * 128; at < bytes; at += 32 * 128) asm volatile("prefetch.global.L2 [%0];" ::"l"(row + at));
#endif
}

// ---- bits

#if defined(__clang__)
DEV float as_float(u32 v) { return __builtin_bit_cast(float, v); }
DEV u32 as_uint(float v) { return __builtin_bit_cast(u32, v); }
#else
DEV float as_float(u32 v) { return __uint_as_float(v); }
DEV u32 as_uint(float v) { return __float_as_uint(v); }
#endif

#if GRETA_AMD
DEV float f16_to_f32(u16 v) { return (float)__builtin_bit_cast(_Float16, v); }
DEV u16 f32_to_f16(float v) { return __builtin_bit_cast(u16, (_Float16)v); }
#else
DEV float f16_to_f32(u16 v) {
  float out;
  asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(v));
  return out;
}
DEV u16 f32_to_f16(float v) {
  u16 out;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out) : "f"(v));
  return out;
}
#endif
DEV float bf16_to_f32(u16 v) { return as_float((u32)v << 16); }

// Four bytes at an address that is even (the blocks of several formats are an odd number of pairs long).
DEV u32 load32_a2(const void *p) {
  const u16 *q = (const u16 *)p;
  return q[0] | (u32)q[1] << 16;
}

// ---- arithmetic, one rounding each

#if defined(__clang__)
DEV float fma_(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEV double fma64(double a, double b, double c) { return __builtin_fma(a, b, c); }
DEV float rint_(float v) { return __builtin_rintf(v); }
DEV float abs_(float v) { return __builtin_fabsf(v); }
DEV double abs64(double v) { return __builtin_fabs(v); }
#else
DEV float fma_(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEV double fma64(double a, double b, double c) { return __fma_rn(a, b, c); }
DEV float rint_(float v) { return rintf(v); }
DEV float abs_(float v) { return fabsf(v); }
DEV double abs64(double v) { return fabs(v); }
#endif
#if GRETA_AMD
DEV float sqrt_(float v) { return __builtin_sqrtf(v); }
#else
DEV float sqrt_(float v) {
  float out;
  asm("sqrt.rn.f32 %0, %1;" : "=f"(out) : "f"(v));
  return out;
}
#endif
DEV float min_(float a, float b) { return b < a ? b : a; }
DEV float max_(float a, float b) { return b > a ? b : a; }

// c + the four products of signed bytes.
DEV i32 dot4(u32 a, u32 b, i32 c) {
#if GRETA_AMD
  return __builtin_amdgcn_sdot4((i32)a, (i32)b, c, false);
#else
  i32 out;
  asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(c));
  return out;
#endif
}

// ---- between lanes: M is a constant below 32, so that a result never depends on the width of a wave

template <u32 M> DEV u32 xor_lane(u32 v) {
  static_assert(M > 0 && M < 32, "lanes are exchanged within 32");
#if GRETA_AMD
  if constexpr (M == 1) return __builtin_amdgcn_update_dpp(0, v, 0xB1, 0xf, 0xf, true); // quad_perm 1 0 3 2
  else if constexpr (M == 2) return __builtin_amdgcn_update_dpp(0, v, 0x4E, 0xf, 0xf, true); // quad_perm 2 3 0 1
  else if constexpr (M == 8) return __builtin_amdgcn_update_dpp(0, v, 0x128, 0xf, 0xf, true); // row_ror 8
  else return __builtin_amdgcn_ds_swizzle((i32)v, (i32)(M << 10 | 0x1f));
#else
  u32 out;
  asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(out) : "r"(v), "n"(M));
  return out;
#endif
}
template <u32 M> DEV float xor_lane(float v) { return as_float(xor_lane<M>(as_uint(v))); }
template <u32 M> DEV i32 xor_lane(i32 v) { return (i32)xor_lane<M>((u32)v); }

// The 32 lanes' sum, in every one of them: lane i + lane i^16, then ^8, ^4, ^2, ^1.
DEV float sum32(float v) {
  v += xor_lane<16>(v);
  v += xor_lane<8>(v);
  v += xor_lane<4>(v);
  v += xor_lane<2>(v);
  return v + xor_lane<1>(v);
}
DEV i32 sum32(i32 v) {
  v += xor_lane<16>(v);
  v += xor_lane<8>(v);
  v += xor_lane<4>(v);
  v += xor_lane<2>(v);
  return v + xor_lane<1>(v);
}

// The largest of 2 * FROM lanes, in every one of them.
template <u32 FROM, class T> DEV T largest_of(T v) {
  T other = xor_lane<FROM>(v);
  v = other > v ? other : v;
  if constexpr (FROM > 1) return largest_of<FROM / 2>(v);
  else return v;
}
DEV float max32(float v) { return largest_of<16>(v); }

// ---- functions

// 2^i for a normal result.
DEV float power_of_two(i32 i) { return as_float((u32)(i + 127) << 23); }

// e^x, within 1.1 ulp where that is normal; denormal, 0 or infinite beyond; NaN stays NaN.
//
// x = n ln 2 + r with |r| <= ln 2 / 2; e^r is a polynomial of degree 6 (coefficients of Cephes' expf); 2^n is multiplied
// on in two halves.
DEV float exp_(float x) {
  const float MAGIC = 12582912.0f; // rounds to an integer when added, and leaves it in the low bits
  // The second operand survives a NaN.
  x = -106.0f > x ? -106.0f : x;
  x = 89.0f < x ? 89.0f : x;
  float t = fma_(x, 1.44269504f, MAGIC);
  float n = t - MAGIC;
  i32 i = (i32)(as_uint(t) - as_uint(MAGIC));
  float r = fma_(-n, 0.6933594f, x);
  r = fma_(-n, -2.1219444e-4f, r);
  float p = 1.9875691e-4f;
  p = fma_(p, r, 1.3982e-3f);
  p = fma_(p, r, 8.333452e-3f);
  p = fma_(p, r, 4.1665796e-2f);
  p = fma_(p, r, 1.6666665e-1f);
  p = fma_(p, r, 0.5f);
  p = fma_(p, r * r, r) + 1.0f;
  i32 half = i >> 1;
  return p * power_of_two(half) * power_of_two(i - half);
}

// sin and cos of 2 pi turns, |turns| <= 1/2, each within 2 ulp of the larger of its value and 2^-13.
//
// Folded to an eighth of a turn, then Taylor polynomials in f32 whose first left-out term is below 2^-26.
DEV void sincos_turns(float turns, float *sine, float *cosine) {
  float q = rint_(turns * 4.0f); // quarter turns
  float x = fma_(q, -0.25f, turns) * 6.28318531f;
  float e = fma_(q, -0.25f, turns) * -1.7484556e-7f; // 2 pi's rest
  float xx = x * x;
  float s = -2.5052108e-8f;
  s = fma_(s, xx, 2.7557319e-6f);
  s = fma_(s, xx, -1.9841270e-4f);
  s = fma_(s, xx, 8.3333333e-3f);
  s = fma_(s, xx, -1.6666667e-1f);
  s = x + fma_(s * xx, x, e);
  float c = 2.0876757e-9f;
  c = fma_(c, xx, -2.7557319e-7f);
  c = fma_(c, xx, 2.4801587e-5f);
  c = fma_(c, xx, -1.3888889e-3f);
  c = fma_(c, xx, 4.1666667e-2f);
  c = fma_(c, xx, -0.5f);
  c = fma_(c, xx, 1.0f);
  i32 quarter = (i32)q & 3;
  float a = quarter & 1 ? c : s, b = quarter & 1 ? s : c;
  *sine = quarter & 2 ? -a : a;
  *cosine = (quarter + 1) & 2 ? -b : b;
}
