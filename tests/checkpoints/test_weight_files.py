"""Weights are found in all file formats; errors name what is wrong with a folder."""

import json
import pickle
import sys

import ml_dtypes
import numpy as np
import pytest
from helpers_checkpoints import (
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


@pytest.fixture
def copied(tmp_path):
    return copy_checkpoint(FOLDER, tmp_path / "copied")


def assert_as_stored(folder):
    found = logits(ft.load(folder), inputs_of(EXPECTED))
    np.testing.assert_allclose(found, EXPECTED["logits"], rtol=0, atol=1e-5)


def split(folder, suffix="safetensors"):
    """Replaces the file by two shards and an index; returns the path of the second shard."""
    tensors = read_weights(folder)
    names = sorted(tensors)
    halves = (names[:20], names[20:])
    index = {"metadata": {}, "weight_map": {}}
    for i, half in enumerate(halves, 1):
        write_weights(folder, {name: tensors[name] for name in half})
        shard = folder / f"model-0000{i}-of-00002.safetensors"
        (folder / "model.safetensors").rename(shard)
        index["weight_map"] |= dict.fromkeys(half, shard.name)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return shard


def test_shards(copied):
    split(copied)
    assert_as_stored(copied)


def test_a_missing_shard(copied):
    split(copied).unlink()
    message = r"lists shards that do not exist: \['model-00002-of-00002.safetensors'\]. Download"
    with pytest.raises(CheckpointError, match=message):
        ft.load(copied)


def test_old_names_of_layer_norm(copied):
    tensors = read_weights(copied)
    renamed = {
        name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): tensor
        for name, tensor in tensors.items()
    }
    assert renamed.keys() != tensors.keys()
    write_weights(copied, renamed)
    assert_as_stored(copied)


def test_names_with_and_without_prefix_and_the_head_of_another_task(tmp_path, capsys):
    folder, expected = reference("base")
    bare = read_weights(folder)
    pretraining = {f"bert.{name}": tensor for name, tensor in bare.items()}
    pretraining["cls.predictions.bias"] = np.zeros(27, "float32")
    pretraining["bert.embeddings.position_ids"] = np.arange(12)[None]
    prefixed = copy_checkpoint(folder, tmp_path / "prefixed")
    write_weights(prefixed, pretraining)

    without, with_prefix = ft.load(folder), ft.load(prefixed)
    lines = capsys.readouterr().out.splitlines()
    assert "39 of 41 variables filled; new: classifier/dense; the family's" in lines[0]
    assert "39 of 41 variables filled; new: classifier/dense; unused: cls.predictions;" in lines[1]
    for ours, theirs in zip(without.weights, with_prefix.weights, strict=True):
        if not ours.path.startswith("classifier"):
            np.testing.assert_array_equal(ours, theirs)


def test_bfloat16_weights(tmp_path):
    rounded = {k: v.astype(ml_dtypes.bfloat16) for k, v in read_weights(FOLDER).items()}
    narrow = copy_checkpoint(FOLDER, tmp_path / "narrow", dtype="bfloat16")
    wide = copy_checkpoint(FOLDER, tmp_path / "wide")
    write_weights(narrow, rounded)
    write_weights(wide, {name: tensor.astype("float32") for name, tensor in rounded.items()})
    found, same = (logits(ft.load(folder), inputs_of(EXPECTED)) for folder in (narrow, wide))
    np.testing.assert_array_equal(found, same)
    np.testing.assert_allclose(found, EXPECTED["logits"], rtol=0, atol=0.1)


@pytest.mark.parametrize("size", [0, 4, 300, 20_000, -1])
def test_a_truncated_file(copied, size):
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    message = "model.safetensors is not a complete safetensors file .*truncated .*download it again"
    with pytest.raises(CheckpointError, match=message):
        ft.load(copied)


def test_a_shape_that_contradicts_the_config(tmp_path):
    folder = copy_checkpoint(FOLDER, tmp_path / "wrong", intermediate_size=21)
    message = (
        r"The tensor bert.encoder.layer.0.intermediate.dense.weight in .*model.safetensors has the "
        r"shape \(20, 24\), but the config requires \(21, 24\) "
        r"\(variable block_0/feed_forward/intermediate/kernel\)."
    )
    with pytest.raises(CheckpointError, match=message):
        ft.load(folder)


def test_a_missing_tensor_is_an_error(copied):
    tensors = read_weights(copied)
    tensors["surplus"] = tensors.pop("bert.encoder.layer.1.attention.self.query.bias")
    write_weights(copied, tensors)
    message = (
        r"lacks 1 tensors that its config requires, for example the one for "
        r"block_1/attention/query/bias; found but unused: \['surplus'\]"
    )
    with pytest.raises(CheckpointError, match=message):
        ft.load(copied)


def test_layers_beyond_those_of_the_config_are_reported(tmp_path, capsys):
    ft.load(copy_checkpoint(FOLDER, tmp_path / "short", num_hidden_layers=1))
    line = capsys.readouterr().out
    assert "25 of 25 variables filled; unused: encoder.layer.1.attention.output.LayerNorm" in line


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", "zebra", "has the model_type 'zebra', which finetune_tf does not support; "),
        ("model_type", None, "has the model_type None, which finetune_tf does not support; s"),
        (
            "position_embedding_type",
            "relative_key",
            "The config key 'position_embedding_type' has the value 'relative_key', which bert "
            "models do not support here; supported: 'absolute'.",
        ),
        ("hidden_act", "nope", "The config key 'hidden_act' has the value 'nope'.*'gelu_new'"),
        ("is_decoder", True, "The config key 'is_decoder' has the value True"),
        ("num_attention_heads", 5, "'num_attention_heads' is 5, which does not divide"),
    ],
)
def test_unsupported_config_values(tmp_path, key, value, message):
    folder = copy_checkpoint(FOLDER, tmp_path / "copied", **{key: value})
    with pytest.raises(CheckpointError, match=message):
        ft.load(folder)


@pytest.mark.parametrize("text", ['{"model_type": "bert",', "[]", "\xff"])
def test_a_config_that_is_not_a_json_object(copied, text):
    (copied / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(
        CheckpointError, match=r"config.json (is not valid JSON|must be a JSON object)"
    ):
        ft.load(copied)


def test_paths_that_are_no_checkpoint_folders(copied, monkeypatch):
    monkeypatch.chdir(copied.parent)
    with pytest.raises(CheckpointError, match=f"There is no file '{copied.name}/model.safetensor'"):
        ft.load(f"{copied.name}/model.safetensor")
    with pytest.raises(CheckpointError, match="config.json is a file; a checkpoint is a folder"):
        ft.load(copied / "config.json")
    with pytest.raises(CheckpointError, match="no folder '.*/none', and a Hub id has the form"):
        ft.load(copied / "none")
    (copied / "config.json").unlink()
    message = r"has no config.json, so it is not a Hugging Face.*found \['model.safetensors'\]"
    with pytest.raises(CheckpointError, match=message):
        ft.load(copied)


@pytest.mark.parametrize("name", [".", "model.safetensors"])
def test_a_revision_of_a_path(name, copied):
    with pytest.raises(CheckpointError, match="revision='v2' is for checkpoints on the Hub, but"):
        ft.load(copied / name, revision="v2")
    assert ft.load(copied / name, revision="main").stages  # as it is


def test_a_file_with_weights_of_any_name(copied):
    ids = np.array([[2, 6, 3]], "int32")
    expected = ft.load(copied)(ids)
    file = (copied / "model.safetensors").rename(copied / "mine.safetensors")
    np.testing.assert_array_equal(ft.load(file)(ids), expected)
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    (copied / "config.json").unlink()
    np.testing.assert_array_equal(ft.load(file, config=config)(ids), expected)
    with pytest.raises(CheckpointError, match=r"There is no file 'none\.safetensors'"):
        ft.load("none.safetensors")
    with pytest.raises(CheckpointError, match=r"config= has the model_type 'whisper', which"):
        ft.load(file, config={"model_type": "whisper"})
    with pytest.raises(CheckpointError, match=r"contains only weights, and .* load\(…, config=…\)"):
        ft.load(file)


def test_no_weights(copied):
    (copied / "model.safetensors").unlink()
    message = (
        r"There are no weights in .*: expected one of model.safetensors, tf_model.h5, "
        r"pytorch_model.bin \(or their shards\), found \['config.json'\]"
    )
    with pytest.raises(CheckpointError, match=message):
        ft.load(copied)


def test_a_pickle_is_refused_without_pytorch(copied, monkeypatch):
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    monkeypatch.setitem(sys.modules, "torch", None)
    message = "pytorch_model.bin is a pickle, which only PyTorch can open safely.*safetensors"
    with pytest.raises(CheckpointError, match=message):
        ft.load(copied)


def test_safetensors_have_priority_over_a_pickle(copied):
    (copied / "pytorch_model.bin").write_bytes(b"never opened")
    assert_as_stored(copied)


class Opened:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.slow
def test_pickles_are_opened_without_running_code(copied):
    torch = pytest.importorskip("torch")
    tensors = {k: torch.from_numpy(v) for k, v in read_weights(copied).items()}
    (copied / "model.safetensors").unlink()
    torch.save(tensors, copied / "pytorch_model.bin")
    assert_as_stored(copied)

    torch.save({k: v.bfloat16() for k, v in tensors.items()}, copied / "pytorch_model.bin")
    found = logits(ft.load(copied), inputs_of(EXPECTED))
    np.testing.assert_allclose(found, EXPECTED["logits"], rtol=0, atol=0.1)

    (copied / "pytorch_model.bin").write_bytes(pickle.dumps(Opened(copied / "opened")))
    with pytest.raises(CheckpointError, match="pytorch_model.bin cannot be opened by PyTorch"):
        ft.load(copied)
    assert not (copied / "opened").exists()
