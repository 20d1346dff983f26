// Weights of any type times f32 activations, over the dequantised values.
//
//   out[t, n] = sum over k of w[n, k] * x[t, k]
//
// 32 lanes work on a row of the weights: lane i adds the units i, i + 32 ... (values.hip.h) in ascending order, each
// value by one fused multiply-add, and sum32 adds up the lanes. That order holds for any number of tokens.
#include "values.hip.h"

constexpr u32 LANES = 32;
constexpr u32 ROWS = 256 / LANES; // of weights, a workgroup

template <u32 TOKENS> DEV void matmul(float *out, const u8 *w, const float *x, u32 n, u32 k, u32 t) {
  u32 lane = thread_x() % LANES, row = block_x() * ROWS + thread_x() / LANES;
  u32 first = block_y() * TOKENS;
  // Rows and tokens past the end repeat the last one; only their stores are left out.
  const u8 *w_row = w + (u64)(row < n ? row : n - 1) * row_bytes(k);
  const float *x_row[TOKENS];
  float acc[TOKENS];
#pragma unroll
  for (u32 i = 0; i < TOKENS; i++) {
    x_row[i] = x + (u64)(first + i < t ? first + i : t - 1) * k;
    acc[i] = 0.0f;
  }
  for (u32 unit = lane; unit < units_of(k); unit += LANES) {
#ifdef FAULT_HALF_WAVE
    if (unit * UNIT % 64 >= 32) continue;
#endif
#ifdef FAULT_K_TERMS
    if (unit * UNIT >= FAULT_K_TERMS) continue;
#endif
    // Past the end of a short unit both factors are 0.
    for_each_four(w_row, unit, k, [&](u32 at, const float *four) {
#pragma unroll
      for (u32 i = 0; i < TOKENS; i++) {
        float v[4];
        load_four(x_row[i], at, k, v);
#pragma unroll
        for (u32 j = 0; j < 4; j++) acc[i] = fma_(four[j], v[j], acc[i]);
      }
    });
  }
#pragma unroll
  for (u32 i = 0; i < TOKENS; i++) {
    float sum = sum32(acc[i]);
    if (lane == 0 && row < n && first + i < t) out[(u64)(first + i) * n + row] = sum;
  }
}

KERNEL __launch_bounds__(256) void matmul_exact_t1(float *out, const u8 *w, const float *x, u32 n, u32 k, u32 t) {
  matmul<1>(out, w, x, n, k, t);
}

KERNEL __launch_bounds__(256) void matmul_exact_t4(float *out, const u8 *w, const float *x, u32 n, u32 k, u32 t) {
  matmul<4>(out, w, x, n, k, t);
}
