// The arithmetic of quantised weights times quantised activations, one group of 32 values at a time. Every kernel of an
// int8 product goes through `add_group`, so that all give the same bits:
//
//   one scale a group:   dot = sum of (code - OFFSET) * x                      exact
//                        acc = fma(dot, (d * sub) * xs, acc)
//                        acc = fma(-(dmin * min), xs * sum of x, acc)          with minima
//   two (16 values each):
//                        dot = sub0 * dot0 + sub1 * dot1                       exact
//                        acc = fma(dot, d * xs, acc)
//                        acc = fma(-((min0 * sum0 + min1 * sum1) * dmin), xs, acc)  with minima
//
// Every product in parentheses, and each right operand of fma, is rounded to f32.
//
// Four groups are a quad: half a super-block, or four blocks. An output's quads are spread over 32 chains: chain c adds quads
// c, c + 32, c + 64 ... from zero, the groups of each in order, and the chains are added up as sum32 adds lanes. A chain without
// quads is a zero. That order holds for any number of tokens.
#pragma once
#include "quant.hip.h"
#if PLAIN
#error "int8 products are for quantised weights"
#endif

constexpr u32 CHAINS = 32, QUAD = 4;

// Whether a group is part of the sum: always, unless a fault is built in.
DEV bool counts([[maybe_unused]] u32 b) {
#ifdef FAULT_HALF_WAVE
  return b % 2 == 0;
#elif defined(FAULT_K_TERMS)
  return b < FAULT_K_TERMS / 32;
#else
  return true;
#endif
}

// Two integers of 16 bits.
DEV u32 pair(i32 a, i32 b) { return ((u32)a & 0xffff) | (u32)b << 16; }
DEV i32 pair_low(u32 p) { return (i32)(p << 16) >> 16; }
DEV i32 pair_high(u32 p) { return (i32)p >> 16; }

// The weights' side of a group.
struct GroupScales {
  float scale;     // d * sub; d where SUB16
  float minus_min; // -(dmin * min); -dmin where SUB16
  u32 subs, mins;  // pairs, where SUB16
};

DEV GroupScales group_scales(const u8 *block, u32 g) {
  Scales s = scales_of(block, g);
  if constexpr (SUB16) return {s.d, -s.dmin, pair(s.sub[0], s.sub[1]), pair(s.min[0], s.min[1])};
  else return {s.d * (float)s.sub[0], -(s.dmin * (float)s.min[0]), 0, 0};
}

// The activations' side.
struct GroupActs {
  float scale;
  u32 more; // scale * sum of codes, as bits; where SUB16 the halves' sums, a pair
};

DEV GroupActs group_acts(const u32 x[8], float scale) {
  GroupActs a = {scale, 0};
  if constexpr (HAS_MIN) {
    const u32 ONES = 0x01010101u;
    i32 sum[2] = {0, 0};
#pragma unroll
    for (u32 i = 0; i < 8; i++) sum[i / 4] = dot4(x[i], ONES, sum[i / 4]);
    if constexpr (SUB16) a.more = pair(sum[0], sum[1]);
    else a.more = as_uint(scale * (float)(sum[0] + sum[1]));
  }
  return a;
}

// a * b for factors of at most 24 bits, which multiply at full speed on AMD. (No dot of 16 codes needs more.)
DEV i32 mul24(i32 a, i32 b) { return ((i32)((u32)a << 8) >> 8) * ((i32)((u32)b << 8) >> 8); }

// One output's step with one scale a group.
DEV float add_group(float acc, float dot, const GroupScales &w, const GroupActs &x) {
  acc = fma_(dot, w.scale * x.scale, acc);
  if constexpr (HAS_MIN) acc = fma_(w.minus_min, as_float(x.more), acc);
  return acc;
}

// One output's step with two: the dots of the halves.
DEV float add_group(float acc, i32 dot0, i32 dot1, const GroupScales &w, const GroupActs &x) {
  i32 dot = mul24(dot0, pair_low(w.subs)) + mul24(dot1, pair_high(w.subs));
  acc = fma_((float)dot, w.scale * x.scale, acc);
  if constexpr (HAS_MIN) {
    i32 mins = mul24(pair_low(x.more), pair_low(w.mins)) + mul24(pair_high(x.more), pair_high(w.mins));
    acc = fma_((float)mins * w.minus_min, x.scale, acc);
  }
  return acc;
}

// 32 codes of activations; their rows are whole groups.
DEV void load_acts(const i8 *p, u32 x[8]) {
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    U32x4 v = ((const U32x4 *)p)[i];
#pragma unroll
    for (u32 j = 0; j < 4; j++) x[4 * i + j] = v.v[j];
  }
}
