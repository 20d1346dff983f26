// Matrix units on f32 behind one interface; tile.hip.h is the one for signed bytes.
#pragma once
#include "greta.hip.h"

// ---- a wave multiplies 16 rows by 16 columns of 4 values each, onto their sums
//
//   AMD     v_mfma_f32_16x16x4_f32: a lane has one value of rows and columns, and four sums
//   others  the same chain of fma; a lane has two values, and eight sums
//
// A lane has the values at `depth(h)` of row (and column) lane % 16, and the sums of column lane % 16 and the rows from
// `first_row()` on.

constexpr u32 TILE = 16, DEPTH = 4;
constexpr u32 TILE_REGS = TILE * TILE / WAVE, HALVES = TILE * DEPTH / WAVE;
constexpr u32 WAVES = 256 / WAVE;

struct Fragment {
  float v[HALVES];
};
DEV u32 depth(u32 h) { return lane_id() / TILE + h * (WAVE / TILE); }
DEV u32 first_row() { return lane_id() / TILE * TILE_REGS; }

#if GRETA_AMD

typedef float F32x4 __attribute__((ext_vector_type(4)));
struct Sums {
  F32x4 v;
};
DEV Sums multiply(Fragment rows, Fragment columns, Sums s) {
  return {__builtin_amdgcn_mfma_f32_16x16x4f32(rows.v[0], columns.v[0], s.v, 0, 0, 0)};
}
// What is the same in all lanes of a wave, in a scalar register.
DEV u32 uniform(u32 v) { return (u32)__builtin_amdgcn_readfirstlane((i32)v); }
// A bit for each lane of the wave.
DEV u64 ballot_(bool v) { return __builtin_amdgcn_ballot_w64(v); }

#else

struct Sums {
  float v[TILE_REGS];
};
DEV u32 uniform(u32 v) { return v; }
DEV u64 ballot_(bool v) {
  u32 out;
  asm volatile("{ .reg .pred p; setp.ne.u32 p, %1, 0; vote.sync.ballot.b32 %0, p, 0xffffffff; }" : "=r"(out) : "r"((u32)v));
  return out;
}

#endif

#if defined(__clang__)
DEV u32 lowest_bit(u32 v) { return (u32)__builtin_ctz(v); }
#else
DEV u32 lowest_bit(u32 v) { return (u32)__ffs((i32)v) - 1; }
#endif
// The largest of TILE lanes' numbers, in every one of them.
DEV i32 largest_of_tile(i32 v) { return largest_of<8>(v); }
