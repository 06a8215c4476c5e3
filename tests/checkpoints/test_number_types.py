"""Weights have to be finite floats, in all three file formats."""

import h5py
import ml_dtypes
import numpy as np
import pytest
from helpers_checkpoints import (
    TESTS,
    copy_checkpoint,
    inputs_of,
    logits,
    read_weights,
    reference,
    write_weights,
)

import finetune_tf as ft
from finetune_tf.errors import CheckpointError

FOLDER, EXPECTED = reference("relu")
TF4 = TESTS / "fixtures" / "tf4" / "bert" / "text-classification"
QUERY = "bert.encoder.layer.0.attention.self.query.weight"
KERNEL = (
    "bert/tf_bert_for_sequence_classification/bert/encoder/layer_._0/attention/self/query/kernel:0"
)


def safetensors_with(folder, convert):
    copied = copy_checkpoint(FOLDER, folder)
    tensors = read_weights(copied)
    write_weights(copied, tensors | {QUERY: convert(tensors[QUERY])})
    return copied


def hdf5_with(folder, convert):
    copied = copy_checkpoint(TF4, folder)
    with h5py.File(copied / "tf_model.h5", "a") as file:
        array = convert(file[KERNEL][()])
        del file[KERNEL]
        file[KERNEL] = array
    return copied


KINDS = pytest.mark.parametrize("write", [safetensors_with, hdf5_with])


@KINDS
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64", "bool", "complex64"])
def test_dtypes_other_than_floats_are_refused(tmp_path, write, dtype):
    folder = write(tmp_path / "changed", lambda array: array.astype(dtype))
    message = (
        f"The tensor .*query.* in .* has the dtype (C64|complex64|{dtype}), but weights have to be "
        "one of float64, float32, float16, bfloat16. Other dtypes are typical of quantized "
        "checkpoints, .* use the checkpoint that is not quantized."
    )
    with pytest.raises(CheckpointError, match=message):
        ft.load(folder)


def test_eight_bit_floats_are_refused(tmp_path):
    folder = safetensors_with(tmp_path / "f8", lambda array: array.astype(ml_dtypes.float8_e4m3fn))
    with pytest.raises(CheckpointError, match="query.weight in .* has the dtype F8_E4M3"):
        ft.load(folder)


@KINDS
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_refused(tmp_path, write, value):
    def spoil(array):
        array[1, 2] = value
        return array

    folder = write(tmp_path / "changed", spoil)
    message = (
        "These tensors contain NaN, infinity, or values that are too large for the model's dtype: "
        ".*query.* in .*(safetensors|h5). They are damaged, or come from a training run that div"
    )
    with pytest.raises(CheckpointError, match=message):
        ft.load(folder)


@KINDS
def test_float64_values_that_overflow_float32(tmp_path, write):
    folder = write(tmp_path / "changed", lambda array: array.astype("float64") + 1e300)
    with pytest.raises(CheckpointError, match="too large for the model's dtype: .*query"):
        ft.load(folder)


def test_values_that_overflow_the_dtype_of_the_model(tmp_path):
    folder = safetensors_with(tmp_path / "large", lambda array: array + 1e5)
    with pytest.raises(CheckpointError, match="too large for the model's dtype: .*query"):
        ft.load(folder, dtype="float16")
    assert ft.load(folder).count_params() > 0


def test_several_damaged_tensors_are_listed_in_one_message(tmp_path):
    folder = copy_checkpoint(FOLDER, tmp_path / "all")
    write_weights(folder, {name: tensor * np.nan for name, tensor in read_weights(folder).items()})
    with pytest.raises(CheckpointError, match=r"word_embeddings.weight in .* and 36 more\. They"):
        ft.load(folder)


@pytest.mark.parametrize(
    ("write", "dtype"),
    [
        *((safetensors_with, dtype) for dtype in ("float64", "float16")),
        *((hdf5_with, dtype) for dtype in ("float64", "float16", ">f4")),
    ],
)
def test_all_float_dtypes_are_read(tmp_path, write, dtype):
    exact, changed = (
        ft.load(write(tmp_path / name, convert))
        for name, convert in [
            ("exact", lambda array: array.astype(dtype).astype("float32")),
            ("changed", lambda array: array.astype(dtype)),
        ]
    )
    for ours, theirs in zip(exact.weights, changed.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_position_ids_are_ignored(tmp_path, capsys):
    folder = copy_checkpoint(FOLDER, tmp_path / "old")
    ids = {"bert.embeddings.position_ids": np.arange(12)[None]}
    write_weights(folder, read_weights(folder) | ids)
    found = logits(ft.load(folder), inputs_of(EXPECTED))
    np.testing.assert_allclose(found, EXPECTED["logits"], rtol=0, atol=1e-5)
    assert "unused" not in capsys.readouterr().out
