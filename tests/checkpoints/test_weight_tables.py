"""Weight tables with conversions: fused and split projections, statistics, constants, ties."""

from pathlib import Path

import keras
import numpy as np
import pytest

from finetune_tf.errors import CheckpointError
from finetune_tf.weights.conversions import IDENTITY, KERNEL, Chain, Constant, Joined, Split
from finetune_tf.weights.deferred import shapes_only
from finetune_tf.weights.files import read_file
from finetune_tf.weights.matching import fill, match
from finetune_tf.weights.table import Weight, linear
from finetune_tf.weights.tensors import LazyTensor
from finetune_tf.weights.writing import WeightWriter

FILE = Path("model.safetensors")
Q, K, V = (f"attention.{name}_proj" for name in "qkv")
GROUPED = Joined((2, 1, 1))
FUSED = [
    Weight((f"{Q}.weight", f"{K}.weight", f"{V}.weight"), "qkv/kernel", Chain(KERNEL, GROUPED)),
    Weight((f"{Q}.bias", f"{K}.bias", f"{V}.bias"), "qkv/bias", GROUPED),
]
APART = [
    Weight("c_attn.weight", ("q/kernel", "k/kernel", "v/kernel"), Split((1, 1, 1))),
    Weight("c_attn.bias", ("q/bias", "k/bias", "v/bias"), Split((1, 1, 1))),
]
STATISTICS = [
    *linear("conv", "conv"),
    Weight("norm.weight", "norm/gamma"),
    Weight("norm.bias", "norm/beta"),
    Weight("norm.running_mean", "norm/moving_mean"),
    Weight("norm.running_var", "norm/moving_variance"),
    Weight("norm.num_batches_tracked", None, Constant(np.int64(0))),
]


def model_of(*layers, shape=(7,)):
    """Returns a model whose variables have no values yet, and these variables."""
    inputs = keras.Input(shape)
    with shapes_only() as variables:
        outputs = [layer(inputs) for layer in layers]
    return keras.Model(inputs, outputs), variables


def in_memory(arrays):
    """Returns lazy tensors of arrays, and a list of the names that have been read."""
    read = []

    def load(name):
        read.append(name)
        return arrays[name]

    return {
        name: LazyTensor(name, array.shape, array.dtype.name, FILE, lambda name=name: load(name))
        for name, array in arrays.items()
    }, read


def random(shapes):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def fused_arrays():
    sizes = {Q: 10, K: 5, V: 5}
    return random(
        {f"{name}.weight": (size, 7) for name, size in sizes.items()}
        | {f"{name}.bias": (size,) for name, size in sizes.items()}
    )


def filled(layers, table, arrays, **options):
    model, variables = model_of(*layers, **options)
    found = match(model.weights, table, in_memory(arrays)[0])
    fill(variables, found)
    return model, found.report


def assert_saves_as(model, table, arrays, folder):
    WeightWriter("float32", 10**9).write(folder, model.weights, table)
    written = read_file(folder / "model.safetensors")
    assert written.keys() == arrays.keys()
    for name, tensor in written.items():
        np.testing.assert_array_equal(tensor.read(), arrays[name])
        assert tensor.dtype == arrays[name].dtype.name
        assert tensor.shape == arrays[name].shape


def test_three_tensors_for_one_variable(tmp_path):
    arrays = fused_arrays()
    model, report = filled([keras.layers.Dense(20, name="qkv")], FUSED, arrays)
    assert report.filled == ("qkv/kernel", "qkv/bias")
    assert report.unused == report.new == report.untrained == ()
    x = np.ones((1, 7), "float32")
    wanted = [x @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"] for name in (Q, K, V)]
    found = np.asarray(model(x)).reshape(1, 20)
    np.testing.assert_allclose(found, np.concatenate(wanted, -1), atol=1e-6)
    assert_saves_as(model, FUSED, arrays, tmp_path)


def test_one_tensor_for_three_variables(tmp_path):
    arrays = random({"c_attn.weight": (7, 15), "c_attn.bias": (15,)})
    layers = [keras.layers.Dense(5, name=name) for name in "qkv"]
    model, report = filled(layers, APART, arrays)
    assert len(report.filled) == 6
    assert report.unused == ()
    x = np.ones((1, 7), "float32")
    found = np.concatenate([np.asarray(part) for part in model(x)], axis=-1)
    np.testing.assert_allclose(
        found, x @ arrays["c_attn.weight"] + arrays["c_attn.bias"], atol=1e-6
    )
    assert_saves_as(model, APART, arrays, tmp_path)


def test_each_tensor_is_read_once():
    arrays = random({"c_attn.weight": (7, 15), "c_attn.bias": (15,)})
    model, variables = model_of(*[keras.layers.Dense(5, name=name) for name in "qkv"])
    tensors, read = in_memory(arrays)
    found = match(model.weights, APART, tensors)
    assert read == []  # only headers so far
    fill(variables, found)
    assert sorted(read) == ["c_attn.bias", "c_attn.weight"]


def test_moving_statistics_and_an_ignored_constant(tmp_path):
    arrays = random({"conv.weight": (3, 3, 3, 2), "conv.bias": (3,)})
    parts = ("weight", "bias", "running_mean", "running_var")
    arrays |= {f"norm.{part}": np.full(3, i + 1, "float32") for i, part in enumerate(parts)}
    arrays["norm.num_batches_tracked"] = np.asarray(0, "int64")
    convolution = keras.layers.Conv2D(3, (3, 2), name="conv")
    layers = [convolution, keras.layers.BatchNormalization(name="norm")]
    model, report = filled(layers, STATISTICS, arrays, shape=(9, 8, 3))
    assert report.new == report.unused == ()
    norm = model.get_layer("norm")
    assert [float(v[0]) for v in (norm.moving_mean, norm.moving_variance)] == [3, 4]
    assert len(norm.trainable_variables) == 2
    assert_saves_as(model, STATISTICS, arrays, tmp_path)


def test_some_of_the_tensors_of_a_variable_are_missing():
    arrays = fused_arrays()
    del arrays[f"{K}.bias"]
    message = (
        r"The variable qkv/bias is made of the tensors attention.q_proj.bias, .*, but "
        r"model.safetensors lacks attention.k_proj.bias. Download the complete checkpoint."
    )
    with pytest.raises(CheckpointError, match=message):
        filled([keras.layers.Dense(20, name="qkv")], FUSED, arrays)


def test_one_of_several_tensors_has_another_shape():
    arrays = fused_arrays()
    arrays[f"{V}.weight"] = arrays[f"{V}.weight"][:4]
    message = (
        r"The tensor attention.v_proj.weight in model.safetensors has the shape \(4, 7\), but the "
        r"config requires \(5, 7\) \(variable qkv/kernel\)"
    )
    with pytest.raises(CheckpointError, match=message):
        filled([keras.layers.Dense(20, name="qkv")], FUSED, arrays)


def test_a_tensor_of_three_variables_has_another_shape():
    arrays = random({"c_attn.weight": (7, 14), "c_attn.bias": (15,)})
    message = r"\(7, 14\), but the config requires \(7, 15\) \(variable q/kernel, k/kernel, v/kern"
    with pytest.raises(CheckpointError, match=message):
        filled([keras.layers.Dense(5, name=name) for name in "qkv"], APART, arrays)


def test_a_projection_may_be_stored_fused_or_separate(tmp_path):
    """A variable may have rows of different conversions; the first one is written."""
    table = [*FUSED, *linear("in_proj", "qkv")]
    arrays = fused_arrays()
    apart = {name: arrays[f"{name}.weight"] for name in (Q, K, V)}
    fused = {
        "in_proj.weight": np.concatenate(list(apart.values())),
        "in_proj.bias": np.concatenate([arrays[f"{name}.bias"] for name in apart]),
    }
    model, report = filled([keras.layers.Dense(20, name="qkv")], table, fused)
    assert report.unused == ()
    assert_saves_as(model, table, arrays, tmp_path)

    _, report = filled([keras.layers.Dense(20, name="qkv")], table, arrays | fused)
    assert report.unused == ()
    fused["in_proj.bias"] = fused["in_proj.bias"] + 1
    message = (
        f"The tensors {Q}.bias, {K}.bias, {V}.bias in model.safetensors and in_proj.bias in "
        "model.safetensors both store the variable qkv/bias, but have different values"
    )
    with pytest.raises(CheckpointError, match=message):
        filled([keras.layers.Dense(20, name="qkv")], table, arrays | fused)


def test_a_tied_tensor_in_another_layout():
    """An output layer that is tied to a kernel, and stored transposed."""
    table = [
        Weight("table", "dense/kernel", IDENTITY),
        Weight("lm_head.weight", None, KERNEL, tied_to="dense/kernel"),
    ]
    arrays = random({"table": (7, 5)})
    tied = arrays | {"lm_head.weight": arrays["table"].T}
    dense = keras.layers.Dense(5, use_bias=False, name="dense")
    assert filled([dense], table, tied)[1].unused == ()
    for wrong in (arrays["table"], arrays["table"].T + 1):
        dense = keras.layers.Dense(5, use_bias=False, name="dense")
        with pytest.raises(CheckpointError, match="table in .* and lm_head.weight in .* both"):
            filled([dense], table, arrays | {"lm_head.weight": wrong})


def test_non_finite_tensors_are_listed_once():
    arrays = random({"c_attn.weight": (7, 15), "c_attn.bias": (15,)})
    arrays["c_attn.weight"][:] = np.nan
    message = r"dtype: c_attn.weight in model.safetensors\. They are damaged"
    with pytest.raises(CheckpointError, match=message):
        filled([keras.layers.Dense(5, name=name) for name in "qkv"], APART, arrays)


def test_integers_are_refused_in_every_tensor_of_a_row():
    arrays = fused_arrays()
    arrays[f"{K}.weight"] = arrays[f"{K}.weight"].astype("int8")
    with pytest.raises(CheckpointError, match="k_proj.weight in .* has the dtype int8"):
        filled([keras.layers.Dense(20, name="qkv")], FUSED, arrays)
