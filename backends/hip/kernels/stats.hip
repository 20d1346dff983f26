// A tap: statistics of rows where they lie, and their first values. The definition is that of `greta_ops::Stats`:
// segments of 512 values, in each 16 interleaved f64 sums of the finite values folded by halves; segments in order.
//
// A workgroup a row, 4,096 values at a time. What has no order (counts, ends, the hash) is of the values a thread fetched,
// neighbours by neighbouring lanes; the sums' chains go through shared memory: half of the threads add values and their
// magnitudes, the other half squares.
#include "greta.hip.h"

#define F32 0
#define F16 1
#define I32 2
#define I8 3
#if TYPE == F32
typedef float Element;
DEV float real(Element v) { return v; }
#elif TYPE == F16
typedef u16 Element;
DEV float real(Element v) { return f16_to_f32(v); }
#elif TYPE == I32
typedef i32 Element;
DEV float real(Element v) { return (float)v; }
#else
typedef i8 Element;
DEV float real(Element v) { return (float)v; }
#endif

struct Stats {
  u32 count;
  float min, max;
  u32 nan, inf, zeros, hash_low, hash_high;
  double sum, abs_sum, sum_sq;
  u64 unused;
};

constexpr u32 SEGMENT = 512, LANES = 16, SEGMENTS = 8, CHUNK = SEGMENT * SEGMENTS;
constexpr u32 MINE = CHUNK / 256;     // values of a thread
constexpr u32 STRIDE = SEGMENT + 16; // neighbouring segments lie in other banks
constexpr u32 UNORDERED = 7;         // nan, inf, zeros, hash low, hash high, least, most

// `mask`: all ones, or 0 for a value that is not there.
DEV void add_hash(u32 bits, u32 at, u32 mask, u32 *low, u32 *high) {
  u32 a = bits + at * 0x9e3779b9u;
  a ^= a >> 16;
  a *= 0x85ebca6bu;
  a ^= a >> 13;
  a *= 0xc2b2ae35u;
  a ^= a >> 16;
  u32 b = (a ^ 0x5bd1e995u) * 0x27d4eb2fu;
  *low += a & mask;
  *high += (b ^ b >> 15) & mask;
}

// All ones where a < b, for numbers below 2^31.
DEV u32 below(u32 a, u32 b) { return (u32)((i32)(a - b) >> 31); }
DEV u32 least_of(u32 a, u32 b) { return a < b ? a : b; }

// A sum over 16 lanes, in every one of them: lane i + lane i^8, then ^4, ^2, ^1.
template <u32 M> DEV double add_lane(double v) {
  u64 bits = __builtin_bit_cast(u64, v);
  u64 other = (u64)xor_lane<M>((u32)(bits >> 32)) << 32 | xor_lane<M>((u32)bits);
  return v + __builtin_bit_cast(double, other);
}
DEV double sum16(double v) { return add_lane<1>(add_lane<2>(add_lane<4>(add_lane<8>(v)))); }

// `rows` names the rows; `out` and `kept` have one entry for each. Rows are `cols` elements apart; `keep` of each are kept.
KERNEL WORKGROUPS(1) void stats(Stats *out, u32 *kept, const Element *values, const i32 *rows, u32 cols, u32 keep) {
  const Element *row = values + (u64)rows[block_x()] * cols; // the host's list
  await_inputs();
  __shared__ float cells[SEGMENTS * STRIDE];
  __shared__ double sums[3][SEGMENTS];
  __shared__ u32 found[8][UNORDERED];
  u32 me = thread_x(), chain = me % 128;
  u32 *to = kept + (u64)block_x() * keep;
  u32 n[5] = {};
  i32 least = 0x7fffffff, most = (i32)0x80000000;
  double all = 0; // of threads 0 to 2: the row's sum, sum of magnitudes, sum of squares
  Element mine[MINE];
#pragma unroll
  for (u32 i = 0; i < MINE; i++) mine[i] = row[least_of(me + i * 256, cols - 1)];
  for (u32 base = 0; base < cols; base += CHUNK) {
#pragma unroll
    for (u32 i = 0; i < MINE; i++) {
      u32 in = me + i * 256, at = base + in;
      float v = real(mine[i]);
      u32 bits = as_uint(v), size = bits & 0x7fffffffu;
      // All ones or zero, by arithmetic: sixteen values' comparisons would fill the scalar registers of a wave.
      u32 there = below(at, cols), nan = below(0x7f800000u, size) & there, finite = below(size, 0x7f800000u) & there;
      // Zero changes no sum: none of them is ever -0.
      cells[in / SEGMENT * STRIDE + in % SEGMENT] = as_float(bits & finite);
      n[0] -= nan;
      n[1] -= there & ~nan & ~finite;
      n[2] -= below(size, 1) & there;
      i32 key = (i32)bits ^ (((i32)bits >> 31) & 0x7fffffff); // orders as the floats do
      i32 low = (key & finite) | (0x7fffffff & ~finite), high = (key & finite) | (0x80000000u & ~finite);
      least = low < least ? low : least;
      most = high > most ? high : most;
      add_hash(bits, at, there, &n[3], &n[4]);
    }
    if (base < keep) {
#pragma unroll
      for (u32 i = 0; i < MINE; i++) {
        u32 at = base + me + i * 256;
#if TYPE == I32 || TYPE == I8
        if (at < keep) to[at] = (u32)(i32)mine[i];
#else
        if (at < keep) to[at] = as_uint(real(mine[i]));
#endif
      }
    }
    // The next values are on their way while these are added up.
#pragma unroll
    for (u32 i = 0; i < MINE; i++) mine[i] = row[least_of(base + CHUNK + me + i * 256, cols - 1)];
    barrier();
    const float *cell = cells + chain / LANES * STRIDE + chain % LANES;
    double a = 0, b = 0;
    if (me < 128) {
#pragma unroll
      for (u32 i = 0; i < SEGMENT / LANES; i++) {
        double v = (double)cell[i * LANES];
        a += v;
        b += abs64(v);
      }
    } else {
#pragma unroll
      for (u32 i = 0; i < SEGMENT / LANES; i++) {
        double v = (double)cell[i * LANES];
        a = a + v * v;
      }
    }
    a = sum16(a), b = sum16(b);
    if (chain % LANES == 0) {
      sums[me < 128 ? 0 : 2][chain / LANES] = a;
      if (me < 128) sums[1][chain / LANES] = b;
    }
    barrier();
    if (me < 3) {
#pragma unroll
      for (u32 s = 0; s < SEGMENTS; s++) all += sums[me][s];
    }
  }
  for (u32 q = 0; q < 5; q++) n[q] = (u32)sum32((i32)n[q]);
  least = ~largest_of<16>(~least), most = largest_of<16>(most);
  if (me % 32 == 0) {
    u32 *f = found[me / 32];
    for (u32 q = 0; q < 5; q++) f[q] = n[q];
    f[5] = (u32)least, f[6] = (u32)most;
  }
  barrier();
  // A thread for each field; what follows `count` in the order of `found`, ends last.
  Stats *o = out + block_x();
  u32 *words = (u32 *)o;
  if (me < 3) (&o->sum)[me] = all;
  if (me >= 32 && me < 37) {
    u32 q = me - 32, sum = 0;
    for (u32 g = 0; g < 8; g++) sum += found[g][q];
    words[3 + q] = sum;
  }
  if (me == 64 || me == 65) {
    u32 q = me - 64;
    i32 end = (i32)found[0][5 + q];
    for (u32 g = 1; g < 8; g++) {
      i32 v = (i32)found[g][5 + q];
      end = (q == 0 ? v < end : v > end) ? v : end;
    }
    bool none = end == (q == 0 ? 0x7fffffff : (i32)0x80000000);
    words[1 + q] = none ? 0 : (u32)(end ^ ((end >> 31) & 0x7fffffff));
  }
  if (me == 96) o->count = cols, o->unused = 0;
}
