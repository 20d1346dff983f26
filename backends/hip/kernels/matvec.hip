// Quantised weights times quantised activations, few tokens: bound by reading the weights.
//
//   out[t, n] = sum over k of w[n, k] * codes[t, k] * scales[t, k / 32]
//
// 32 lanes work on a row of the weights, lane i on chain i (int8.hip.h). What is unpacked serves all of a workgroup's
// tokens.
#include "int8.hip.h"

constexpr u32 ROWS = 256 / 32; // of weights, a workgroup

template <u32 TOKENS>
DEV void matvec(float *out, const u8 *w, const i8 *acts, const float *scales, u32 n, u32 k, u32 t) {
  u32 chain = thread_x() % CHAINS, row = block_x() * ROWS + thread_x() / CHAINS, groups = k / 32;
  u32 first = block_y() * TOKENS;
  // Rows and tokens past the end repeat the last one; only their stores are left out.
  const u8 *w_row = w + (u64)(row < n ? row : n - 1) * row_bytes(k);
  const i8 *x_row[TOKENS];
  const float *x_scales[TOKENS];
  float acc[TOKENS];
#pragma unroll
  for (u32 i = 0; i < TOKENS; i++) {
    u64 token = first + i < t ? first + i : t - 1;
    x_row[i] = acts + token * k;
    x_scales[i] = scales + token * groups;
    acc[i] = 0.0f;
  }
  for (u32 b = chain; b < groups; b += CHAINS) {
    if (!counts(b)) continue;
    const u8 *block = block_of(w_row, b);
    u32 g = group_in_block(b), c[8];
    codes(block, g, c);
    GroupScales s = group_scales(block, g);
#pragma unroll
    for (u32 i = 0; i < TOKENS; i++) {
      u32 x[8];
      load_acts(x_row[i] + (u64)b * 32, x);
      i32 dot[2] = {0, 0};
#pragma unroll
      for (u32 j = 0; j < 8; j++) {
        i32 &sum = dot[SUB16 ? j / 4 : 0];
        sum = dot4(c[j], x[j], sum);
        // The offset as one more dot is cheaper than taking it off every code.
        if constexpr (OFFSET != 0) sum = dot4((u32)(256 - OFFSET) * 0x01010101u, x[j], sum);
      }
      acc[i] = add_group(acc[i], dot, s, group_acts(x, x_scales[i][b]));
    }
  }
#pragma unroll
  for (u32 i = 0; i < TOKENS; i++) {
    float sum = sum32(acc[i]);
    if (chain == 0 && row < n && first + i < t) out[(u64)(first + i) * n + row] = sum;
  }
}

KERNEL __launch_bounds__(256) void matvec_int8_t1(float *out, const u8 *w, const i8 *codes, const float *scales, u32 n,
                                                  u32 k, u32 t) {
  matvec<1>(out, w, codes, scales, n, k, t);
}

KERNEL __launch_bounds__(256) void matvec_int8_t4(float *out, const u8 *w, const i8 *codes, const float *scales, u32 n,
                                                  u32 k, u32 t) {
  matvec<4>(out, w, codes, scales, n, k, t);
}
