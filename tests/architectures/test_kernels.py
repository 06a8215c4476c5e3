"""Kernels against NumPy, and activations against those of PyTorch."""

import keras
import numpy as np
import pytest
from keras import ops

from finetune_tf import kernels
from finetune_tf.errors import CheckpointError
from finetune_tf.kernels import adamw, portable

X = np.linspace(-9, 9, 41, dtype="float32")

# Values of transformers.activations.ACT2FN at -2, -0.5, 0, 1 and 7.
ACTIVATIONS = {
    "gelu": [-0.0455001, -0.1542688, 0.0, 0.8413447, 7.0],
    "gelu_new": [-0.0454023, -0.1542860, 0.0, 0.8411920, 7.0],
    "quick_gelu": [-0.0643414, -0.1496116, 0.0, 0.8457958, 6.9999533],
    "relu": [0.0, 0.0, 0.0, 1.0, 7.0],
    "relu6": [0.0, 0.0, 0.0, 1.0, 6.0],
    "relu2": [0.0, 0.0, 0.0, 1.0, 49.0],
    "leaky_relu": [-0.02, -0.005, 0.0, 1.0, 7.0],
    "silu": [-0.2384058, -0.1887703, 0.0, 0.7310586, 6.9936228],
    "mish": [-0.2525015, -0.2207438, 0.0, 0.8650984, 6.9999886],
    "tanh": [-0.9640276, -0.4621172, 0.0, 0.7615942, 0.9999983],
    "sigmoid": [0.1192029, 0.3775407, 0.5, 0.7310586, 0.9990890],
    "linear": [-2.0, -0.5, 0.0, 1.0, 7.0],
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    found = kernels.activation(name)(ops.convert_to_tensor([-2.0, -0.5, 0.0, 1.0, 7.0]))
    np.testing.assert_allclose(found, ACTIVATIONS[name], rtol=0, atol=1e-6)


def test_names_of_the_same_activation():
    for name, same in [("gelu_pytorch_tanh", "gelu_new"), ("gelu_fast", "gelu_new")]:
        np.testing.assert_array_equal(
            kernels.activation(name)(ops.convert_to_tensor(X)),
            kernels.activation(same)(ops.convert_to_tensor(X)),
        )
    assert kernels.ACTIVATIONS["swish"] is kernels.ACTIVATIONS["silu"]


def test_an_unknown_activation():
    message = "'nope' is not supported. Supported activations: gelu, gelu_fast, gelu_new"
    with pytest.raises(CheckpointError, match=message):
        kernels.activation("nope")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(kernels.ACTIVATIONS))
def test_activations_and_their_gradients_against_pytorch(name):
    torch = pytest.importorskip("torch")
    import tensorflow as tf
    from transformers.activations import ACT2FN

    torch_x = torch.tensor(X, requires_grad=True)
    value = ACT2FN[name](torch_x)
    value.sum().backward()
    x = tf.convert_to_tensor(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        found = kernels.activation(name)(x)
    np.testing.assert_allclose(found, value.detach(), rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(tape.gradient(found, x), torch_x.grad, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("bfloat16", 0.02)])
def test_layer_norm(dtype, tolerance):
    rng = np.random.default_rng(0)
    # With a mean far from zero, E[x²] - E[x]² would lose precision.
    x = ops.cast(rng.normal(3, 2, (4, 7, 12)), dtype)
    gamma, beta = (rng.normal(1, 0.3, 12).astype("float32") for _ in range(2))
    wide = np.asarray(ops.cast(x, "float32"), "float64")
    variance = wide.var(axis=-1, keepdims=True)
    expected = (wide - wide.mean(axis=-1, keepdims=True)) / np.sqrt(variance + 1e-3) * gamma + beta
    found = kernels.layer_norm(x, gamma, beta, 1e-3)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    np.testing.assert_allclose(ops.cast(found, "float32"), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 0.01)])
def test_masked_softmax(dtype, tolerance):
    rng = np.random.default_rng(0)
    scores = ops.cast(rng.normal(0, 3, (3, 2, 4, 5)), dtype)
    mask = np.asarray([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    found = kernels.masked_softmax(scores, mask[:, None, None, :])
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    found = np.asarray(ops.cast(found, "float32"))
    wide = np.asarray(ops.cast(scores, "float32"), "float64")
    for row, visible in ((0, 5), (1, 2)):
        powers = np.exp(wide[row, ..., :visible])
        np.testing.assert_allclose(
            found[row, ..., :visible], powers / powers.sum(-1, keepdims=True), atol=tolerance
        )
        assert (found[row, ..., visible:] == 0).all()
    assert np.isfinite(found[2]).all()


@pytest.mark.parametrize("update", [kernels.adamw_update, adamw.adamw_update])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw(update, decay):
    """Three steps of Loshchilov and Hutter 2019, algorithm 2, with decay times learning rate."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 4))
    mean, square = np.zeros((3, 4)), np.zeros((3, 4))
    variables = [keras.Variable(array, dtype="float32") for array in (weight, mean, square)]
    for step in (1, 2, 3):
        # Very small gradients show where epsilon is added.
        gradient = rng.normal(size=(3, 4)) * 10.0 ** rng.integers(-8, 1, (3, 4))
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.99 * square + 0.01 * gradient**2
        root = np.sqrt(square / (1 - 0.99**step))
        weight = weight * (1 - 0.05 * decay)
        weight = weight - 0.05 * (mean / (1 - 0.9**step)) / (root + 1e-6)
        numbers = kernels.adamw_numbers(
            ops.convert_to_tensor([float(step)]), 0.05, [decay], 0.9, 0.99, 1e-6
        )
        gradients = [ops.convert_to_tensor(gradient, "float32")]
        places = ([variable] for variable in variables)
        variable, momentum, velocity = places
        update(variable, gradients, momentum, velocity, numbers, beta_1=0.9, beta_2=0.99)
    for variable, expected in zip(variables, (weight, mean, square), strict=True):
        np.testing.assert_allclose(variable, expected, rtol=2e-5, atol=1e-6)


def test_global_norm():
    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=shape).astype("float32") for shape in ((3, 4), (5,), ())]
    expected = np.sqrt(sum(np.square(gradient, dtype="float64").sum() for gradient in gradients))
    for norm in (kernels.global_norm, portable.global_norm):
        found = norm([ops.convert_to_tensor(gradient) for gradient in gradients])
        assert float(found) == pytest.approx(expected, rel=1e-6)


def test_leading_axes_are_computed_once_in_each_graph():
    """A branch of `tf.cond` is a graph of its own, which computes them again."""
    tf = pytest.importorskip("tensorflow")
    operations = {}

    @tf.function(autograph=False)
    def run(x, other):
        split = kernels.reshaped_rows(x, x, 2, 3)  # (…, 6) to (…, 2, 3)
        joined = kernels.reshaped_rows(split, x, 6)
        operations["outer"] = [each.type for each in x.graph.get_operations()]
        doubled = tf.cond(other, lambda: 2.0 * kernels.reshaped_rows(split, x, 6), lambda: x)
        return joined, doubled, kernels.reshaped_rows(joined * 3.0, joined, 3, 2)

    x = np.arange(24.0, dtype="float32").reshape(2, 2, 6)
    spec = tf.TensorSpec((None, None, 6)), tf.TensorSpec((), tf.bool)
    joined, doubled, last = run.get_concrete_function(*spec)(tf.constant(x), tf.constant(True))
    np.testing.assert_array_equal(joined, x)
    np.testing.assert_array_equal(doubled, 2 * x)
    np.testing.assert_array_equal(last, 3 * x.reshape(2, 2, 3, 2))
    assert operations["outer"].count("Shape") == 1


@pytest.mark.parametrize("transpose_y", [False, True])
def test_batched_matmul(transpose_y):
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 3, 4, 5)).astype("float32")
    y = random.normal(size=(2, 3, 6, 5) if transpose_y else (2, 3, 5, 6)).astype("float32")
    expected = x @ (np.swapaxes(y, 2, 3) if transpose_y else y)
    arguments = ops.convert_to_tensor(x), ops.convert_to_tensor(y)
    compiled = kernels.traced(lambda *pair: kernels.batched_matmul(*pair, transpose_y))
    for product in (portable.batched_matmul(*arguments, transpose_y), compiled(*arguments)):
        np.testing.assert_allclose(product, expected, rtol=1e-5, atol=1e-6)
