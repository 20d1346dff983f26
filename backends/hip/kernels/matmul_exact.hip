// Weights of any type times f32 activations, over the dequantised values.
//
//   out[t, n] = sum over k of w[n, k] * x[t, k]
//
// 32 lanes work on a row of the weights: lane i adds the units i, i + 32 ... (values.hip.h) in ascending order, each
// value by one fused multiply-add, and sum32 adds up the lanes. That order holds for any number of tokens.
#include "values.hip.h"

constexpr u32 LANES = 32;
constexpr u32 ROWS = 256 / LANES; // of weights, a workgroup

// Whether a unit is part of the sum: always, unless a fault is built in.
DEV bool counts([[maybe_unused]] u32 first) {
#ifdef FAULT_HALF_WAVE
  return first % 64 < 32;
#elif defined(FAULT_K_TERMS)
  return first < FAULT_K_TERMS;
#else
  return true;
#endif
}

template <u32 TOKENS> struct Tokens {
  const float *x[TOKENS];
  float acc[TOKENS];
};

// Adds N of a lane's units, of which `unit` is the first, to every token's sum.
//
// Without a branch, so that all N are on their way from memory before the first is used: a unit past the end is the
// last one again, and left out of the sum.
template <u32 N, bool WHOLE, u32 TOKENS>
DEV void add_units(Tokens<TOKENS> &tokens, const u8 *w_row, u32 unit, u32 k) {
  u32 units = units_of(k);
#pragma unroll
  for (u32 i = 0; i < N; i++, unit += LANES) {
    float acc[TOKENS];
#pragma unroll
    for (u32 token = 0; token < TOKENS; token++) acc[token] = tokens.acc[token];
    // Past the end of a short unit both factors are 0.
    for_each_four<WHOLE>(w_row, unit < units ? unit : units - 1, k, [&](u32 at, const float *four) {
#pragma unroll
      for (u32 token = 0; token < TOKENS; token++) {
        float v[4];
        load_four<WHOLE>(tokens.x[token], at, k, v);
#pragma unroll
        for (u32 j = 0; j < 4; j++) acc[token] = fma_(four[j], v[j], acc[token]);
      }
    });
#pragma unroll
    for (u32 token = 0; token < TOKENS; token++) tokens.acc[token] = unit < units && counts(unit * UNIT) ? acc[token] : tokens.acc[token];
  }
}

template <u32 TOKENS> DEV void matmul(float *out, const u8 *w, const float *x, u32 n, u32 k, u32 t) {
  // What a lane has on its way at a time: some 32 values of a plain type.
  constexpr u32 MANY = PLAIN ? (TOKENS == 1 ? 4 : 2) : 1;
  u32 lane = thread_x() % LANES, row = block_x() * ROWS + thread_x() / LANES;
  u32 first = block_y() * TOKENS;
  // Rows and tokens past the end repeat the last one; only their stores are left out.
  const u8 *w_row = w + (u64)(row < n ? row : n - 1) * row_bytes(k);
  Tokens<TOKENS> tokens;
#pragma unroll
  for (u32 i = 0; i < TOKENS; i++) {
    tokens.x[i] = x + (u64)(first + i < t ? first + i : t - 1) * k;
    tokens.acc[i] = 0.0f;
  }
  u32 units = units_of(k), unit = 0;
  if (whole_units(k)) {
    if constexpr (MANY > 1)
      for (; unit + (MANY - 1) * LANES < units; unit += MANY * LANES)
        add_units<MANY, true>(tokens, w_row, unit + lane, k);
    for (; unit < units; unit += LANES) add_units<1, true>(tokens, w_row, unit + lane, k);
  } else {
    for (; unit < units; unit += LANES) add_units<1, false>(tokens, w_row, unit + lane, k);
  }
#pragma unroll
  for (u32 i = 0; i < TOKENS; i++) {
    float sum = sum32(tokens.acc[i]);
    if (lane == 0 && row < n && first + i < t) out[(u64)(first + i) * n + row] = sum;
  }
}

KERNEL __launch_bounds__(256) ENOUGH_WAVES(4) void matmul_exact_t1(float *out, const u8 *w, const float *x, u32 n,
                                                                   u32 k, u32 t) {
  await_inputs();
  matmul<1>(out, w, x, n, k, t);
}

KERNEL __launch_bounds__(256) ENOUGH_WAVES(4) void matmul_exact_t4(float *out, const u8 *w, const float *x, u32 n,
                                                                   u32 k, u32 t) {
  await_inputs();
  matmul<4>(out, w, x, n, k, t);
}
