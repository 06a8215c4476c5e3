"""Packed rows: the numbers of each text are the same as those of the text alone."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers_packing import (
    CONVOLVED,
    ENCODERS,
    LENGTH,
    TEXTS,
    batch_of,
    check_step,
    gradient_of,
    loaded,
    order_of,
)

import finetune_tf as ft
from finetune_tf.errors import DataError, ModelError
from finetune_tf.messages import quiet
from finetune_tf.tasks import IGNORED

DECODERS = ["gpt2", "llama", "mistral", "qwen2", "qwen3"]


@pytest.mark.parametrize(
    "family", ["gpt2", *(pytest.param(n, marks=pytest.mark.slow) for n in DECODERS[1:])]
)
def test_logits_of_decoders_equal_those_of_each_text_alone(family):
    """Learned and rotary positions, and windows of a few tokens."""
    model = loaded(family, "text-generation")
    inputs, _ = batch_of(model, LENGTH)
    logits = np.asarray(model(inputs))
    for row, texts in enumerate(order_of(TEXTS)):
        start = 0
        for text in (TEXTS[i] for i in texts):
            # One token more, which no earlier one sees: Keras warns of a softmax over one key.
            alone = np.asarray(model(np.append(text, 4)[None]))[0, : len(text)]
            found = logits[row, start : start + len(text)]
            np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-5)
            start += len(text)
    without = {name: value for name, value in inputs.items() if name != "position_ids"}
    assert np.abs(np.asarray(model(without)) - logits).max() > 1e-2  # texts would see each other


FEW = ("bert", "distilbert")


@pytest.mark.parametrize(
    "family",
    [
        name if name in FEW else pytest.param(name, marks=pytest.mark.slow)
        for name in ENCODERS
        if name not in CONVOLVED
    ],
)
def test_logits_of_classifiers_equal_those_of_each_text_alone(family):
    """Every family; poolings of the first, of all and of the last token."""
    model = loaded(family, "text-classification")
    inputs, _ = batch_of(model, LENGTH)
    padded, _ = batch_of(model, False)
    packed = np.asarray(model(inputs)).reshape(*inputs["text_starts"].shape, -1)
    alone = np.asarray(model(padded))
    for row, texts in enumerate(order_of(TEXTS)):
        np.testing.assert_allclose(packed[row, : len(texts)], alone[texts], rtol=1e-5, atol=1e-5)
        assert (inputs["text_starts"][row, len(texts) :] == -1).all()


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in ENCODERS if name not in CONVOLVED])
def test_a_step_of_classifiers_equals_that_of_padded_rows(family):
    check_step(family, "text-classification")


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_poolings(pooling):
    check_step("bert", "text-classification", pooling=pooling, new_head=True, labels=["a", "b"])


@pytest.mark.slow
@pytest.mark.parametrize("task", ["token-classification", "fill-mask"])
def test_a_step_of_tasks_on_tokens_equals_that_of_padded_rows(task):
    check_step("bert", task)


@pytest.mark.slow
@pytest.mark.parametrize("metrics", [[], [keras.metrics.SparseTopKCategoricalAccuracy(k=2)]])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral"])
def test_a_step_of_decoders_equals_that_of_the_texts_alone(family, checkpointing, metrics):
    """With and without logits in the step; see `model.vocabulary_loss`."""
    results = []
    for packing in (False, LENGTH):
        model = loaded(family, "text-generation", gradient_checkpointing=checkpointing)
        with quiet():
            model.compile(loss=ft.presets.LOSSES["classes"](), metrics=metrics)
        results.append(gradient_of(model, batch_of(model, packing)))
    (loss, gradient), (packed_loss, packed_gradient) = results
    np.testing.assert_allclose(packed_loss, loss, rtol=1e-6)
    assert np.linalg.norm(packed_gradient - gradient) < 1e-5 * np.linalg.norm(gradient)


def test_batches_of_packed_rows(tiny_bert):
    with quiet():
        model = ft.load(tiny_bert, labels=["bad", "good"])
    texts = ["a very good film", "the actor was bad", "a fine story", "a bad film"]
    examples = ft.data.from_arrays(texts, ["good", "bad", "good", "bad"], labels=model.labels)
    batches = examples.batches(model, batch_size=4, packing=12)
    inputs, targets = next(batches.as_numpy_iterator())
    np.testing.assert_array_equal(
        inputs["position_ids"],
        [[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 0]],
    )
    np.testing.assert_array_equal(inputs["attention_mask"], [[1] * 12, [1] * 10 + [0, 0]])
    np.testing.assert_array_equal(inputs["text_starts"], [[0, 6], [0, 5]])
    ids = {text: model.tokenizer(text)["input_ids"] for text in texts}
    np.testing.assert_array_equal(inputs["input_ids"][0], ids[texts[0]] + ids[texts[1]])
    np.testing.assert_array_equal(targets, [1, 0, 1, 0])


def test_auto_packs_where_it_pays(tiny_bert):
    """Texts of many lengths are packed for training; equal lengths and evaluations are not."""
    with quiet():
        model = ft.load(tiny_bert, labels=["bad", "good"])

    def names(texts: list[str], **options: object) -> set[str]:
        targets = ["bad", "good"] * (len(texts) // 2)
        examples = ft.data.from_arrays(texts, targets, labels=model.labels)
        batches = examples.batches(model, 4, packing="auto", buckets=2, **options)
        return set(batches.element_spec[0])

    many = ["a " * (1 + i % 12) + "film" for i in range(48)]
    assert "text_starts" in names(many, shuffle=True)
    assert "text_starts" not in names(["a film"] * 48, shuffle=True)
    assert "text_starts" not in names(many)
    assert "text_starts" not in names(many, shuffle=True, tokens_per_batch=100)


@pytest.mark.slow
def test_a_fit_and_an_evaluation_with_packed_rows(tiny_decoder):
    with quiet():
        model = ft.load(tiny_decoder)
        model.compile()
    examples = ft.data.from_arrays(["a very good film", "the actor was great", "a fine story"])
    losses = []
    for options in ({}, {"packing": True}):
        with quiet():
            batches = examples.batches(model, batch_size=3, **options)
            losses.append(model.evaluate(batches, verbose=0, return_dict=True)["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)
    with quiet():
        history = model.fit(batches, epochs=3, validation_data=batches, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.slow
def test_a_classifier_learns_from_batches_of_one_shape(tiny_bert):
    words = ["good", "bad"]
    texts = [f"a {'very ' * (i % 5)}{words[i % 2]} film" for i in range(64)]
    examples = ft.data.from_arrays(texts, [words[i % 2] for i in range(64)])
    with quiet():
        model = ft.load(tiny_bert, labels=examples.labels)
        batches = examples.batches(model, batch_size=8, shuffle=True, packing=True)
        model.compile(**ft.presets.cross_entropy(learning_rate=1e-4))
        history = model.fit(batches, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    shapes = {inputs["input_ids"].shape for inputs, _ in batches}
    assert len(shapes) == 1


def test_packed_texts_have_other_masked_words_in_each_epoch(tiny_bert):
    texts = ["a very good film", "the actor was great", "a fine story", "a dull and long film"] * 3
    with quiet():
        model = ft.load(tiny_bert, "fill-mask")
        batches = ft.data.from_arrays(texts).batches(model, 4, shuffle=True, seed=1, packing=True)
    expected = sorted(model.tokenizer(text)["input_ids"] for text in texts)
    epochs = []
    for _ in range(2):
        seen, found = [], []
        for inputs, targets in batches.as_numpy_iterator():
            is_token = inputs["attention_mask"] == 1
            ids = np.where(targets == IGNORED, inputs["input_ids"], targets)[is_token]
            starts = np.flatnonzero(inputs["position_ids"][is_token] == 0)
            found += [text.tolist() for text in np.split(ids, starts[1:])]
            seen.append((inputs["input_ids"].tolist(), targets.tolist()))
            assert (targets[~is_token] == IGNORED).all()
        assert sorted(found) == expected  # the targets are the words in their places
        epochs.append(seen)
    assert epochs[0] != epochs[1]


def test_an_epoch_continues_at_any_batch(tiny_bert):
    """As a resumed fit does: the same texts in the same places."""
    with quiet():
        model = ft.load(tiny_bert, labels=["bad", "good"])
    texts = ["a " * (1 + i % 9) + "film" for i in range(24)]
    examples = ft.data.from_arrays(texts, ["bad", "good"] * 12, labels=model.labels)

    def ids(epochs: int, start: tuple[int, int] = (0, 0)) -> list[np.ndarray]:
        batches = examples.batches(model, 4, shuffle=True, packing=True)
        batches.cursor.epoch, batches.cursor.batch = start
        return [x["input_ids"].numpy() for _ in range(epochs) for x, _ in batches]

    first, both = ids(1), ids(2)
    for found, expected in zip(ids(1, (1, 2)), both[len(first) + 2 :], strict=True):
        np.testing.assert_array_equal(found, expected)
    assert any(
        a.shape != b.shape or (a != b).any() for a, b in zip(first, both[len(first) :], strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "deberta", "mpnet", "modernbert", "llama"])
def test_cached_features_are_packed_as_well(family):
    """The frozen blocks run once; the upper blocks see packed rows of their outputs."""
    whole = loaded(family, "text-classification")
    results = []
    for packing in (False, LENGTH):
        model = loaded(family, "text-classification")
        with quiet():
            ft.train_only(model, ft.select.head() | ft.select.blocks(-1))
            upper = ft.cache_features(model)
        results.append(gradient_of(upper, batch_of(upper, packing)))
    (loss, gradient), (packed_loss, packed_gradient) = results
    np.testing.assert_allclose(packed_loss, loss, rtol=1e-5)
    assert np.linalg.norm(packed_gradient - gradient) < 1e-5 * np.linalg.norm(gradient)
    assert len(gradient) < sum(np.prod(v.shape) for v in whole.trainable_variables)


@pytest.mark.slow
def test_bfloat16_and_xla():
    """A packed row and its texts in one compiled graph with fixed shapes."""
    for family, task in (("llama", "text-generation"), ("bert", "text-classification")):
        model = loaded(family, task)
        inputs, _ = batch_of(model, LENGTH)
        expected = np.asarray(model(inputs))
        half = loaded(family, task, dtype="mixed_bfloat16")(inputs)
        np.testing.assert_allclose(half, expected, atol=0.05 * np.abs(expected).max())
        with quiet():
            model.compile(loss=ft.presets.LOSSES["classes"](), jit_compile=True)
        found = model.predict(inputs, verbose=0)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_on_jax():
    """The same tests on JAX; one family for each kind of attention and of positions."""
    pytest.importorskip("jax")
    logits = "logits_of_classifiers_equal_those_of_each_text_alone"
    step = "a_step_of_classifiers_equals_that_of_padded_rows"
    families = ["bert", "deberta", "modernbert", "mpnet"]
    tests = [f"{logits}[{family}]" for family in families] + [f"{step}[bert]"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *(f"{__file__}::test_{test}" for test in tests)],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


class TestRefusals:
    """What cannot be packed says so; nothing is trained on mixed texts in silence."""

    def test_prompts(self, tiny_decoder):
        with quiet():
            model = ft.load(tiny_decoder)
        prompts = ft.data.from_arrays(prompt=["a very"])
        with pytest.raises(DataError, match="prompts without completions"):
            prompts.batches(model, batch_size=1, packing=True)
        ids = np.array([[4, 5, 6]])
        message = "position_ids must be positions of tokens in their text"
        with pytest.raises(ModelError, match=message):
            model({"input_ids": ids, "position_ids": np.array([[0, 1, 24]])})

    def test_convolutions_mix_neighbours(self):
        model = loaded("deberta-v2", "text-classification")
        with pytest.raises(DataError, match="ConvolutionBlock, may mix neighbouring texts"):
            batch_of(model, True)
        ids = np.array([[4, 5, 6]])
        with pytest.raises(ModelError, match="unknown: position_ids"):
            model({"input_ids": ids, "position_ids": ids * 0})

    def test_missing_starts(self):
        model, ids = loaded("bert", "text-classification"), np.array([[4, 5, 6]])
        with pytest.raises(ModelError, match="text_starts"):
            model({"input_ids": ids, "position_ids": ids * 0})
        with pytest.raises(ModelError, match="text_starts .* are for packed rows"):
            model({"input_ids": ids, "text_starts": ids * 0})

    @pytest.mark.parametrize(
        "options",
        [{"tokens_per_batch": 100}, {"drop_remainder": True}, {"balance": True, "shuffle": True}],
    )
    def test_other_plans(self, tiny_bert, options):
        with quiet():
            model = ft.load(tiny_bert, labels=["bad", "good"])
        examples = ft.data.from_arrays(["a film"] * 4, ["bad", "good"] * 2, labels=model.labels)
        with pytest.raises(DataError, match="does not go with"):
            examples.batches(model, batch_size=2, packing=True, **options)

    def test_short_rows(self, tiny_bert):
        with quiet():
            model = ft.load(tiny_bert, labels=["bad", "good"])
        examples = ft.data.from_arrays(["a very good film"], ["good"], labels=model.labels)
        with pytest.raises(DataError, match="packing=5 is less than the 6 tokens"):
            examples.batches(model, packing=5)
        with pytest.raises(DataError, match="packing=500 is more than"):
            examples.batches(model, packing=500)

    def test_objectives_that_compare_rows(self):
        model = loaded("bert", "text-classification", dropout=0.1)
        for objective in (
            ft.objectives.RDrop(1.0),
            ft.objectives.Mixup(0.4),
            ft.objectives.NEFTune(),
        ):
            with quiet():
                model.compile(**ft.presets.cross_entropy(objectives=[objective]))
            with pytest.raises(ModelError, match="packed rows"):
                model.train_on_batch(*batch_of(model, LENGTH))


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100),
        "sparse_categorical_crossentropy",
        *(
            ft.presets.cross_entropy(**options)["loss"]
            for options in ({}, {"label_smoothing": 0.1})
        ),
        ft.presets.focal(gamma=2.0)["loss"],
    ],
)
def test_losses_leave_out_empty_places(loss):
    """Losses of Keras and of presets; accuracy counts texts alone."""
    found = []
    for packing in (False, 16):  # rows of two texts and of four
        model = loaded("bert", "text-classification")
        with quiet():
            model.compile(keras.optimizers.SGD(0.0), loss, metrics=["accuracy"])
        batch = batch_of(model, packing)
        assert (packing is False) == (-100 not in batch[1])
        found.append(model.test_on_batch(*batch))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


def test_a_loss_that_counts_empty_places_is_an_error():
    model = loaded("bert", "text-classification")
    with quiet():
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.0), loss)
    with pytest.raises(DataError, match="A label is -100"):
        model.train_on_batch(*batch_of(model, 16))


@pytest.mark.parametrize(("batch_size", "is_told"), [(2, True), (10, False)])
def test_rows_of_more_texts_than_a_batch_is_to_have(batch_size, is_told, tiny_bert, capsys):
    with quiet():
        model = ft.load(tiny_bert, labels=["bad", "good"])
        examples = ft.data.from_arrays(["a"] * 40, ["bad", "good"] * 20)
    examples.batches(model, batch_size, packing=30)  # a text has three tokens
    message = "a batch has 10 texts on average instead of 2, because so many are in a row of 30 tok"
    assert (message in capsys.readouterr().out) == is_told
