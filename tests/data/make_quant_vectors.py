#!/usr/bin/env python3
"""Writes quant_vectors.bin: raw blocks of every real type, and the f32 values that the `gguf` package makes of them.

    pip install numpy gguf
    python3 make_quant_vectors.py [quant_vectors.bin]

Blocks are random bytes, their f16 scales forced finite, after some edge cases. Made with gguf 0.19 and numpy 2.4; any
version should write the same file. All numbers are little-endian. The file is "GRETAQV1", then one record a type:

    u8 length of the name, the name
    u32 number of the type in GGUF, u32 values a block, u32 bytes a block, u32 blocks
    the blocks
    the bits of the expected f32 values
"""
import struct
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

# Where the f16 scales of a block begin.
F16_AT = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108],
          T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}

# One, zero, minus zero, the smallest and the largest subnormal (both signs), the extremes.
EDGE_F16 = [0x3C00, 0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x83FF, 0x7BFF, 0xFBFF]

rng = np.random.Generator(np.random.SFC64(1))


def quantized(t):
    size = GGML_QUANT_SIZES[t][1]
    blocks = []
    for n, bits in enumerate(EDGE_F16):
        block = rng.integers(0, 256, size, dtype=np.uint8)
        block[:] = {1: 0, 7: 255, 8: 255}.get(n, block)          # also all codes and scales at their ends
        for k, at in enumerate(F16_AT[t]):
            pair = bits if k == 0 else EDGE_F16[(n + 3) % len(EDGE_F16)]
            block[at:at + 2] = np.frombuffer(struct.pack("<H", pair), np.uint8)
        blocks.append(block)
    for _ in range(16 if GGML_QUANT_SIZES[t][0] == 256 else 55):
        block = rng.integers(0, 256, size, dtype=np.uint8)
        for at in F16_AT[t]:
            if block[at + 1] & 0x7C == 0x7C:                     # infinity or NaN
                block[at + 1] &= 0xBF
        blocks.append(block)
    return np.stack(blocks)


def plain(t):
    if t == T.F32:
        edge = np.array([0, 1 << 31, 1, 0x007FFFFF, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000], np.uint32)
        rest = rng.integers(0, 0x7F800000, 193, dtype=np.uint32) | (rng.integers(0, 2, 193, dtype=np.uint32) << 31)
    else:
        # Infinities and the quiet NaN are among the edges; other NaNs may legitimately lose their payload.
        infinity = 0x7C00 if t == T.F16 else 0x7F80
        quiet = infinity | (0x0200 if t == T.F16 else 0x0040)
        edge = np.array(EDGE_F16 + [infinity, infinity | 0x8000, quiet], np.uint16)
        rest = rng.integers(0, infinity, 1013, dtype=np.uint16) | (rng.integers(0, 2, 1013, dtype=np.uint16) << 15)
    return np.concatenate([edge, rest.astype(edge.dtype)]).view(np.uint8).reshape(-1, GGML_QUANT_SIZES[t][1])


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else "quant_vectors.bin"
    with open(path, "wb") as f:
        f.write(b"GRETAQV1")
        for t in [T.F32, T.F16, T.BF16, *F16_AT]:
            blocks = quantized(t) if t in F16_AT else plain(t)
            with np.errstate(all="ignore"):
                values = dequantize(blocks.reshape(-1), t).astype(np.float32, copy=False)
            length, size = GGML_QUANT_SIZES[t]
            assert blocks.shape[1] == size and values.size == len(blocks) * length
            f.write(bytes([len(t.name)]) + t.name.encode())
            f.write(struct.pack("<4I", int(t), length, size, len(blocks)))
            f.write(blocks.tobytes() + values.view("<u4").tobytes())


if __name__ == "__main__":
    main()
