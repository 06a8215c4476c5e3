"""How fast models of images train and predict beside PyTorch, in turns and in one run.

    python benchmarks/images.py [--models resnet50 vit] [--dtypes float32 bfloat16] [--rounds 3]
        [--jobs step predict] [--threads 0]

Models have random weights: a ResNet-50 with batches of 8 images, and a ViT of the size of ViT-tiny
(12 blocks of 192 features) with batches of 16, both of 224 x 224 pixels. Each side runs in a
process of its own for each round, the sides take turns, and a figure is the median of the rounds'
medians. Both sides get levels in uint8 and normalise them. The statistics of batch normalisation
are those of the checkpoint on both sides. Steps are those of AdamW, on PyTorch's side fused;
PyTorch runs eagerly, bfloat16 by autocast.
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

import numpy as np

SIZE, LABELS, CALLS, WARM_UP = 224, 10, 6, 2
VIT_TINY = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
MODELS = {  # the config, and the images of a batch
    "resnet50": ({"model_type": "resnet"}, 8),
    "vit": ({"model_type": "vit", **VIT_TINY}, 16),
}
MEAN, STDDEV = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Job = Callable[[], object]


def make_checkpoint(name: str, folder: Path) -> None:
    """Writes a model with random weights, and the settings of its image processor."""
    import torch
    import transformers

    torch.manual_seed(0)
    values = dict(MODELS[name][0])
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    config.num_labels = LABELS
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    content = {"image_processor_type": "ViTImageProcessor", "size": SIZE}
    content |= {"image_mean": MEAN, "image_std": STDDEV}
    (folder / "preprocessor_config.json").write_text(json.dumps(content), encoding="utf-8")


def batch_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Random levels (batch, height, width, 3) and labels (batch,)."""
    random, count = np.random.default_rng(0), MODELS[name][1]
    pixels = random.integers(0, 256, (count, SIZE, SIZE, 3)).astype("uint8")
    return pixels, random.integers(0, LABELS, count)


def ours(name: str, folder: Path, dtype: str, job: str, threads: int) -> Job:
    """Returns a step or a prediction of finetune_tf."""
    import tensorflow as tf

    import finetune_tf as ft

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    policy = "mixed_bfloat16" if dtype == "bfloat16" else "float32"
    with ft.messages.quiet():
        model = ft.load(folder, "image-classification", dtype=policy)
    pixels, labels = batch_of(name)
    inputs = {"pixel_values": tf.constant(pixels)}
    if job == "predict":
        forward = tf.function(lambda x: model.call(x, training=False), autograph=False)
        return lambda: forward(inputs).numpy()
    with ft.messages.quiet():
        model.compile(**ft.presets.cross_entropy(learning_rate=1e-5, schedule="constant"))
    targets = tf.constant(labels, "int32")
    return lambda: model.train_on_batch(inputs, targets)


def pytorch(name: str, folder: Path, dtype: str, job: str, threads: int) -> Job:
    """Returns a step or a prediction of transformers on PyTorch."""
    import torch
    import transformers

    if threads:
        torch.set_num_threads(threads)
    model = transformers.AutoModelForImageClassification.from_pretrained(folder)
    model.train(job == "step")
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()  # with the statistics of the checkpoint
    pixels, labels = (torch.from_numpy(array) for array in batch_of(name))
    mean, stddev = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STDDEV))
    half = dtype == "bfloat16"
    model = model.to(memory_format=torch.channels_last) if name == "resnet50" else model

    def normalized() -> torch.Tensor:
        return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / stddev

    if job == "predict":

        def predict() -> object:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                return model(pixel_values=normalized()).logits.float().numpy()

        return predict
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> object:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model(pixel_values=normalized(), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


SIDES = {"ours": ours, "pytorch": pytorch}


def measure(arguments: argparse.Namespace) -> float:
    """Returns the median milliseconds of one side's job."""
    (side,), (name,), (dtype,), (job,) = (
        arguments.sides,
        arguments.models,
        arguments.dtypes,
        arguments.jobs,
    )
    call = SIDES[side](name, arguments.checkpoint, dtype, job, arguments.threads)
    times = []
    for _ in range(WARM_UP + CALLS):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[WARM_UP:])


def compare(name: str, dtype: str, job: str, folder: Path, arguments: argparse.Namespace) -> None:
    """Prints the medians of both sides."""
    rounds: dict[str, list[float]] = {side: [] for side in arguments.sides}
    for _ in range(arguments.rounds):
        for side in rounds:
            command = [sys.executable, __file__, "--checkpoint", str(folder), "--sides", side]
            command += ["--models", name, "--dtypes", dtype, "--jobs", job]
            command += ["--threads", str(arguments.threads)]
            environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode:
                raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
            rounds[side].append(json.loads(done.stdout.strip().splitlines()[-1]))
    medians = {side: statistics.median(times) for side, times in rounds.items()}
    texts = ", ".join(f"{side} {value:,.0f} ms" for side, value in medians.items())
    ratio = medians.get("ours", 0) / medians.get("pytorch", float("nan"))
    print(f"{name}, {dtype}, {job}: {texts}, ours / pytorch {ratio:.2f}", flush=True)


def main() -> None:
    """Compares the sides, or measures one of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument(
        "--jobs", nargs="+", choices=["step", "predict"], default=["step", "predict"]
    )
    parser.add_argument(
        "--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"]
    )
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
                for job in arguments.jobs:
                    compare(name, dtype, job, Path(folder), arguments)


if __name__ == "__main__":
    main()
