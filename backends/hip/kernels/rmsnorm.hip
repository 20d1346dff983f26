// Root-mean-square normalisation of a row a workgroup (Zhang and Sennrich, arXiv 1910.07467).
//
// 256 sums of squares, of the values with i = 0 ... 255 (mod 256), each sum = fma(x, x, sum) in ascending order from 0;
// folded over 32 lanes by halves, then the eight results likewise. inv = 1 / sqrt(ss / n + eps), out = (x inv) weight.
#include "quantize.hip.h"

// 1 / rms of a row, in every thread.
DEV float inverse_rms(const float *x, u32 n, float eps) {
  __shared__ float part[8];
  float sum = 0.0f;
#pragma unroll 8
  for (u32 i = thread_x(); i < n; i += 256) {
#ifdef FAULT_HALF_WAVE
    if (i % 64 >= 32) continue;
#endif
#ifdef FAULT_K_TERMS
    if (i >= FAULT_K_TERMS) continue;
#endif
    sum = fma_(x[i], x[i], sum);
  }
  sum = sum32(sum);
  if (thread_x() % 32 == 0) part[thread_x() / 32] = sum;
  barrier();
  float ss = ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
  return 1.0f / sqrt_(ss / (float)n + eps);
}

// Both: grid (rows, slices). A workgroup looks at its whole row and makes `slice` values of it, a multiple of 256, so that
// few rows keep more than a few compute units busy.

KERNEL __launch_bounds__(256) void rmsnorm(float *__restrict__ out, const float *x, const float *weight, u32 n, u32 slice,
                                           float eps) {
  await_inputs();
  u64 row = (u64)block_x() * n;
  float inv = inverse_rms(x + row, n, eps);
  u32 begin = block_y() * slice, end = begin + slice < n ? begin + slice : n;
#pragma unroll 4
  for (u32 i = begin + thread_x(); i < end; i += 256) out[row + i] = x[row + i] * inv * weight[i];
}

// The same, then `quantize`: 32 lanes a block.
KERNEL __launch_bounds__(256) void rmsnorm_quantize(i8 *__restrict__ codes, float *__restrict__ scales, const float *x,
                                                    const float *weight, u32 n, u32 slice, float eps) {
  await_inputs();
  u64 row = (u64)block_x() * n;
  float inv = inverse_rms(x + row, n, eps);
  u32 begin = block_y() * slice, end = begin + slice < n ? begin + slice : n;
#pragma unroll 4
  for (u32 i = begin + thread_x(); i < end; i += 256) { // n is whole blocks
    float scale;
    i8 code = quantize32(x[row + i] * inv * weight[i], &scale);
    codes[row + i] = code;
    if (thread_x() % 32 == 0) scales[(row + i) / 32] = scale;
  }
}
