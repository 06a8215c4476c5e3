"""`tf_model.h5`, as transformers 4 wrote it from its TensorFlow classes."""

import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from helpers_checkpoints import INPUTS, copy_checkpoint, logits

import finetune_tf as ft
from finetune_tf.errors import CheckpointError

TF4 = Path(__file__).resolve().parents[1] / "fixtures" / "tf4_bert"


@pytest.fixture(scope="module")
def expected():
    with np.load(TF4 / "expected.npz") as stored:
        return dict(stored)


def test_classifier(expected):
    model = ft.load(TF4 / "classifier")
    assert list(model.labels) == ["no", "maybe", "yes"]
    found = logits(model, {name: expected[name] for name in INPUTS})
    np.testing.assert_allclose(found, expected["classifier_logits"], rtol=0, atol=1e-5)


def test_bare_model(expected):
    model = ft.load(TF4 / "base")
    outputs = [model.get_layer(name).output for name in ("block_1", "pooler")]
    hidden, pooled = keras.Model(model.inputs, outputs)([expected[i.name] for i in model.inputs])
    np.testing.assert_allclose(hidden, expected["base_last_hidden_state"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(pooled, expected["base_pooler_output"], rtol=0, atol=1e-5)


def test_every_array_is_in_its_place():
    """The outputs cannot show the bias of the keys, which softmax cancels."""
    model = ft.load(TF4 / "classifier")
    with h5py.File(TF4 / "classifier" / "tf_model.h5") as file:
        layer = file["bert/tf_bert_for_sequence_classification/bert/encoder/layer_._1"]
        stored = layer["attention/self/key/bias:0"][()]
    np.testing.assert_array_equal(model.get_layer("block_1").attention.key.bias, stored)


def test_shards(tmp_path, expected):
    """A shard has its weights at the top: nesting is gone, and so is the model's name."""
    folder = copy_checkpoint(TF4 / "classifier", tmp_path / "sharded")
    arrays = {}
    with h5py.File(folder / "tf_model.h5") as file:
        file.visititems(
            lambda name, item: (
                arrays.update({name.split("/", 2)[2]: item[()]})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    (folder / "tf_model.h5").unlink()
    weight_map = {}
    for i, name in enumerate(arrays):
        shard = f"tf_model-0000{i % 2 + 1}-of-00002.h5"
        with h5py.File(folder / shard, "a") as file:
            file[name] = arrays[name]
        weight_map[name] = shard
    (folder / "tf_model.h5.index.json").write_text(json.dumps({"weight_map": weight_map}))

    found = logits(ft.load(folder), {name: expected[name] for name in INPUTS})
    np.testing.assert_allclose(found, expected["classifier_logits"], rtol=0, atol=1e-5)


def test_a_file_cut_off(tmp_path):
    folder = copy_checkpoint(TF4 / "base", tmp_path / "cut")
    weights = folder / "tf_model.h5"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"tf_model.h5 is not a whole HDF5 file .*get it"):
        ft.load(folder)
