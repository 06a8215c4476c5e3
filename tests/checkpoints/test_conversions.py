"""Conversions of tensors to variables: exactly invertible, and what PyTorch computes with."""

import keras
import numpy as np
import pytest

from finetune_tf.weights.conversions import (
    IDENTITY,
    KERNEL,
    Chain,
    Constant,
    DepthwiseKernel,
    Interleaved,
    Joined,
    LeadingAxis,
    Split,
)

# Shapes of tensors in a file to those of the variables, with sizes that no two axes share.
CASES = {
    "embedding": (IDENTITY, [(7, 5)], [(7, 5)]),
    "bias": (IDENTITY, [(3,)], [(3,)]),
    "scalar": (IDENTITY, [()], [()]),
    "linear": (KERNEL, [(5, 3)], [(3, 5)]),
    "convolution of 1 dimension": (KERNEL, [(5, 3, 7)], [(7, 3, 5)]),
    "convolution of 2 dimensions": (KERNEL, [(5, 3, 7, 2)], [(7, 2, 3, 5)]),
    "convolution of 3 dimensions": (KERNEL, [(5, 3, 7, 2, 4)], [(7, 2, 4, 3, 5)]),
    "depthwise": (DepthwiseKernel(), [(5, 1, 7, 2)], [(7, 2, 5, 1)]),
    "depthwise with a multiplier": (DepthwiseKernel(3), [(15, 1, 7, 2)], [(7, 2, 5, 3)]),
    "depthwise of 1 dimension": (DepthwiseKernel(2), [(10, 1, 7)], [(7, 5, 2)]),
    "leading axis": (LeadingAxis(), [(1, 7)], [(7,)]),
    "joined biases": (Joined((1, 1, 1)), [(5,)] * 3, [(15,)]),
    "joined projections": (Chain(KERNEL, Joined((1, 1, 1))), [(5, 7)] * 3, [(7, 15)]),
    "grouped heads": (Chain(KERNEL, Joined((4, 1, 1))), [(8, 7), (2, 7), (2, 7)], [(7, 12)]),
    "split biases": (Split((2, 1)), [(9,)], [(6,), (3,)]),
    "split projections": (Chain(KERNEL, Split((1, 1, 1))), [(15, 7)], [(7, 5)] * 3),
    "split Conv1D of GPT-2": (Split((1, 1, 1)), [(7, 15)], [(7, 5)] * 3),
    "interleaved": (Chain(KERNEL, Interleaved(heads=2)), [(30, 7)], [(7, 30)]),
    "interleaved and split": (
        Chain(KERNEL, Interleaved(heads=2), Split((1, 1, 1))),
        [(30, 7)],
        [(7, 10)] * 3,
    ),
    "interleaved bias": (Interleaved(heads=5, parts=2), [(30,)], [(30,)]),
    "constant": (Constant(np.int64(0)), [()], []),
}


def numbered(shapes):
    """Arrays in which no number occurs twice."""
    starts = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    return [
        np.arange(start, start + int(np.prod(shape)), dtype="float32").reshape(shape)
        for start, shape in zip(starts, shapes, strict=False)
    ]


@pytest.mark.parametrize("name", CASES)
def test_loading_and_saving_are_inverse(name):
    conversion, tensor_shapes, variable_shapes = CASES[name]
    tensors = numbered(tensor_shapes)
    variables = conversion.load(tensors)
    assert [value.shape for value in variables] == variable_shapes
    assert conversion.shapes(variable_shapes) == tensor_shapes
    for before, after in zip(tensors, conversion.save(variables), strict=True):
        np.testing.assert_array_equal(before, after)

    variables = numbered(variable_shapes)
    for before, after in zip(variables, conversion.load(conversion.save(variables)), strict=True):
        np.testing.assert_array_equal(before, after)


def test_what_joined_and_interleaved_projections_compute():
    """A file's order of outputs becomes [queries, keys, values] whatever it was."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 7))
    query, key, value = (rng.normal(size=(6, 7)) for _ in range(3))
    wanted = np.concatenate([x @ query.T, x @ key.T, x @ value.T], axis=-1)

    (fused,) = Chain(KERNEL, Joined((1, 1, 1))).load([query, key, value])
    np.testing.assert_allclose(x @ fused, wanted)
    by_head = np.concatenate([part[i : i + 3] for i in (0, 3) for part in (query, key, value)])
    (fused,) = Chain(KERNEL, Interleaved(heads=2)).load([by_head])
    np.testing.assert_allclose(x @ fused, wanted)
    parts = Chain(KERNEL, Split((1, 1, 1))).load([np.concatenate([query, key, value])])
    np.testing.assert_allclose(np.concatenate([x @ part for part in parts], axis=-1), wanted)


# (PyTorch's layer, Keras's layer, conversion, channels of the input, sizes of the input)
LAYERS = {
    "Linear": (
        lambda nn: nn.Linear(3, 5),
        lambda: keras.layers.Dense(5),
        KERNEL,
        (2, 3),
    ),
    "Conv1d": (
        lambda nn: nn.Conv1d(4, 6, 3, groups=2),
        lambda: keras.layers.Conv1D(6, 3, groups=2),
        KERNEL,
        (2, 4, 9),
    ),
    "Conv2d": (
        lambda nn: nn.Conv2d(3, 5, (3, 2), stride=2),
        lambda: keras.layers.Conv2D(5, (3, 2), strides=2),
        KERNEL,
        (2, 3, 9, 8),
    ),
    "grouped Conv2d": (
        lambda nn: nn.Conv2d(4, 8, (3, 2), groups=4),
        lambda: keras.layers.Conv2D(8, (3, 2), groups=4),
        KERNEL,
        (2, 4, 9, 8),
    ),
    "ConvTranspose2d": (
        lambda nn: nn.ConvTranspose2d(3, 5, (3, 2), stride=2),
        lambda: keras.layers.Conv2DTranspose(5, (3, 2), strides=2),
        KERNEL,
        (2, 3, 5, 4),
    ),
    "depthwise Conv2d": (
        lambda nn: nn.Conv2d(4, 4, (3, 2), groups=4),
        lambda: keras.layers.DepthwiseConv2D((3, 2)),
        DepthwiseKernel(),
        (2, 4, 9, 8),
    ),
    "depthwise Conv2d with a multiplier": (
        lambda nn: nn.Conv2d(4, 12, (3, 2), groups=4),
        lambda: keras.layers.DepthwiseConv2D((3, 2), depth_multiplier=3),
        DepthwiseKernel(3),
        (2, 4, 9, 8),
    ),
    "depthwise Conv1d": (
        lambda nn: nn.Conv1d(4, 8, 3, groups=4),
        lambda: keras.layers.DepthwiseConv1D(3, depth_multiplier=2),
        DepthwiseKernel(2),
        (2, 4, 9),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_layers_compute_what_they_compute_in_pytorch(name):
    torch = pytest.importorskip("torch")
    theirs, ours, conversion, shape = LAYERS[name]
    theirs, ours = theirs(torch.nn), ours()
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    with torch.no_grad():
        wanted = np.moveaxis(theirs(torch.from_numpy(x)).numpy(), 1, -1)
    x = np.moveaxis(x, 1, -1)  # Keras has the channels last
    ours.build(x.shape)
    tensors = [tensor.detach().numpy() for tensor in theirs.parameters()]
    (shape_in_file,) = conversion.shapes([tuple(ours.kernel.shape)])
    assert shape_in_file == tensors[0].shape
    ours.kernel.assign(conversion.load(tensors[:1])[0])
    ours.bias.assign(tensors[1])
    np.testing.assert_allclose(ours(x), wanted, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(conversion.save([np.asarray(ours.kernel)])[0], tensors[0])


@pytest.mark.slow
def test_a_fused_projection_of_gpt_neox_and_the_conv1d_of_gpt_2():
    torch = pytest.importorskip("torch")
    from transformers.pytorch_utils import Conv1D

    x = np.random.default_rng(0).normal(size=(4, 7)).astype("float32")
    conv1d = Conv1D(15, 7)
    with torch.no_grad():
        conv1d.bias.normal_()
        wanted = conv1d(torch.from_numpy(x)).numpy()
    (kernel,) = IDENTITY.load([conv1d.weight.detach().numpy()])
    np.testing.assert_allclose(x @ kernel + conv1d.bias.detach().numpy(), wanted, atol=1e-6)

    fused = torch.nn.Linear(7, 2 * 3 * 5)  # two heads of size 5
    with torch.no_grad():
        by_head = fused(torch.from_numpy(x)).view(4, 2, 3, 5)  # as GPTNeoXAttention reads it
    conversion, bias = Chain(KERNEL, Interleaved(heads=2)), Interleaved(heads=2)
    (kernel,) = conversion.load([fused.weight.detach().numpy()])
    (bias,) = bias.load([fused.bias.detach().numpy()])
    for part, found in enumerate(np.split(x @ kernel + bias, 3, axis=-1)):
        np.testing.assert_allclose(found, by_head[:, :, part].reshape(4, 10), atol=1e-6)
