// Packed weights to f32: 32 lanes a row.
#include "values.hip.h"

constexpr u32 LANES = 32;
constexpr u32 ROWS = 256 / LANES; // a workgroup

KERNEL __launch_bounds__(256) void dequant(float *out, const u8 *w, u32 rows, u32 k) {
  u32 lane = thread_x() % LANES, row = block_x() * ROWS + thread_x() / LANES;
  if (row >= rows) return;
  float *to = out + (u64)row * k;
  for (u32 unit = lane; unit < units_of(k); unit += LANES)
    for_each_four(w + row * row_bytes(k), unit, k, [&](u32 at, const float *v) { store_four(to, at, k, v); });
}
