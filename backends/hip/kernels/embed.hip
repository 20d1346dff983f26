// Rows of a packed table as f32, a workgroup each. An id outside the table gives a row of NaN.
#include "values.hip.h"

template <bool WHOLE> DEV void decode(float *to, const u8 *row, u32 k) {
  for (u32 unit = thread_x(); unit < units_of(k); unit += 256)
    for_each_four<WHOLE>(row, unit, k, [&](u32 at, const float *v) { store_four<WHOLE>(to, at, k, v); });
}

KERNEL __launch_bounds__(256) void embed(float *out, const u8 *table, const i32 *ids, u32 table_rows, u32 k, u32 t) {
  await_inputs();
  u32 token = block_x();
  if (token >= t) return;
  float *to = out + (u64)token * k;
  u32 row = (u32)ids[token]; // a negative id is past every table's end
  if (row >= table_rows) {
    for (u32 i = thread_x(); i < k; i += 256) to[i] = as_float(0x7fc00000);
    return;
  }
  const u8 *from = table + row * row_bytes(k);
  if (whole_units(k)) decode<true>(to, from, k);
  else decode<false>(to, from, k);
}
