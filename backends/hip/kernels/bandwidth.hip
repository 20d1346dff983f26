// What it takes to read memory once: the sum of an array's words, modulo 2^32, a part from each thread.
//
// A thread reads 16 bytes at a time, all threads of the grid side by side. The order of an integer sum does not matter.
#include "greta.hip.h"

struct alignas(16) Four {
  u32 a, b, c, d;
};

// `out` has a word for each of `threads` threads, `from` has `count` times 16 bytes.
KERNEL __launch_bounds__(256) void read_all(u32 *out, const Four *from, u32 count, u32 threads) {
  await_inputs();
  u32 me = block_x() * 256 + thread_x(), sum = 0;
#pragma unroll 4
  for (u64 i = me; i < count; i += threads) {
    Four v = from[i];
    sum += v.a + v.b + v.c + v.d;
  }
  out[me] = sum;
}
