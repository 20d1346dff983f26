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
// A lane has columns of the outputs that are neighbours: column n of tile i of wave w is (w * TILE + n) * ACROSS + i.
constexpr u32 ACROSS = (HEAD_DIM + TILE * WAVES - 1) / (TILE * WAVES);
// Rows of p begin at banks 4 apart: eight lanes that take four values each of their own row find them in all 32 banks.
constexpr u32 STRIDE = SEGMENT + 4;
static_assert(HEAD_DIM <= 256, "heads of up to 256 values");
static_assert(PAGE % WAVE_SLOTS == 0, "a wave's slots are of one page");

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

// A lane's values of block `block` of a head. The last block is padded with zeros.
template <class T> DEV void load_block(const T *head, u32 block, Fragment (&out)[PER]) {
#pragma unroll
  for (u32 h = 0; h < HALVES; h++) {
    u32 d = block * BLOCK + depth(h) * PER;
    if constexpr (HEAD_DIM % PER == 0) {
      bool there = HEAD_DIM % BLOCK == 0 || d < HEAD_DIM;
      Pack<PER, T> pack = *(const Pack<PER, T> *)(head + (there ? d : 0));
#pragma unroll
      for (u32 t = 0; t < PER; t++) out[t].v[h] = there ? real(pack.v[t]) : 0.0f;
    } else {
#pragma unroll
      for (u32 t = 0; t < PER; t++) {
        bool there = d + t < HEAD_DIM;
        T v = head[there ? d + t : 0];
        out[t].v[h] = there ? real(v) : 0.0f;
      }
    }
  }
}

// The rows of a workgroup: where they are in shared memory, their queries in registers. Rows that are not there have the
// first one's query, and see nothing.
DEV void load_rows(Shared &sh, Fragment (&q)[BLOCKS][PER], const Shape &s, const float *from, const i32 *positions,
                   const i32 *seqs, u32 kv_head, u32 first, u32 count) {
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
  const float *head = from + (u64)sh.at[lane_id() % TILE] * HEAD_DIM;
#pragma unroll
  for (u32 b = 0; b < BLOCKS; b++) load_block(head, b, q[b]);
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

// The scores of the wave's slots, keys being rows and queries columns of the product. Past the last slot there is, the
// last one is taken again.
DEV void make_scores(Shared &sh, const Cache &c, const Fragment (&q)[BLOCKS][PER], float scale,
                     u32 wave) {
  u32 begin = wave * WAVE_SLOTS;
  if (begin >= c.most) return;
  const Element *page = c.keys + page_of(c, begin), *key[WAVE_TILES];
  Sums sums[WAVE_TILES] = {};
#pragma unroll
  for (u32 i = 0; i < WAVE_TILES; i++) {
    u32 slot = begin + i * TILE + lane_id() % TILE;
    key[i] = page + (slot < c.most ? slot : c.most - 1) % PAGE * c.width;
  }
#pragma unroll
  for (u32 b = 0; b < BLOCKS; b++) {
    Fragment k[WAVE_TILES][PER];
#pragma unroll
    for (u32 i = 0; i < WAVE_TILES; i++) load_block(key[i], b, k[i]);
#pragma unroll
    for (u32 t = 0; t < PER; t++) {
#pragma unroll
      for (u32 i = 0; i < WAVE_TILES; i++) sums[i] = multiply(k[i][t], q[b][t], sums[i]);
    }
  }
  float *to = sh.p[lane_id() % TILE] + begin + first_row();
#pragma unroll
  for (u32 i = 0; i < WAVE_TILES; i++) {
    Pack<TILE_REGS, float> p;
#pragma unroll
    for (u32 r = 0; r < TILE_REGS; r++) p.v[r] = sums[i].v[r] * scale;
    *(Pack<TILE_REGS, float> *)(to + i * TILE) = p;
  }
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

// The first of a lane's columns of the outputs.
DEV u32 lane_column(u32 wave) { return (wave * TILE + lane_id() % TILE) * ACROSS; }
// Whether the wave has any column.
DEV bool has_columns(u32 wave) { return wave * TILE * ACROSS < HEAD_DIM; }

// A lane's values of a slot. Columns past the head's end, which are not stored, are made of some that are there.
DEV void load_values(const Element *from, u32 slot_bytes, u32 column, Element (&out)[ACROSS]) {
  const u32 SIZE = sizeof(Element);
  if constexpr (HEAD_DIM % ACROSS == 0) {
    u32 at = slot_bytes + (column < HEAD_DIM ? column : 0) * SIZE;
    auto pack = *(const Pack<ACROSS, Element> *)((const char *)from + at);
#pragma unroll
    for (u32 i = 0; i < ACROSS; i++) out[i] = pack.v[i];
  } else {
#pragma unroll
    for (u32 i = 0; i < ACROSS; i++) {
      u32 at = slot_bytes + (column + i < HEAD_DIM ? column + i : 0) * SIZE;
      out[i] = *(const Element *)((const char *)from + at);
    }
  }
}

// p times values, weights being rows and values columns of the product. With `FINITE_ONLY` a value that is not finite is
// taken for 0.
template <bool FINITE_ONLY> DEV void add_values(const Shared &sh, const Cache &c, u32 column, Sums (&o)[ACROSS]) {
  const float *p_row = sh.p[lane_id() % TILE];
#pragma unroll
  for (u32 i = 0; i < ACROSS; i++) o[i] = {};
  u32 at[HALVES][4]; // where slots begin, in bytes from the block's first one; no slot after `last`, but that one again
  auto find = [&](u32 last) {
#pragma unroll
    for (u32 h = 0; h < HALVES; h++) {
#pragma unroll
      for (u32 t = 0; t < 4; t++) {
        u32 slot = depth(h) * 4 + t;
        at[h][t] = (slot < last ? slot : last) * c.width * (u32)sizeof(Element);
      }
    }
  };
  auto add_block = [&](const Element *page, u32 begin) {
    const Element *from = page + begin % PAGE * c.width;
    Pack<4, float> p[HALVES];
    Element v[HALVES][4][ACROSS];
#pragma unroll
    for (u32 h = 0; h < HALVES; h++) {
      p[h] = *(const Pack<4, float> *)(p_row + begin + depth(h) * 4);
#pragma unroll
      for (u32 t = 0; t < 4; t++) load_values(from, at[h][t], column, v[h][t]);
    }
#pragma unroll
    for (u32 t = 0; t < 4; t++) {
#pragma unroll
      for (u32 i = 0; i < ACROSS; i++) {
        Fragment rows, columns;
#pragma unroll
        for (u32 h = 0; h < HALVES; h++) {
          float value = real(v[h][t][i]);
          rows.v[h] = p[h].v[t];
          columns.v[h] = FINITE_ONLY && !(value - value == 0.0f) ? 0.0f : value;
        }
        o[i] = multiply(rows, columns, o[i]);
      }
    }
  };
  u32 begin = 0;
  find(TILE - 1);
  for (; begin + PAGE <= c.most; begin += PAGE) {
    const Element *page = c.values + page_of(c, begin);
#pragma unroll
    for (u32 i = 0; i < PAGE; i += TILE) add_block(page, begin + i);
  }
  for (; begin < c.most; begin += TILE) {
    find(c.most - begin - 1);
    add_block(c.values + page_of(c, begin), begin);
  }
}

// The weighted sum of the values: a lane has rows from `first_row()` on of columns from `lane_column()` on.
DEV void sum_values(const Shared &sh, const Cache &c, i32 seq, u32 segment, u32 wave, Sums (&o)[ACROSS]) {
  if (!has_columns(wave)) return;
  u32 column = lane_column(wave);
  add_values<false>(sh, c, column, o);
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
  add_values<true>(sh, c, column, o);
#pragma unroll 1
  for (u32 r = 0; r < TILE_REGS; r++) {
    u32 row = first_row() + r, seen = seen_by(sh, row, seq, segment);
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
