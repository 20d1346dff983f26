"""Makes another quantisation of a GGUF with llama.cpp's own quantiser.

  requantize.py IN.gguf Q4_K_M OUT.gguf        (needs: pip install llama-cpp-python)
"""
import ctypes
import os
import sys

import llama_cpp

FTYPE = dict(F32=0, F16=1, Q4_0=2, Q4_1=3, Q8_0=7, Q2_K=10, Q3_K_M=12, Q4_K_M=15, Q5_K_M=17, Q6_K=18, BF16=32)

if len(sys.argv) != 4 or sys.argv[2] not in FTYPE:
    sys.exit(__doc__)
source, kind, target = sys.argv[1:]
params = llama_cpp.llama_model_quantize_default_params()
params.ftype, params.nthread, params.allow_requantize = FTYPE[kind], os.cpu_count(), True
if llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)):
    sys.exit("quantisation failed")
