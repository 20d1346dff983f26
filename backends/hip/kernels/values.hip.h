// Rows of weights of any type as f32 values, to the bit as ops/src/quant defines them.
//
// A row is a sequence of units, which one lane reads: a group of 32 values of a quantised type, 8 values in a row of a
// plain one (the last unit of a row may be shorter).
#pragma once
#include "quant.hip.h"

struct alignas(16) F32x4 {
  float v[4];
};

#if PLAIN

constexpr u32 UNIT = 8;
#if WEIGHT == F32
typedef float Plain;
DEV float plain_value(Plain v) { return v; }
#elif WEIGHT == F16
typedef u16 Plain;
DEV float plain_value(Plain v) { return f16_to_f32(v); }
#else
typedef u16 Plain;
DEV float plain_value(Plain v) { return bf16_to_f32(v); }
#endif
DEV u64 row_bytes(u32 k) { return (u64)k * sizeof(Plain); }

// Calls `use(i, values)` for every four values of a unit in ascending order; i is the first one's place in the row.
//
// Rows of whole units (`WHOLE`) are aligned to one, so that they are read 16 bytes at a time; others value by value,
// and what is past the end is 0.
template <bool WHOLE, class Use> DEV void for_each_four(const u8 *row, u32 unit, u32 k, Use use) {
  const Plain *p = (const Plain *)row + (u64)unit * UNIT;
  struct alignas(16) Whole {
    Plain v[UNIT];
  };
  float v[UNIT];
  if constexpr (WHOLE) {
    Whole whole = *(const Whole *)p;
#pragma unroll
    for (u32 i = 0; i < UNIT; i++) v[i] = plain_value(whole.v[i]);
  } else {
#pragma unroll
    for (u32 i = 0; i < UNIT; i++) v[i] = unit * UNIT + i < k ? plain_value(p[i]) : 0.0f;
  }
#pragma unroll
  for (u32 i = 0; i < UNIT; i += 4) use(unit * UNIT + i, v + i);
}

#else

constexpr u32 UNIT = 32;

template <bool, class Use> DEV void for_each_four(const u8 *row, u32 unit, u32, Use use) {
  const u8 *block = block_of(row, unit);
  u32 g = group_in_block(unit), w[8];
  codes(block, g, w);
  Scales s = scales_of(block, g);
#pragma unroll
  for (u32 i = 0; i < 8; i++) {
    u32 half = SUB16 ? i / 4 : 0;
    float scale = s.d * (float)s.sub[half], v[4];
    [[maybe_unused]] float min = s.dmin * (float)s.min[half];
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
      u32 byte = w[i] >> 8 * j & 255;
      float code = SIGNED_CODES ? (float)(i32)(i8)byte : (float)byte - (float)OFFSET;
      v[j] = scale * code;
      if constexpr (HAS_MIN) v[j] = v[j] - min;
    }
    use(unit * UNIT + 4 * i, v);
  }
}

#endif

// Whether rows are whole units: those of quantised types always are.
DEV bool whole_units(u32 k) { return !PLAIN || k % UNIT == 0; }

// Four values at `p[i]` of a row of k: 16 bytes at once where rows are whole units, one by one and 0 past the end else.
template <bool WHOLE> DEV void load_four(const float *p, u32 i, u32 k, float v[4]) {
  if constexpr (WHOLE) {
    F32x4 four = *(const F32x4 *)(p + i);
#pragma unroll
    for (u32 j = 0; j < 4; j++) v[j] = four.v[j];
  } else {
#pragma unroll
    for (u32 j = 0; j < 4; j++) v[j] = i + j < k ? p[i + j] : 0.0f;
  }
}
template <bool WHOLE> DEV void store_four(float *p, u32 i, u32 k, const float v[4]) {
  if constexpr (WHOLE) {
    *(F32x4 *)(p + i) = {{v[0], v[1], v[2], v[3]}};
  } else {
#pragma unroll
    for (u32 j = 0; j < 4; j++)
      if (i + j < k) p[i + j] = v[j];
  }
}
DEV u32 units_of(u32 k) { return (k + UNIT - 1) / UNIT; }
