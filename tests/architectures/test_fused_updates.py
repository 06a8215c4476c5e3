"""AdamW on the large variables of blocks, which a traced step on a CPU compiles together."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from finetune_tf.kernels import tensorflow_updates
from finetune_tf.training.optimizers import AdamW

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="JAX compiles a whole step"
)

SHAPES = {"kernel": (256, 300), "other_kernel": (300, 256), "bias": (300,)}


@pytest.fixture(autouse=True)
def small_blocks_are_worth_compiling(monkeypatch):
    monkeypatch.setattr(tensorflow_updates, "_WORTH_COMPILING", 1 << 18)


def blocks(count: int) -> list[keras.Variable]:
    random, found = np.random.default_rng(0), []
    for i in range(count):
        with keras.name_scope(f"block_{i}"):
            found += [
                keras.Variable(random.normal(size=shape).astype("float32"), name=name)
                for name, shape in SHAPES.items()
            ]
    return found


def trained(graph: bool, **options) -> tuple[list, list, list[str]]:
    """Returns variables and running means after three steps, and the types of the operations."""
    variables, random = blocks(2), np.random.default_rng(1)
    optimizer = AdamW(1e-2, weight_decay=0.1, **options)
    optimizer.build(variables)

    def step(*gradients):
        optimizer.apply(list(gradients), variables)

    run = tf.function(step, autograph=False) if graph else step
    for _ in range(3):
        gradients = [tf.constant(random.normal(size=v.shape), "float32") for v in variables]
        run(*gradients)
    operations = run.get_concrete_function(*gradients).graph.get_operations() if graph else []
    states = [np.array(v) for v in optimizer.variables[2:]]
    return [np.array(v) for v in variables], states, [each.type for each in operations]


@pytest.mark.parametrize(
    "options",
    [{}, {"global_clipnorm": 0.5}, {"no_decay": ["other"]}, {"gradient_accumulation_steps": 3}],
)
def test_blocks_that_are_compiled_have_the_numbers_of_single_variables(options):
    values, states, operations = trained(graph=True, **options)
    if "gradient_accumulation_steps" not in options:  # whose update is in a graph of its own
        assert operations.count("ResourceApplyAdam") == 2  # the biases; kernels are compiled
        assert operations.count("StatefulPartitionedCall") == 2
    expected, expected_states, _ = trained(graph=False, **options)
    for found, wanted in zip(values, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    for found, wanted in zip(states, expected_states, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)


def test_variables_of_one_shape_with_different_decay_are_not_confused():
    values, _, _ = trained(graph=True, no_decay=["block_0"])
    expected, _, _ = trained(graph=False, no_decay=["block_0"])
    for found, wanted in zip(values, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_block_that_is_too_small_to_be_compiled_takes_few_operations(monkeypatch):
    monkeypatch.setattr(tensorflow_updates, "_WORTH_COMPILING", 1 << 30)
    _, _, operations = trained(graph=True, global_clipnorm=0.5)
    assert operations.count("ResourceApplyAdam") == 6
    # Clipping and decay are a product each; the scalars of all variables are computed together.
    assert operations.count("Mul") <= 6 + 4 + 12
    assert operations.count("Sqrt") <= 2
