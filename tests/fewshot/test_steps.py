"""Trainings without a tf.data pipeline, and vectors without a trace, are those of Keras."""

import keras
import numpy as np
import pytest
from helpers_models import small_model, write_checkpoint

import finetune_tf as ft
from finetune_tf.fewshot import body, linear, steps
from finetune_tf.fewshot.encoder import encoder_of, vectors_of
from finetune_tf.graph.traces import traces_of

TRAIN = ft.data.from_arrays(
    ["a good film", "the film was very very good", "great story", "a great and good actor"]
    + ["a bad film", "the film was very very bad", "poor story", "a poor and bad actor"],
    ["good"] * 4 + ["bad"] * 4,
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Folder of a random BERT with one block."""
    return write_checkpoint(tmp_path_factory.mktemp("steps") / "encoder", blocks=1)


def trained(encoder):
    """Losses, weights and vectors after a training in batches of several lengths."""
    keras.utils.set_random_seed(0)
    model = ft.load(encoder, labels=TRAIN.labels, pooling="mean", dropout=0.0, new_head=True)
    losses = ft.fewshot.tune_body(model, TRAIN, steps=6, batch_size=4)
    return losses, [np.array(variable) for variable in model.variables]


@pytest.mark.slow
def test_losses_and_weights_are_those_of_a_fit_of_keras(encoder, monkeypatch):
    losses, weights = trained(encoder)
    monkeypatch.setattr(body, "runs_steps", lambda model: False)
    expected, expected_weights = trained(encoder)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert len(set(losses)) == 6
    for found, wanted in zip(weights, expected_weights, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.needs_tensorflow("tf.distribute")
def test_keras_trains_models_of_a_strategy():
    import tensorflow as tf

    inside = tf.distribute.OneDeviceStrategy("CPU:0")
    model = small_model()
    assert steps.runs_steps(model)
    with inside.scope():
        assert not steps.runs_steps(model)
        assert not steps.runs_steps(small_model())


@pytest.mark.needs_tensorflow("the cache of its traces")
def test_few_vectors_are_computed_without_a_trace(tiny_bert):
    model = small_model(TRAIN.labels, tiny_bert)
    ft.fewshot.fit_head(model, TRAIN, kind="prototypes")
    assert not traces_of(encoder_of(model))
    encoded = TRAIN.encoded(model, targets=False)
    few = vectors_of(model, encoded, 8, "texts", passes=1)
    assert not traces_of(encoder_of(model))
    many = vectors_of(model, encoded, 8, "texts", passes=1000)
    assert traces_of(encoder_of(model))
    np.testing.assert_allclose(few, many, atol=1e-6)
    # What is traced is used from then on.
    np.testing.assert_array_equal(vectors_of(model, encoded, 8, "texts", passes=1), many)


@pytest.mark.parametrize(("rows", "is_small"), [(16, True), (1 << 15, False)])
def test_small_heads_use_one_thread(rows, is_small, monkeypatch):
    from threadpoolctl import threadpool_info

    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before, used = threads(), []

    def fit(vectors, *others):
        used.extend(threads())
        return linear.Linear(np.zeros((32, 2)), np.zeros(2))

    monkeypatch.setattr(linear, "_fit", fit)
    linear.logistic(np.ones((rows, 32)), np.arange(rows) % 2, 2, C=1.0)
    assert used == ([1] * len(before) if is_small else before)
    assert threads() == before
