"""AdamW on a large embedding table with a sparse gradient (`tf.IndexedSlices`)."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from finetune_tf.training.optimizers import AdamW

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow has sparse gradients"
)

ROWS, SIZE = 5000, 3
IDS = np.asarray([[7, 7, 4999, 0], [12, 7, 3, 12]])  # with repeated ids, the first and the last row


def trained(graph: bool, steps: int = 4, **options) -> tuple[np.ndarray, list]:
    """Returns a table and its running means after some steps, in a graph or eagerly."""
    table = keras.Variable(np.random.default_rng(0).normal(size=(ROWS, SIZE)), dtype="float32")
    optimizer = AdamW(1e-2, weight_decay=0.1, **options)
    optimizer.build([table])

    def step(ids):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(5.0 * tf.gather(table.value, ids)))
        gradient = tape.gradient(loss, table.value)
        assert isinstance(gradient, tf.IndexedSlices)
        optimizer.apply([gradient], [table])

    run = tf.function(step, autograph=False) if graph else step
    for i in range(steps):
        run(tf.constant(IDS + i % 2 * (IDS < 4999)))
    return table.numpy(), [variable.numpy() for variable in optimizer.variables[2:]]


@pytest.mark.parametrize(
    "options", [{}, {"global_clipnorm": 0.5}, {"clipnorm": 0.5}, {"gradient_accumulation_steps": 2}]
)
def test_sparse_and_dense_updates_agree(options):
    """A graph uses sparse updates where it can, an eager step dense ones."""
    table, means = trained(graph=True, **options)
    expected, expected_means = trained(graph=False, **options)
    start = np.random.default_rng(0).normal(size=(ROWS, SIZE)).astype("float32")
    assert np.abs(expected - start).max() > 1e-2
    np.testing.assert_allclose(table, expected, atol=1e-6)
    for found, wanted in zip(means, expected_means, strict=True):
        # TensorFlow's dense kernel computes 1 - beta_2 with a precision of five digits.
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-7)


def test_rows_without_a_gradient_keep_their_momentum_and_decay():
    """The momentum still changes a row whose token is not in the batch, as in PyTorch."""
    once, _ = trained(graph=True, steps=1)
    later, _ = trained(graph=True, steps=2)
    moved = np.abs(later - once * (1 - 1e-2 * 0.1)).max(axis=1)
    assert moved[12] > 1e-3  # used in the first step only
    assert moved[100] < 1e-6  # never used: only the decay
