// What both routes of attention are made of; attention.hip says the order of its sums.
#pragma once
#include "tile_f32.hip.h"


#define F32 0
#define F16 1
#if KV == F16
typedef u16 Element;
DEV float real(u16 v) { return f16_to_f32(v); }
#else
typedef float Element;
#endif
DEV float real(float v) { return v; }

// ---- sizes

constexpr u32 PAGE = 32, SEGMENT = 128;
constexpr u32 ROWS = TILE;
constexpr u32 PER = HEAD_DIM % 32 == 0 ? 8 : 4; // values of a head that a lane loads together
constexpr u32 BLOCK = DEPTH * PER, BLOCKS = (HEAD_DIM + BLOCK - 1) / BLOCK;
constexpr u32 WAVE_SLOTS = SEGMENT / WAVES; // whose scores a wave makes
constexpr u32 WAVE_TILES = WAVE_SLOTS / TILE;
// A lane has TILE_REGS rows of the outputs from `own_row` on, and ACROSS columns from `lane_column` on.
#if GRETA_AMD
// Column n of tile i of wave w is (w * TILE + n) * ACROSS + i.
constexpr u32 ACROSS = (HEAD_DIM + TILE * WAVES - 1) / (TILE * WAVES);
#else
// Two waves share 32 ACROSS columns: one has the first half of the rows, the other the second.
constexpr u32 ACROSS = (HEAD_DIM + 16 * WAVES - 1) / (16 * WAVES);
#endif
// Rows of p begin at banks 4 apart: eight lanes that take four values each of their own row find them in all 32 banks.
constexpr u32 STRIDE = SEGMENT + 4;
static_assert(HEAD_DIM <= 256, "heads of up to 256 values");
static_assert(PAGE % WAVE_SLOTS == 0, "a wave's slots are of one page");

#if !GRETA_AMD
// Keys go through shared memory by so many bytes of each, where they are made of such pieces: their slots lie far apart.
constexpr u32 STAGE_BYTES = 128;
constexpr bool STAGED = HEAD_DIM * sizeof(Element) % STAGE_BYTES == 0;
#endif

struct Shape {
  u32 heads, kv_heads, tokens, table_width;
  float scale;
};

// What the sums so far and the next segment's are multiplied with.
struct Factors {
  float so_far, next;
};

struct Shared {
  alignas(16) float p[ROWS][STRIDE]; // scores, then weights
#if !GRETA_AMD
  alignas(16) float q[ROWS][BLOCKS * BLOCK]; // queries, padded with zeros
  u32 count;                                 // rows there are
  alignas(16) char keys[SEGMENT][STAGED ? STAGE_BYTES + 16 : 1];
#endif
  float m[ROWS], l[ROWS]; // of the segment at hand
  float M[ROWS], L[ROWS]; // so far
  Factors factors[ROWS];
  i32 position[ROWS], seq[ROWS]; // position -1: no such row
  u32 at[ROWS]; // the row's place in q and out
};

struct Row {
  u32 token, head;
};

// Rows of a key-value head are its query heads of the first token, then those of the second, and so on.
DEV Row row_of(const Shape &s, u32 kv_head, u32 index) {
  u32 group = s.heads / s.kv_heads;
#ifdef FAULT_GQA_MAP
  return {index / group, index % group * s.kv_heads + kv_head};
#else
  return {index / group, kv_head * group + index % group};
#endif
}

// N neighbours whose address is a multiple of their size, and thereby of the powers of two in it. 16 bytes are enough.
constexpr u32 alignment(u32 bytes) { return bytes % 16 == 0 ? 16 : bytes & ~(bytes - 1); }
template <u32 N, class T> struct alignas(alignment(N * sizeof(T))) Pack {
  T v[N];
};

// The rows of a workgroup: where they are in shared memory. Rows that are not there see nothing.
DEV void find_rows(Shared &sh, const Shape &s, const i32 *positions, const i32 *seqs, u32 kv_head, u32 first, u32 count) {
  if (thread_x() < ROWS) {
    u32 r = thread_x();
    bool there = r < count;
    Row row = row_of(s, kv_head, there ? first + r : first);
    i32 position = positions[row.token], seq = seqs[row.token];
    sh.position[r] = there ? position : -1;
    sh.seq[r] = there ? seq : -1;
    sh.at[r] = row.token * s.heads + row.head;
  }
  barrier();
}

// Slots of the segment that a row of this sequence sees.
DEV u32 seen_by(const Shared &sh, u32 r, i32 seq, u32 segment) {
  i32 seen = sh.position[r] + 1 - (i32)(segment * SEGMENT);
  bool none = (sh.seq[r] != seq) | (seen < 0);
  seen = none ? 0 : seen;
  return seen < (i32)SEGMENT ? (u32)seen : SEGMENT;
}

// A sequence's part of the cache, for one key-value head and a segment of which `most` slots are seen by any row.
struct Cache {
  const Element *keys, *values; // of the head
  const i32 *pages;             // of the segment
  u32 width;                    // of a slot, in elements
  u32 most;
};
DEV u64 page_of(const Cache &c, u32 slot) { return (u64)uniform((u32)c.pages[slot / PAGE]) * PAGE * c.width; }

DEV Cache cache_of(const Shape &s, const Element *keys, const Element *values, const i32 *table, i32 seq, u32 kv_head,
                   u32 segment, u32 most) {
  u32 head = kv_head * HEAD_DIM;
  return {keys + head, values + head, table + (u64)(u32)seq * s.table_width + segment * (SEGMENT / PAGE),
          s.kv_heads * HEAD_DIM, most};
}

// Weights in the place of scores, and m and l; 32 lanes a row. A NaN among the scores is passed over by m and goes into l.
DEV void weigh(Shared &sh, i32 seq, u32 segment) {
  const float LEAST = as_float(0xff800000u);
  u32 lane = thread_x() % 32;
  for (u32 r = thread_x() / 32; r < ROWS; r += 8) {
    u32 seen = seen_by(sh, r, seq, segment);
    float p[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (seen > 0) {
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        u32 j = i * 32 + lane;
        float score = sh.p[r][j < seen ? j : 0];
        p[i] = j < seen ? score : LEAST;
      }
      float top = LEAST;
#pragma unroll
      for (u32 i = 0; i < 4; i++) top = max_(top, p[i]);
      top = max32(top);
#pragma unroll
      for (u32 i = 0; i < 4; i++) p[i] = i * 32 + lane < seen ? exp_(p[i] - top) : 0.0f;
      float l = sum32((p[0] + p[1]) + (p[2] + p[3]));
      if (lane == 0) sh.m[r] = top, sh.l[r] = l;
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) sh.p[r][i * 32 + lane] = p[i];
  }
}

// `Queries`, `load_rows`, `make_scores`, `own_row`, `lane_column`, `has_columns` and `add_values`, by target.
#if GRETA_AMD
#include "attention_mfma.hip.h"
#else
#include "attention_fma.hip.h"
#endif

// The weighted sum of the values: a lane has rows from `own_row` on of columns from `lane_column` on.
DEV void sum_values(const Shared &sh, const Cache &c, i32 seq, u32 segment, u32 wave, Sums (&o)[ACROSS]) {
  if (!has_columns(wave)) return;
  u32 column = lane_column(wave);
  add_values<false>(sh, c, wave, o);
  float zero = 0.0f; // as long as all outputs are finite
#pragma unroll
  for (u32 i = 0; i < ACROSS; i++) {
#pragma unroll
    for (u32 r = 0; r < TILE_REGS; r++) {
      zero = fma_(o[i].v[r], 0.0f, zero);
      o[i].v[r] += 0.0f;
    }
  }
  if (ballot_(!(zero == 0.0f)) == 0) return;
  add_values<true>(sh, c, wave, o);
#pragma unroll 1
  for (u32 r = 0; r < TILE_REGS; r++) {
    u32 row = own_row(sh, wave) + r, seen = seen_by(sh, row, seq, segment);
    for (u32 i = 0; i < ACROSS && column + i < HEAD_DIM; i++) {
      float sum = 0.0f;
      for (u32 j = 0; j < seen; j++) {
        u64 slot = (u64)(u32)c.pages[j / PAGE] * PAGE + j % PAGE;
        float value = real(c.values[slot * c.width + column + i]);
        if (!(value - value == 0.0f)) sum = fma_(sh.p[row][j], value, sum);
      }
      // No index that is known at run time alone: registers have none.
#pragma unroll
      for (u32 k = 0; k < ACROSS * TILE_REGS; k++) {
        if (k == i * TILE_REGS + r) o[k / TILE_REGS].v[k % TILE_REGS] += sum;
      }
    }
  }
}

DEV Factors merge(float &M, float &L, float m, float l, bool first) {
  if (first) {
    M = m, L = l;
    return {0.0f, 1.0f};
  }
  float top = max_(M, m);
  Factors f = {exp_(M - top), exp_(m - top)};
  M = top;
  L = fma_(L, f.so_far, l * f.next);
  return f;
}
