// Causal grouped-query attention over a paged cache, `HEAD_DIM` values a head, keys and values in `KV` (F32 or F16).
//
// The order of every sum, the same in both routes, so that prefill and decode agree to the bit:
// - Keys are cut into segments of 128 at fixed absolute positions.
// - A score is four chains of fma over d = 0 ... 3 (mod 4) from 0, added (c0 + c1) + (c2 + c3), times the scale.
// - In a segment m is the largest score seen, p = e^(score - m), l the sum of p (lane i has keys i, i + 32, i + 64, i + 96,
//   added (p0 + p1) + (p2 + p3), then folded over 32 lanes), o = fma(p, v, o) by ascending position from 0.
// - Segments are merged by ascending position, the first as it is, then: m' = max(M, m), a = e^(M - m'), b = e^(m - m'),
//   L = fma(L, a, l b), O = fma(O, a, o b). The output is O / L.
//
// A workgroup takes up to `ROWS` query rows of one key-value head. `attention_tile` walks all segments of its rows;
// `attention_part` takes one segment and leaves m, l and o, which `attention_merge` merges.
#include "greta.hip.h"

#define F32 0
#define F16 1
#if KV == F16
typedef u16 Element;
DEV float real(Element v) { return f16_to_f32(v); }
#else
typedef float Element;
DEV float real(Element v) { return v; }
#endif

constexpr u32 PAGE = 32, SEGMENT = 128;
constexpr u32 ROWS = 16;
constexpr u32 HD4 = (HEAD_DIM + 3) / 4 * 4; // rows in shared memory are whole quads, padded with zeros
constexpr u32 STRIDE = HD4 + 4; // and begin in different banks
constexpr u32 COLUMNS = HEAD_DIM <= 32 ? 32 : HEAD_DIM <= 64 ? 64 : HEAD_DIM <= 128 ? 128 : 256; // threads over a head
constexpr u32 TEAMS = 256 / COLUMNS, TEAM_ROWS = ROWS / TEAMS; // each team of threads has these rows' outputs
static_assert(HEAD_DIM <= 256 && TEAM_ROWS * TEAMS == ROWS, "heads of up to 256 values");

struct Shape {
  u32 heads, kv_heads, tokens, table_width;
  float scale;
};

// What the sums so far and the next segment's are multiplied with.
struct Factors {
  float so_far, next;
};

struct Shared {
  float q[ROWS][STRIDE];
  float k[PAGE][STRIDE];
  float p[SEGMENT][ROWS]; // scores, then weights
  float m[ROWS], l[ROWS]; // of the segment at hand
  float M[ROWS], L[ROWS]; // so far
  Factors factors[ROWS];
  i32 position[ROWS], seq[ROWS]; // position -1: no such row
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

DEV void load_rows(Shared &sh, const Shape &s, const float *q, const i32 *positions, const i32 *seqs, u32 kv_head, u32 first,
                   u32 count) {
  for (u32 i = thread_x(); i < ROWS * HD4; i += 256) {
    u32 r = i / HD4, d = i % HD4;
    float v = 0.0f;
    if (r < count && d < HEAD_DIM) {
      Row row = row_of(s, kv_head, first + r);
      v = q[((u64)row.token * s.heads + row.head) * HEAD_DIM + d];
    }
    sh.q[r][d] = v;
  }
  if (thread_x() < ROWS) {
    u32 r = thread_x();
    bool there = r < count;
    u32 token = there ? row_of(s, kv_head, first + r).token : 0;
    sh.position[r] = there ? positions[token] : -1;
    sh.seq[r] = there ? seqs[token] : -1;
  }
  barrier();
}

// Slots of the segment that a row of this sequence sees.
DEV u32 seen_by(const Shared &sh, u32 r, i32 seq, u32 segment) {
  i32 seen = sh.position[r] + 1 - (i32)(segment * SEGMENT);
  if (sh.seq[r] != seq || seen < 0) return 0;
  return seen < (i32)SEGMENT ? (u32)seen : SEGMENT;
}

// One segment for all rows of a sequence: p, m and l in shared memory, o in registers (thread: value `d` of the rows
// `team * TEAM_ROWS ...`). `most` is the largest number of slots any row sees.
DEV void segment_of(Shared &sh, const Shape &s, const Element *keys, const Element *values, const i32 *pages, u32 kv_head,
                    u32 segment, i32 seq, u32 most, float (&o)[TEAM_ROWS]) {
  u32 width = s.kv_heads * HEAD_DIM;
  for (u32 page = 0; page * PAGE < most; page++) {
    const Element *from = keys + (u64)pages[segment * (SEGMENT / PAGE) + page] * PAGE * width + kv_head * HEAD_DIM;
    u32 slots = most - page * PAGE < PAGE ? most - page * PAGE : PAGE;
    for (u32 i = thread_x(); i < PAGE * HD4; i += 256) {
      u32 j = i / HD4, d = i % HD4;
      sh.k[j][d] = j < slots && d < HEAD_DIM ? real(from[(u64)j * width + d]) : 0.0f;
    }
    barrier();
    // A thread has a key and two rows.
    u32 j = thread_x() % PAGE, r = thread_x() / PAGE;
    float a[4] = {0, 0, 0, 0}, b[4] = {0, 0, 0, 0};
#pragma unroll 4
    for (u32 d = 0; d < HD4; d += 4) {
#pragma unroll
      for (u32 c = 0; c < 4; c++) {
        float k = sh.k[j][d + c];
        a[c] = fma_(sh.q[r][d + c], k, a[c]);
        b[c] = fma_(sh.q[r + 8][d + c], k, b[c]);
      }
    }
    sh.p[page * PAGE + j][r] = ((a[0] + a[1]) + (a[2] + a[3])) * s.scale;
    sh.p[page * PAGE + j][r + 8] = ((b[0] + b[1]) + (b[2] + b[3])) * s.scale;
    barrier();
  }
  // 32 lanes a row.
  for (u32 r = thread_x() / 32; r < ROWS; r += 8) {
    u32 lane = thread_x() % 32, seen = seen_by(sh, r, seq, segment);
    float p[4], top = as_float(0xff800000u);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      u32 j = i * 32 + lane;
      p[i] = j < seen ? sh.p[j][r] : as_float(0xff800000u);
      // A NaN is taken for the largest, so that it is not lost.
      top = p[i] > top || p[i] != p[i] ? p[i] : top;
    }
    float other = xor_lane<16>(top);
    top = other > top || other != other ? other : top;
    other = xor_lane<8>(top);
    top = other > top || other != other ? other : top;
    other = xor_lane<4>(top);
    top = other > top || other != other ? other : top;
    other = xor_lane<2>(top);
    top = other > top || other != other ? other : top;
    other = xor_lane<1>(top);
    top = other > top || other != other ? other : top;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      u32 j = i * 32 + lane;
      p[i] = j < seen ? exp_(p[i] - top) : 0.0f;
      if (j < most) sh.p[j][r] = p[i];
    }
    float l = sum32((p[0] + p[1]) + (p[2] + p[3]));
    if (lane == 0) sh.m[r] = top, sh.l[r] = l;
  }
  barrier();
  u32 d = thread_x() % COLUMNS, team = thread_x() / COLUMNS;
#pragma unroll
  for (u32 i = 0; i < TEAM_ROWS; i++) o[i] = 0.0f;
  u32 seen[TEAM_ROWS];
#pragma unroll
  for (u32 i = 0; i < TEAM_ROWS; i++) seen[i] = seen_by(sh, team * TEAM_ROWS + i, seq, segment);
  if (d < HEAD_DIM) {
#pragma unroll 2
    for (u32 j = 0; j < most; j++) {
      u64 slot = (u64)pages[segment * (SEGMENT / PAGE) + j / PAGE] * PAGE + j % PAGE;
      float v = real(values[slot * width + kv_head * HEAD_DIM + d]);
#pragma unroll
      for (u32 i = 0; i < TEAM_ROWS; i++) {
        // What a row does not see must not touch it, not even as 0 times NaN.
        if (j < seen[i]) o[i] = fma_(sh.p[j][team * TEAM_ROWS + i], v, o[i]);
      }
    }
  }
}

// The largest position of the sequence's rows, and whether the sequence has rows at all.
DEV i32 last_position(const Shared &sh, i32 seq) {
  i32 last = -1;
  for (u32 r = 0; r < ROWS; r++) last = sh.seq[r] == seq && sh.position[r] > last ? sh.position[r] : last;
  return last;
}

DEV Factors merge(float &M, float &L, float m, float l, bool first) {
  if (first) {
    M = m, L = l;
    return {0.0f, 1.0f};
  }
  float top = m > M || m != m ? m : M;
  Factors f = {exp_(M - top), exp_(m - top)};
  M = top;
  L = fma_(L, f.so_far, l * f.next);
  return f;
}

// grid: (tiles of ROWS rows, kv_heads)
KERNEL __launch_bounds__(256) void attention_tile(float *out, const float *q, const Element *keys, const Element *values,
                                                  const i32 *positions, const i32 *seqs, const i32 *table, Shape s) {
  __shared__ Shared sh;
  u32 kv_head = block_y(), first = block_x() * ROWS, all = s.tokens * (s.heads / s.kv_heads);
  u32 count = all - first < ROWS ? all - first : ROWS;
  load_rows(sh, s, q, positions, seqs, kv_head, first, count);
  u32 d = thread_x() % COLUMNS, team = thread_x() / COLUMNS;
  // Rows of different sequences take turns.
  for (u32 start = 0; start < count;) {
    i32 seq = sh.seq[start];
    i32 last = last_position(sh, seq);
    float O[TEAM_ROWS], o[TEAM_ROWS];
#pragma unroll
    for (u32 i = 0; i < TEAM_ROWS; i++) O[i] = 0.0f;
    for (u32 segment = 0; (i32)(segment * SEGMENT) <= last; segment++) {
      u32 left = (u32)last + 1 - segment * SEGMENT, most = left < SEGMENT ? left : SEGMENT;
      segment_of(sh, s, keys, values, table + (u64)(u32)seq * s.table_width, kv_head, segment, seq, most, o);
      if (thread_x() < ROWS && seen_by(sh, thread_x(), seq, segment) > 0) {
        u32 r = thread_x();
        sh.factors[r] = merge(sh.M[r], sh.L[r], sh.m[r], sh.l[r], segment == 0);
      }
      barrier();
#pragma unroll
      for (u32 i = 0; i < TEAM_ROWS; i++) {
        u32 r = team * TEAM_ROWS + i;
        if (seen_by(sh, r, seq, segment) == 0) continue;
        O[i] = segment == 0 ? o[i] : fma_(O[i], sh.factors[r].so_far, o[i] * sh.factors[r].next);
      }
    }
#pragma unroll
    for (u32 i = 0; i < TEAM_ROWS; i++) {
      u32 r = team * TEAM_ROWS + i;
      if (d < HEAD_DIM && r < count && sh.seq[r] == seq) {
        Row row = row_of(s, kv_head, first + r);
        out[((u64)row.token * s.heads + row.head) * HEAD_DIM + d] = O[i] / sh.L[r];
      }
    }
    // The next row whose sequence has not been taken yet.
    for (start++; start < count; start++) {
      bool taken = false;
      for (u32 r = 0; r < start; r++) taken = taken || sh.seq[r] == sh.seq[start];
      if (!taken) break;
    }
  }
}

// grid: (segments, kv_heads, tokens * tiles of a group). parts[token][head][segment]: o of HEAD_DIM values, m, l.
KERNEL __launch_bounds__(256) void attention_part(float *parts, const float *q, const Element *keys, const Element *values,
                                                  const i32 *positions, const i32 *seqs, const i32 *table, Shape s,
                                                  u32 segments) {
  __shared__ Shared sh;
  u32 group = s.heads / s.kv_heads, tiles = (group + ROWS - 1) / ROWS;
  u32 kv_head = block_y(), token = block_z() / tiles, begin = block_z() % tiles * ROWS, segment = block_x();
  i32 left = positions[token] + 1 - (i32)(segment * SEGMENT);
  if (left <= 0) return; // the whole workgroup
  u32 most = left < (i32)SEGMENT ? (u32)left : SEGMENT;
  u32 first = token * group + begin, count = group - begin < ROWS ? group - begin : ROWS;
  load_rows(sh, s, q, positions, seqs, kv_head, first, count);
  float o[TEAM_ROWS];
  i32 seq = seqs[token];
  segment_of(sh, s, keys, values, table + (u64)(u32)seq * s.table_width, kv_head, segment, seq, most, o);
  u32 d = thread_x() % COLUMNS, team = thread_x() / COLUMNS;
#pragma unroll
  for (u32 i = 0; i < TEAM_ROWS; i++) {
    u32 r = team * TEAM_ROWS + i;
    if (r >= count) continue;
    Row row = row_of(s, kv_head, first + r);
    float *to = parts + (((u64)row.token * s.heads + row.head) * segments + segment) * (HEAD_DIM + 2);
    if (d < HEAD_DIM) to[d] = o[i];
    if (d == 0) to[HEAD_DIM] = sh.m[r], to[HEAD_DIM + 1] = sh.l[r];
  }
}

// grid: (heads, tokens); a thread a value.
KERNEL __launch_bounds__(256) void attention_merge(float *out, const float *parts, const i32 *positions, u32 heads,
                                                   u32 segments) {
  u32 d = thread_x(), head = block_x(), token = block_y();
  if (d >= HEAD_DIM) return;
  const float *from = parts + ((u64)token * heads + head) * segments * (HEAD_DIM + 2);
  float M = 0, L = 1, O = 0;
  for (u32 s = 0; (i32)(s * SEGMENT) <= positions[token]; s++, from += HEAD_DIM + 2) {
    Factors f = merge(M, L, from[HEAD_DIM], from[HEAD_DIM + 1], s == 0);
    O = s == 0 ? from[d] : fma_(O, f.so_far, from[d] * f.next);
  }
  out[((u64)token * heads + head) * HEAD_DIM + d] = O / L;
}
