"""Record every point of a Hugging Face Llama model on one prompt, one .npy a point, for `greta import`.

    python pytorch_hooks.py MODEL_FOLDER "The prompt" acts/
"""
import json, pathlib, sys
import numpy, torch
from transformers import AutoModelForCausalLM, AutoTokenizer

path, text, out = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
out.mkdir(parents=True, exist_ok=True)
model = AutoModelForCausalLM.from_pretrained(path, torch_dtype=torch.float32, attn_implementation="eager").eval()
ids = AutoTokenizer.from_pretrained(path)(text, return_tensors="pt").input_ids

def save(name, x):  # [1, tokens, cols] → [tokens, cols]
    x = x[0] if isinstance(x, tuple) else x
    numpy.save(out / f"{name}.npy", x.detach()[0].to(torch.float32).numpy())

def hook(name):
    def keep(module, args, output):
        save(name, output)
        if name.endswith(("o_proj", "down_proj", "post_attention_layernorm")):
            save(name + ".in", args[0])
    return keep

POINTS = ("embed_tokens", "layernorm", "_proj", "model.norm", "lm_head")
for name, module in model.named_modules():
    if name.endswith(POINTS) or (name.count(".") == 2 and name.startswith("model.layers.")):
        module.register_forward_hook(hook(name))
with torch.no_grad():
    model(ids, use_cache=False)
c = model.config
meta = {"engine": f"pytorch {torch.__version__}", "arith": "f32", "model": path, "prompt_id": "prompt", "phase": "prefill",
        "tokens": ids[0].tolist(), "layout": "hf", "heads": c.num_attention_heads, "kv_heads": c.num_key_value_heads}
(out / "meta.json").write_text(json.dumps(meta))
