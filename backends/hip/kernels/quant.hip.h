// The packed weight types. One compile is for one of them, named on the command line: -DWEIGHT=Q4_K.
//
// Kernels see every quantised type as groups of 32 values, which is what one scale of activations covers: a block of 32
// is one group, a super-block of 256 eight. A value is, in f32 and in this order of roundings,
//
//   (d * sub) * (code - OFFSET)  -  dmin * min
//
// with one `sub` and one `min` a group, or two (16 values each) where SUB16. The layouts are documented where the
// reference reads them, in ops/src/quant.
#pragma once
#include "greta.hip.h"

// GGUF's numbers.
#define F32 0
#define F16 1
#define Q4_0 2
#define Q4_1 3
#define Q5_0 6
#define Q5_1 7
#define Q8_0 8
#define Q2_K 10
#define Q3_K 11
#define Q4_K 12
#define Q5_K 13
#define Q6_K 14
#define BF16 30
#ifndef WEIGHT
#error "name the weights' type: -DWEIGHT=Q4_K"
#endif

#define PLAIN (WEIGHT == F32 || WEIGHT == F16 || WEIGHT == BF16)

#if !PLAIN

struct alignas(16) U32x4 {
  u32 v[4];
};

// The formats' facts. ALIGN is what a block's address is known to be a multiple of, as blocks follow without padding.
template <u32 VALUES, u32 BYTES, bool SUB16_, bool HAS_MIN_, i32 OFFSET_> struct Facts {
  static constexpr u32 values = VALUES, bytes = BYTES, align = BYTES % 16 == 0 ? 16 : BYTES % 4 == 0 ? 4 : 2;
  static constexpr bool sub16 = SUB16_, has_min = HAS_MIN_;
  static constexpr i32 offset = OFFSET_;
};
#if WEIGHT == Q4_0
typedef Facts<32, 18, false, false, 8> Format;
#elif WEIGHT == Q4_1
typedef Facts<32, 20, false, true, 0> Format;
#elif WEIGHT == Q5_0
typedef Facts<32, 22, false, false, 16> Format;
#elif WEIGHT == Q5_1
typedef Facts<32, 24, false, true, 0> Format;
#elif WEIGHT == Q8_0
typedef Facts<32, 34, false, false, 0> Format; // its codes are signed bytes
#elif WEIGHT == Q2_K
typedef Facts<256, 84, true, true, 0> Format;
#elif WEIGHT == Q3_K
typedef Facts<256, 110, true, false, 4> Format;
#elif WEIGHT == Q4_K
typedef Facts<256, 144, false, true, 0> Format;
#elif WEIGHT == Q5_K
typedef Facts<256, 176, false, true, 0> Format;
#elif WEIGHT == Q6_K
typedef Facts<256, 210, true, false, 32> Format;
#else
#error "no such type of weights"
#endif
constexpr u32 BLOCK_VALUES = Format::values, BLOCK_BYTES = Format::bytes, BLOCK_ALIGN = Format::align;
constexpr u32 GROUPS = BLOCK_VALUES / 32; // in a block
constexpr bool SUB16 = Format::sub16, HAS_MIN = Format::has_min, SIGNED_CODES = WEIGHT == Q8_0;
constexpr i32 OFFSET = Format::offset;

// N words at a multiple of 16 (as far as ALIGN reaches) from the start of a block.
template <u32 N> DEV void load_words(const u8 *p, u32 *w) {
  if constexpr (BLOCK_ALIGN == 16) {
#pragma unroll
    for (u32 i = 0; i < N / 4; i++) {
      U32x4 v = ((const U32x4 *)p)[i];
#pragma unroll
      for (u32 j = 0; j < 4; j++) w[4 * i + j] = v.v[j];
    }
  } else {
#pragma unroll
    for (u32 i = 0; i < N; i++) {
      if constexpr (BLOCK_ALIGN == 4) w[i] = ((const u32 *)p)[i];
      else w[i] = load32_a2(p + 4 * i);
    }
  }
}
DEV float load_f16(const u8 *p) { return f16_to_f32(*(const u16 *)p); }
DEV i32 load_i8(const u8 *p) { return *(const i8 *)p; }

// `bits` bits of every byte, from bit `at` on.
DEV u32 bits_of_bytes(u32 word, u32 at, u32 bits) { return (word >> at) & (((1u << bits) - 1) * 0x01010101u); }

// Blocks of 32: the low nibbles are the first 16 codes, the high ones the rest.
DEV void nibbles(const u8 *p, u32 w[8]) {
  u32 q[4];
  load_words<4>(p, q);
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    w[i] = bits_of_bytes(q[i], 0, 4);
    w[4 + i] = bits_of_bytes(q[i], 4, 4);
  }
}

#if WEIGHT == Q5_0 || WEIGHT == Q5_1
// Bit i of the word at `p` is code i's fifth.
DEV void fifth_bits(const u8 *p, u32 w[8]) {
  u32 high;
  load_words<1>(p, &high);
  // The product moves bit j to bit 8 j, for j below 4; nothing carries.
#pragma unroll
  for (u32 i = 0; i < 8; i++) w[i] |= (((high >> 4 * i & 15) * 0x00204081u) & 0x01010101u) << 4;
}
#endif

// Super-blocks: the group's codes are `bits` bits of 32 bytes at `p`; they are joined to `w` from bit `to` on.
DEV void plane(const u8 *p, u32 at, u32 bits, u32 to, u32 w[8]) {
  u32 q[8];
  load_words<8>(p, q);
#pragma unroll
  for (u32 i = 0; i < 8; i++) w[i] |= bits_of_bytes(q[i], at, bits) << to;
}

// The 32 codes of a group, four a word in the order of the values; unsigned but for Q8_0.
DEV void codes(const u8 *block, [[maybe_unused]] u32 g, u32 w[8]) {
#if WEIGHT == Q4_0
  nibbles(block + 2, w);
#elif WEIGHT == Q4_1
  nibbles(block + 4, w);
#elif WEIGHT == Q5_0
  nibbles(block + 6, w);
  fifth_bits(block + 2, w);
#elif WEIGHT == Q5_1
  nibbles(block + 8, w);
  fifth_bits(block + 4, w);
#elif WEIGHT == Q8_0
  load_words<8>(block + 2, w);
#else
#pragma unroll
  for (u32 i = 0; i < 8; i++) w[i] = 0;
#if WEIGHT == Q2_K
  plane(block + 16 + g / 4 * 32, g % 4 * 2, 2, 0, w);
#elif WEIGHT == Q3_K
  plane(block + 32 + g / 4 * 32, g % 4 * 2, 2, 0, w);
  plane(block, g, 1, 2, w);
#elif WEIGHT == Q4_K
#ifdef FAULT_Q4K_NIBBLES
  g ^= 1;
#endif
  plane(block + 16 + g / 2 * 32, g % 2 * 4, 4, 0, w);
#elif WEIGHT == Q5_K
  plane(block + 48 + g / 2 * 32, g % 2 * 4, 4, 0, w);
  plane(block + 16, g, 1, 4, w);
#else // Q6_K: the low nibbles of 64 bytes, then their high ones; two bits of 32 bytes
  plane(block + g / 4 * 64 + g % 2 * 32, g / 2 % 2 * 4, 4, 0, w);
#ifdef FAULT_Q6K_ORDER
  plane(block + 128 + g / 4 * 32, 6 - g % 4 * 2, 2, 4, w);
#else
  plane(block + 128 + g / 4 * 32, g % 4 * 2, 2, 4, w);
#endif
#endif
#endif
}

// Codes less OFFSET, as signed bytes.
DEV void signed_codes(const u8 *block, u32 g, u32 w[8]) {
  codes(block, g, w);
  if constexpr (OFFSET != 0) {
    // With the top bit set no byte borrows from the next.
#pragma unroll
    for (u32 i = 0; i < 8; i++) w[i] = ((w[i] | 0x80808080u) - OFFSET * 0x01010101u) ^ 0x80808080u;
  }
}

// A group's scales as the block stores them; sub[1] and min[1] are those of the last 16 values, where SUB16.
struct Scales {
  float d, dmin;
  i32 sub[2], min[2];
};

DEV Scales scales_of(const u8 *block, [[maybe_unused]] u32 g) {
  Scales s = {0.0f, 0.0f, {1, 1}, {1, 1}};
#if WEIGHT == Q4_0 || WEIGHT == Q5_0 || WEIGHT == Q8_0
  s.d = load_f16(block);
#elif WEIGHT == Q4_1 || WEIGHT == Q5_1
  s.d = load_f16(block);
  s.dmin = -load_f16(block + 2); // the block stores what is added
#elif WEIGHT == Q2_K
  s.d = load_f16(block + 80);
  s.dmin = load_f16(block + 82);
  u32 both = *(const u16 *)(block + 2 * g);
  s.sub[0] = both & 15, s.min[0] = both >> 4 & 15;
  s.sub[1] = both >> 8 & 15, s.min[1] = both >> 12;
#elif WEIGHT == Q3_K
  // Sixteen 6-bit scales: nibbles of 8 bytes (the first eight's are the low ones), pairs of upper bits in 4 bytes.
  // Those of a group are neighbours everywhere.
  s.d = load_f16(block + 108);
  u32 low = *(const u16 *)(block + 96 + g % 4 * 2) >> g / 4 * 4;
  u32 high = *(const u16 *)(block + 104 + g % 2 * 2) >> g / 2 * 2;
  s.sub[0] = (i32)((low & 15) | (high & 3) << 4) - 32;
  s.sub[1] = (i32)((low >> 8 & 15) | (high >> 8 & 3) << 4) - 32;
#elif WEIGHT == Q4_K || WEIGHT == Q5_K
  // Twelve bytes of 6-bit numbers. Bytes 0-3 and 4-7 hold the first four scales and minima; bytes 8-11 the nibbles of
  // the other four, whose upper two bits are at the top of bytes 0-7.
  u32 head[4];
  load_words<4>(block, head);
  s.d = f16_to_f32((u16)head[0]);
  s.dmin = f16_to_f32((u16)(head[0] >> 16));
  u32 at = g % 4 * 8;
  u32 a = head[1] >> at & 255, b = head[2] >> at & 255, c = head[3] >> at & 255;
  bool split = g >= 4;
  u32 low = split ? 15 : 63, high = split ? 48 : 0;
  s.sub[0] = ((split ? c : a) & low) | (a >> 2 & high);
  s.min[0] = ((split ? c >> 4 : b) & low) | (b >> 2 & high);
#else // Q6_K
  s.d = load_f16(block + 208);
  u32 both = *(const u16 *)(block + 192 + 2 * g);
  s.sub[0] = (i8)(both & 255);
  s.sub[1] = (i8)(both >> 8);
#endif
  return s;
}

// A row's block that holds group `b`, and the group's number in it.
DEV const u8 *block_of(const u8 *row, u32 b) { return row + (u64)(b / GROUPS) * BLOCK_BYTES; }
DEV u32 group_in_block(u32 b) { return b % GROUPS; }
DEV u64 row_bytes(u32 k) { return (u64)(k / BLOCK_VALUES) * BLOCK_BYTES; }

#endif // !PLAIN
