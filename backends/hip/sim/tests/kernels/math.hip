#include "prelude.h"
typedef double f64;
extern "C" __global__ __launch_bounds__(256) void f32_math(const float* a, const float* b, float* q, float* s, i32 n) {
  u32 i = bid_x() * 256 + tid_x();
  if (i >= n) return;
  q[i] = a[i] / b[i];
  s[i] = __builtin_sqrtf(a[i]);
}
extern "C" __global__ __launch_bounds__(256) void f64_math(const f64* a, const f64* b, f64* q, f64* s, i32 n) {
  u32 i = bid_x() * 256 + tid_x();
  if (i >= n) return;
  q[i] = a[i] / b[i];
  s[i] = __builtin_sqrt(a[i]);
}
extern "C" __global__ __launch_bounds__(256) void f16_math(const f16* a, const f16* b, f16* q, f16* s, f16* m, i32 n) {
  u32 i = bid_x() * 256 + tid_x();
  if (i >= n) return;
  q[i] = a[i] / b[i];
  s[i] = a[i] + b[i];
  m[i] = a[i] * b[i];
}
extern "C" __global__ __launch_bounds__(256) void int_math(const i32* a, const i32* b, i32* q, i32* r, i32 n) {
  u32 i = bid_x() * 256 + tid_x();
  if (i >= n) return;
  q[i] = a[i] / b[i];
  r[i] = (u32)a[i] % (u32)b[i];
}
extern "C" __global__ __launch_bounds__(256) void long_math(const long* a, const long* b, long* q, long* r, i32 n) {
  u32 i = bid_x() * 256 + tid_x();
  if (i >= n) return;
  q[i] = a[i] / b[i];
  r[i] = (u64)a[i] * (u64)b[i] + (u64)a[i] % (u64)b[i];
}
extern "C" __global__ __launch_bounds__(256) void functions(const float* a, float* e, float* l, float* r, i32 n) {
  u32 i = bid_x() * 256 + tid_x();
  if (i >= n) return;
  e[i] = __builtin_expf(a[i]);
  l[i] = __builtin_logf(a[i]);
  r[i] = __builtin_rintf(a[i]) + __builtin_floorf(a[i]) * __builtin_truncf(a[i]);
}
__device__ const float table[8] = {1, 2, 4, 8, 16, 32, 64, 128};
extern "C" __global__ void hidden(const i32* x, float* y, i32 n) {
  u32 i = bid_x() * bdim_x() + tid_x();
  if (i < n) y[i] = table[x[i] & 7] + __builtin_amdgcn_grid_size_x();
}
