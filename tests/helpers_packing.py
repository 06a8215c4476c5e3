"""Packed and padded batches of the same random texts, for every task."""

from pathlib import Path

import keras
import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

import finetune_tf as ft
from finetune_tf.data.batching import batches_of
from finetune_tf.data.packing import packing_of
from finetune_tf.messages import quiet
from finetune_tf.tasks import IGNORED
from finetune_tf.tasks.encoded import Encoded
from finetune_tf.tasks.feature import Feature
from finetune_tf.tasks.text_generation import next_tokens

REFERENCES = Path(__file__).parent / "references"
RANDOM = np.random.default_rng(0)
LENGTHS = (7, 3, 5, 9, 2, 1)
TEXTS = [RANDOM.integers(4, 23, n).astype("int32") for n in LENGTHS]
LENGTH = 12  # of packed rows
WITH_EMPTY = 13  # rows of three texts, of two and of one, so that three places are empty
ENCODERS = sorted(
    folder.parent.name
    for folder in REFERENCES.glob("*/text-classification")
    if folder.parent.name not in ("bart", "mbart", "mt5", "t5", "pegasus", "marian")
)
CONVOLVED = ("deberta-v2",)  # its first block mixes neighbouring tokens


def of_families(names: list[str], fast: tuple[str, ...] = ()) -> list:
    """Parameters of a test of families: with JAX two of them, and slow ones but for `fast`."""
    with_jax, reason = ("bert", "modernbert"), "with JAX, two families are tested"
    return [
        pytest.param(
            name,
            marks=[
                *([] if name in with_jax else [pytest.mark.needs_tensorflow(reason)]),
                *([] if name in fast else [pytest.mark.slow]),
            ],
        )
        for name in names
    ]


def folder_of(family: str, task: str) -> Path:
    folder = REFERENCES / family / task
    return folder if folder.exists() else REFERENCES / family / "text-classification"


def loaded(family: str, task: str, **options: object) -> keras.Model:
    with quiet():
        keras.utils.set_random_seed(0)  # of new heads
        is_own = (REFERENCES / family / task).exists()  # else the head is new
        options = {"dropout": 0.0, "new_head": not is_own, **options}
        model = ft.load(folder_of(family, task), task, **options)
    # The folders of references have none; only its limit is read here.
    model.tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel()))
    return model


def rows_for(model: keras.Model, texts: list[np.ndarray] = TEXTS) -> Encoded:
    """Texts with random targets of the model's task."""
    random = np.random.default_rng(1)
    inputs = {"input_ids": Feature(texts, padding=model.config.pad_token_id or 0)}
    if "token_type_ids" in [tensor.name for tensor in model.inputs]:
        kinds = model.config.type_vocab_size
        types = [np.sort(random.integers(0, kinds, len(t))).astype("int32") for t in texts]
        inputs["token_type_ids"] = Feature(types)
    if model.task.generates_text:
        targets = Feature([next_tokens(text) for text in texts], padding=IGNORED)
    elif model.task.token_axis == 0:
        classes = model.outputs[0].shape[-1]
        of_tokens = [random.integers(0, classes, len(t)).astype("int32") for t in texts]
        targets = Feature(of_tokens, padding=IGNORED)
    elif model.task.targets_are_positions:
        targets = Feature.of_array(np.array([random.integers(0, len(t), 2) for t in texts]))
    elif model.kind == "classes":
        targets = Feature.of_array(random.integers(0, len(model.labels), len(texts)))
    elif model.kind == "several":
        shape = (len(texts), len(model.labels))
        targets = Feature.of_array(random.integers(0, 2, shape).astype("float32"))
    else:
        targets = Feature.of_array(random.random(len(texts)).astype("float32"))
    return Encoded(inputs, targets)


def batch_of(model: keras.Model, packing: bool | int, texts: list[np.ndarray] = TEXTS) -> tuple:
    """All texts as one batch, each in a row of its own or packed."""
    rows = rows_for(getattr(model, "whole", model), texts)
    (batch,) = batches_of(rows, model, batch_size=len(texts), packing=packing).as_numpy_iterator()
    return batch


def order_of(texts: list[np.ndarray], packing: int = LENGTH) -> list[list[int]]:
    """The texts of each packed row."""
    lengths = np.array([len(text) for text in texts])
    items, ((rows, places, _),) = packing_of(lengths, len(texts), packing).plan(lengths, None)
    return [[int(item) for item in row if item >= 0] for row in items.reshape(rows, places)]


def in_places(values: np.ndarray, empty: float) -> np.ndarray:
    """One value for each of `TEXTS` in the places of the rows `WITH_EMPTY`."""
    rows = order_of(TEXTS, WITH_EMPTY)
    places = max(map(len, rows))
    filled = np.full((len(rows), places, *values.shape[1:]), empty, values.dtype)
    for row, texts in enumerate(rows):
        filled[row, : len(texts)] = values[texts]
    return filled.reshape(-1, *values.shape[1:])


def gradient_of(model: keras.Model, batch: tuple) -> tuple[float, np.ndarray]:
    """The loss of a step, and the gradient of all weights."""
    with quiet():
        model.compile(keras.optimizers.SGD(1.0), model.loss or ft.presets.LOSSES[model.kind]())
    before = [np.array(v) for v in model.trainable_variables]
    loss = float(np.ravel(model.train_on_batch(*batch))[0])
    after = [np.array(v) for v in model.trainable_variables]
    steps = [old - new for old, new in zip(before, after, strict=True)]
    return loss, np.concatenate([step.ravel() for step in steps])


def check_step(family: str, task: str, length: int = LENGTH, **options: object) -> None:
    """Loss and gradients of packed rows are those of padded rows."""
    results = []
    for packing in (False, length):
        model = loaded(family, task, **options)
        results.append(gradient_of(model, batch_of(model, packing)))
    (loss, gradient), (packed_loss, packed_gradient) = results
    np.testing.assert_allclose(packed_loss, loss, rtol=1e-5)
    assert np.linalg.norm(packed_gradient - gradient) < 1e-5 * np.linalg.norm(gradient)
