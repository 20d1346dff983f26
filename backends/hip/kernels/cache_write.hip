// Rows into the KV cache: row t of `rows` to slot slots[t], rounded to the cache's type. A slot outside the cache is skipped.
#include "greta.hip.h"

KERNEL __launch_bounds__(256) void cache_write_f32(float *cache, const float *rows, const i32 *slots, u32 tokens, u32 width,
                                                   u32 cache_slots) {
  await_inputs();
  u32 i = block_x() * 256 + thread_x();
  if (i >= tokens * width) return;
  u32 slot = (u32)slots[i / width];
  if (slot < cache_slots) cache[(u64)slot * width + i % width] = rows[i];
}

KERNEL __launch_bounds__(256) void cache_write_f16(u16 *cache, const float *rows, const i32 *slots, u32 tokens, u32 width,
                                                   u32 cache_slots) {
  await_inputs();
  u32 i = block_x() * 256 + thread_x();
  if (i >= tokens * width) return;
  u32 slot = (u32)slots[i / width];
  if (slot < cache_slots) cache[(u64)slot * width + i % width] = f32_to_f16(rows[i]);
}
