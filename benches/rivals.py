#!/usr/bin/env python3
"""Speed of greta beside llama.cpp in the same minutes: rounds alternate, ratios are taken round by round.

  pip install llama-cpp-python
  cargo build --release
  benches/rivals.py MODEL.gguf [--greta target/release/greta] [-p 512] [-n 128] [-t 2] [--rounds 5] [--json]

pp: tokens a second of a prompt of -p tokens in one batch. tg: tokens a second of -n decode steps. Both with random
tokens, an f16 cache and one warm-up, as llama-bench has them. llama.cpp runs in a process of its own each round.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time


def llama(a):
    """One round of llama.cpp: [pp, tg] in tokens a second."""
    import ctypes
    import random

    import llama_cpp as L

    quiet = L.llama_log_callback(lambda *_: None)
    L.llama_log_set(quiet, ctypes.c_void_p(0))
    L.llama_backend_init()
    mp = L.llama_model_default_params()
    mp.n_gpu_layers = 0
    if a.no_extra_bufts:
        mp.use_extra_bufts = False
    model = L.llama_model_load_from_file(a.model.encode(), mp)
    cp = L.llama_context_default_params()
    cp.n_ctx, cp.n_batch, cp.n_ubatch = a.p + a.n, a.p, 512
    cp.n_threads = cp.n_threads_batch = a.t
    ctx = L.llama_init_from_model(model, cp)
    vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(model))
    rng = random.Random(1)

    def run(n):
        tokens = (L.llama_token * n)(*(rng.randrange(vocab) for _ in range(n)))
        if L.llama_decode(ctx, L.llama_batch_get_one(tokens, n)):
            sys.exit("llama_decode failed")
        L.llama_synchronize(ctx)

    def fresh():
        L.llama_memory_clear(L.llama_get_memory(ctx), True)

    def timed(calls, n):
        fresh()
        start = time.perf_counter()
        for _ in range(calls):
            run(n)
        return calls * n / (time.perf_counter() - start)

    timed(1, a.p)
    pp = timed(1, a.p)
    timed(1, 1)
    return [pp, timed(a.n, 1)]


def greta(a):
    """One round of greta: [pp, tg] in tokens a second."""
    command = [a.greta, "bench", "-m", a.model, "-p", str(a.p), "-n", str(a.n), "-r", "1", "-t", str(a.t), "--json"]
    rows = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return [next(r["avg_ts"] for r in rows if r["n_prompt"]), next(r["avg_ts"] for r in rows if r["n_gen"])]


def spread(values):
    return dict(median=statistics.median(values), min=min(values), max=max(values))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("--greta", default="target/release/greta")
    ap.add_argument("-p", type=int, default=512)
    ap.add_argument("-n", type=int, default=128)
    ap.add_argument("-t", type=int, default=2)
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--no-extra-bufts", action="store_true", help="llama.cpp without its repacked and AMX buffers")
    ap.add_argument("--json", action="store_true")
    ap.add_argument("--one-llama-round", action="store_true", help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.one_llama_round:
        print(json.dumps(llama(a)))
        return
    rounds = []
    for _ in range(a.rounds):
        again = [sys.executable, __file__, *sys.argv[1:], "--one-llama-round"]
        theirs = json.loads(subprocess.run(again, capture_output=True, check=True, text=True).stdout.splitlines()[-1])
        rounds.append((greta(a), theirs))
    result = {}
    for i, test in enumerate((f"pp{a.p}", f"tg{a.n}")):
        result[test] = dict(
            greta=spread([g[i] for g, _ in rounds]),
            llama_cpp=spread([t[i] for _, t in rounds]),
            ratio=spread([g[i] / t[i] for g, t in rounds]),
        )
    if a.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{a.model}, {a.t} threads, {a.rounds} rounds: median (min – max)")
    for test, r in result.items():
        cells = [f"{k} {v['median']:.2f} ({v['min']:.2f} – {v['max']:.2f})" for k, v in r.items()]
        print(f"{test:>6}: " + ", ".join(cells))


if __name__ == "__main__":
    main()
