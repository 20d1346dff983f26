// The `want` largest logits of a row, largest first, equal ones by ascending id; NaN sorts below everything.
//
// A value and its id make one key whose order is the order wanted, so that the next one is the largest key below the last.
// `topk_parts` gives each slice's best, `topk_merge` the best of those.
#include "greta.hip.h"

constexpr u32 SLICE = 2048; // values of a workgroup of topk_parts

DEV u64 key_of(float v, u32 id) {
  u32 bits = as_uint(v);
  if ((bits & 0x7fffffffu) > 0x7f800000u) bits = 0xff800000u; // NaN as -infinity
  u32 order = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return (u64)order << 32 | (u32)~id;
}

// The largest of all threads' keys, in every one of them.
DEV u64 largest(u64 key, u64 *part) {
  for (u32 m = 0; m < 5; m++) {
    u32 low = (u32)key, high = (u32)(key >> 32), a, b;
    switch (m) {
      case 0: a = xor_lane<16>(low), b = xor_lane<16>(high); break;
      case 1: a = xor_lane<8>(low), b = xor_lane<8>(high); break;
      case 2: a = xor_lane<4>(low), b = xor_lane<4>(high); break;
      case 3: a = xor_lane<2>(low), b = xor_lane<2>(high); break;
      default: a = xor_lane<1>(low), b = xor_lane<1>(high);
    }
    u64 other = (u64)b << 32 | a;
    key = other > key ? other : key;
  }
  if (thread_x() % 32 == 0) part[thread_x() / 32] = key;
  barrier();
  for (u32 i = 0; i < 8; i++) key = part[i] > key ? part[i] : key;
  barrier();
  return key;
}

// parts[row][slice][want]; absent ones are 0.
KERNEL __launch_bounds__(256) void topk_parts(u64 *parts, const float *logits, u32 vocab, u32 want) {
  await_inputs();
  __shared__ u64 part[8];
  u64 mine[SLICE / 256];
  u32 first = block_x() * SLICE, slices = (vocab + SLICE - 1) / SLICE;
#pragma unroll
  for (u32 i = 0; i < SLICE / 256; i++) {
    u32 id = first + i * 256 + thread_x();
    mine[i] = id < vocab ? key_of(logits[(u64)block_y() * vocab + id], id) : 0;
  }
  u64 last = ~0ull;
  for (u32 n = 0; n < want; n++) {
    u64 best = 0;
#pragma unroll
    for (u32 i = 0; i < SLICE / 256; i++) best = mine[i] < last && mine[i] > best ? mine[i] : best;
    last = largest(best, part);
    if (thread_x() == 0) parts[((u64)block_y() * slices + block_x()) * want + n] = last;
  }
}

// top[row][want] as (id, bits of the logit).
KERNEL __launch_bounds__(256) void topk_merge(u32 *top, const u64 *parts, const float *logits, u32 vocab, u32 count,
                                              u32 want) {
  await_inputs();
  __shared__ u64 part[8];
  const u64 *keys = parts + (u64)block_x() * count;
  u64 last = ~0ull;
  for (u32 n = 0; n < want; n++) {
    u64 best = 0;
    for (u32 i = thread_x(); i < count; i += 256) {
      u64 key = keys[i];
      best = key < last && key > best ? key : best;
    }
    last = largest(best, part);
    if (thread_x() == 0) {
      u32 id = ~(u32)last;
      u64 at = ((u64)block_x() * want + n) * 2;
      top[at] = id;
      top[at + 1] = as_uint(logits[(u64)block_x() * vocab + id]);
    }
  }
}
