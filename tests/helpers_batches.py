"""Batches of several kinds whose numbers a traced step alone sees, and numbers that are wrong."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers_tasks import CASES, LENGTH, ROWS, small_task_model

from finetune_tf import messages

IDS = np.full((ROWS, LENGTH), 7, "int32")
LABELS = np.array([0, 2, 1, 1])


def compiled_models():
    """A small model for each case of `helpers_tasks`, compiled so that no step changes it."""
    made = {case: small_task_model(case) for case in CASES}
    for model in made.values():
        with messages.quiet():
            model.compile(keras.optimizers.SGD(0.0))
    return made


class Batches(keras.utils.PyDataset):
    """Keras's own kind of a dataset, of one batch."""

    def __init__(self, *batch):
        super().__init__()
        self.batch = batch

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.batch


def dataset(*batch):
    return tf.data.Dataset.from_tensors(batch)


def generator(*batch):
    yield batch


def of_any_size(*batch):
    """A dataset of which no number of rows and no length is known before the step."""
    spec = keras.tree.map_structure(
        lambda v: tf.TensorSpec([None] * np.ndim(v), np.asarray(v).dtype), batch
    )
    return tf.data.Dataset.from_generator(lambda: iter([batch]), output_signature=spec)


#: Batches whose numbers a step alone sees.
IN_A_STEP = {"dataset": dataset, "PyDataset": Batches, "generator": generator}


def with_slow(doors):
    """Doors by name; other kinds of batches than datasets take the same way, and are slow."""
    slow = [f" of a {kind}" for kind in IN_A_STEP if kind != "dataset"]
    return [
        pytest.param(door, marks=pytest.mark.slow if door.endswith(tuple(slow)) else [])
        for door in doors
    ]


def changed(value, dtype="int64"):
    array = np.ones((ROWS, LENGTH), dtype)
    array[1, 2] = value
    return array
