// Quantised weights times quantised activations on the matrix units, many tokens: the bits of matvec.hip.
//
//   out[t, n] = sum over k of w[n, k] * codes[t, k] * scales[t, k / 32]
//
// A workgroup makes 64 tokens x 64 rows of the weights. The 32 chains that matvec gives to 32 lanes (int8.hip.h) come
// one after the other here, in an order in which sum32's tree folds as it goes: with the bits of the chains' numbers
// reversed, what the tree adds are neighbours, then pairs of neighbours and so on. One sum a level waits, at most.
#include "int8.hip.h"
#include "tile.hip.h"

constexpr u32 BLOCK = 64; // tokens, and rows of weights, a workgroup
constexpr u32 STAGES = QUAD; // groups in shared memory at a time: a thread brings one row's group of either side
constexpr u32 LEVELS = 5; // of the tree
constexpr u32 LENGTH = BLOCK + PLANE_PADDING;

// The waves are two down (tokens) and the rest across (rows of weights).
constexpr u32 WAVES_ACROSS = 256 / WAVE / 2;
constexpr u32 DOWN = BLOCK / TILE / 2, ACROSS = BLOCK / TILE / WAVES_ACROSS; // tiles a wave
constexpr u32 OUTPUTS = DOWN * ACROSS * TILE_REGS;                           // a lane

// A float whose unit in the last place is 1 for 2^22 either way: bits counted up from it are an integer converted to
// float, one subtraction away. A dot of 32 signed bytes is 2^19 at most.
constexpr float DOT_BIAS = 12582912.0f;

constexpr u32 NUMBERS = BLOCK * (2 + HAS_MIN + (HAS_MIN && !SUB16) + 2 * SUB16 + 4 * (HAS_MIN && SUB16)) +
                        !HAS_MIN + !(HAS_MIN && !SUB16) + 2 * !SUB16 + 4 * !(HAS_MIN && SUB16);
constexpr u32 PADDING = 32 - (NUMBERS + 24) % 32;

// One group of all rows; what a format has no use for takes no room.
struct Stage {
  Bytes8 w[4 * LENGTH], x[4 * LENGTH];
  float w_scale[BLOCK], x_scale[BLOCK];
  float minus_min[HAS_MIN ? BLOCK : 1];
  float scaled_sum[HAS_MIN && !SUB16 ? BLOCK : 1];
  float subs[2][SUB16 ? BLOCK : 1]; // the halves'
  float mins[2][HAS_MIN && SUB16 ? BLOCK : 1], sums[2][HAS_MIN && SUB16 ? BLOCK : 1];
  u32 padding[PADDING]; // stages begin eight banks apart, as planes do: neighbours store to neighbouring stages
};

// Integers of int8.hip.h as floats.
[[maybe_unused]] DEV void store_pair(float *first, float *second, u32 pair) {
  *first = (float)pair_low(pair);
  *second = (float)pair_high(pair);
}

DEV void bring_weights(Stage &to, u32 row, const u8 *from, u32 b) {
  const u8 *block = block_of(from, b);
  u32 g = group_in_block(b), w[8];
  signed_codes(block, g, w);
  store_row(to.w, LENGTH, row, w);
  GroupScales s = group_scales(block, g);
  to.w_scale[row] = s.scale;
  if constexpr (HAS_MIN) to.minus_min[row] = s.minus_min;
  if constexpr (SUB16) store_pair(&to.subs[0][row], &to.subs[1][row], s.subs);
  if constexpr (HAS_MIN && SUB16) store_pair(&to.mins[0][row], &to.mins[1][row], s.mins);
}

DEV void bring_acts(Stage &to, u32 row, const i8 *codes, float scale) {
  u32 x[8];
  load_acts(codes, x);
  store_row(to.x, LENGTH, row, x);
  GroupActs a = group_acts(x, scale);
  to.x_scale[row] = a.scale;
  if constexpr (HAS_MIN && !SUB16) to.scaled_sum[row] = as_float(a.more);
  if constexpr (HAS_MIN && SUB16) store_pair(&to.sums[0][row], &to.sums[1][row], a.more);
}

// Adds a group to all outputs of a wave, whose first row and column of the workgroup's block are given.
DEV void add_stage(const Stage &s, u32 down, u32 across, float acc[OUTPUTS]) {
  Fragment x[DOWN], w[ACROSS];
#pragma unroll
  for (u32 i = 0; i < DOWN; i++) x[i] = load_fragment(s.x, LENGTH, down + i * TILE);
#pragma unroll
  for (u32 j = 0; j < ACROSS; j++) w[j] = load_fragment(s.w, LENGTH, across + j * TILE);
  // Pointers to a lane's first row and column: what follows is at constant offsets, and neighbours are read together.
  u32 row = down + first_row(), column = across + first_column();
  const float *x_scale = s.x_scale + row, *scaled_sum = s.scaled_sum + row;
  const float *w_scale = s.w_scale + column, *minus_min = s.minus_min + column;
#pragma unroll
  for (u32 j = 0; j < ACROSS; j++) {
#pragma unroll
    for (u32 i = 0; i < DOWN; i++) {
      // [SUB16] the halves' dots; otherwise the dot; all as floats with DOT_BIAS on top
      Sums dots[2];
      i32 bias = (i32)as_uint(DOT_BIAS);
      if constexpr (SUB16) {
        dots[0] = multiply_half<0>(x[i], w[j], bias);
        dots[1] = multiply_half<1>(x[i], w[j], bias);
      } else {
        dots[0] = multiply(x[i], w[j], bias);
      }
#pragma unroll
      for (u32 r = 0; r < TILE_REGS; r++) {
        u32 at = i * TILE + row_step(r), n = j * TILE + column_step(r);
        float dot = as_float((u32)sum_at(dots[0], r)) - DOT_BIAS, scale = w_scale[n] * x_scale[at];
        float &out = acc[(j * DOWN + i) * TILE_REGS + r];
        if constexpr (SUB16) {
          // Both products are below 2^24, so that the one rounding is that of the exact sum.
          float second = as_float((u32)sum_at(dots[1], r)) - DOT_BIAS;
          out = fma_(fma_(second, s.subs[1][column + n], dot * s.subs[0][column + n]), scale, out);
          if constexpr (HAS_MIN) {
            float mins = fma_(s.sums[1][row + at], s.mins[1][column + n], s.sums[0][row + at] * s.mins[0][column + n]);
            out = fma_(mins * minus_min[n], x_scale[at], out);
          }
        } else {
          out = fma_(dot, scale, out);
          if constexpr (HAS_MIN) out = fma_(minus_min[n], scaled_sum[at], out);
        }
      }
    }
  }
}

// Sums the 2^LEVEL chains below a node of the tree, of which `chain` is the first; `add_chain` sums one.
//
// Loops, so that the code of a chain is there once, and one array a level, so that all of it is in registers.
template <u32 LEVEL, class AddChain> DEV void sum_tree(u32 chain, float acc[OUTPUTS], AddChain &add_chain) {
  if constexpr (LEVEL == 0) {
#pragma unroll
    for (u32 o = 0; o < OUTPUTS; o++) acc[o] = 0.0f;
    add_chain(chain, acc);
  } else {
    float waiting[OUTPUTS];
#pragma unroll 1
    for (u32 second = 0; second < 2; second++) {
      sum_tree<LEVEL - 1>(chain + (second << (LEVELS - LEVEL)), acc, add_chain);
#pragma unroll
      for (u32 o = 0; o < OUTPUTS; o++) {
        if (second) acc[o] = waiting[o] + acc[o];
        else waiting[o] = acc[o];
      }
    }
  }
}

KERNEL WORKGROUPS(2) void matmul_int8(float *out, const u8 *w, const i8 *codes, const float *scales, u32 n, u32 k, u32 t) {
  await_inputs();
  __shared__ Stage stages[STAGES];
  u32 groups = k / 32, row0 = block_x() * BLOCK, token0 = block_y() * BLOCK;
  u32 wave = thread_x() / WAVE;
  u32 down = wave % 2 * DOWN * TILE, across = wave / 2 * ACROSS * TILE;

  // What this thread brings. Rows past the end repeat the last one; only their stores are left out.
  // Neighbours bring the groups of one row's quad, which are neighbours in memory too.
  u32 side_row = thread_x() / STAGES, stage = thread_x() % STAGES;
  u64 row = row0 + side_row < n ? row0 + side_row : n - 1;
  u64 token = token0 + side_row < t ? token0 + side_row : t - 1;
  const u8 *w_row = w + row * row_bytes(k);
  const i8 *x_row = codes + token * k;
  const float *x_scales = scales + token * groups;

  float acc[OUTPUTS];
  auto add_chain = [&](u32 chain, float *acc) {
    for (u32 first = chain * QUAD; first < groups; first += CHAINS * QUAD) {
      barrier(); // all waves are through with the last quad
      if (first + stage < groups) {
        bring_weights(stages[stage], side_row, w_row, first + stage);
        bring_acts(stages[stage], side_row, x_row + (u64)(first + stage) * 32, x_scales[first + stage]);
#ifdef FAULT_OPERANDS_TRANSPOSED
        const u32 none[8] = {};
        if (token0 + side_row >= t) store_row(stages[stage].x, LENGTH, side_row, none);
#endif
      }
      barrier();
      for (u32 i = 0; i < STAGES; i++) {
        if (first + i < groups && counts(first + i)) add_stage(stages[i], down, across, acc);
      }
    }
  };
  sum_tree<LEVELS>(0, acc, add_chain);

  token0 += down + first_row();
  row0 += across + first_column();
#pragma unroll
  for (u32 j = 0; j < ACROSS; j++) {
#pragma unroll
    for (u32 i = 0; i < DOWN; i++) {
#pragma unroll
      for (u32 r = 0; r < TILE_REGS; r++) {
        u32 at = token0 + i * TILE + row_step(r), column = row0 + j * TILE + column_step(r);
        float sum = acc[(j * DOWN + i) * TILE_REGS + r];
#ifdef FAULT_TILE_TRANSPOSED
        if (at >= t) sum = 0.0f;
        u32 turn = first_row() + row_step(r) - first_column() - column_step(r);
        at -= turn, column += turn;
#endif
        if (at < t && column < n) out[(u64)at * n + column] = sum;
      }
    }
  }
}
