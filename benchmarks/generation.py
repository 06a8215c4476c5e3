"""How fast text is generated beside PyTorch and KerasHub, in turns and in one run.

    python benchmarks/generation.py [--models gpt2 t5 bart] [--sides ours pytorch kerashub]
        [--batches 1 8] [--beams 1 4] [--dtypes float32 bfloat16] [--rounds 3] [--threads 0]

Models have random weights: a GPT-2 of 6 x 384 features and 50,257 tokens, a T5 of the size of
T5-small, and a BART of 3 + 3 layers of 256 features. Each continues prompts (or reads sources) of
32 tokens by 64 new tokens. A side runs in a process of its own for each model, dtype and round, the
sides take turns, and a figure is the median of the rounds' medians of three calls. PyTorch is
transformers' `generate` with its cache and its default attention in `inference_mode`; KerasHub is
compiled as it recommends, and has no T5 that generates. "cpu" is processor time, which tells more
than the clock if other programs run. "new length" is the first call with prompts of 20 tokens.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PROMPT, OTHER_PROMPT, NEW, CALLS = 32, 20, 64, 3
GPT2 = {"n_embd": 384, "n_layer": 6, "n_head": 12, "n_positions": 256, "vocab_size": 50257}
T5 = {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}
T5 |= {"vocab_size": 32128, "decoder_start_token_id": 0}
BART = {"d_model": 256, "vocab_size": 50265, "max_position_embeddings": 256}
BART |= {"forced_eos_token_id": None}  # ours returns no token that ends a text
for part in ("encoder", "decoder"):
    BART |= {f"{part}_layers": 3, f"{part}_attention_heads": 4, f"{part}_ffn_dim": 1024}
MODELS = {  # classes of PyTorch's config and model, and the values of the config
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", GPT2),
    "t5": ("T5Config", "T5ForConditionalGeneration", T5),
    "bart": ("BartConfig", "BartForConditionalGeneration", BART),
}
Generate = Callable[[np.ndarray, int], Any]  # of prompts (batch, length) and beams


def make_checkpoint(name: str, folder: Path) -> None:
    """Writes a model with random weights."""
    import torch
    import transformers

    torch.manual_seed(0)
    config, model, values = MODELS[name]
    config = getattr(transformers, config)(**values)
    getattr(transformers, model)(config).save_pretrained(folder)


def ours(name: str, folder: Path, dtype: str, threads: int) -> Generate:
    """Returns what generates with finetune_tf."""
    import tensorflow as tf

    import finetune_tf as ft

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    task = "text-generation" if name == "gpt2" else "text2text-generation"
    policy = "mixed_bfloat16" if dtype == "bfloat16" else "float32"
    with ft.messages.quiet():
        model = ft.load(folder, task, dtype=policy)

    def generate(prompts: np.ndarray, beams: int) -> list:
        options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "num_beams": beams}
        rows = model.generate(list(prompts), batch_size=len(prompts), **options)
        return [row.tolist() for row in rows]

    return generate


def pytorch(name: str, folder: Path, dtype: str, threads: int) -> Generate:
    """Returns what generates with transformers on PyTorch."""
    import torch
    import transformers

    if threads:
        torch.set_num_threads(threads)
    kind = getattr(transformers, MODELS[name][1])
    model = kind.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()

    def generate(prompts: np.ndarray, beams: int) -> list:
        ids = torch.from_numpy(prompts)
        options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "num_beams": beams}
        options |= {"do_sample": False, "attention_mask": torch.ones_like(ids)}
        if name == "gpt2":
            options["pad_token_id"] = GPT2["vocab_size"] - 1
        with torch.inference_mode():
            return model.generate(ids, **options)[:, -NEW:].tolist()

    return generate


def kerashub(name: str, folder: Path, dtype: str, threads: int) -> Generate | None:
    """Returns what generates with KerasHub; None if it has no such model."""
    if name == "t5":
        return None
    import keras_hub
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    models, samplers = keras_hub.models, keras_hub.samplers
    is_decoder = name == "gpt2"
    values = (GPT2["n_layer"], GPT2["n_head"], GPT2["n_embd"], 4 * GPT2["n_embd"], 256)
    if not is_decoder:
        values = (3, 4, BART["d_model"], 1024, 256)
    names = ("num_layers", "num_heads", "hidden_dim", "intermediate_dim", "max_sequence_length")
    values = dict(zip(names, values, strict=True), dtype=dtype)
    kind = models.GPT2Backbone if is_decoder else models.BartBackbone
    backbone = kind(vocabulary_size=MODELS[name][2]["vocab_size"], **values)
    model = (models.GPT2CausalLM if is_decoder else models.BartSeq2SeqLM)(backbone)
    compiled = {}

    def generate(prompts: np.ndarray, beams: int) -> Any:
        if compiled.get("beams") != beams:
            model.compile(sampler=samplers.BeamSampler(beams) if beams > 1 else "greedy")
            compiled["beams"] = beams
        given = prompts if is_decoder else np.full((len(prompts), 1), 2)
        ids = np.pad(given, ((0, 0), (0, NEW)))
        mask = np.pad(np.ones_like(given), ((0, 0), (0, NEW)))
        inputs = {"token_ids": ids, "padding_mask": mask}
        if not is_decoder:
            inputs = {f"decoder_{key}": value for key, value in inputs.items()}
            ones = np.ones_like(prompts)
            inputs |= {"encoder_token_ids": prompts, "encoder_padding_mask": ones}
        return np.asarray(
            model.generate(inputs, stop_token_ids=None)[
                "token_ids" if is_decoder else "decoder_token_ids"
            ]
        )[:, -NEW:].tolist()

    return generate


SIDES = {"ours": ours, "pytorch": pytorch, "kerashub": kerashub}


def timed(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Returns the milliseconds of a call, by the clock and of all processors, and its result."""
    clock, cpu = time.perf_counter(), time.process_time()
    result = call()
    return (time.perf_counter() - clock) * 1e3, (time.process_time() - cpu) * 1e3, result


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures one side with every batch size and number of beams."""
    (side,), (name,), (dtype,) = arguments.sides, arguments.models, arguments.dtypes
    generate = SIDES[side](name, arguments.checkpoint, dtype, arguments.threads)
    if generate is None:
        return []
    random, found = np.random.default_rng(0), []
    for beams in arguments.beams:
        for batch in arguments.batches:
            prompts = random.integers(3, MODELS[name][2]["vocab_size"], (batch, PROMPT))
            first, _, tokens = timed(lambda p=prompts, b=beams: generate(p, b))
            other = prompts[:, :OTHER_PROMPT]
            new_length, _, _ = timed(lambda p=other, b=beams: generate(p, b))
            calls = [timed(lambda p=prompts, b=beams: generate(p, b)) for _ in range(CALLS)]
            clock, cpu = (statistics.median(call[i] for call in calls) for i in (0, 1))
            found.append(
                {"beams": beams, "batch": batch, "ms": clock, "cpu ms": cpu, "first ms": first}
                | {"new length ms": new_length, "tokens": tokens}
            )
    return found


def run(side: str, name: str, dtype: str, folder: Path, arguments: argparse.Namespace) -> list:
    """Measures one side in a process of its own."""
    command = [sys.executable, __file__, "--sides", side, "--models", name, "--dtypes", dtype]
    command += ["--checkpoint", str(folder), "--threads", str(arguments.threads)]
    command += ["--batches", *map(str, arguments.batches), "--beams", *map(str, arguments.beams)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(name: str, dtype: str, folder: Path, arguments: argparse.Namespace) -> None:
    """Prints the medians of all sides for one model and dtype."""
    rounds: dict[str, list] = {side: [] for side in arguments.sides}
    for _ in range(arguments.rounds):
        for side in rounds:
            rounds[side].append(run(side, name, dtype, folder, arguments))
    cases = [(beams, batch) for beams in arguments.beams for batch in arguments.batches]
    for i, (beams, batch) in enumerate(cases):
        print(f"{name}, {dtype}, {beams} beam(s), batch {batch}:")
        tokens = {}
        for side, results in rounds.items():
            if not results[0]:
                continue
            keys = ("ms", "cpu ms", "first ms", "new length ms")
            values = [statistics.median(result[i][key] for result in results) for key in keys]
            texts = ", ".join(f"{k} {v:,.0f}" for k, v in zip(keys, values, strict=True))
            tokens[side] = results[0][i]["tokens"]
            print(f"  {side:9}{texts}")
        if {"ours", "pytorch"} <= tokens.keys():
            same = tokens["ours"] == tokens["pytorch"]
            print(f"  tokens of ours and pytorch: {'equal' if same else 'different'}", flush=True)


def main() -> None:
    """Compares the sides, or measures one of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--beams", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: each library's default")
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.checkpoint:
        print(json.dumps(measure(arguments)))
        return
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            make_checkpoint(name, Path(folder))
            for dtype in arguments.dtypes:
                compare(name, dtype, Path(folder), arguments)


if __name__ == "__main__":
    main()
