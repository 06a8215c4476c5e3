"""Reading of `tf_model.h5`, which the TensorFlow classes of transformers 4 wrote."""

import contextlib
import io
import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from helpers_checkpoints import INPUTS, copy_checkpoint, logits

import finetune_tf as ft
from finetune_tf.errors import CheckpointError

TF4 = Path(__file__).resolve().parents[1] / "fixtures" / "tf4"
BERT = TF4 / "bert" / "text-classification"
# By family: the number of variables, and the scope of a block's key projection in the file.
FAMILIES = {
    "bert": (41, "encoder/layer_._1/attention/self/key", "block_1"),
    "distilbert": (40, "transformer/layer_._1/attention/k_lin", "block_1"),
    "roberta": (41, "encoder/layer_._1/attention/self/key", "block_1"),
    "electra": (43, "encoder/layer_._1/attention/self/key", "block_1"),
    # The first block of the second group.
    "albert": (75, "encoder/albert_layer_groups_._1/albert_layers_._0/attention/key", "block_2"),
    "mpnet": (41, "encoder/layer_._1/attention/attn/k", "block_1"),
}
# Unused weights that transformers 4 stores: MPNet's pooler, which its classifier does not use.
UNUSED = {"mpnet": "; unused: pooler.dense"}


def expected_of(folder):
    """Returns inputs, and the outputs of transformers 4 for them."""
    with np.load(folder / "expected.npz") as stored:
        inputs = {name: stored[name] for name in INPUTS if name in stored}
        return inputs, {name: stored[name] for name in stored if name not in INPUTS}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def loaded(family):
    """Returns the family's classifier, and the messages of `load`."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        model = ft.load(TF4 / family / "text-classification")
    return model, printed.getvalue()


def test_classifier(family, loaded):
    model, printed = loaded
    variables, unused = FAMILIES[family][0], UNUSED.get(family, "")
    filled = f": {variables} of {variables} variables filled{unused}; the family's own pooler; "
    assert filled in printed
    assert list(model.labels) == ["no", "maybe", "yes"]
    inputs, expected = expected_of(TF4 / family / "text-classification")
    np.testing.assert_allclose(logits(model, inputs), expected["logits"], rtol=0, atol=1e-5)


def test_key_biases_are_loaded(family, loaded):
    """Compares variables, because softmax cancels the key biases in the outputs."""
    _, scope, block = FAMILIES[family]
    with h5py.File(TF4 / family / "text-classification" / "tf_model.h5") as file:
        (nested,) = file[family].values()
        stored = nested[f"{family}/{scope}/bias:0"][()]
    np.testing.assert_array_equal(loaded[0].get_layer(block).attention.key.bias, stored)


def test_it_is_saved_as_safetensors(family, loaded, tmp_path):
    saved = loaded[0].save_pretrained(tmp_path / "saved")
    assert {path.name for path in saved.iterdir()} == {
        *("README.md", "config.json", "model.safetensors")
    }
    again = ft.load(saved)
    for variable, reloaded in zip(loaded[0].weights, again.weights, strict=True):
        np.testing.assert_array_equal(variable, reloaded, err_msg=variable.path)
    inputs, expected = expected_of(TF4 / family / "text-classification")
    np.testing.assert_allclose(logits(again, inputs), expected["logits"], rtol=0, atol=1e-5)


def test_bare_bert():
    model = ft.load(TF4 / "bert" / "base")
    inputs, expected = expected_of(TF4 / "bert" / "base")
    outputs = [model.get_layer(name).output for name in ("block_1", "pooler")]
    hidden, pooled = keras.Model(model.inputs, outputs)([inputs[i.name] for i in model.inputs])
    np.testing.assert_allclose(hidden, expected["last_hidden_state"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(pooled, expected["pooler_output"], rtol=0, atol=1e-5)


def test_bare_distilbert(capsys):
    """DistilBERT's pooler belongs to its classifier, so the file has none."""
    model = ft.load(TF4 / "distilbert" / "base")
    printed = capsys.readouterr().out
    assert "36 of 40 variables filled; new: pooler/dense, classifier/dense; the" in printed
    inputs, expected = expected_of(TF4 / "distilbert" / "base")
    hidden = keras.Model(model.inputs, model.get_layer("block_1").output)
    found = hidden([inputs[i.name] for i in model.inputs])
    np.testing.assert_allclose(found, expected["last_hidden_state"], rtol=0, atol=1e-5)


def test_token_classification(capsys):
    model = ft.load(TF4 / "electra" / "token-classification", "token-classification")
    assert ": 41 of 41 variables filled; saves for" in capsys.readouterr().out
    inputs, expected = expected_of(TF4 / "electra" / "token-classification")
    np.testing.assert_allclose(logits(model, inputs), expected["logits"], rtol=0, atol=1e-5)


def test_question_answering(capsys):
    model = ft.load(TF4 / "distilbert" / "question-answering", "question-answering")
    assert ": 38 of 38 variables filled; saves for" in capsys.readouterr().out
    inputs, expected = expected_of(TF4 / "distilbert" / "question-answering")
    wanted = np.stack([expected["start_logits"], expected["end_logits"]], axis=1)
    np.testing.assert_allclose(logits(model, inputs), wanted, rtol=0, atol=1e-5)


def test_shards(tmp_path):
    """A shard has no nested groups, and its names lack the name of the model."""
    folder = copy_checkpoint(BERT, tmp_path / "sharded")
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

    inputs, expected = expected_of(BERT)
    found = logits(ft.load(folder), inputs)
    np.testing.assert_allclose(found, expected["logits"], rtol=0, atol=1e-5)


def test_a_truncated_file(tmp_path):
    folder = copy_checkpoint(BERT, tmp_path / "cut")
    weights = folder / "tf_model.h5"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(
        CheckpointError, match=r"tf_model.h5 is not a complete HDF5 file .*download it"
    ):
        ft.load(folder)
