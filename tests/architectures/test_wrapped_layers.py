"""Any Dense layer of any model can be replaced by a wrapper, which adapters such as LoRA need."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers_checkpoints import TEXT_FAMILIES, main_task

import finetune_tf as ft
from finetune_tf.architectures import (
    CrossAttentionBlock,
    FeedForward,
    MultiHeadAttention,
    rotary_block,
)
from finetune_tf.base.keras_internals import all_layers
from finetune_tf.tasks import TASKS


def reads_texts(task):
    """Whether BERT has a head for a task and one pass of it."""
    return task.preprocessor == "tokenizer" and not task.generates_text


REFERENCES = Path(__file__).resolve().parents[1] / "references"
CASES = dict.fromkeys(
    [
        *((family, main_task(family)) for family in TEXT_FAMILIES),
        *(("bert", name) for name, task in TASKS.items() if reads_texts(task)),
    ]
)
IDS = np.asarray([[5, 6, 7, 8, 9], [7, 6, 5, 0, 0]])


class Scaled(keras.layers.Layer):
    """Calls the inner layer with its input only, and scales its output."""

    def __init__(self, inner):
        super().__init__(name=inner.name, dtype=inner.dtype_policy)
        self.inner, self.built = inner, True
        self.scale = self.add_weight((), initializer="ones")

    def call(self, x):
        return self.scale * self.inner(x)


def projections(layer):
    """Yields every Dense layer and convolution in a layer, with its owner and attribute name."""
    for part in all_layers(layer):
        for name, value in vars(part).items():
            if isinstance(value, keras.layers.Dense | keras.layers.Conv1D):
                yield part, name, value


def wrap_all(root, outputs):
    """Wraps all projections, checks that they affect the outputs, and returns their number."""
    before, wrappers = outputs(), {}
    for part, name, layer in list(projections(root)):
        part._tracker.unlock()
        wrappers[layer.path] = wrapper = wrappers.get(layer.path) or Scaled(layer)
        setattr(part, name, wrapper)
    scales = [wrapper.scale.value for wrapper in wrappers.values()]
    with tf.GradientTape() as tape:
        after = outputs()
        loss = tf.reduce_sum(after**2)
    np.testing.assert_array_equal(after, before)
    for path, gradient in zip(wrappers, tape.gradient(loss, scales), strict=True):
        assert gradient is not None, f"{path} is not called"
        assert gradient != 0, f"{path} has no effect"
    return len(wrappers)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "task"), CASES, ids=map("/".join, CASES))
def test_every_dense_layer_of_a_model_is_called(family, task):
    with ft.messages.quiet():
        model = ft.load(REFERENCES / family / task, task)
    inputs = {"input_ids": IDS, "attention_mask": (IDS > 0).astype(int)}
    if any(tensor.name == "decoder_input_ids" for tensor in model.inputs):
        inputs["decoder_input_ids"] = IDS[:, :3]
    inputs = model._complete_inputs(inputs)
    blocks = sum(stage.role == "block" for stage in model.stages)
    assert wrap_all(model, lambda: model(inputs)) >= 4 * blocks


def test_every_dense_layer_of_a_decoder_is_called():
    hidden = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    table = np.random.default_rng(1).normal(size=(1, 5, 4)).astype("float32")
    rotary = rotary_block(hidden_size=8, num_heads=2, intermediate_size=6, initializer_range=0.5)
    rotary(hidden, positions=table)
    assert wrap_all(rotary, lambda: rotary(hidden, positions=table)) == 7
    cross = CrossAttentionBlock(
        MultiHeadAttention(8, 2, initializer_range=0.5, name="attention"),
        FeedForward(6, 8, initializer_range=0.5, name="feed_forward"),
        MultiHeadAttention(8, 2, initializer_range=0.5, name="cross_attention"),
    )
    cross(hidden, hidden)
    assert wrap_all(cross, lambda: cross(hidden, hidden[:, :3])) == 10
