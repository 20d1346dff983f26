// Quantised weights times quantised activations, few tokens: bound by reading the weights.
//
//   out[t, n] = sum over k of w[n, k] * codes[t, k] * scales[t, k / 32]
//
// 32 lanes work on a row of the weights, lane i on chain i (int8.hip.h), a quad at a time. What a workgroup's rows share, the
// activations with the sums of their groups, lies in shared memory. A row's first quads are asked for before the kernel waits
// for the activations: weights are there always.
#include "int8.hip.h"

constexpr u32 TEAMS = 256 / CHAINS; // of 32 lanes, in a workgroup

// The weights' side of a quad.
struct Quad {
  u32 codes[QUAD][8];
  GroupScales scales[QUAD];
};
DEV Quad load_quad(const u8 *row, u32 quad, u32 groups) {
  Quad out;
#pragma unroll
  for (u32 j = 0; j < QUAD; j++) {
    // Super-blocks are whole, so that all groups of a quad are of one block. Past the end the last group is taken again.
    u32 at = quad * QUAD + j;
    if constexpr (GROUPS == 1) at = at < groups ? at : groups - 1;
    const u8 *block = GROUPS == 1 ? block_of(row, at) : block_of(row, quad * QUAD);
    u32 g = GROUPS == 1 ? 0 : quad % (GROUPS / QUAD > 0 ? GROUPS / QUAD : 1) * QUAD + j;
    codes(block, g, out.codes[j]);
    out.scales[j] = group_scales(block, g);
  }
  return out;
}

// The activations' side of DEPTH quads of each chain and token. Quads begin 16 bytes further than they are long: eight lanes
// that take 16 bytes each of their own find them in all 32 banks.
constexpr u32 STRIDE = QUAD * 2 + 1; // in 16 bytes
template <u32 TOKENS, u32 DEPTH> struct Acts {
  U32x4 codes[TOKENS][DEPTH * CHAINS * STRIDE];
  GroupActs groups[TOKENS][QUAD][DEPTH * CHAINS]; // neighbours are lanes' groups, not a quad's
};

// Brings the groups from `first` on; what is past the end is left as it is.
template <u32 TOKENS, u32 DEPTH>
DEV void bring(Acts<TOKENS, DEPTH> &to, const i8 *codes, const float *scales, u32 token0, u32 t, u32 first, u32 groups) {
  const u32 ALL = DEPTH * CHAINS * QUAD;
  for (u32 i = thread_x(); i < TOKENS * ALL; i += 256) {
    u32 token = i / ALL, g = i % ALL, at = first + g;
    if (at >= groups) continue;
    u64 row = token0 + token < t ? token0 + token : t - 1;
    u32 v[8];
    load_acts(codes + (row * groups + at) * 32, v);
    to.groups[token][g % QUAD][g / QUAD] = group_acts(v, scales[row * groups + at]);
    U32x4 *words = to.codes[token] + g / QUAD * STRIDE + g % QUAD * 2;
    words[0] = {v[0], v[1], v[2], v[3]};
    words[1] = {v[4], v[5], v[6], v[7]};
  }
}

// `place`: the quad's among those of the activations.
template <u32 TOKENS, u32 DEPTH, u32 ROWS>
DEV void add_quad(float (&acc)[ROWS][TOKENS], const Quad (&w)[ROWS], const Acts<TOKENS, DEPTH> &x, u32 place, u32 quad,
                  u32 groups) {
#pragma unroll
  for (u32 j = 0; j < QUAD; j++) {
    u32 b = quad * QUAD + j;
    if (b >= groups || !counts(b)) continue;
#pragma unroll
    for (u32 token = 0; token < TOKENS; token++) {
      U32x4 words[2] = {x.codes[token][place * STRIDE + j * 2], x.codes[token][place * STRIDE + j * 2 + 1]};
      GroupActs a = x.groups[token][j][place];
      // The offset as one more dot, which serves all rows, is cheaper than taking it off every code.
      i32 offset[2] = {0, 0};
      if constexpr (OFFSET != 0) {
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
          i32 &sum = offset[SUB16 ? i / 4 : 0];
          sum = dot4((u32)(256 - OFFSET) * 0x01010101u, words[i / 4].v[i % 4], sum);
        }
      }
#pragma unroll
      for (u32 row = 0; row < ROWS; row++) {
        i32 dot[2] = {offset[0], offset[1]};
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
          i32 &sum = dot[SUB16 ? i / 4 : 0];
          sum = dot4(w[row].codes[j][i], words[i / 4].v[i % 4], sum);
        }
        float &sum = acc[row][token];
        if constexpr (SUB16) sum = add_group(sum, dot[0], dot[1], w[row].scales[j], a);
        else sum = add_group(sum, (float)dot[0], w[row].scales[j], a);
      }
    }
  }
}

// A team has ROWS rows of the weights that follow each other.
template <u32 ROWS, u32 TOKENS, u32 DEPTH>
DEV void matvec(Acts<TOKENS, DEPTH> &x, float *out, const u8 *w, const i8 *codes, const float *scales, u32 n, u32 k, u32 t) {
  // Workgroups with the same rows follow each other, so that their weights come from memory once.
  u32 lane = thread_x() % CHAINS, row = (block_y() * TEAMS + thread_x() / CHAINS) * ROWS, groups = k / 32;
  u32 quads = (groups + QUAD - 1) / QUAD, token0 = block_x() * TOKENS;
  const u8 *rows[ROWS];
  Quad weights[ROWS];
  float acc[ROWS][TOKENS];
  // Rows and tokens past the end repeat the last one, and so do quads; only their stores and sums are left out.
  auto load = [&](u32 quad) {
#pragma unroll
    for (u32 r = 0; r < ROWS; r++) weights[r] = load_quad(rows[r], quad < quads ? quad : quads - 1, groups);
  };
#pragma unroll
  for (u32 r = 0; r < ROWS; r++) {
    rows[r] = w + (u64)(row + r < n ? row + r : n - 1) * row_bytes(k);
    // What comes after the first quads is at least on its way.
    u64 begin = (u64)CHAINS * QUAD / GROUPS * BLOCK_BYTES, end = row_bytes(k);
    if (begin < end) fetch_row(rows[r] + begin, end - begin, lane);
#pragma unroll
    for (u32 i = 0; i < TOKENS; i++) acc[r][i] = 0.0f;
  }
  load(lane);
  await_inputs();
  for (u32 first = 0; first < quads; first += DEPTH * CHAINS) {
    if (first > 0) barrier(); // all are through with the last activations
    bring(x, codes, scales, token0, t, first * QUAD, groups);
    barrier();
    for (u32 place = lane; place < DEPTH * CHAINS && first + place < quads; place += CHAINS) {
      if (first + place >= CHAINS) load(first + place);
      add_quad(acc, weights, x, place, first + place, groups);
    }
  }
#pragma unroll
  for (u32 i = 0; i < TOKENS; i++) {
#pragma unroll
    for (u32 r = 0; r < ROWS; r++) {
      float sum = sum32(acc[r][i]);
      if (lane == 0 && row + r < n && token0 + i < t) out[(u64)(token0 + i) * n + row + r] = sum;
    }
  }
}

KERNEL __launch_bounds__(256) ENOUGH_WAVES(4) void matvec_int8_t1(float *out, const u8 *w, const i8 *codes,
                                                                  const float *scales, u32 n, u32 k, u32 t) {
  __shared__ Acts<1, 1> x;
  matvec<1>(x, out, w, codes, scales, n, k, t);
}

// Many rows: what is worked out of the activations serves two.
KERNEL __launch_bounds__(256) ENOUGH_WAVES(4) void matvec_int8_t1_r2(float *out, const u8 *w, const i8 *codes,
                                                                     const float *scales, u32 n, u32 k, u32 t) {
  __shared__ Acts<1, 1> x;
  matvec<2>(x, out, w, codes, scales, n, k, t);
}

// Long rows: all of the activations are brought at once, so that waves need not wait for each other.
KERNEL __launch_bounds__(256) ENOUGH_WAVES(4) void matvec_int8_t1_long(float *out, const u8 *w, const i8 *codes,
                                                                       const float *scales, u32 n, u32 k, u32 t) {
  __shared__ Acts<1, 4> x;
  matvec<1>(x, out, w, codes, scales, n, k, t);
}

KERNEL __launch_bounds__(256) ENOUGH_WAVES(4) void matvec_int8_t4(float *out, const u8 *w, const i8 *codes,
                                                                  const float *scales, u32 n, u32 k, u32 t) {
  __shared__ Acts<4, 1> x;
  matvec<2>(x, out, w, codes, scales, n, k, t);
}

KERNEL __launch_bounds__(256) void matvec_int8_t8(float *out, const u8 *w, const i8 *codes, const float *scales, u32 n, u32 k,
                                                  u32 t) {
  __shared__ Acts<8, 1> x;
  matvec<2>(x, out, w, codes, scales, n, k, t);
}
