"""Weights above a size are written in several files, as transformers writes them."""

import json
import tracemalloc

import keras
import numpy as np
import pytest
from helpers_checkpoints import BERTS, inputs_of, logits, read_weights, reference

import finetune_tf as ft
from finetune_tf.base.arguments import bytes_of, check
from finetune_tf.errors import ArgumentError
from finetune_tf.training.untrained import untrained_layers
from finetune_tf.weights.table import linear
from finetune_tf.weights.writing import WeightWriter

FOLDER, EXPECTED = reference("relu")
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def model():
    return ft.load(FOLDER)


def weights_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("model"))


def index_of(folder):
    return json.loads((folder / INDEX).read_text())


def assert_same_weights(model, again):
    for ours, theirs in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_shards_and_their_index(model, tmp_path):
    whole = model.save_pretrained(tmp_path / "whole")
    out = model.save_pretrained(tmp_path / "out", max_shard_size=10_000)
    shards = weights_in(out)[:-1]
    assert len(shards) > 2
    assert shards == [
        f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)
    ]
    index, tensors = index_of(out), read_weights(whole)
    assert index["weight_map"].keys() == tensors.keys()
    assert list(index["weight_map"]) == sorted(tensors)
    assert index["metadata"] == {
        "total_parameters": model.count_params(),
        "total_size": sum(tensor.nbytes for tensor in tensors.values()),
    }
    for shard in shards:
        held = [tensors[name].nbytes for name, file in index["weight_map"].items() if file == shard]
        assert sum(held) <= 10_000
    assert_same_weights(model, ft.load(out))


def test_a_tensor_above_the_size_has_a_file_of_its_own(model, tmp_path):
    out = model.save_pretrained(tmp_path / "out", max_shard_size=1)
    assert len(weights_in(out)) == len(model.weights) + 1
    assert_same_weights(model, ft.load(out))


def test_the_size_counts_what_is_written(model, tmp_path):
    size = model.count_params() * 2
    assert INDEX in weights_in(model.save_pretrained(tmp_path / "a", max_shard_size=size))
    out = model.save_pretrained(tmp_path / "b", max_shard_size=size, dtype="float16")
    assert weights_in(out) == ["model.safetensors"]


def test_files_of_an_earlier_save_do_not_stay(model, tmp_path):
    out = model.save_pretrained(tmp_path / "out", max_shard_size="10KB")
    (out / "notes.txt").write_text("kept")
    more = weights_in(out)
    out = model.save_pretrained(out, max_shard_size="0.02 MB")
    assert INDEX in weights_in(out)
    assert not set(weights_in(out)) & set(more) - {INDEX}
    assert weights_in(model.save_pretrained(out)) == ["model.safetensors"]
    assert INDEX in weights_in(model.save_pretrained(out, max_shard_size=10_000))
    assert "model.safetensors" not in weights_in(out)
    assert (out / "notes.txt").read_text() == "kept"
    assert_same_weights(model, ft.load(out))


def test_what_nobody_has_trained_is_known_from_shards(tmp_path):
    model = ft.load(BERTS / "base", labels=2)
    out = model.save_pretrained(tmp_path / "out", max_shard_size=2_000)
    assert untrained_layers(ft.load(out)) == ["classifier"]


def test_modules_of_sentence_transformers(tiny_bert, tmp_path):
    model = ft.load(tiny_bert, labels=["a", "b", "c"], pooling="mean")
    out = model.save_pretrained(tmp_path / "out", max_shard_size=200)
    assert INDEX in weights_in(out)
    assert weights_in(out / "2_Dense") == ["model.safetensors"]  # Dense reads one file
    assert_same_weights(model, ft.load(out))


def test_values_are_converted_shard_by_shard(tmp_path):
    """The peak of a save is a shard, and not a second copy of the model."""
    layers = [keras.layers.Dense(512, use_bias=False, name=f"dense_{i}") for i in range(8)]
    for layer in layers:
        layer.build((None, 512))
    variables = [variable for layer in layers for variable in layer.weights]
    table = [row for layer in layers for row in linear(layer.name, layer.name)]
    size = 512 * 512 * 4
    peaks = {}
    for shards in (1, 8):
        writer = WeightWriter("float32", 8 * size // shards)
        writer.write(tmp_path, variables, table)  # what is imported and cached on first use
        tracemalloc.start()
        writer.write(tmp_path, variables, table)
        peaks[shards] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert 7 * size < peaks[1] < 10 * size
    assert peaks[8] < 3 * size


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, 1), (2**40, 2**40), ("5GB", 5_000_000_000), ("1.5 mb", 1_500_000), (" 2TB", 2 * 10**12)],
)
def test_sizes(size, expected):
    check(max_shard_size=size)
    assert bytes_of(size) == expected


@pytest.mark.parametrize(
    "size", [0, -1, 5e9, "0GB", "5", "GB", "5 gigabytes", "", None, True, float("nan"), []]
)
def test_no_sizes(model, tmp_path, size):
    message = r'max_shard_size must be an integer >= 1 \(bytes\), or a string such as "5GB" or "500'
    with pytest.raises(ArgumentError, match=message):
        model.save_pretrained(tmp_path / "out", max_shard_size=size)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_transformers_opens_shards_and_writes_the_same_index(model, tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import BertForSequenceClassification

    out = model.save_pretrained(tmp_path / "out", max_shard_size=20_000)
    theirs, report = BertForSequenceClassification.from_pretrained(out, output_loading_info=True)
    assert not any(report.values()), report
    inputs = {name: torch.from_numpy(array) for name, array in inputs_of(EXPECTED).items()}
    with torch.no_grad():
        output = theirs.eval()(**inputs).logits
    np.testing.assert_allclose(logits(model, inputs_of(EXPECTED)), output, rtol=0, atol=1e-5)

    theirs.save_pretrained(tmp_path / "theirs", max_shard_size=20_000)
    written, ours = index_of(tmp_path / "theirs"), index_of(out)
    assert written["metadata"] == ours["metadata"]
    assert written["weight_map"].keys() == ours["weight_map"].keys()
    assert_same_weights(model, ft.load(tmp_path / "theirs"))


@pytest.mark.slow
def test_sentence_transformers_opens_shards(tiny_bert, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    model = ft.load(tiny_bert, labels=["a", "b", "c"], pooling="mean")
    out = model.save_pretrained(tmp_path / "out", max_shard_size=200)
    texts = ["the film was very good", "bad"]
    found = library.SentenceTransformer(str(out), device="cpu").encode(texts)
    encoded = dict(model.tokenizer(texts, padding=True, return_tensors="np"))
    np.testing.assert_allclose(logits(model, encoded), found, rtol=0, atol=1e-5)
