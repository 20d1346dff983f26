// Scores and values on matrix units (tile_f32.hip.h): all rows of a workgroup at once.
#pragma once

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

struct Queries {
  Fragment v[BLOCKS][PER];
};

// The rows of a workgroup: where they are in shared memory, their queries in registers. Rows that are not there have the
// first one's query.
DEV void load_rows(Shared &sh, Queries &q, const Shape &s, const float *from, const i32 *positions, const i32 *seqs,
                   u32 kv_head, u32 first, u32 count) {
  find_rows(sh, s, positions, seqs, kv_head, first, count);
  const float *head = from + (u64)sh.at[lane_id() % TILE] * HEAD_DIM;
#pragma unroll
  for (u32 b = 0; b < BLOCKS; b++) load_block(head, b, q.v[b]);
}

// The scores of the wave's slots, keys being rows and queries columns of the product. Past the last slot there is, the
// last one is taken again.
DEV void make_scores(Shared &sh, const Cache &c, const Queries &q, float scale, u32 wave) {
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
      for (u32 i = 0; i < WAVE_TILES; i++) sums[i] = multiply(k[i][t], q.v[b][t], sums[i]);
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

// The first of a lane's rows of the outputs.
DEV u32 own_row(const Shared &, u32) { return first_row(); }
// How many of them are this lane's, be they there or not.
DEV u32 own_rows(const Shared &, u32) { return TILE_REGS; }
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
template <bool FINITE_ONLY> DEV void add_values(const Shared &sh, const Cache &c, u32 wave, Sums (&o)[ACROSS]) {
  u32 column = lane_column(wave);
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
