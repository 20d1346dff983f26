// Activations to 8-bit codes: 32 lanes a block, eight blocks a workgroup.
#include "quantize.hip.h"

KERNEL __launch_bounds__(256) void quantize(i8 *codes, float *scales, const float *x, u32 blocks) {
  await_inputs();
  u32 block = block_x() * 8 + thread_x() / 32;
  if (block >= blocks) return; // whole blocks of lanes leave
  u32 at = block * 32 + thread_x() % 32;
  float scale;
  i8 code = quantize32(x[at], &scale);
  codes[at] = code;
  if (thread_x() % 32 == 0) scales[block] = scale;
}
