#include "prelude.h"
// Kernels with one mistake each.
extern "C" __global__ __launch_bounds__(256) void missing_barrier(const float* x, float* y) {
  __shared__ float t[256];
  t[tid_x()] = x[tid_x()];
  y[tid_x()] = t[255 - tid_x()];
}
extern "C" __global__ __launch_bounds__(256) void missing_second_barrier(const float* x, float* y) {
  __shared__ float t[256];
  float s = 0;
  for (int k = 0; k < 2; k++) {
    t[tid_x()] = x[tid_x()] + k;
    barrier();
    s += t[255 - tid_x()];
  }
  y[tid_x()] = s;
}
extern "C" __global__ __launch_bounds__(256) void with_barrier(const float* x, float* y) {
  __shared__ float t[256];
  t[tid_x()] = x[tid_x()];
  barrier();
  y[tid_x()] = t[255 - tid_x()];
}
extern "C" __global__ __launch_bounds__(64) void row_too_far(const float* x, float* y, i32 n) {
  y[lane()] = x[(bid_x() + 1) * (u64)n + lane()];
}
// A sum over 32 lanes as warps of other makers have them: half of a wave is lost.
extern "C" __global__ __launch_bounds__(64) void sum32(const float* x, float* y) {
  float v = x[lane()];
  for (int m = 16; m; m >>= 1) v += shfl_xor_f(v, m);
  if (lane() == 0) y[0] = v;
}
// Rows and columns of D exchanged.
extern "C" __global__ __launch_bounds__(64) void wrong_layout(const f16* A, const f16* B, float* C) {
  u32 l = lane(), r = l & 15, q = l >> 4;
  f32x4 acc = {0, 0, 0, 0};
  f16x4 a = *(const f16x4*)(A + r * 16 + q * 4), b = *(const f16x4*)(B + r * 16 + q * 4);
  acc = __builtin_amdgcn_mfma_f32_16x16x16f16(a, b, acc, 0, 0, 0);
  for (int i = 0; i < 4; i++) C[r * 16 + q * 4 + i] = acc[i];
}
extern "C" __global__ __launch_bounds__(64) void uninitialised_lds(float* y) {
  __shared__ float t[64];
  if (lane() < 63) t[lane()] = 1.f;
  barrier();
  y[lane()] = t[lane()] + 1.f;
}
// Copies what nobody wrote, then computes with it.
extern "C" __global__ __launch_bounds__(64) void uninitialised_global(const float* x, float* y) { y[lane()] = x[lane()] + 1.f; }
extern "C" __global__ __launch_bounds__(64) void misaligned_lds(const u64* x, float* y, i32 shift) {
  __shared__ __attribute__((aligned(16))) u8 t[64 * 16 + 16];
  f32x4* p = (f32x4*)(t + shift);
  p[lane()] = f32x4{1.f, 2.f, 3.f, (float)x[0]};
  barrier();
  y[lane()] = p[63 - lane()][0];
}
extern "C" __global__ __launch_bounds__(128) void divergent_barrier(const float* x, float* y) {
  __shared__ float t[128];
  t[tid_x()] = x[tid_x()];
  if (x[tid_x()] > 0.f) barrier();
  y[tid_x()] = t[tid_x()];
}
extern "C" __global__ __launch_bounds__(128) void early_end(const float* x, float* y) {
  __shared__ float t[128];
  if (tid_x() >= 64) return;
  t[tid_x()] = x[tid_x()];
  barrier();
  y[tid_x()] = t[63 - tid_x()];
}
extern "C" __global__ __launch_bounds__(64) void lds_too_far(const i32* x, float* y) {
  __shared__ float t[64];
  t[lane() + x[0]] = 1.f;
  barrier();
  y[lane()] = t[lane()];
}
extern "C" __global__ __launch_bounds__(64) void scratch(const i32* x, i32* y) {
  volatile i32 a[64];
  for (int i = 0; i < 64; i++) a[i] = x[i];
  y[lane()] = a[x[lane()] & 63];
}
extern "C" __global__ __launch_bounds__(256) void histogram(const u32* x, u32* y) {
  __shared__ u32 bins[16];
  if (tid_x() < 16) bins[tid_x()] = 0;
  barrier();
  __hip_atomic_fetch_add(&bins[x[tid_x()] & 15], 1u, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP);
  barrier();
  if (tid_x() < 16) y[tid_x()] = bins[tid_x()];
}
// A row of 64 values from x at byte `from` to y at byte `to`.
extern "C" __global__ __launch_bounds__(64) void row_at(const float* x, float* y, i32 from, i32 to) {
  y[to / 4 + lane()] = x[from / 4 + lane()];
}
extern "C" __global__ __launch_bounds__(64) void trap(const float* x, float* y) {
  if (x[lane()] < 0.f) __builtin_trap();
  y[lane()] = x[lane()];
}
extern "C" __global__ __launch_bounds__(64) void endless(const float* x, volatile float* y) {
  for (;;) y[lane()] = x[lane()];
}
// A barrier in each of many turns is no endless loop.
extern "C" __global__ __launch_bounds__(128) void many_barriers(const float* x, float* y) {
  __shared__ float t[128];
  t[tid_x()] = 0.f;
  for (int i = 0; i < 1000; i++) {
    barrier();
    t[tid_x()] += x[tid_x()];
  }
  y[tid_x()] = t[tid_x()];
}
