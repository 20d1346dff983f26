// out = a + b, value by value.
#include "greta.hip.h"

KERNEL __launch_bounds__(256) void add(float *out, const float *a, const float *b, u32 count) {
  await_inputs();
  u32 i = block_x() * 256 + thread_x();
  if (i < count) out[i] = a[i] + b[i];
}
