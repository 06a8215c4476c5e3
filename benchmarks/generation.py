"""How fast text is generated beside PyTorch: the same tokens, in turn, in one run.

    python benchmarks/generation.py [--rounds 3] [--dtype bfloat16]

A GPT-2 of 6 x 384 with random weights and 50,257 tokens continues prompts of 32 tokens by 64 tokens
(greedy search). Each side runs in a process of its own, with the same number of threads. PyTorch is
measured by the medians of `transformers`' `generate` with a cache. Prints milliseconds per call.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = {"n_embd": 384, "n_layer": 6, "n_head": 12, "n_positions": 256, "vocab_size": 50257}
PROMPT, NEW = 32, 64


def make_checkpoint(folder: Path) -> None:
    """Writes a random GPT-2."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(**SIZES)).save_pretrained(folder)


def time_calls(call: object, rounds: int = 4) -> list[float]:
    """Milliseconds of calls; the first one is not among them."""
    call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def prompts(batch: int) -> object:
    """Token ids (batch, length)."""
    import numpy as np

    return np.random.default_rng(0).integers(0, SIZES["vocab_size"], (batch, PROMPT))


def ours(folder: Path, batch: int, dtype: str) -> dict:
    """Runs finetune_tf."""
    import finetune_tf as ft

    policy = "mixed_bfloat16" if dtype == "bfloat16" else "float32"
    with ft.messages.quiet():
        model = ft.load(folder, "text-generation", dtype=policy)
    rows = list(prompts(batch))
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "batch_size": batch}
    start = time.perf_counter()
    tokens = model.generate(rows, **options)
    first = (time.perf_counter() - start) * 1e3
    times = time_calls(lambda: model.generate(rows, **options))
    return {"tokens": [row.tolist() for row in tokens], "times": times, "first": first}


def pytorch(folder: Path, batch: int, dtype: str) -> dict:
    """Runs PyTorch."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    ids = torch.from_numpy(prompts(batch))
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}

    def call() -> object:
        with torch.inference_mode():
            return model.generate(ids, **options, pad_token_id=50256)

    start = time.perf_counter()
    tokens = call()[:, PROMPT:]
    first = (time.perf_counter() - start) * 1e3
    return {"tokens": tokens.tolist(), "times": time_calls(call), "first": first}


def main() -> None:
    """Runs both sides in turn, or one of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--side", choices=["ours", "pytorch"])
    parser.add_argument("--batch", type=int)
    parser.add_argument("--checkpoint", type=Path)
    arguments = parser.parse_args()
    if arguments.side:
        run = {"ours": ours, "pytorch": pytorch}[arguments.side]
        print(json.dumps(run(arguments.checkpoint, arguments.batch, arguments.dtype)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoint(Path(folder))
        for batch in (1, 8):
            times: dict[str, list[float]] = {"ours": [], "pytorch": []}
            results = {}
            for _ in range(arguments.rounds):
                for side in times:
                    command = [sys.executable, __file__, "--side", side, "--batch", str(batch)]
                    command += ["--dtype", arguments.dtype, "--checkpoint", folder]
                    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
                    done = subprocess.run(
                        command, capture_output=True, text=True, check=True, env=environment
                    )
                    results[side] = json.loads(done.stdout.strip().splitlines()[-1])
                    times[side].append(statistics.median(results[side]["times"]))
            same = results["ours"]["tokens"] == results["pytorch"]["tokens"]
            mine, theirs = (statistics.median(times[side]) for side in ("ours", "pytorch"))
            print(
                f"{arguments.dtype}, batch {batch}: ours {mine:.0f} ms, PyTorch {theirs:.0f} ms, "
                f"{theirs / mine:.2f} times; first call {results['ours']['first']:.0f} and "
                f"{results['pytorch']['first']:.0f} ms; tokens {'equal' if same else 'different'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
