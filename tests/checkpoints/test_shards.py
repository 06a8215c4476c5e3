"""An index has to agree with its shards, and may list only files inside its folder."""

import json

import pytest
from helpers_checkpoints import copy_checkpoint, read_weights, reference, write_weights

import finetune_tf as ft
from finetune_tf.errors import CheckpointError

FOLDER, _ = reference("relu")
FIRST = "bert.embeddings.LayerNorm.bias"
SHARDS = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]


@pytest.fixture
def sharded(tmp_path):
    """Returns a checkpoint in two shards."""
    folder = copy_checkpoint(FOLDER, tmp_path / "sharded")
    tensors = read_weights(folder)
    names = sorted(tensors)
    weight_map = {}
    for shard, half in zip(SHARDS, (names[:20], names[20:]), strict=True):
        write_weights(folder, {name: tensors[name] for name in half})
        (folder / "model.safetensors").rename(folder / shard)
        weight_map |= dict.fromkeys(half, shard)
    write_index(folder, {"weight_map": weight_map})
    return folder


def write_index(folder, content):
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def weight_map(folder):
    return json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "a/../../secret.safetensors", "..\\secret", "C:\\x", "\0"]
)
def test_a_shard_outside_of_the_folder_is_refused(sharded, name):
    (sharded.parent / "secret.safetensors").write_bytes((sharded / SHARDS[0]).read_bytes())
    write_index(sharded, {"weight_map": weight_map(sharded) | {FIRST: name}})
    with pytest.raises(CheckpointError, match="may be outside of .* do not trust this checkpoint"):
        ft.load(sharded)
    absolute = str(sharded.parent / "secret.safetensors")
    write_index(sharded, {"weight_map": weight_map(sharded) | {FIRST: absolute}})
    with pytest.raises(CheckpointError, match="secret.safetensors', which may be outside of"):
        ft.load(sharded)


def test_shards_in_a_subfolder_and_as_links(sharded):
    (sharded / "part").mkdir()
    (sharded / SHARDS[0]).rename(sharded / "part" / SHARDS[0])
    write_index(
        sharded,
        {
            "weight_map": {
                name: f"part/{shard}" if shard == SHARDS[0] else shard
                for name, shard in weight_map(sharded).items()
            }
        },
    )
    blob = (sharded / SHARDS[1]).rename(sharded.parent / "blob")
    (sharded / SHARDS[1]).symlink_to(blob)
    assert ft.load(sharded).labels == ("no", "maybe", "yes")


def test_an_index_with_a_tensor_that_does_not_exist(sharded):
    write_index(sharded, {"weight_map": weight_map(sharded) | {"lost.weight": SHARDS[0]}})
    message = r"lists tensors that their shards lack: \['lost.weight'\] \(1 in all\). The index a"
    with pytest.raises(CheckpointError, match=message):
        ft.load(sharded)


def test_an_index_that_lacks_a_tensor(sharded):
    named = weight_map(sharded)
    del named[FIRST]
    write_index(sharded, {"weight_map": named})
    message = rf"does not list tensors that its shards contain: \['{FIRST}'\] \(1 in all\)"
    with pytest.raises(CheckpointError, match=message):
        ft.load(sharded)


def test_a_tensor_in_two_shards(sharded):
    first, second = (
        {**tensors} for tensors in (load_shard(sharded, SHARDS[0]), load_shard(sharded, SHARDS[1]))
    )
    write_shard(sharded, SHARDS[1], second | {FIRST: first[FIRST]})
    ft.load(sharded)
    write_shard(sharded, SHARDS[1], second | {FIRST: first[FIRST] + 1})
    message = f"{FIRST} in .*{SHARDS[0]} and {FIRST} in .*{SHARDS[1]} both store"
    with pytest.raises(CheckpointError, match=message):
        ft.load(sharded)


def load_shard(folder, name):
    from safetensors.numpy import load_file

    return load_file(folder / name)


def write_shard(folder, name, tensors):
    from safetensors.numpy import save_file

    save_file(tensors, folder / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "index.json must be a JSON object, found an array"),
        ({}, "index.json has no key 'weight_map'"),
        ({"weight_map": None}, "has no key 'weight_map'"),
        ({"weight_map": ["a"]}, "'weight_map' of .* must be a JSON object, found an array"),
        ({"weight_map": {}}, "lists shards that do not exist"),
        ({"weight_map": {"a": 1}}, "The shard of 'a' in .* must be a JSON string, found a number"),
        ({"weight_map": {"a": None}}, "The shard of 'a' in .* must be a JSON string, found null"),
        ({"weight_map": {"a": "config.json"}}, r"do not exist: \['config.json'\]"),
        ({"weight_map": {"a": "b" * 5000 + ".safetensors"}}, "lists shards that do not exist"),
    ],
)
def test_an_index_with_unexpected_content(sharded, content, message):
    write_index(sharded, content)
    with pytest.raises(CheckpointError, match=message) as error:
        ft.load(sharded)
    assert len(str(error.value)) < 1000
