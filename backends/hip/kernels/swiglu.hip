// The gated activation of Llama's feed-forward (Shazeer, arXiv 2002.05202): silu(gate) up.
//
// silu(g) = g / (1 + e^-g), computed as e = e^-|g|, num = g < 0 ? g e : g, silu = num / (1 + e), so that nothing overflows
// and a large negative gate gives the tiny value it should.
#include "quantize.hip.h"

DEV float silu_times(float g, float up) {
  // Minus infinity would give -inf 0; from -200 on the result is -0 anyway. The second operand survives a NaN.
  g = -200.0f > g ? -200.0f : g;
  float e = exp_(g < 0.0f ? g : 0.0f - g);
  return (g < 0.0f ? g * e : g) / (1.0f + e) * up;
}

KERNEL __launch_bounds__(256) void swiglu(float *out, const float *gate, const float *up, u32 count) {
  await_inputs();
  u32 i = block_x() * 256 + thread_x();
  if (i < count) out[i] = silu_times(gate[i], up[i]);
}

// The same, then `quantize`: 32 lanes a block.
KERNEL __launch_bounds__(256) void swiglu_quantize(i8 *codes, float *scales, const float *gate, const float *up,
                                                   u32 blocks) {
  await_inputs();
  u32 block = block_x() * 8 + thread_x() / 32;
  if (block >= blocks) return; // whole blocks of lanes leave
  u32 at = block * 32 + thread_x() % 32;
  float scale;
  i8 code = quantize32(silu_times(gate[at], up[at]), &scale);
  codes[at] = code;
  if (thread_x() % 32 == 0) scales[block] = scale;
}
