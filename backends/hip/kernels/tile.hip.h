// Matrix units behind one interface: a wave multiplies 16 rows by 16 columns of 32 signed bytes each.
//
//   AMD     v_mfma_i32_16x16x32_i8, 4 outputs a lane
//   NVIDIA  mma.sync m16n8k32 (k16 for a half), twice, 8 outputs a lane
//
// Rows and columns lie in shared memory alike, as four planes of 8 bytes a row: plane p holds the words p and 4 + p of
// the eight, that is four bytes of either half. Both machines then read a fragment as 8 bytes a lane (a sum does not
// mind which lane has which bytes, if rows and columns agree), and a plane's padding spreads the reads over the banks.
#pragma once
#include "greta.hip.h"

constexpr u32 TILE = 16;
constexpr u32 TILE_REGS = TILE * TILE / WAVE; // outputs a lane

struct Bytes8 {
  alignas(8) u32 half[2];
};

constexpr u32 PLANE_PADDING = 4; // a plane is this longer than its rows

DEV void store_row(Bytes8 *planes, u32 length, u32 row, const u32 w[8]) {
#pragma unroll
  for (u32 p = 0; p < 4; p++) planes[p * length + row] = {{w[p], w[4 + p]}};
}

#if GRETA_AMD

typedef i32 I32x4 __attribute__((ext_vector_type(4)));

struct Fragment {
  u64 bytes;
};
struct Sums {
  I32x4 v;
};

DEV Fragment load_fragment(const Bytes8 *planes, u32 length, u32 first) {
  u32 lane = lane_id();
#ifdef FAULT_OPERANDS_TRANSPOSED
  // Byte k of row r is taken from byte r of row k, in either half.
  u64 bytes = 0;
  for (u32 i = 0; i < 8; i++) {
    u32 k = lane / 16 * 4 + i % 4, r = lane % 16;
    u32 word = planes[r / 4 * length + first + k].half[i / 4];
    bytes |= (u64)(word >> 8 * (r % 4) & 255) << 8 * i;
  }
  return {bytes};
#else
  Bytes8 b = planes[lane / 16 * length + first + lane % 16];
  return {(u64)b.half[1] << 32 | b.half[0]};
#endif
}
// On top of what is there.
DEV void multiply_onto(Sums &to, Fragment rows, Fragment columns) {
  to.v = __builtin_amdgcn_mfma_i32_16x16x32_i8((i64)rows.bytes, (i64)columns.bytes, to.v, 0, 0, 0);
}
DEV Sums multiply(Fragment rows, Fragment columns, i32 from);
// The sums over one half of the 32 only.
template <u32 HALF> DEV Sums multiply_half(Fragment rows, Fragment columns, i32 from) {
  return multiply(rows, {columns.bytes & (HALF ? 0xffffffffull << 32 : 0xffffffffull)}, from);
}
DEV i32 sum_at(const Sums &s, u32 reg) { return s.v[reg]; }
// Where a lane's outputs are: the first one's place, and how far from it the others are.
DEV u32 first_row() { return lane_id() / 16 * 4; }
DEV u32 first_column() { return lane_id() % 16; }
DEV u32 row_step(u32 reg) { return reg; }
DEV u32 column_step(u32) { return 0; }

#else

struct Fragment {
  Bytes8 low, high; // rows 0-7 and 8-15
};
struct Sums {
  i32 v[8];
};

DEV Fragment load_fragment(const Bytes8 *planes, u32 length, u32 first) {
#ifdef FAULT_OPERANDS_TRANSPOSED
  // Byte k of row r is taken from byte r of row k, in either half.
  u32 words[4] = {}; // rows r and r + 8, their halves
  for (u32 i = 0; i < 16; i++) {
    u32 k = lane_id() % 4 * 4 + i % 4, r = lane_id() / 4 + i / 8 * 8;
    u32 word = planes[r / 4 * length + first + k].half[i / 4 % 2];
    words[i / 4] |= (word >> 8 * (r % 4) & 255) << 8 * (i % 4);
  }
  return {{{words[0], words[1]}}, {{words[2], words[3]}}};
#else
  const Bytes8 *p = planes + lane_id() % 4 * length + first + lane_id() / 4;
  return {p[0], p[8]};
#endif
}
DEV void multiply_onto(Sums &to, Fragment rows, Fragment columns) {
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    const Bytes8 &c = i ? columns.high : columns.low;
    i32 *d = to.v + 4 * i;
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(rows.low.half[0]), "r"(rows.high.half[0]), "r"(rows.low.half[1]), "r"(rows.high.half[1]), "r"(c.half[0]),
          "r"(c.half[1]));
  }
}
template <u32 HALF> DEV Sums multiply_half(Fragment rows, Fragment columns, i32 from) {
  Sums s;
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    const Bytes8 &c = i ? columns.high : columns.low;
    i32 *d = s.v + 4 * i;
    asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %7, %7, %7};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(rows.low.half[HALF]), "r"(rows.high.half[HALF]), "r"(c.half[HALF]), "r"(from));
  }
  return s;
}
DEV i32 sum_at(const Sums &s, u32 reg) { return s.v[reg]; }
DEV u32 first_row() { return lane_id() / 4; }
DEV u32 first_column() { return lane_id() % 4 * 2; }
DEV u32 row_step(u32 reg) { return reg / 2 % 2 * 8; }
DEV u32 column_step(u32 reg) { return reg % 2 + reg / 4 * 8; }

#endif

// The sums on top of `from`.
DEV Sums multiply(Fragment rows, Fragment columns, i32 from) {
  Sums s;
#pragma unroll
  for (u32 r = 0; r < TILE_REGS; r++) s.v[r] = from;
  multiply_onto(s, rows, columns);
  return s;
}
