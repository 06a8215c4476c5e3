"""One training step with objectives, and the same step computed by PyTorch."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune_tf.training.objectives import Objective

IDS = np.array([[2, 5, 9, 11, 3], [2, 7, 3, 0, 0], [2, 14, 6, 3, 0], [2, 8, 8, 21, 3]], "int32")
MASK = (IDS > 0).astype("int32")
LABELS = np.array([1, 0, 1, 1], "int32")
BATCH = {"input_ids": IDS, "attention_mask": MASK}


class FixedNoise(Objective):
    """Adds given noise to the token embeddings of all rows, in place of random dropout."""

    draws = True

    def __init__(self, noise: np.ndarray) -> None:
        self.noise = noise

    def before(self, step: Any) -> None:
        """Adds the noise."""
        from finetune_tf.architectures import Embeddings
        from finetune_tf.graph.taps import calls_of_embeddings

        for node, _ in calls_of_embeddings(step.model, (Embeddings,)):
            step.taps.call_with(node, perturb=lambda vectors: vectors + self.noise)


def one_step(model: Any, objectives: list, folder: Path, loss: Any = None, **options: Any) -> tuple:
    """Runs a step of SGD at a rate of 1; returns the loss and the folders before and after it."""
    before = model.save_pretrained(folder / "before", dtype="float32")
    model.compile(keras.optimizers.SGD(1.0), loss, objectives=objectives)
    batch, labels = options.pop("batch", BATCH), options.pop("labels", LABELS)
    found = model.train_on_batch(batch, labels, return_dict=True, **options)
    return found["loss"], before, model.save_pretrained(folder / "after", dtype="float32")


def assert_same_step(found: tuple, expected: Any, model: Any, tolerance: float = 1e-4) -> None:
    """Compares loss and gradients with those of PyTorch.

    Args:
        found: The result of `one_step`.
        expected: The loss of PyTorch, a tensor.
        model: PyTorch's model of the weights before.
        tolerance: Of the gradients, relative to the largest of a tensor.
    """
    from safetensors.numpy import load_file

    loss, before, after = found
    assert abs(loss - expected.item()) <= 1e-5 * max(abs(loss), 1.0)
    expected.backward()
    first, last = (load_file(folder / "model.safetensors") for folder in (before, after))
    compared = 0
    for name, parameter in model.named_parameters():
        if parameter.grad is None or name not in first:
            continue
        wanted = parameter.grad.numpy()
        gradient = first[name].astype("float64") - last[name]
        largest = max(np.abs(wanted).max(), 1e-3)
        assert np.abs(gradient - wanted).max() <= tolerance * largest, name
        compared += 1
    assert compared > 20
