// Root-mean-square normalisation of a row a workgroup (Zhang and Sennrich, arXiv 1910.07467).
//
// 256 sums of squares, of the values with i = 0 ... 255 (mod 256), each sum = fma(x, x, sum) in ascending order from 0;
// folded over 32 lanes by halves, then the eight results likewise. inv = 1 / sqrt(ss / n + eps), out = (x inv) weight.
#include "quantize.hip.h"

// 1 / rms of a row, in every thread.
DEV float inverse_rms(const float *x, u32 n, float eps) {
  __shared__ float part[8];
  float sum = 0.0f;
  const u32 AT_ONCE = 16; // loads under way; past the end the last value is taken again and not added
  for (u32 begin = thread_x(); begin < n; begin += 256 * AT_ONCE) {
    float v[AT_ONCE];
#pragma unroll
    for (u32 j = 0; j < AT_ONCE; j++) v[j] = x[begin + 256 * j < n ? begin + 256 * j : n - 1];
#pragma unroll
    for (u32 j = 0; j < AT_ONCE; j++) {
      u32 i = begin + 256 * j;
      bool there = i < n;
#ifdef FAULT_HALF_WAVE
      there = there && i % 64 < 32;
#endif
#ifdef FAULT_K_TERMS
      there = there && i < FAULT_K_TERMS;
#endif
      sum = there ? fma_(v[j], v[j], sum) : sum;
    }
  }
  sum = sum32(sum);
  if (thread_x() % 32 == 0) part[thread_x() / 32] = sum;
  barrier();
  float ss = ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
  return 1.0f / sqrt_(ss / (float)n + eps);
}

// Four of a thread's values and weights, on their way together; past the end the last ones again.
struct Values {
  float x[4], weight[4];
};
DEV Values values(const float *x, const float *weight, u32 i, u32 end) {
  Values v;
#pragma unroll
  for (u32 j = 0; j < 4; j++) {
    u32 at = i + 256 * j < end ? i + 256 * j : end - 1;
    v.x[j] = x[at], v.weight[j] = weight[at];
  }
  return v;
}

// Both: grid (rows, slices). A workgroup looks at its whole row and makes `slice` values of it, a multiple of 256, so that
// few rows keep more than a few compute units busy.

KERNEL WORKGROUPS(1) void rmsnorm(float *__restrict__ out, const float *x, const float *weight, u32 n, u32 slice,
                                           float eps) {
  await_inputs();
  u64 row = (u64)block_x() * n;
  float inv = inverse_rms(x + row, n, eps);
  u32 begin = block_y() * slice, end = begin + slice < n ? begin + slice : n;
  for (u32 i = begin + thread_x(); i < end; i += 256 * 4) {
    Values v = values(x + row, weight, i, end);
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
      if (i + 256 * j < end) out[row + i + 256 * j] = v.x[j] * inv * v.weight[j];
    }
  }
}

// The same, then `quantize`: 32 lanes a block.
KERNEL WORKGROUPS(1) void rmsnorm_quantize(i8 *__restrict__ codes, float *__restrict__ scales, const float *x,
                                                    const float *weight, u32 n, u32 slice, float eps) {
  await_inputs();
  u64 row = (u64)block_x() * n;
  float inv = inverse_rms(x + row, n, eps);
  u32 begin = block_y() * slice, end = begin + slice < n ? begin + slice : n;
  for (u32 i = begin + thread_x(); i < end; i += 256 * 4) { // n is whole blocks
    Values v = values(x + row, weight, i, end);
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
      u32 at = i + 256 * j;
      if (at >= end) break;
      float scale;
      i8 code = quantize32(v.x[j] * inv * v.weight[j], &scale);
      codes[row + at] = code;
      if (thread_x() % 32 == 0) scales[(row + at) / 32] = scale;
    }
  }
}
