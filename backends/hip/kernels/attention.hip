// Causal grouped-query attention over a paged cache, `HEAD_DIM` values a head, keys and values in `KV` (F32 or F16).
//
// Scores and outputs are products on the matrix cores, in f32: 16 query rows a workgroup, be they of many tokens or one.
//
// The order of every sum, the same in both routes, so that prefill and decode agree to the bit:
// - Keys are cut into segments of 128 at fixed absolute positions.
// - A score is one chain of fma from 0, times the scale. Values come in blocks of 4 PER (last one padded with zeros):
//   those at 0, PER, 2 PER, 3 PER of the block, then those at 1, PER + 1, 2 PER + 1, 3 PER + 1, and so on.
// - In a segment m is the largest score seen, p = e^(score - m), l the sum of p (lane i has keys i, i + 32, i + 64, i + 96,
//   added (p0 + p1) + (p2 + p3), then folded over 32 lanes), o the chain fma(p, v, o) from 0, plus 0. Slots come in blocks
//   of 16: those at 0, 4, 8, 12 of the block, then those at 1, 5, 9, 13, and so on.
// - Segments are merged by ascending position, the first as it is, then: m' = max(M, m), a = e^(M - m'), b = e^(m - m'),
//   L = fma(L, a, l b), O = fma(O, a, o b). The output is O / L.
//
// What a row does not see does not touch it, though all rows of a tile go through the same products:
// - A key is a column of its own in the product that gives scores, and the score of an unseen one is not looked at.
// - An unseen slot has p = +0. A finite value times that leaves a chain's bits as they are, but for the sign of a zero,
//   which the last "plus 0" makes +. So neither how many slots follow those seen nor what is in them matters.
// - A value that is infinite or NaN would turn 0 into NaN, in its column of all rows: then some output of the tile is not
//   finite, and the segment is taken again, with 0 in the place of such values. They are added to the rows that see them
//   in a sum of its own, which becomes what it must be, NaN or infinite.
//
// A workgroup takes up to `ROWS` query rows of one key-value head. `attention_tile` walks all segments of its rows;
// `attention_part` takes one segment and leaves m, l and o, which `attention_merge` merges.
#include "attention.hip.h"

// grid: (tiles of ROWS rows, kv_heads)
KERNEL WORKGROUPS(2) void attention_tile(float *__restrict__ out, const float *q, const Element *keys,
                                                  const Element *values, const i32 *positions, const i32 *seqs,
                                                  const i32 *table, Shape s) {
  await_inputs();
  __shared__ Shared sh;
  u32 kv_head = block_y(), first = block_x() * ROWS, all = s.tokens * (s.heads / s.kv_heads);
  u32 count = all - first < ROWS ? all - first : ROWS;
  u32 wave = uniform(thread_x() / WAVE), column = lane_column(wave);
  Queries queries;
  load_rows(sh, queries, s, q, positions, seqs, kv_head, first, count);
  i32 own_seq = sh.seq[lane_id() % ROWS], own_position = sh.position[lane_id() % ROWS];
  // Rows of different sequences take turns: a bit for each row whose turn is to come.
  for (u32 rows = (1u << count) - 1; rows != 0;) {
    i32 seq = (i32)uniform((u32)sh.seq[lowest_bit(rows)]);
    rows &= ~(u32)ballot_(own_seq == seq);
    i32 last = (i32)uniform((u32)largest_of_tile(own_seq == seq ? own_position : -1));
    i32 position[TILE_REGS]; // of the lane's rows, -1 for those of another sequence
#pragma unroll
    for (u32 r = 0; r < TILE_REGS; r++) {
      u32 row = own_row(sh, wave) + r;
      position[r] = r < own_rows(sh, wave) && sh.seq[row] == seq ? sh.position[row] : -1;
    }
    Sums O[ACROSS] = {}, o[ACROSS] = {};
    for (u32 segment = 0; (i32)(segment * SEGMENT) <= last; segment++) {
      u32 left = (u32)last + 1 - segment * SEGMENT, most = left < SEGMENT ? left : SEGMENT;
      Cache c = cache_of(s, keys, values, table, seq, kv_head, segment, most);
      make_scores(sh, c, queries, s.scale, wave);
      barrier();
      weigh(sh, seq, segment);
      barrier();
      if (thread_x() < ROWS && seen_by(sh, thread_x(), seq, segment) > 0) {
        u32 r = thread_x();
        sh.factors[r] = merge(sh.M[r], sh.L[r], sh.m[r], sh.l[r], segment == 0);
      }
      sum_values(sh, c, seq, segment, wave, o);
      barrier();
#pragma unroll
      for (u32 r = 0; r < TILE_REGS; r++) {
        if (position[r] < (i32)(segment * SEGMENT)) continue;
        Factors f = sh.factors[own_row(sh, wave) + r];
#pragma unroll
        for (u32 i = 0; i < ACROSS; i++) {
          O[i].v[r] = segment == 0 ? o[i].v[r] : fma_(O[i].v[r], f.so_far, o[i].v[r] * f.next);
        }
      }
    }
    if (!has_columns(wave)) continue;
#pragma unroll
    for (u32 r = 0; r < TILE_REGS; r++) {
      if (position[r] < 0) continue;
      u32 row = own_row(sh, wave) + r;
      float *to = out + (u64)sh.at[row] * HEAD_DIM + column;
#pragma unroll
      for (u32 i = 0; i < ACROSS; i++) {
        if (column + i < HEAD_DIM) to[i] = O[i].v[r] / sh.L[row];
      }
    }
  }
}

// grid: (segments, kv_heads, tokens * tiles of a group). parts[token][head][segment]: o of HEAD_DIM values, m, l.
KERNEL WORKGROUPS(2) void attention_part(float *__restrict__ parts, const float *q, const Element *keys,
                                                  const Element *values, const i32 *positions, const i32 *seqs,
                                                  const i32 *table, Shape s, u32 segments) {
  await_inputs();
  __shared__ Shared sh;
  u32 group = s.heads / s.kv_heads, tiles = (group + ROWS - 1) / ROWS;
  u32 kv_head = block_y(), token = block_z() / tiles, begin = block_z() % tiles * ROWS, segment = block_x();
  i32 left = positions[token] + 1 - (i32)(segment * SEGMENT);
  if (left <= 0) return; // the whole workgroup
  u32 most = left < (i32)SEGMENT ? (u32)left : SEGMENT;
  u32 first = token * group + begin, count = group - begin < ROWS ? group - begin : ROWS;
  u32 wave = uniform(thread_x() / WAVE), column = lane_column(wave);
  Queries queries;
  load_rows(sh, queries, s, q, positions, seqs, kv_head, first, count);
  i32 seq = seqs[token];
  Cache c = cache_of(s, keys, values, table, seq, kv_head, segment, most);
  make_scores(sh, c, queries, s.scale, wave);
  barrier();
  weigh(sh, seq, segment);
  barrier();
  Sums o[ACROSS] = {};
  sum_values(sh, c, seq, segment, wave, o);
  if (!has_columns(wave)) return;
#pragma unroll
  for (u32 r = 0; r < TILE_REGS; r++) {
    u32 row = own_row(sh, wave) + r;
    if (r >= own_rows(sh, wave) || row >= count) continue;
    float *to = parts + ((u64)sh.at[row] * segments + segment) * (HEAD_DIM + 2);
#pragma unroll
    for (u32 i = 0; i < ACROSS; i++) {
      if (column + i < HEAD_DIM) to[column + i] = o[i].v[r];
    }
    if (column == 0) to[HEAD_DIM] = sh.m[row], to[HEAD_DIM + 1] = sh.l[row];
  }
}

// grid: (heads, tokens); a thread a value. Segments go by 256: a thread finds the factors of one, and then all walk them.
KERNEL WORKGROUPS(1) void attention_merge(float *out, const float *parts, const i32 *positions, u32 heads,
                                                   u32 segments) {
  __shared__ float tops[2][256], so_far[256], next[256], sums[256]; // sums: those of the weights
  await_inputs();
  const u32 TOGETHER = 16; // values on their way
  u32 t = thread_x(), d = t < HEAD_DIM ? t : 0, head = block_x(), token = block_y();
  const float *part = parts + ((u64)token * heads + head) * segments * (HEAD_DIM + 2);
  u32 count = (u32)positions[token] / SEGMENT + 1;
  float M = as_float(0xff800000u), L = 1, O = 0;
  for (u32 begin = 0; begin < count; begin += 256) {
    u32 here = count - begin < 256 ? count - begin : 256, mine = begin + (t < here ? t : 0);
    const float *from = part + (u64)mine * (HEAD_DIM + 2);
    float m = from[HEAD_DIM], l = from[HEAD_DIM + 1];
    // The largest score up to each segment; of equal ones the first, as `merge` has it.
    u32 side = 0;
    tops[0][t] = m;
    barrier();
    for (u32 step = 1; step < here; step *= 2, side ^= 1) {
      float top = tops[side][t];
      tops[side ^ 1][t] = t >= step ? max_(tops[side][t - step], top) : top;
      barrier();
    }
    float before = t == 0 ? M : max_(M, tops[side][t - 1]), top = max_(M, tops[side][t]);
    bool first = begin + t == 0;
    float b = first ? 1.0f : exp_(m - top);
    so_far[t] = first ? 0.0f : exp_(before - top);
    next[t] = b;
    sums[t] = first ? l : l * b;
    M = max_(M, tops[side][here - 1]);
    barrier();
    const float *values = part + (u64)begin * (HEAD_DIM + 2) + d;
    u32 s = 0;
    if (begin == 0) O = values[0], L = sums[0], s = 1;
    for (; s + TOGETHER <= here; s += TOGETHER) {
      float o[TOGETHER];
#pragma unroll
      for (u32 j = 0; j < TOGETHER; j++) o[j] = values[(s + j) * (HEAD_DIM + 2)];
#pragma unroll
      for (u32 j = 0; j < TOGETHER; j++) {
        O = fma_(O, so_far[s + j], o[j] * next[s + j]);
        L = fma_(L, so_far[s + j], sums[s + j]);
      }
    }
    for (; s < here; s++) {
      O = fma_(O, so_far[s], values[s * (HEAD_DIM + 2)] * next[s]);
      L = fma_(L, so_far[s], sums[s]);
    }
    barrier();
  }
  if (t < HEAD_DIM) out[((u64)token * heads + head) * HEAD_DIM + d] = O / L;
}
