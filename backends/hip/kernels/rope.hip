// Rotary position embedding (Su et al., RoFormer, arXiv 2104.09864).
//
// A thread turns a pair (a, b): a' = fma(-b, sin, a cos), b' = fma(a, sin, b cos). `turns` holds each pair's frequency in
// turns per position as two f32, high and low, so that position times frequency modulo a turn is right to f32's last bits
// at any position.
#include "greta.hip.h"

KERNEL __launch_bounds__(256) void rope(float *out, const float *x, const i32 *positions, const float *turns, u32 tokens,
                                        u32 width, u32 head_dim, u32 dims, u32 adjacent) {
  await_inputs();
  u32 half = (head_dim + 1) / 2, heads = width / head_dim;
  u32 i = block_x() * 256 + thread_x();
  if (i >= tokens * heads * half) return;
  u32 pair = i % half, token = i / half / heads;
  u64 head = (u64)(i / half) * head_dim;
  if (pair >= dims / 2) { // values past the rotated ones stay
    u32 at = dims + 2 * (pair - dims / 2);
    out[head + at] = x[head + at];
    if (at + 1 < head_dim) out[head + at + 1] = x[head + at + 1];
    return;
  }
  float position = (float)positions[token], high = turns[2 * pair], low = turns[2 * pair + 1];
  float product = position * high;
  float rest = fma_(position, high, -product) + position * low;
  float s, c;
  sincos_turns(product - rint_(product) + rest, &s, &c);
  u64 first = head + (adjacent ? 2 * pair : pair), second = adjacent ? first + 1 : first + dims / 2;
  float a = x[first], b = x[second];
  out[first] = fma_(-b, s, a * c);
  out[second] = fma_(a, s, b * c);
}
