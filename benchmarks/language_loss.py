"""Time and memory of the loss of a language model with a large vocabulary, beside PyTorch.

    python benchmarks/language_loss.py [--tokens 1024 2048 4096] [--threads 2] [--sides ours naive]

The hidden states of a number of tokens (384 features) are multiplied with a table of 50,257 tokens;
measured are the cross-entropy, the accuracy and both gradients:

- ours: `kernels.weighted_cross_entropy`, which is what `fit` uses;
- naive: the same from the logits of all tokens, in TensorFlow;
- pytorch: the same from the logits of all tokens, as `transformers` computes it.

Each run is a process of its own. Prints the median of the calls in milliseconds and the peak memory
of the process, and the ratios of both to ours. With `--step`, a whole training step of a GPT-2 with
6 blocks is measured instead.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

FEATURES, VOCABULARY, CALLS, LENGTH = 384, 50257, 5, 256


def milliseconds(call: Callable[[], object]) -> float:
    """Returns the median time of calls; the first one, which traces, does not count."""
    call()
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def peak_mb() -> float:
    """Returns the peak of the resident memory of this process in megabytes."""
    with open("/proc/self/status", encoding="utf-8") as file:
        peak = next(line for line in file if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


def tensorflow_call(side: str, tokens: int) -> Callable[[], object]:
    """Returns the loss with gradients in TensorFlow."""
    import numpy as np
    import tensorflow as tf

    from finetune_tf.kernels import tensorflow_vocabulary, vocabulary

    random = np.random.default_rng(0)
    hidden = tf.constant(random.normal(size=(tokens, FEATURES)).astype("float32"))
    table = tf.Variable(random.normal(0, 0.02, (VOCABULARY, FEATURES)).astype("float32"))
    targets = tf.constant(random.integers(0, VOCABULARY, tokens), "int32")
    weights = tf.ones(tokens)

    def naive(hidden: tf.Tensor, table: tf.Tensor) -> tuple:
        logits = tf.matmul(hidden, table, transpose_b=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        hits = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), targets)
        return tf.reduce_sum(losses * weights), hits

    def ours(hidden: tf.Tensor, table: tf.Tensor) -> tuple:
        kernel = (tensorflow_vocabulary if side == "ours" else vocabulary).weighted_cross_entropy
        return kernel(hidden, table, targets, weights, True)

    @tf.function(autograph=False)
    def call() -> list:
        with tf.GradientTape() as tape:
            tape.watch(hidden)
            total, hits = (naive if side == "naive" else ours)(hidden, tf.convert_to_tensor(table))
            loss = total / tokens
        gradients = tape.gradient(loss, [hidden, table])
        return [loss, hits, *gradients]

    return lambda: [each.shape for each in call()]


def pytorch_call(tokens: int) -> Callable[[], object]:
    """Returns the loss with gradients in PyTorch."""
    import torch

    torch.manual_seed(0)
    hidden = torch.randn(tokens, FEATURES, requires_grad=True)
    table = torch.nn.Parameter(torch.randn(VOCABULARY, FEATURES) * 0.02)
    targets = torch.randint(0, VOCABULARY, (tokens,))

    def call() -> None:
        hidden.grad = table.grad = None
        logits = (hidden @ table.T).float()
        torch.nn.functional.cross_entropy(logits, targets).backward()
        (logits.detach().argmax(-1) == targets).sum()

    return call


def tensorflow_step(side: str, tokens: int, dtype: str) -> Callable[[], object]:
    """Returns a training step of finetune_tf, with or without logits."""
    import numpy as np

    import finetune_tf as ft
    from finetune_tf.model import vocabulary_loss

    if side == "naive":
        vocabulary_loss._needs_only_the_loss = lambda model: False
    with ft.messages.quiet():
        config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], **SIZES}
        policy = "mixed_bfloat16" if dtype == "bfloat16" else "float32"
        model = ft.load(config, "text-generation", dtype=policy)
        model.compile()
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (tokens // LENGTH, LENGTH + 1))
    return lambda: model.train_on_batch({"input_ids": ids[:, :-1]}, ids[:, 1:])


def pytorch_step(tokens: int, dtype: str) -> Callable[[], object]:
    """Returns a training step of transformers."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**SIZES))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
    ids = torch.randint(0, VOCABULARY, (tokens // LENGTH, LENGTH))

    def call() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            output = model(ids, labels=ids)
        output.loss.backward()
        (output.logits.detach()[:, :-1].argmax(-1) == ids[:, 1:]).sum()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return call


SIZES = {
    "vocab_size": VOCABULARY,
    "n_embd": FEATURES,
    "n_layer": 6,
    "n_head": 12,
    "n_positions": LENGTH,
    **dict.fromkeys(["resid_pdrop", "embd_pdrop", "attn_pdrop"], 0.0),
}


def measure(given: argparse.Namespace) -> None:
    """Prints the result of one side as JSON."""
    side, (tokens,), threads = given.only, given.tokens, given.threads
    if side == "pytorch":
        import torch

        torch.set_num_threads(threads)
        before = peak_mb()
        call = pytorch_step(tokens, given.dtype) if given.step else pytorch_call(tokens)
    else:
        import tensorflow as tf

        import finetune_tf  # noqa: F401

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        before = peak_mb()
        if given.step:
            call = tensorflow_step(side, tokens, given.dtype)
        else:
            call = tensorflow_call(side, tokens)
    took = milliseconds(call)
    print(json.dumps({"ms": took, "peak": peak_mb(), "own": peak_mb() - before}))


def main() -> None:
    """Measures all sides in turn and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--sides", nargs="+", default=["ours", "naive", "pytorch"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--step", action="store_true")
    help = "of the computations of a step; weights are in float32"
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help=help)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        measure(given)
        return
    print("tokens, side: milliseconds (times ours), peak MB without imports (ours as a fraction)")
    for tokens in given.tokens:
        results = {}
        for side in given.sides:
            options = ["--only", side, "--tokens", str(tokens), "--threads", str(given.threads)]
            options += ["--dtype", given.dtype, *["--step"] * given.step]
            command = [sys.executable, __file__, *options]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results[side] = result = json.loads(done.stdout.splitlines()[-1])
            first = results[given.sides[0]]
            print(
                f"{tokens:,}, {side}: {result['ms']:,.0f} ms ({result['ms'] / first['ms']:.2f}), "
                f"{result['own']:,.0f} MB ({first['own'] / result['own']:.0%}), "
                f"{result['peak']:,.0f} MB with imports ({first['peak'] / result['peak']:.0%})",
                flush=True,
            )


if __name__ == "__main__":
    main()
