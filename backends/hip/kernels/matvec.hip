// Quantised weights times quantised activations, few tokens: bound by reading the weights.
//
//   out[t, n] = sum over k of w[n, k] * codes[t, k] * scales[t, k / 32]
//
// 32 lanes work on a row of the weights, lane i on chain i (int8.hip.h). What is unpacked serves all of a workgroup's
// tokens.
#include "int8.hip.h"

constexpr u32 ROWS = 256 / 32; // of weights, a workgroup

template <u32 TOKENS> struct Tokens {
  const i8 *codes[TOKENS];
  const float *scales[TOKENS];
  float acc[TOKENS];
};

// Adds N groups of a lane's chain, of which `b` is the first, to every token's sum.
//
// Without a branch, so that all N groups are on their way from memory before the first is used: a group past the end is
// the last one again, and left out of the sum.
template <u32 N, u32 TOKENS> DEV void add_groups(Tokens<TOKENS> &x, const u8 *w_row, u32 b, u32 groups) {
#pragma unroll
  for (u32 i = 0; i < N; i++, b += CHAINS) {
    u32 at = b < groups ? b : groups - 1;
    const u8 *block = block_of(w_row, at);
    u32 g = group_in_block(at), c[8];
    codes(block, g, c);
    GroupScales s = group_scales(block, g);
#pragma unroll
    for (u32 token = 0; token < TOKENS; token++) {
      u32 v[8];
      load_acts(x.codes[token] + (u64)at * 32, v);
      i32 dot[2] = {0, 0};
#pragma unroll
      for (u32 j = 0; j < 8; j++) {
        i32 &sum = dot[SUB16 ? j / 4 : 0];
        sum = dot4(c[j], v[j], sum);
        // The offset as one more dot is cheaper than taking it off every code.
        if constexpr (OFFSET != 0) sum = dot4((u32)(256 - OFFSET) * 0x01010101u, v[j], sum);
      }
      GroupActs a = group_acts(v, x.scales[token][at]);
      float sum = x.acc[token];
      if constexpr (SUB16) sum = add_group(sum, dot[0], dot[1], s, a);
      else sum = add_group(sum, (float)dot[0], s, a);
      x.acc[token] = b < groups && counts(b) ? sum : x.acc[token];
    }
  }
}

template <u32 TOKENS>
DEV void matvec(float *out, const u8 *w, const i8 *codes, const float *scales, u32 n, u32 k, u32 t) {
  u32 chain = thread_x() % CHAINS, row = block_x() * ROWS + thread_x() / CHAINS, groups = k / 32;
  u32 first = block_y() * TOKENS;
  // Rows and tokens past the end repeat the last one; only their stores are left out.
  const u8 *w_row = w + (u64)(row < n ? row : n - 1) * row_bytes(k);
  fetch_row(w_row, row_bytes(k), chain);
  await_inputs();
  Tokens<TOKENS> x;
#pragma unroll
  for (u32 i = 0; i < TOKENS; i++) {
    u64 token = first + i < t ? first + i : t - 1;
    x.codes[i] = codes + token * k;
    x.scales[i] = scales + token * groups;
    x.acc[i] = 0.0f;
  }
  u32 b = 0;
  if constexpr (TOKENS == 1)
    for (; b + 3 * CHAINS < groups; b += 4 * CHAINS) add_groups<4>(x, w_row, b + chain, groups);
  for (; b + CHAINS < groups; b += 2 * CHAINS) add_groups<2>(x, w_row, b + chain, groups);
  if (b < groups) add_groups<1>(x, w_row, b + chain, groups);
#pragma unroll
  for (u32 i = 0; i < TOKENS; i++) {
    float sum = sum32(x.acc[i]);
    if (chain == 0 && row < n && first + i < t) out[(u64)(first + i) * n + row] = sum;
  }
}

KERNEL __launch_bounds__(256) ENOUGH_WAVES(4) void matvec_int8_t1(float *out, const u8 *w, const i8 *codes,
                                                                  const float *scales, u32 n, u32 k, u32 t) {
  matvec<1>(out, w, codes, scales, n, k, t);
}

KERNEL __launch_bounds__(256) ENOUGH_WAVES(4) void matvec_int8_t4(float *out, const u8 *w, const i8 *codes,
                                                                  const float *scales, u32 n, u32 k, u32 t) {
  matvec<4>(out, w, codes, scales, n, k, t);
}
