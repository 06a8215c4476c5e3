"""Rows that are no single sequence of tokens: two lengths a batch, and pictures."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from helpers_tasks import small_task_model

import finetune_tf as ft
from finetune_tf.architectures import ClassificationHead
from finetune_tf.data.batching import batches_of, bucketed_dataset
from finetune_tf.data.rows import StoredRows
from finetune_tf.errors import CacheError, DataError
from finetune_tf.model.inference import rows_of
from finetune_tf.tasks import IGNORED, Encoded, TextClassification
from finetune_tf.tasks.feature import Feature

SOURCES = ["a b c", "a", "a b c d e f", "a b", "c", "a b c d", "b c", "e f g h i j"]
SUMMARIES = ["x", "y z", "x y z", "x", "x y z z", "y", "z", "x y"]
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3)).astype("uint8")


def ids_of(texts):
    return [np.array([ord(letter) for letter in text.split()], "int32") for text in texts]


def summarized():
    """What a task would make of texts and their summaries for an encoder-decoder."""
    summaries = ids_of(SUMMARIES)
    started = [np.concatenate([[1], ids[:-1]]).astype("int32") for ids in summaries]
    return Encoded(
        {
            "input_ids": Feature(ids_of(SOURCES), padding=9),
            "decoder_input_ids": Feature(started, axis="target_tokens"),
        },
        targets=Feature(summaries, axis="target_tokens", padding=IGNORED),
    )


def encoder_decoder():
    """(batch, length) and (batch, target length) -> (batch, target length, 1): sums of the ids."""
    names = ("input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask")
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
    text = inputs["input_ids"] * inputs["attention_mask"]  # (batch, length)
    text = keras.ops.sum(text, axis=1, keepdims=True)[..., None]  # (batch, 1, 1)
    words = keras.ops.cast(inputs["decoder_input_ids"], "float32")[..., None]
    model = keras.Model(inputs, keras.ops.cast(text, "float32") + words)
    model.max_length = 8
    return model


def pictured(rows=PIXELS):
    return Encoded(
        {"pixels": Feature(rows, axis=None, dtype="uint8")},
        targets=Feature.of_array(np.arange(5, dtype="int32")),
    )


def picture_model():
    pixels = keras.Input((4, 4, 3), dtype="uint8", name="pixels")
    return keras.Model(
        {"pixels": pixels}, keras.ops.mean(keras.ops.cast(pixels, "float32"), (1, 2))
    )


def test_each_axis_is_padded_to_its_own_length():
    batches = batches_of(summarized(), encoder_decoder(), 4)
    inputs, targets = next(batches.as_numpy_iterator())
    assert {name: values.shape for name, values in inputs.items()} == {
        "input_ids": (4, 6),
        "attention_mask": (4, 6),
        "decoder_input_ids": (4, 3),
        "decoder_attention_mask": (4, 3),
    }
    assert all(values.dtype == "int32" for values in inputs.values())
    assert inputs["attention_mask"].sum(axis=1).tolist() == [3, 1, 6, 2]
    assert inputs["decoder_attention_mask"].sum(axis=1).tolist() == [1, 2, 3, 1]
    assert inputs["input_ids"][1].tolist() == [97, 9, 9, 9, 9, 9]
    assert inputs["decoder_input_ids"][1].tolist() == [1, 121, 0]
    assert targets[1].tolist() == [121, 122, IGNORED]


def test_shuffled_rows_are_sorted_along_both_axes():
    """Rows come with few of the pairs of lengths, and each of them once in an epoch."""
    lengths = [(5, 2), (5, 9), (30, 2), (30, 9)] * 8
    random = np.random.default_rng(0).permutation(len(lengths))
    inputs = {
        "input_ids": Feature([np.full(lengths[i][0], i) for i in random]),
        "decoder_input_ids": Feature([np.full(lengths[i][1], i) for i in random], "target_tokens"),
    }
    buckets = {"tokens": [5, 30], "target_tokens": [2, 9]}
    dataset = bucketed_dataset(inputs, None, 4, buckets, shuffle=True)
    for _ in range(2):
        shapes, seen = [], []
        for batch in dataset.as_numpy_iterator():
            assert batch["attention_mask"].all() and batch["decoder_attention_mask"].all()
            shapes.append((batch["input_ids"].shape[1], batch["decoder_input_ids"].shape[1]))
            np.testing.assert_array_equal(
                batch["input_ids"][:, 0], batch["decoder_input_ids"][:, 0]
            )
            seen += batch["input_ids"][:, 0].tolist()
        assert sorted(shapes) == [(5, 2)] * 2 + [(5, 9)] * 2 + [(30, 2)] * 2 + [(30, 9)] * 2
        assert shapes != sorted(shapes) and sorted(seen) == list(range(32))


def test_tokens_of_both_axes_count():
    batches = batches_of(summarized(), encoder_decoder(), 4, shuffle=True, tokens_per_batch=16)
    sizes = [
        inputs["input_ids"].size + inputs["decoder_input_ids"].size
        for inputs, _ in batches.as_numpy_iterator()
    ]
    assert max(sizes) <= 16 and len(sizes) == int(batches.cardinality())


def test_a_model_without_decoder_inputs_gets_none_of_them():
    ids = keras.Input((None,), dtype="int32", name="input_ids")
    model = keras.Model({"input_ids": ids}, keras.ops.sum(ids, axis=1))
    encoded = Encoded(summarized().inputs, targets=None)
    (batch,) = batches_of(encoded, model, 8).as_numpy_iterator()
    assert set(batch) == {"input_ids"}


def test_outputs_of_an_encoder_decoder_come_row_by_row():
    encoded, model = summarized(), encoder_decoder()
    found = dict(rows_of(model, encoded, 3, lambda outputs, targets: outputs))
    rows = (feature.rows for feature in encoded.inputs.values())
    for row, (source, target) in enumerate(zip(*rows, strict=True)):
        np.testing.assert_array_equal(found[row][: len(target), 0], source.sum() + target)


@pytest.mark.parametrize("rows", [PIXELS, list(PIXELS), StoredRows(PIXELS)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_pictures_are_stacked(rows, shuffle):
    batches = batches_of(pictured(rows), picture_model(), 2, shuffle=shuffle)
    assert int(batches.cardinality()) == 3
    assert batches.element_spec[0]["pixels"].shape.as_list() == [None, 4, 4, 3]
    seen = []
    for inputs, targets in batches.as_numpy_iterator():
        assert set(inputs) == {"pixels"} and inputs["pixels"].dtype == "uint8"
        np.testing.assert_array_equal(inputs["pixels"], PIXELS[targets])
        seen += targets.tolist()
    assert sorted(seen) == list(range(5))


def test_outputs_for_pictures_come_row_by_row():
    found = list(rows_of(picture_model(), pictured(), 2, lambda outputs, targets: outputs))
    assert [row for row, _ in found] == list(range(5))
    np.testing.assert_allclose([out for _, out in found], PIXELS.mean((1, 2)), rtol=1e-6)


def test_a_picture_with_its_caption():
    """A row with one fixed array and a sequence of tokens."""
    captions = Feature(ids_of(SUMMARIES[:5]), "target_tokens")
    inputs = {"pixels": pictured().inputs["pixels"], "decoder_input_ids": captions}
    batch = next(bucketed_dataset(inputs, None, 5, {"target_tokens": [4]}).as_numpy_iterator())
    assert batch["pixels"].shape == (5, 4, 4, 3) and batch["decoder_input_ids"].shape == (5, 4)
    assert batch["decoder_attention_mask"].sum(axis=1).tolist() == [1, 2, 3, 1, 4]


def picture_classifier(checkpoint, size):
    """A FineTuneModel that reads pictures instead of tokens, with a frozen convolution."""
    pixels = keras.Input((size, size, 3), dtype="uint8", name="pixels")
    hidden = keras.layers.Rescaling(1 / 255, name="rescaling")(pixels)
    hidden = keras.layers.Conv2D(4, 2, 2, name="embeddings")(hidden)
    hidden = keras.layers.Dense(4, "relu", name="block_0")(hidden)
    hidden = keras.layers.GlobalAveragePooling2D(name="pooling")(hidden)
    logits = ClassificationHead(2, 0.0, name="classifier")(hidden)
    model = ft.FineTuneModel(inputs={"pixels": pixels}, outputs=logits, name="pictures")
    model.info = small_task_model("two labels", checkpoint).info
    ft.train_only(model, ft.select.matching("block_0|classifier"))
    return model


def test_features_of_pictures_are_cached(tiny_bert):
    model = picture_classifier(tiny_bert, size=4)
    upper = ft.cache_features(model)
    batches = batches_of(pictured(), upper, 5)
    (inputs, targets) = next(batches.as_numpy_iterator())
    assert {name: values.shape for name, values in inputs.items()} == {
        "cached_features": (5, 2, 2, 4)
    }
    whole = keras.Model(model.input, model.output)({"pixels": PIXELS})
    np.testing.assert_allclose(upper(inputs), whole, rtol=1e-5, atol=1e-6)


def test_features_whose_size_is_unknown_cannot_be_cached(tiny_bert):
    upper = ft.cache_features(picture_classifier(tiny_bert, size=None))
    message = r"array of shape \(None, None, 4\) for each row, .* from the input 'pixels', so it"
    with pytest.raises(CacheError, match=message):
        batches_of(pictured(), upper, 5)


def test_features_that_cannot_be_batched():
    with pytest.raises(DataError, match="axis of a feature is 'tokens', 'target_tokens' or None"):
        Feature([], axis="words")
    uneven = Feature([PIXELS[0], PIXELS[0, :2]], axis=None, dtype="uint8")
    with pytest.raises(DataError, match="without an axis have one shape, found several. Resize"):
        bucketed_dataset({"pixels": uneven}, None, 2, {})


class Pictures(TextClassification):
    """Reads a letter's code as the brightness of a picture."""

    def encode(self, examples, tokenizer, max_length):
        values = [ord(text[0]) for text in examples.columns["text"]]
        pixels = [np.full((2, 2, 1), value, "uint8") for value in values]
        targets = np.array([self.labels.index(v) for v in examples.columns["label"]])
        return Encoded(
            {"pixels": Feature(pixels, axis=None, dtype="uint8")}, Feature.of_array(targets)
        )


class Summaries(TextClassification):
    """Each text is its own summary, twice as long."""

    def encode(self, examples, tokenizer, max_length):
        ids = ids_of([" ".join(text) for text in examples.columns["text"]])
        twice = [np.repeat(row, 2) for row in ids]
        return Encoded(
            {
                "input_ids": Feature(ids, padding=5),
                "decoder_input_ids": Feature(twice, "target_tokens", dtype="int64"),
                "speed": Feature([row[:1] / 2 for row in ids], None, dtype="float32"),
            },
            Feature(twice, "target_tokens", padding=IGNORED),
        )


@pytest.mark.parametrize("kind", [Pictures, Summaries])
def test_files_keep_axes_and_dtypes(kind, tiny_bert, tmp_path):
    examples = ft.data.from_arrays(["good", "a", "bad film", "fine"] * 3, ["x", "y"] * 6)
    task = kind(examples.labels)
    names = ("pixels", "input_ids", "attention_mask", "decoder_input_ids", "speed")
    model = SimpleNamespace(
        task=task,
        tokenizer=(tokenizer := ft.load(tiny_bert).tokenizer),
        target_tokenizer=tokenizer,
        labels=task.labels,
        config={},
        max_length=32,
        row_length=32,
        inputs=[SimpleNamespace(name=name) for name in names],
    )
    halves = [ft.data.Examples(
        {name: values[start : start + 6] for name, values in examples.columns.items()},
        examples.labels, f"part {start}") for start in (0, 6)]  # fmt: skip
    files = ft.data.write_tokens(halves, model, tmp_path / "rows")
    assert len(files) == 12
    again = ft.data.read_tokens(tmp_path / "rows")
    memory = examples.batches(model, 5, shuffle=True)
    for stored in (files.batches(model, 5, shuffle=True), again.batches(model, 5, shuffle=True)):
        memory.cursor.epoch = 0
        for mine, theirs in zip(
            stored.as_numpy_iterator(), memory.as_numpy_iterator(), strict=True
        ):
            for name, values in theirs[0].items():
                assert mine[0][name].dtype == values.dtype
                np.testing.assert_array_equal(mine[0][name], values)
            np.testing.assert_array_equal(mine[1], theirs[1])


def in_first_format(folder):
    """Rewrites tokens.json as it was before inputs had axes and dtypes."""
    about = json.loads((folder / "tokens.json").read_text())
    inputs, targets = about.pop("inputs"), about.pop("targets")
    del about["rows"]
    about |= {
        "features": sorted(inputs),
        "pad_values": {name: record["padding"] for name, record in inputs.items()},
        "targets": "none" if not targets else "rows" if targets["axis"] is None else "tokens",
    }
    (folder / "tokens.json").write_text(json.dumps(about))


@pytest.mark.parametrize("case", ["label", "tags", "none"])
def test_files_of_the_first_format_are_read(case, tiny_bert, tmp_path):
    words = [text.split() for text in ("a good film", "bad", "the story was long")]
    if case == "tags":
        tags = [["O"] * len(row) for row in words]
        data = ft.data.Examples({"tokens": words, "tags": tags}, ft.Labels(["O", "B-x"]))
        model = ft.load(tiny_bert, "token-classification", labels=data.labels)
    else:
        labels = ["x", "y", "x"] if case == "label" else None
        data = ft.data.from_arrays([" ".join(row) for row in words], labels)
        model = ft.load(tiny_bert, labels=["x", "y"])
    expected = list(data.batches(model, 2).as_numpy_iterator())
    ft.data.write_tokens([data], model, tmp_path / "rows")
    in_first_format(tmp_path / "rows")
    batches = ft.data.read_tokens(tmp_path / "rows").batches(model, 2)
    for mine, theirs in zip(batches.as_numpy_iterator(), expected, strict=True):
        keras.tree.map_structure(np.testing.assert_array_equal, mine, theirs)
