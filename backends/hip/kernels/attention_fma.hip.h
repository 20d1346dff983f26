// Scores and values on the vector units, in the order of attention_mfma.hip.h: a lane has a slot for scores, and columns for
// values. What the lanes of a wave share, queries and weights, they read together from shared memory.
#pragma once

struct Queries {}; // they are in shared memory

DEV void load_rows(Shared &sh, Queries &, const Shape &s, const float *from, const i32 *positions, const i32 *seqs,
                   u32 kv_head, u32 first, u32 count) {
  find_rows(sh, s, positions, seqs, kv_head, first, count);
  if (thread_x() == 0) sh.count = count;
  for (u32 i = thread_x(); i < count * (BLOCKS * BLOCK); i += 256) {
    u32 r = i / (BLOCKS * BLOCK), d = i % (BLOCKS * BLOCK);
    sh.q[r][d] = d < HEAD_DIM ? from[(u64)sh.at[r] * HEAD_DIM + d] : 0.0f;
  }
  barrier();
}

// The first of a wave's rows, and how many of them there are: two waves share those of a workgroup.
DEV u32 own_row(const Shared &sh, u32 wave) { return wave % 2 * ((sh.count + 1) / 2); }
DEV u32 own_rows(const Shared &sh, u32 wave) { return wave % 2 ? sh.count / 2 : (sh.count + 1) / 2; }
DEV u32 lane_column(u32 wave) { return (wave / 2 * WAVE + lane_id()) * ACROSS; }
DEV bool has_columns(u32 wave) { return wave / 2 * WAVE * ACROSS < HEAD_DIM; }

// BLOCK values of a key, as they are stored. What is past the head's end is some value that is there.
struct Key {
  Element v[BLOCK];
};
DEV Key load_key(const Element *key, u32 block) {
  Key out;
#pragma unroll
  for (u32 h = 0; h < DEPTH; h++) {
    u32 d = block * BLOCK + h * PER;
    if constexpr (HEAD_DIM % PER == 0) {
      Pack<PER, Element> pack = *(const Pack<PER, Element> *)(key + (d < HEAD_DIM ? d : 0));
#pragma unroll
      for (u32 t = 0; t < PER; t++) out.v[h * PER + t] = pack.v[t];
    } else {
#pragma unroll
      for (u32 t = 0; t < PER; t++) out.v[h * PER + t] = key[d + t < HEAD_DIM ? d + t : 0];
    }
  }
  return out;
}

// Adds a block of the head to the sums of a slot.
DEV void add_block(const Shared &sh, const Key &k, u32 block, u32 first, u32 rows, float (&sum)[TILE_REGS]) {
  float value[BLOCK]; // queries are padded with zeros; 0 times a value that is not finite is none
#pragma unroll
  for (u32 d = 0; d < BLOCK; d++) {
    bool there = HEAD_DIM % BLOCK == 0 || block * BLOCK + d < HEAD_DIM;
    value[d] = there ? real(k.v[d]) : 0.0f;
  }
#pragma unroll
  for (u32 r = 0; r < TILE_REGS; r++) {
    if (r >= rows) break;
    Pack<4, float> q[BLOCK / 4];
#pragma unroll
    for (u32 i = 0; i < BLOCK / 4; i++) q[i] = *(const Pack<4, float> *)(sh.q[first + r] + block * BLOCK + i * 4);
#pragma unroll
    for (u32 t = 0; t < PER; t++) {
#pragma unroll
      for (u32 h = 0; h < DEPTH; h++) {
        u32 d = h * PER + t;
        sum[r] = fma_(value[d], q[d / 4].v[d % 4], sum[r]);
      }
    }
  }
}

// The scores of a slot a lane. Past the last slot there is, the last one is taken again.
DEV void make_scores(Shared &sh, const Cache &c, const Queries &, float scale, u32 wave) {
  u32 begin = wave / 2 * WAVE, slot = begin + lane_id(), first = own_row(sh, wave), rows = own_rows(sh, wave);
  bool none = begin >= c.most || rows == 0;
  float sum[TILE_REGS] = {};
  if constexpr (STAGED) {
    const u32 PIECES = STAGE_BYTES / 16, STAGES = HEAD_DIM * sizeof(Element) / STAGE_BYTES;
    const u32 IN_STAGE = STAGE_BYTES / (BLOCK * sizeof(Element)); // blocks
#pragma unroll 1
    for (u32 stage = 0; stage < STAGES; stage++) {
      if (stage > 0) barrier(); // all are through with the last one
      struct alignas(16) Piece {
        u32 v[4];
      } pieces[SEGMENT * PIECES / 256];
#pragma unroll
      for (u32 i = 0; i < SEGMENT * PIECES / 256; i++) {
        u32 at = thread_x() + i * 256, of = at / PIECES < c.most ? at / PIECES : c.most - 1;
        const Element *key = c.keys + page_of(c, of) + of % PAGE * c.width;
        pieces[i] = *(const Piece *)((const char *)key + stage * STAGE_BYTES + at % PIECES * 16);
      }
#pragma unroll
      for (u32 i = 0; i < SEGMENT * PIECES / 256; i++) {
        u32 at = thread_x() + i * 256;
        *(Piece *)(sh.keys[at / PIECES] + at % PIECES * 16) = pieces[i];
      }
      barrier();
      if (none) continue;
#pragma unroll
      for (u32 b = 0; b < IN_STAGE; b++) {
        Key k = load_key((const Element *)sh.keys[slot], b);
        add_block(sh, k, stage * IN_STAGE + b, first, rows, sum);
      }
    }
  } else if (!none) {
    const Element *key = c.keys + page_of(c, begin) + (slot < c.most ? slot : c.most - 1) % PAGE * c.width;
#pragma unroll
    for (u32 b = 0; b < BLOCKS; b++) add_block(sh, load_key(key, b), b, first, rows, sum);
  }
  if (none) return;
#pragma unroll
  for (u32 r = 0; r < TILE_REGS; r++) {
    if (r < rows) sh.p[first + r][slot] = sum[r] * scale;
  }
}

// A lane's values of a slot. Columns past the head's end, which are not stored, are made of some that are there.
DEV void load_values(const Element *from, u32 column, Element (&out)[ACROSS]) {
  if constexpr (HEAD_DIM % ACROSS == 0) {
    auto pack = *(const Pack<ACROSS, Element> *)(from + (column < HEAD_DIM ? column : 0));
#pragma unroll
    for (u32 i = 0; i < ACROSS; i++) out[i] = pack.v[i];
  } else {
#pragma unroll
    for (u32 i = 0; i < ACROSS; i++) out[i] = from[column + i < HEAD_DIM ? column + i : 0];
  }
}

// p times values. With `FINITE_ONLY` a value that is not finite is taken for 0.
template <bool FINITE_ONLY> DEV void add_values(const Shared &sh, const Cache &c, u32 wave, Sums (&o)[ACROSS]) {
  u32 column = lane_column(wave), first = own_row(sh, wave), rows = own_rows(sh, wave);
#pragma unroll
  for (u32 i = 0; i < ACROSS; i++) o[i] = {};
  if (rows == 0) return;
  auto add_tile = [&](u32 begin, const Element (&v)[TILE][ACROSS]) {
    float value[TILE][ACROSS];
#pragma unroll
    for (u32 j = 0; j < TILE; j++) {
#pragma unroll
      for (u32 i = 0; i < ACROSS; i++) {
        float x = real(v[j][i]);
        value[j][i] = FINITE_ONLY && !(x - x == 0.0f) ? 0.0f : x;
      }
    }
#pragma unroll
    for (u32 r = 0; r < TILE_REGS; r++) {
      if (r >= rows) break;
      Pack<4, float> p[TILE / 4];
#pragma unroll
      for (u32 k = 0; k < TILE / 4; k++) p[k] = *(const Pack<4, float> *)(sh.p[first + r] + begin + k * 4);
#pragma unroll
      for (u32 t = 0; t < 4; t++) {
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
#pragma unroll
          for (u32 i = 0; i < ACROSS; i++) o[i].v[r] = fma_(p[k].v[t], value[k * 4 + t][i], o[i].v[r]);
        }
      }
    }
  };
  for (u32 begin = 0; begin < c.most; begin += PAGE) {
    const Element *page = c.values + page_of(c, begin);
    u32 last = c.most - begin - 1;
    Element v[PAGE / TILE][TILE][ACROSS]; // on their way together
#pragma unroll
    for (u32 j = 0; j < PAGE; j++) load_values(page + (j < last ? j : last) * c.width, column, v[j / TILE][j % TILE]);
#pragma unroll
    for (u32 i = 0; i < PAGE / TILE; i++) {
      if (begin + i * TILE < c.most) add_tile(begin + i * TILE, v[i]);
    }
  }
}
