"""The jobs that are the same for every side with a Keras model, of whichever Keras."""

import argparse
import time
from collections.abc import Callable, Iterable
from typing import Any

import common
import numpy as np
import tensorflow as tf


def fixed(
    job: argparse.Namespace, inputs: Callable[[np.ndarray], dict], batches: int
) -> tf.data.Dataset:
    """The same random batch again and again; `inputs` says what a model wants of its ids."""
    random = np.random.default_rng(0)
    ids = random.integers(1000, 30000, (job.batch, job.length)).astype("int32")
    labels = random.integers(0, 2, job.batch)
    return tf.data.Dataset.from_tensors((inputs(ids), labels)).repeat(batches)


def step(
    job: argparse.Namespace,
    model: Any,
    inputs: Callable[[np.ndarray], dict],
    callback: type,
) -> dict:
    """Training steps of a compiled model at a fixed shape.

    Args:
        job: What the side is to do.
        model: To be fitted.
        inputs: As for `fixed`.
        callback: The class of callbacks that the model's Keras takes.
    """
    times = []

    class Clock(callback):
        def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
            self.start = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            times.append(time.perf_counter() - self.start)

    batches = fixed(job, inputs, common.WARM_UP + job.steps)
    model.fit(batches, verbose=0, callbacks=[Clock()])
    return common.summary(times)


def first(job: argparse.Namespace, model: Any, inputs: Callable[[np.ndarray], dict]) -> dict:
    """From the start of the process to the end of the first step."""
    model.fit(fixed(job, inputs, 1), verbose=0)
    return {"seconds": common.since_start()}


def padded(rows: Iterable[list[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids, and where they are not padding: (rows, length) both."""
    ids = np.asarray([row + [0] * (length - len(row)) for row in rows], "int32")
    lengths = np.asarray([len(row) for row in rows])
    return ids, (np.arange(length) < lengths[:, None]).astype("int32")
