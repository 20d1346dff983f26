#!/usr/bin/env python3
"""Holds backends against each other on a real model: logits after a prompt, and greedy text after it.

  .ci/agreement.py BACKEND BACKEND ...        (all pairs; such as: hip:nvidia hip:sim cpu)
      --greta PROGRAM    target/release/greta
      --model FILE       target/models/SmolLM2-135M-Instruct.Q4_1.gguf
      --prompts NAMES    p0_short,p4_sys,p5_ba
      --tokens N         of greedy text; 32
      --runs DIR         where runs are kept; those that are there are not made again, so that a backend of another
                         machine can be recorded there
      --record-only      make the runs and compare nothing

Needs Python alone. The emulator takes a second a token.
"""
import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile

ARITHS = ["exact", "int8"]


def record(o, backend, arith, what, flags):
    run = os.path.join(o.runs, f"{backend.replace(':', '_')}-{arith}-{what}")
    if os.path.exists(run):
        with open(os.path.join(run, "run.json")) as file:
            known = json.load(file)
        prompts, model = {p["id"] for p in known["prompts"]}, os.path.basename(known["model"]["path"])
        steps = [s for s in known["steps"] if s["phase"].startswith("decode")]
        if known["status"] != "complete" or prompts != set(o.prompts.split(",")) or model != os.path.basename(o.model):
            sys.exit(f"{run}: is not a complete run of {o.prompts} with {o.model}")
        if what == "text" and len(steps) != (o.tokens + 1) * len(prompts):
            sys.exit(f"{run}: has not {o.tokens} tokens of text")
    else:
        command = [o.greta, "trace", "-m", o.model, "-b", backend, "--arith", arith, "--prompts", o.prompts, "--taps", "logits"]
        # What went wrong was said on standard error.
        if subprocess.run(command + flags + ["-o", run], stdout=subprocess.DEVNULL).returncode != 0:
            sys.exit(1)
    return run


def logits(o, backend, arith):
    return record(o, backend, arith, "logits", ["--phases", "prefill_last", "--detail", "full"])


def text(o, backend, arith):
    # decode0 runs the prompt's last token; each step after it the likeliest one.
    flags = ["--phases", "decode", "--detail", "stats", "--decode", str(o.tokens + 1)]
    run = record(o, backend, arith, "text", flags)
    tokens = {}
    with open(os.path.join(run, "taps.jsonl")) as file:
        for line in map(json.loads, file):
            if line["step"] > 0:
                tokens.setdefault(line["prompt"], {})[line["step"]] = line["token"]
    return {prompt: [steps[i] for i in sorted(steps)] for prompt, steps in tokens.items()}


def margin(o, backend, arith, prompt, before):
    """How far this backend's likeliest token is above the next one."""
    with open(os.path.join(logits(o, backend, arith), "run.json")) as file:
        start = next(p for p in json.load(file)["prompts"] if p["id"] == prompt)["tokens"]
    tokens = ",".join(map(str, start + before))
    command = [o.greta, "logits", "-m", o.model, "-b", backend, "--arith", arith, "--tokens", tokens, "--top", "2", "--json"]
    first, second = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["top"]
    return first["logit"] - second["logit"]


def apart(o, a, b, arith, prompt):
    mine, other = (text(o, backend, arith)[prompt] for backend in (a, b))
    same = next((i for i, (x, y) in enumerate(zip(mine, other)) if x != y), len(mine))
    if same == len(mine):
        return f"all {same}"
    # Asked of a backend of this machine, if it is not the one that was recorded elsewhere.
    return f"{same} of {len(mine)}; there {b}'s best is {margin(o, b, arith, prompt, mine[:same]):.3f} above the next"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backends", nargs="+", metavar="BACKEND")
    parser.add_argument("--greta", default="target/release/greta")
    parser.add_argument("--model", default="target/models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--prompts", default="p0_short,p4_sys,p5_ba")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--runs")
    parser.add_argument("--record-only", action="store_true")
    o = parser.parse_args()
    if o.tokens < 1 or len(o.backends) < 2 and not o.record_only:
        parser.error("two backends are compared, over one token or more")
    for path in [o.greta, o.model]:
        if not os.path.exists(path):
            parser.error(f"{path} is not there; start this beside the checkout's target/, or name it")
    with tempfile.TemporaryDirectory() as folder:
        o.runs = o.runs or folder
        os.makedirs(o.runs, exist_ok=True)
        for arith, backend in itertools.product(ARITHS, o.backends):
            print(f"{backend}, {arith}", file=sys.stderr)
            logits(o, backend, arith), text(o, backend, arith)
        if not o.record_only:
            table(o)


def table(o):
    print("| arithmetic | pair | prompt | largest difference of a logit | of 99 % | rel. L2 | KL | top 10 | same greedy tokens |")
    print("|---|---|---|---|---|---|---|---|---|")
    for arith, (a, b) in itertools.product(ARITHS, itertools.combinations(o.backends, 2)):
        command = [o.greta, "diff", logits(o, a, arith), logits(o, b, arith), "--no-bounds", "--json"]
        for p in json.loads(subprocess.run(command, stdout=subprocess.PIPE).stdout)["prompts"]:
            l, m = p["logits"], p["logits"]["metrics"]
            figures = f"{m['max_abs']:.1e} | {m['p99_abs']:.1e} | {m['rel_l2']:.1e} | {l['kl']:.1e} | {l['top_overlap']} of {l['k']}"
            print(f"| {arith} | {a}, {b} | {p['prompt']} | {figures} | {apart(o, a, b, arith, p['prompt'])} |")


main()
