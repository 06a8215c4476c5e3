"""A corpus in files gives the batches that it gives from memory."""

import numpy as np
import pytest
from helpers_models import ENGLISH

import finetune_tf as ft
from finetune_tf.errors import DataError, DataTypeError


def texts(count, seed=0):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(ENGLISH, random.integers(1, 20))) for _ in range(count)]


def parts_of(examples, size):
    """As a generator that reads one file after the other would."""
    for start in range(0, len(examples), size):
        columns = {name: values[start : start + size] for name, values in examples.columns.items()}
        yield type(examples)(columns, examples.labels, f"part {start}")


def assert_same(one, other):
    one, other = (list(batches.as_numpy_iterator()) for batches in (one, other))
    assert len(one) == len(other) > 1
    for (inputs, targets), (inputs_, targets_) in zip(one, other, strict=True):
        assert inputs.keys() == inputs_.keys()
        for name, values in inputs.items():
            np.testing.assert_array_equal(values, inputs_[name])
        np.testing.assert_array_equal(targets, targets_)


@pytest.fixture
def films():
    return ft.data.from_arrays(texts(50), ["good", "bad"] * 25)


@pytest.mark.parametrize("options", [{}, {"shuffle": True, "seed": 3}, {"tokens_per_batch": 64}])
def test_batches_are_those_of_memory(films, options, tiny_bert, tmp_path):
    model = ft.load(tiny_bert, labels=films.labels)
    stored = ft.data.write_tokens(parts_of(films, 12), model, tmp_path / "tokens")
    assert len(stored) == 50
    assert_same(stored.batches(model, 8, **options), films.batches(model, 8, **options))
    again = ft.data.read_tokens(tmp_path / "tokens")
    assert_same(again.batches(model, 8, **options), films.batches(model, 8, **options))


def test_words_and_pairs(tiny_bert, tmp_path):
    words = [text.split() for text in texts(20)]
    tags = [["B-x" if word == "film" else "O" for word in row] for row in words]
    tagged = ft.data.Examples({"tokens": words, "tags": tags}, ft.Labels(["O", "B-x"]))
    model = ft.load(tiny_bert, "token-classification", labels=tagged.labels)
    stored = ft.data.write_tokens(parts_of(tagged, 7), model, tmp_path / "words")
    assert_same(stored.batches(model, 4, shuffle=True), tagged.batches(model, 4, shuffle=True))

    pairs = ft.data.Examples({"text": texts(20), "text_pair": texts(20, 1)})
    model = ft.load(tiny_bert, "feature-extraction")
    stored = ft.data.write_tokens(parts_of(pairs, 7), model, tmp_path / "pairs")
    assert_same(stored.batches(model, 4, shuffle=True), pairs.batches(model, 4, shuffle=True))


@pytest.mark.slow
def test_a_model_learns_from_files_and_from_features_of_them(films, tiny_bert, tmp_path):
    model = ft.load(tiny_bert, labels=films.labels)
    stored = ft.data.write_tokens(parts_of(films, 12), model, tmp_path / "tokens", max_length=16)
    batches = stored.batches(model, 8, shuffle=True)
    assert max(inputs["input_ids"].shape[1] for inputs, _ in batches.as_numpy_iterator()) <= 16
    model.compile()
    assert model.fit(batches, epochs=2, verbose=0).history["loss"]

    ft.train_only(model, ft.select.head())
    learner = ft.cache_features(model)
    learner.compile()
    assert learner.fit(stored.batches(learner, 8, shuffle=True), verbose=0).history["loss"]


def test_tokens_of_another_model(films, tiny_bert, tmp_path):
    stored = ft.data.write_tokens(
        [films], ft.load(tiny_bert, labels=films.labels), tmp_path / "tokens"
    )
    with pytest.raises(DataError, match="made with another labels than this model"):
        stored.batches(ft.load(tiny_bert, labels=["other", "names"]))


def test_what_cannot_be_written(films, tiny_bert, tmp_path):
    model = ft.load(tiny_bert, labels=films.labels)
    unlabelled = ft.data.from_arrays(texts(3))
    for parts, message in (
        ([], "no parts"),
        ([films, unlabelled], "all have labels"),
        ([[]], "a list in"),
    ):
        with pytest.raises((DataError, DataTypeError), match=message):
            ft.data.write_tokens(parts, model, tmp_path / "tokens")
        assert not (tmp_path / "tokens").exists()

    def missing():
        yield films
        yield (tmp_path / "nowhere").read_text()

    with pytest.raises(DataError, match="part of the corpus cannot be read: .*nowhere"):
        ft.data.write_tokens(missing(), model, tmp_path / "tokens")
    masked = ft.load(tiny_bert, "fill-mask")
    with pytest.raises(DataError, match="draws other rows in each epoch"):
        ft.data.write_tokens([unlabelled], masked, tmp_path / "tokens")
    with pytest.raises(DataError, match="holds no tokens"):
        ft.data.read_tokens(tmp_path)


def test_another_model_predicts_with_the_prefix_of_the_rows(tiny_t5, tmp_path, capsys):
    """Rows are often written once, and trained on in other processes."""
    pairs = ft.data.from_arrays(source=["a film", "the actor"], target=["ein Film", "der Film"])
    options = {"prefix": "summarize: ", "max_target_length": 7}
    writer = ft.load(tiny_t5, "text2text-generation")
    ft.data.write_tokens([pairs], writer, tmp_path / "tokens", **options)
    model = ft.load(tiny_t5, "text2text-generation")
    capsys.readouterr()
    ft.data.read_tokens(tmp_path / "tokens").batches(model)
    assert "records prefix 'summarize: ' and max_length 7" in capsys.readouterr().out
    assert model.config["task_specific_params"] == writer.config["task_specific_params"]
    assert model.task.prompt_prefix(model.config) == "summarize: "

    ft.data.read_tokens(tmp_path / "tokens").batches(model)  # which has it already
    assert "records" not in capsys.readouterr().out
    without = ft.data.write_tokens(
        [pairs], ft.load(tiny_t5, "text2text-generation"), tmp_path / "without"
    )
    without.batches(model)
    assert model.task.prompt_prefix(model.config) == ""
