// A tap: statistics of rows where they lie, and their first values. The definition is that of `greta_ops::Stats`:
// segments of 512 values, in each 16 interleaved f64 sums of the finite values folded by halves; segments in order.
//
// A workgroup a row; 16 threads a segment, so that sixteen segments are under way.
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

constexpr u32 SEGMENT = 512, LANES = 16, AT_ONCE = 256 / LANES;
constexpr u32 TOGETHER = 32; // values of a thread on their way

DEV void add_hash(u32 bits, u32 at, u32 *low, u32 *high) {
  u32 a = bits + at * 0x9e3779b9u;
  a ^= a >> 16;
  a *= 0x85ebca6bu;
  a ^= a >> 13;
  a *= 0xc2b2ae35u;
  a ^= a >> 16;
  u32 b = (a ^ 0x5bd1e995u) * 0x27d4eb2fu;
  *low += a;
  *high += b ^ b >> 15;
}

// `rows` names the rows; `out` and `kept` have one entry for each. Rows are `cols` elements apart; `keep` of each are kept.
KERNEL WORKGROUPS(1) void stats(Stats *out, u32 *kept, const Element *values, const i32 *rows, u32 cols, u32 keep) {
  await_inputs();
  __shared__ double sums[3][256];
  __shared__ u32 counts[5][256];
  __shared__ i32 ends[2][256];
  u32 me = thread_x(), segment = me / LANES, lane = me % LANES;
  const Element *row = values + (u64)rows[block_x()] * cols;
  u32 *to = kept + (u64)block_x() * keep;
  Stats all = {};
  for (u32 base = 0; base < cols; base += SEGMENT * AT_ONCE) {
    double sum = 0, abs_sum = 0, sum_sq = 0;
    u32 nan = 0, inf = 0, zeros = 0, low = 0, high = 0;
    i32 least = 0x7fffffff, most = (i32)0x80000000;
    Element next[TOGETHER];
    for (u32 i = 0; i < SEGMENT / LANES; i++) {
      u32 at = base + segment * SEGMENT + i * LANES + lane;
      if (i % TOGETHER == 0) {
        if (at >= cols) break;
#pragma unroll
        for (u32 j = 0; j < TOGETHER; j++) next[j] = row[at + j * LANES < cols ? at + j * LANES : cols - 1];
      }
      if (at >= cols) break;
      Element element = next[0];
#pragma unroll
      for (u32 j = 1; j < TOGETHER; j++) next[j - 1] = next[j];
      float v = real(element);
      u32 bits = as_uint(v), size = bits & 0x7fffffffu;
      if (at < keep) {
#if TYPE == I32 || TYPE == I8
        to[at] = (u32)(i32)element;
#else
        to[at] = bits;
#endif
      }
      nan += size > 0x7f800000u;
      inf += size == 0x7f800000u;
      zeros += size == 0;
      add_hash(bits, at, &low, &high);
      if (size < 0x7f800000u) {
        i32 key = (i32)bits ^ (((i32)bits >> 31) & 0x7fffffff); // orders as the floats do
        least = key < least ? key : least;
        most = key > most ? key : most;
        double wide = (double)v;
        sum += wide;
        abs_sum += wide < 0 ? -wide : wide;
        sum_sq = sum_sq + wide * wide;
      } else {
        sum += 0.0;
        abs_sum += 0.0;
        sum_sq += 0.0;
      }
    }
    sums[0][me] = sum, sums[1][me] = abs_sum, sums[2][me] = sum_sq;
    counts[0][me] = nan, counts[1][me] = inf, counts[2][me] = zeros, counts[3][me] = low, counts[4][me] = high;
    ends[0][me] = least, ends[1][me] = most;
    barrier();
    for (u32 half = LANES / 2; half > 0; half /= 2) {
      if (lane < half) {
        for (u32 q = 0; q < 3; q++) sums[q][me] += sums[q][me + half];
        for (u32 q = 0; q < 5; q++) counts[q][me] += counts[q][me + half];
        ends[0][me] = ends[0][me + half] < ends[0][me] ? ends[0][me + half] : ends[0][me];
        ends[1][me] = ends[1][me + half] > ends[1][me] ? ends[1][me + half] : ends[1][me];
      }
      barrier();
    }
    if (me == 0) {
      for (u32 s = 0; s < AT_ONCE && base + s * SEGMENT < cols; s++) {
        u32 left = cols - base - s * SEGMENT, count = left < SEGMENT ? left : SEGMENT, at = s * LANES;
        u32 finite = count - counts[0][at] - counts[1][at], before = all.count - all.nan - all.inf;
        if (finite > 0) {
          i32 a = ends[0][at], b = ends[1][at];
          float min = as_float((u32)(a ^ ((a >> 31) & 0x7fffffff))), max = as_float((u32)(b ^ ((b >> 31) & 0x7fffffff)));
          all.min = before == 0 || min < all.min ? min : all.min;
          all.max = before == 0 || max > all.max ? max : all.max;
        }
        all.count += count;
        all.nan += counts[0][at], all.inf += counts[1][at], all.zeros += counts[2][at];
        all.hash_low += counts[3][at], all.hash_high += counts[4][at];
        all.sum += sums[0][at], all.abs_sum += sums[1][at], all.sum_sq += sums[2][at];
      }
    }
    barrier(); // before the next segments overwrite
  }
  if (me == 0) out[block_x()] = all;
}
