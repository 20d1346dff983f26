// Activations to signed bytes, 32 values a scale; a lane holds one value.
//
// scale = amax / 127, code = round half to even (x * (127 / amax)), both f32. A block of zeros has scale 0; a block with NaN
// or infinity has scale NaN and codes 0. Where amax < 2^-100, x and amax are first multiplied by 2^64 for the codes, so that
// 127 / amax is finite.
#pragma once
#include "greta.hip.h"

// Every lane of the block gets the scale, and its own code. All 32 lanes take part.
DEV i8 quantize32(float v, float *scale) {
  // Sizes order as their bits do, with infinity and then NaN above all numbers.
  u32 top = largest_of<16>(as_uint(v) & 0x7fffffffu);
  if (top >= 0x7f800000u) {
    *scale = as_float(0x7fc00000u);
    return 0;
  }
  float amax = as_float(top);
  *scale = amax / 127.0f;
  if (top == 0) return 0;
  float up = amax < as_float((127 - 100) << 23) ? as_float((127 + 64) << 23) : 1.0f;
  float id = 127.0f / (amax * up);
  return (i8)(i32)rint_(v * up * id);
}
