#include "prelude.h"
// A chain of fused multiply-adds in registers.
extern "C" __global__ __launch_bounds__(256) void alu_f32(const float* x, float* y, i32 n) {
  u32 i = bid_x() * 256 + tid_x();
  float a = x[i], b = a * 0.5f, c = a + 1.f, d = a - 1.f;
  for (i32 k = 0; k < n; k++) {
    a = __builtin_fmaf(a, b, c); b = __builtin_fmaf(b, c, d); c = __builtin_fmaf(c, 0.5f, a) * 0.25f; d = d * a - b;
  }
  y[i] = a + b + c + d;
}
extern "C" __global__ __launch_bounds__(256) void alu_int(const u32* x, u32* y, i32 n) {
  u32 i = bid_x() * 256 + tid_x();
  u32 a = x[i], b = a ^ 77, c = a * 3;
  for (i32 k = 0; k < n; k++) { a += b << 3; b ^= c >> 5; c = c * 5 + (a & 0xff); }
  y[i] = a + b + c;
}
extern "C" __global__ __launch_bounds__(256) void lds_tile(const float* x, float* y, i32 n) {
  __shared__ f32x4 tile[256];
  u32 t = tid_x();
  float s = 0;
  for (i32 k = 0; k < n / 10; k++) {
    tile[t] = f32x4{x[t] + s, 1.f, 2.f, 3.f};
    barrier();
    for (u32 j = 0; j < 8; j++) { f32x4 v = tile[(t & 15) + 16 * j]; s += v[0] + v[1] * v[2] + v[3]; }
    barrier();
  }
  y[bid_x() * 256 + t] = s;
}
extern "C" __global__ __launch_bounds__(64) void mfma16(const f16* x, float* y, i32 n) {
  f16x4 a = *(const f16x4*)(x + 4 * lane());
  f32x4 acc = {0, 0, 0, 0};
  for (i32 k = 0; k < n; k++) acc = __builtin_amdgcn_mfma_f32_16x16x16f16(a, a, acc, 0, 0, 0);
  for (int g = 0; g < 4; g++) y[lane() * 4 + g] = acc[g];
}
extern "C" __global__ __launch_bounds__(64) void mfma32(const f16* x, float* y, i32 n) {
  f16x4 a = *(const f16x4*)(x + 4 * lane());
  f32x16 acc = {};
  for (i32 k = 0; k < n; k++) acc = __builtin_amdgcn_mfma_f32_32x32x8f16(a, a, acc, 0, 0, 0);
  for (int g = 0; g < 16; g++) y[lane() * 16 + g] = acc[g];
}
extern "C" __global__ __launch_bounds__(256) void stream(const float* x, float* y, i32 n) {
  for (u32 i = bid_x() * 256 + tid_x(); i < (1u << 20); i += 256 * 256) y[i] = x[i] * 2.f + y[i];
}
