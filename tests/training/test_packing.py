"""Packed rows: the numbers of each text are the same as those of the text alone."""

from pathlib import Path

import keras
import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.errors import DataError, ModelError
from finetune_tf.messages import quiet
from finetune_tf.tasks import IGNORED
from finetune_tf.tasks.encoded import Encoded
from finetune_tf.tasks.feature import Feature
from finetune_tf.tasks.packing import first_fit, packed
from finetune_tf.tasks.text_generation import next_tokens

REFERENCES = Path(__file__).parents[1] / "references"
RANDOM = np.random.default_rng(0)
TEXTS = [RANDOM.integers(4, 23, n).astype("int32") for n in (7, 3, 5, 9, 2, 1)]
LENGTH = 16


def loaded(family: str, **options: object) -> keras.Model:
    with quiet():
        folder = REFERENCES / family / "text-generation"
        return ft.load(folder, "text-generation", dropout=0.0, **options)


def encoded(texts: list[np.ndarray]) -> Encoded:
    targets = Feature([next_tokens(text) for text in texts], padding=IGNORED)
    return Encoded({"input_ids": Feature(texts)}, targets)


def batch_of(rows: Encoded) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """All rows as one batch, padded to the longest."""
    length = max(len(row) for row in rows.inputs["input_ids"])

    def padded(feature: Feature) -> np.ndarray:
        return np.stack(
            [np.pad(r, (0, length - len(r)), constant_values=feature.padding) for r in feature]
        )

    inputs = {name: padded(feature) for name, feature in rows.inputs.items()}
    lengths = rows.lengths["tokens"]
    inputs["attention_mask"] = (np.arange(length) < lengths[:, None]).astype("int32")
    return inputs, padded(rows.targets)


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen2", "qwen3"])
def test_logits_equal_those_of_each_text_alone(family):
    """Learned and rotary positions, and windows of a few tokens."""
    model, rows = loaded(family), packed(encoded(TEXTS), LENGTH)
    assert len(rows) == 2
    inputs, _ = batch_of(rows)
    logits = np.asarray(model(inputs))
    for row, texts in enumerate(first_fit([len(t) for t in TEXTS], LENGTH)):
        start = 0
        for text in (TEXTS[i] for i in texts):
            # One token more, which no earlier one sees: Keras warns of a softmax over one key.
            alone = np.asarray(model(np.append(text, 4)[None]))[0, : len(text)]
            found = logits[row, start : start + len(text)]
            np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-5)
            start += len(text)
    without = {name: value for name, value in inputs.items() if name != "position_ids"}
    assert np.abs(np.asarray(model(without)) - logits).max() > 1e-2  # texts would see each other


@pytest.mark.slow
@pytest.mark.parametrize("metrics", [[], [keras.metrics.SparseTopKCategoricalAccuracy(k=2)]])
@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "family",
    ["gpt2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("llama", "mistral"))],
)
def test_a_training_step_equals_that_of_the_texts_alone(family, checkpointing, metrics):
    """With and without logits in the step; see `model.vocabulary_loss`."""
    results = []
    for rows in (encoded(TEXTS), packed(encoded(TEXTS), LENGTH)):
        model = loaded(family, gradient_checkpointing=checkpointing)
        with quiet():
            loss = ft.presets.LOSSES["classes"]()
            model.compile(keras.optimizers.SGD(1.0), loss, metrics=metrics)
        before = [np.array(v) for v in model.trainable_variables]
        loss, *_ = np.ravel(model.train_on_batch(*batch_of(rows)))
        steps = [
            old - np.array(v) for old, v in zip(before, model.trainable_variables, strict=True)
        ]
        results.append((loss, np.concatenate([step.ravel() for step in steps])))
    (loss, gradient), (packed_loss, packed_gradient) = results
    np.testing.assert_allclose(packed_loss, loss, rtol=1e-6)
    assert np.linalg.norm(packed_gradient - gradient) < 1e-5 * np.linalg.norm(gradient)


def test_batches_of_packed_rows(tiny_decoder):
    with quiet():
        model = ft.load(tiny_decoder)
    texts = ["a very good film", "the actor was great", "a fine story", "a bad film"]
    examples = ft.data.from_arrays(texts)
    batches = examples.batches(model, batch_size=8, max_length=8, packing=True)
    inputs, targets = next(batches.as_numpy_iterator())
    np.testing.assert_array_equal(
        inputs["position_ids"], [[0, 1, 2, 3, 0, 1, 2, 3], [0, 1, 2, 0, 1, 2, 0, 0]]
    )
    np.testing.assert_array_equal(inputs["attention_mask"], [[1] * 8, [1] * 6 + [0, 0]])
    ids = inputs["input_ids"]
    np.testing.assert_array_equal(targets[0, :3], ids[0, 1:4])
    np.testing.assert_array_equal(targets[:, [3, 7]], [[IGNORED] * 2, [ids[1, 4], IGNORED]])


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
def test_bfloat16_and_xla(tiny_decoder):
    """A packed row and its texts in one compiled graph with fixed shapes."""
    inputs, targets = batch_of(packed(encoded(TEXTS), LENGTH))
    expected = loaded("llama")(inputs)
    half = loaded("llama", dtype="mixed_bfloat16")(inputs)
    np.testing.assert_allclose(half, expected, atol=0.05 * np.abs(expected).max())
    model = loaded("llama")
    with quiet():
        model.compile(loss=ft.presets.LOSSES["classes"](), jit_compile=True)
    np.testing.assert_allclose(model.predict(inputs, verbose=0), expected, rtol=1e-4, atol=1e-5)


def test_first_fit_uses_the_first_row_with_room():
    assert first_fit([], 4) == []
    assert first_fit([4, 1, 3, 2, 2, 1], 4) == [[0], [1, 2], [3, 4], [5]]
    lengths = RANDOM.integers(1, 60, 500)
    rows = first_fit(lengths, 64)
    assert sorted(item for row in rows for item in row) == list(range(500))
    assert max(sum(lengths[row]) for row in rows) <= 64
    assert len(rows) < 1.1 * sum(lengths) / 64


def test_what_is_refused(tiny_decoder, tiny_bert):
    with quiet():
        model = ft.load(tiny_decoder)
        bert = ft.load(tiny_bert, labels=["bad", "good"])
        classifier = ft.load(tiny_decoder, labels=["bad", "good"])
    prompts = ft.data.from_arrays(prompt=["a very"])
    with pytest.raises(DataError, match="packing=True is for training, but arrays has prompts"):
        prompts.batches(model, batch_size=1, packing=True)
    ids = np.array([[4, 5, 6]])
    for other in (bert, classifier):
        with pytest.raises(ModelError, match="unknown: position_ids"):
            other({"input_ids": ids, "position_ids": ids * 0})
    with pytest.raises(ModelError, match="position_ids must be positions of tokens in their text"):
        model({"input_ids": ids, "position_ids": np.array([[0, 1, 24]])})
    with quiet():
        ft.train_only(model, ft.select.blocks(-1))
        upper = ft.cache_features(model)
    with pytest.raises(DataError, match="Features of packed rows are not cached"):
        ft.data.from_arrays(["a film"]).batches(upper, batch_size=1, packing=True)
