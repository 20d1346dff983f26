// What the machine can do at best: kernels whose time is taken, to hold others' against.
#include "tile.hip.h"

struct alignas(16) Four {
  u32 a, b, c, d;
};

// What it takes to read memory once: the sum of an array's words, modulo 2^32, a part from each thread. A thread reads 16
// bytes at a time, all threads of the grid side by side. The order of an integer sum does not matter.
//
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

// What the matrix units can do: products of 16 by 32 and 32 by 16 signed bytes whose operands are in registers already,
// eight at a time that do not wait for each other. All operands' bytes are those of `rows` and `columns`, so that each lane
// knows its sums.
KERNEL __launch_bounds__(256) void multiply_all(i32 *out, u32 rows, u32 columns, u32 times) {
  await_inputs();
#if GRETA_AMD
  Fragment a = {(u64)rows << 32 | rows}, b = {(u64)columns << 32 | columns};
#else
  Fragment a = {{{rows, rows}}, {{rows, rows}}}, b = {{{columns, columns}}, {{columns, columns}}};
#endif
  Sums sums[8] = {};
#pragma unroll 1
  for (u32 n = 0; n < times; n++) {
#pragma unroll
    for (u32 i = 0; i < 8; i++) multiply_onto(sums[i], a, b);
  }
  i32 all = 0;
#pragma unroll
  for (u32 i = 0; i < 8; i++) {
#pragma unroll
    for (u32 r = 0; r < TILE_REGS; r++) all += sum_at(sums[i], r);
  }
  out[block_x() * 256 + thread_x()] = all;
}
