"""The cost of `ft.callbacks.Resume`: what a fit takes with and without saves, and their size.

A fit of MiniLM is timed with no callback and with a save every so many steps, in turns. The saves
are written by another thread, so the difference is what training waits for, and the time that the
thread takes from the cores. `collected` is the part for which a step waits, `written` the time of
the thread, `bytes` the size of a file.

    python benchmarks/resume.py                     # full fine-tuning, a save every 100 steps
    python benchmarks/resume.py --train head --every-steps 100
    python benchmarks/resume.py --steps 8 --every-steps 4 --rounds 1 --length 32   # a quick look
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

import finetune_tf as ft
from finetune_tf.demo import minilm
from finetune_tf.training.resuming.saved_fit import SavedFit
from finetune_tf.training.resuming.saves import Saves

LABELS = ["bad", "good"]


def _timed(function: Any, times: list[float]) -> Any:
    def call(*args: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args)
        finally:
            times.append(time.perf_counter() - start)

    return call


def _seconds(model: Any, data: Any, callbacks: list[Any]) -> float:
    """Returns what the epoch takes, from its first step to its end; the last save included."""
    begin = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: begin.append(time.perf_counter())
    )
    model.fit(data, epochs=1, verbose=0, callbacks=[note, *callbacks])
    return time.perf_counter() - begin[0]


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", default="everything", choices=["everything", "head"])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every-steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; by default temporary")
    parser.add_argument("--checkpoint", default=str(minilm()))
    given = parser.parse_args()

    with ft.messages.quiet():
        model = ft.load(given.checkpoint, "text-classification", labels=LABELS, new_head=True)
        ft.train_only(model, getattr(ft.select, given.train)())
        model.compile(**ft.presets.cross_entropy())
    random = np.random.default_rng(0)
    rows = given.steps * given.batch_size
    ids = random.integers(1000, 20_000, (rows, given.length)).astype("int32")
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(({"input_ids": ids}, np.arange(rows) % 2))
    data = data.batch(given.batch_size).prefetch(2)
    collected, written = [], []
    SavedFit._collect = _timed(SavedFit._collect, collected)
    Saves.write = _timed(Saves.write, written)
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        _seconds(model, data.take(3), [])  # traces the step
        without, with_saves = [], []
        for i in range(given.rounds):
            resume = ft.callbacks.Resume(folder / str(i), every_steps=given.every_steps)
            without.append(_seconds(model, data, []))
            with_saves.append(_seconds(model, data, [resume]))
        sizes = [path.stat().st_size for path in folder.rglob("*.safetensors")]
    finally:
        shutil.rmtree(folder)
    before, after = statistics.median(without), statistics.median(with_saves)
    print(
        json.dumps(
            {
                "train": given.train,
                "steps": given.steps,
                "every_steps": given.every_steps,
                "seconds without": round(before, 2),
                "seconds with": round(after, 2),
                "cost in percent": round(100 * (after / before - 1), 2),
                "saves": len(written) // given.rounds,
                "collected, ms": round(1000 * statistics.median(collected), 1),
                "written, ms": round(1000 * statistics.median(written), 1),
                "bytes": max(sizes),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
