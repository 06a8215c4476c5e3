"""Gradient checkpointing does not change the results of training."""

import keras
import numpy as np
import pytest
from helpers_models import token_batch

import finetune_tf as ft
from finetune_tf.base.keras_internals import all_layers

TOKENS, ANSWERS = token_batch(16)
# A family with relative positions, passed to the blocks as an input, and a convolution.
CHECKPOINTS = {"bert": "bert/relu", "deberta-v2": "deberta-v2/text-classification"}


def fitted(checkpoint, learns=None, **options):
    """Returns a model after four steps with dropout, and the losses."""
    keras.utils.set_random_seed(1)
    model = ft.load(checkpoint, labels=2, dropout=0.2, new_head=True, **options)
    if learns is not None:
        ft.train_only(model, learns)
    model.compile(keras.optimizers.SGD(0.1))
    history = model.fit(TOKENS, ANSWERS, batch_size=8, epochs=2, shuffle=False, verbose=0)
    return model, history.history["loss"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "learns"),
    [
        ("bert", None),
        pytest.param("deberta-v2", None, marks=pytest.mark.slow),
        ("bert", ~ft.select.bottom(1) & ft.select.biases()),
    ],
)
def test_losses_and_weights_are_the_same(name, learns, request):
    checkpoint = request.path.parents[1] / "references" / CHECKPOINTS[name]
    plain, wanted = fitted(checkpoint, learns)
    recomputing, found = fitted(checkpoint, learns, gradient_checkpointing=True)
    assert wanted[1] != wanted[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    for variable, other in zip(plain.weights, recomputing.weights, strict=True):
        np.testing.assert_allclose(other, variable, atol=1e-5, err_msg=variable.path)


@pytest.mark.slow
def test_dropout_moves_on(tiny_bert):
    model = ft.load(tiny_bert, labels=2, dropout=0.5, gradient_checkpointing=True)
    model.compile(keras.optimizers.SGD(0.0))
    losses = model.fit(TOKENS, ANSWERS, batch_size=16, epochs=3, verbose=0).history["loss"]
    assert len(set(losses)) == 3


@pytest.mark.slow
def test_mixed_precision_and_accumulation(tiny_bert):
    model = ft.load(tiny_bert, labels=2, dtype="mixed_bfloat16", gradient_checkpointing=True)
    model.compile(**ft.presets.cross_entropy(accumulate=2))
    losses = model.fit(TOKENS, ANSWERS, batch_size=8, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_a_reload_goes_on_with_it(tiny_bert, tmp_path):
    model = ft.load(tiny_bert, labels=2, gradient_checkpointing=True)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    blocks = [layer for layer in all_layers(again) if layer.name.startswith("block_")]
    assert blocks and all(block.gradient_checkpointing for block in blocks)
