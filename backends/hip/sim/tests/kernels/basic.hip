#include "prelude.h"
// 1. rmsnorm: LDS + bpermute + rsq + f16
extern "C" __global__ __launch_bounds__(256) void rmsnorm(const f16* x, const f16* w, f16* y, i32 n, float eps) {
  __shared__ float red[4];
  const f16* xr = x + (u64)bid_x() * n; f16* yr = y + (u64)bid_x() * n;
  float s = 0;
  for (i32 i = tid_x(); i < n; i += 256) { float v = (float)xr[i]; s += v * v; }
  s = wave_sum(s);
  if (lane() == 0) red[tid_x() >> 6] = s;
  barrier();
  s = red[0] + red[1] + red[2] + red[3];
  float r = fast_rsq(s / (float)n + eps);
  for (i32 i = tid_x(); i < n; i += 256) yr[i] = (f16)((float)xr[i] * r * (float)w[i]);
}
// 2. one wave: 16x16x16 f16 MFMA tile: C[16x16] = A[16xK] * B[16xK]^T
extern "C" __global__ __launch_bounds__(64) void mfma_tile(const f16* A, const f16* B, float* C, i32 K) {
  u32 l = lane(); u32 r = l & 15, q = l >> 4;
  f32x4 acc = {0, 0, 0, 0};
  for (i32 k = 0; k < K; k += 16) {
    f16x4 a = *(const f16x4*)(A + r * K + k + q * 4);
    f16x4 b = *(const f16x4*)(B + r * K + k + q * 4);
    acc = __builtin_amdgcn_mfma_f32_16x16x16f16(a, b, acc, 0, 0, 0);
  }
  for (int i = 0; i < 4; i++) C[(q * 4 + i) * 16 + r] = acc[i];
}
// 3. i8 dot product + DPP reduce (Q8 style gemv)
extern "C" __global__ __launch_bounds__(64) void dot4(const i32* a, const i32* b, float* o, i32 n) {
  i32 s = 0;
  for (i32 i = lane(); i < n; i += 64) s = __builtin_amdgcn_sdot4(a[i], b[(u64)bid_x() * n + i], s, false);
  float f = wave_sum_dpp((float)s);
  if (lane() == 0) o[bid_x()] = f;
}
// 4. softmax: exp + max
extern "C" __global__ __launch_bounds__(64) void softmax64(const float* x, float* y) {
  float v = x[bid_x() * 64 + lane()];
  float m = v;
  for (int k = 32; k; k >>= 1) m = __builtin_fmaxf(m, shfl_xor_f(m, k));
  float e = fast_exp(v - m);
  float s = wave_sum(e);
  y[bid_x() * 64 + lane()] = e * fast_rcp(s);
}
// 5. i8 MFMA gfx942: 16x16x32 i8 ; 6. f16 dot2; fp8
extern "C" __global__ __launch_bounds__(64) void mfma_i8(const u64* A, const u64* B, i32* C) {
  u32 l = lane(); u32 r = l & 15, q = l >> 4;
  i32x4 acc = {0,0,0,0};
  acc = __builtin_amdgcn_mfma_i32_16x16x32_i8((long)A[r*4+q], (long)B[r*4+q], acc, 0, 0, 0);
  for (int i = 0; i < 4; i++) C[(q*4+i)*16 + r] = acc[i];
}
extern "C" __global__ __launch_bounds__(64) void fdot(const f16x2* a, const f16x2* b, float* o) {
  float s = __builtin_amdgcn_fdot2(a[lane()], b[lane()], 0.f, false);
  o[lane()] = s;
}
// 32x32x8 f16 MFMA, stores D by AMD's documented layout (matrix calculator, CDNA3)
extern "C" __global__ __launch_bounds__(64) void mfma32(const f16* A, const f16* B, float* C, i32 K) {
  u32 l = lane(), r = l & 31, h = l >> 5;
  f32x16 acc = {};
  for (i32 k = 0; k < K; k += 8) {
    f16x4 a = *(const f16x4*)(A + r * K + k + h * 4);
    f16x4 b = *(const f16x4*)(B + r * K + k + h * 4);
    acc = __builtin_amdgcn_mfma_f32_32x32x8f16(a, b, acc, 0, 0, 0);
  }
  for (int g = 0; g < 16; g++) C[(8 * (g / 4) + 4 * h + (g & 3)) * 32 + r] = acc[g];
}
extern "C" __global__ __launch_bounds__(64) void bf16_mfma(const s16x4* A, const s16x4* B, float* C) {
  u32 l = lane(), r = l & 15, q = l >> 4; f32x4 acc = {};
  acc = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(A[r*4+q], B[r*4+q], acc, 0, 0, 0);
  for (int i = 0; i < 4; i++) C[(q*4+i)*16 + r] = acc[i];
}
extern "C" __global__ __launch_bounds__(64) void fp8_mfma(const long* A, const long* B, float* C) {
  u32 l = lane(), r = l & 15, q = l >> 4; f32x4 acc = {};
  acc = __builtin_amdgcn_mfma_f32_16x16x32_fp8_fp8(A[r*4+q], B[r*4+q], acc, 0, 0, 0);
  for (int i = 0; i < 4; i++) C[(q*4+i)*16 + r] = acc[i];
}
// each DPP step alone: o[step*64+lane]
extern "C" __global__ __launch_bounds__(64) void dpptest(const float* x, float* o) {
  u32 l = lane(); float v = x[l];
  o[0*64+l] = dpp_f<0x111>(v); o[1*64+l] = dpp_f<0x118>(v); o[2*64+l] = dpp_f<0x142,0xa>(v); o[3*64+l] = dpp_f<0x143,0xc>(v);
  o[4*64+l] = dpp_f<0xb1>(v); o[5*64+l] = dpp_f<0x128>(v); o[6*64+l] = dpp_f<0x140>(v); o[7*64+l] = dpp_f<0x141>(v);
 
}
// global atomic add f32 + ballot + readfirstlane
extern "C" __global__ __launch_bounds__(64) void misc(const float* x, float* acc, u64* m) {
  float v = x[lane()];
  u64 b = __builtin_amdgcn_ballot_w64(v > 0.f);
  if (lane() == 0) m[0] = b;
  __hip_atomic_fetch_add(acc, v, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}
