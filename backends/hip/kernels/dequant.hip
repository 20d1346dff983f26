// Packed weights to f32: 32 lanes a row.
#include "values.hip.h"

constexpr u32 LANES = 32;
constexpr u32 ROWS = 256 / LANES; // a workgroup

template <bool WHOLE> DEV void decode(float *to, const u8 *row, u32 k) {
  for (u32 unit = thread_x() % LANES; unit < units_of(k); unit += LANES)
    for_each_four<WHOLE>(row, unit, k, [&](u32 at, const float *v) { store_four<WHOLE>(to, at, k, v); });
}

KERNEL __launch_bounds__(256) void dequant(float *out, const u8 *w, u32 rows, u32 k) {
  await_inputs();
  u32 row = block_x() * ROWS + thread_x() / LANES;
  if (row >= rows) return;
  float *to = out + (u64)row * k;
  const u8 *from = w + row * row_bytes(k);
  if (whole_units(k)) decode<true>(to, from, k);
  else decode<false>(to, from, k);
}
