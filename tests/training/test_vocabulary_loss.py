"""The loss of language models without logits equals the loss that is computed from logits."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import finetune_tf as ft
from finetune_tf import kernels
from finetune_tf.kernels import tensorflow_vocabulary, vocabulary
from finetune_tf.messages import quiet
from finetune_tf.tasks import IGNORED, TASKS
from finetune_tf.training.classification import Accuracy

REFERENCES = Path(__file__).parents[1] / "references"
FAMILIES = {"gpt2": "not tied", "llama": "tied", "mistral": "not tied"}
IDS = np.random.default_rng(0).integers(4, 23, (3, 11)).astype("int32")
TEXTS = ["a very good film", "the actor was great", "a fine story", "a bad film"]


def loaded(family: str = "llama", dtype: str = "float32") -> keras.Model:
    with quiet():
        return ft.load(
            REFERENCES / family / "text-generation", "text-generation", dropout=0.0, dtype=dtype
        )


def next_tokens() -> np.ndarray:
    """Targets, some of which are ignored."""
    targets = np.concatenate([IDS[:, 1:], np.full((3, 1), IGNORED)], axis=1)
    targets[0, :4] = targets[2, 7:] = IGNORED
    return targets


def compiled(model: keras.Model, **options: object) -> keras.Model:
    """With stochastic gradient descent at a rate of 1, so that a step subtracts the gradients."""
    with quiet():
        model.compile(keras.optimizers.SGD(1.0), ft.presets.LOSSES["classes"](), **options)
    return model


def step(model: keras.Model, weights: np.ndarray | None = None) -> tuple[list, list[np.ndarray]]:
    """The results of one training step, and the gradients by which it changed the variables."""
    before = [np.array(v) for v in model.trainable_variables]
    results = model.train_on_batch({"input_ids": IDS}, next_tokens(), sample_weight=weights)
    after = [np.array(v) for v in model.trainable_variables]
    return results, [old - new for old, new in zip(before, after, strict=True)]


def from_logits(model: keras.Model, weights: np.ndarray | None = None) -> tuple[float, list]:
    """The loss and its gradients, computed from the logits of all tokens."""
    with tf.GradientTape() as tape:
        logits = model({"input_ids": IDS}, training=True)
        weights = None if weights is None else np.broadcast_to(weights[:, None], IDS.shape)
        loss = ft.presets.LOSSES["classes"]()(next_tokens(), logits, weights)
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    return float(loss), [np.asarray(tf.convert_to_tensor(gradient)) for gradient in gradients]


def relative_error(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    found, expected = (
        np.concatenate([each.ravel() for each in arrays]) for arrays in (found, expected)
    )
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.fixture
def calls(monkeypatch):
    """How often the loss was computed without logits."""
    found = []

    def counted(name: str):
        function = getattr(kernels, name)

        def call(*args: object, **kwargs: object) -> object:
            found.append(name)
            return function(*args, **kwargs)

        return call

    for name in ("weighted_cross_entropy", "token_scores"):
        monkeypatch.setattr(kernels, name, counted(name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("weights", [None, np.array([0.5, 2.0, 0.0], "float32")])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_equal_those_of_logits(family, weights, run_eagerly, calls):
    model = loaded(family)
    assert model.config.get("tie_word_embeddings") is (FAMILIES[family] == "tied")
    loss, gradients = from_logits(model, weights)
    found_loss, found = step(compiled(model, run_eagerly=run_eagerly), weights)
    assert set(calls) == {"weighted_cross_entropy"}
    np.testing.assert_allclose(found_loss, loss, rtol=1e-6)
    assert relative_error(found, gradients) < 1e-6


@pytest.mark.slow
def test_weights_for_each_token_and_for_each_class(calls):
    model, of_tokens = loaded(), np.random.default_rng(1).random(IDS.shape).astype("float32")
    logits, targets = np.asarray(model({"input_ids": IDS})), next_tokens()
    loss = ft.presets.LOSSES["classes"]()
    expected = float(loss(targets, logits, of_tokens))
    with quiet():
        compiled(model, weighted_metrics=["accuracy"])
    found = model.test_on_batch({"input_ids": IDS}, targets, sample_weight=of_tokens)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
    double = np.where(targets == 9, 2.0, 1.0)
    found = model.evaluate(
        {"input_ids": IDS}, targets, class_weight={9: 2.0}, verbose=0, return_dict=True
    )
    np.testing.assert_allclose(found["loss"], float(loss(targets, logits, double)), rtol=1e-6)
    accuracy = Accuracy()
    accuracy.update_state(targets, logits, double)
    assert found["accuracy"] == pytest.approx(float(accuracy.result()))
    assert set(calls) == {"token_scores"}


@pytest.mark.slow
def test_accuracy_and_loss_of_a_fit(tiny_decoder, monkeypatch):
    """Whole fits with validation: equal histories with and without logits."""
    from finetune_tf.model import vocabulary_loss

    def history() -> dict[str, list[float]]:
        with quiet():
            model = ft.load(tiny_decoder)
            train = ft.data.from_arrays(prompt=TEXTS, completion=TEXTS[::-1])
            compiled(model, metrics=[Accuracy()])
            batches = train.batches(model, batch_size=3)
            return model.fit(batches, validation_data=batches, epochs=2, verbose=0).history

    found = history()
    monkeypatch.setattr(vocabulary_loss, "_needs_only_the_loss", lambda model: False)
    expected = history()
    assert list(found) == list(expected) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_half_precision(family, dtype, calls, monkeypatch):
    """The rounding errors of half precision are no larger than those of logits.

    They are compared over several batches, because those of one batch can be small by chance.
    """
    wide, model = loaded(family), loaded(family, dtype)
    compiled(model)
    weights, errors = model.get_weights(), []
    for seed in range(8):
        ids = np.random.default_rng(seed).integers(4, 23, IDS.shape).astype("int32")
        monkeypatch.setattr(sys.modules[__name__], "IDS", ids)
        exact_loss, exact = from_logits(wide)
        loss, gradients = from_logits(model)
        found_loss, found = step(model)
        model.set_weights(weights)
        of_gradients = [relative_error(gradients, exact), relative_error(found, exact)]
        errors.append([loss - exact_loss, found_loss - exact_loss, *of_gradients])
    assert calls
    of_logits, without, gradients_of_logits, gradients_without = np.sqrt(
        np.mean(np.square(errors), axis=0)
    )
    assert without < 1.5 * of_logits
    assert gradients_without < 1.2 * gradients_of_logits


@pytest.mark.slow
def test_frozen_parts_get_no_gradients(calls):
    for choose in (ft.select.head(), ft.select.blocks(-1), ft.select.embeddings()):
        model = loaded("mistral")
        with quiet():
            ft.train_only(model, choose)
        loss, gradients = from_logits(model)
        found_loss, found = step(compiled(model))
        np.testing.assert_allclose(found_loss, loss, rtol=1e-6)
        assert relative_error(found, gradients) < 1e-6
    assert len(calls) == 3


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["head", "last block"])
def test_models_on_cached_features(kept, tiny_decoder, calls):
    with quiet():
        model = loaded("mistral")
        choose = ft.select.head()
        ft.train_only(model, choose if kept == "head" else choose | ft.select.blocks(-1))
        _, expected = from_logits(model)
        upper = compiled(ft.cache_features(model))
        trunk = upper._origin.trunk
        full = model._complete_inputs({"input_ids": IDS})
        cached = dict(trunk({tensor.name: full[tensor.name] for tensor in trunk.inputs}))
        inputs = {t.name: cached.get(t.name, full.get(t.name)) for t in upper.inputs}
        before = [np.array(v) for v in upper.trainable_variables]
        upper.train_on_batch(inputs, next_tokens())
    found = [old - np.array(v) for old, v in zip(before, upper.trainable_variables, strict=True)]
    assert calls == ["weighted_cross_entropy"]
    assert relative_error(found, expected) < 1e-6


@pytest.mark.slow
def test_gradient_checkpointing(calls):
    with quiet():
        model = ft.load(
            REFERENCES / "llama/text-generation",
            "text-generation",
            dropout=0.0,
            gradient_checkpointing=True,
        )
    _, expected = from_logits(loaded())
    _, found = step(compiled(model))
    assert calls and relative_error(found, expected) < 1e-6


@pytest.mark.slow
def test_a_saved_model_goes_on_without_logits(tmp_path, calls):
    model = compiled(loaded())
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    expected, found = step(model), step(again)
    assert len(calls) == 2
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)


class Doubled(ft.FineTuneModel):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        assert y_pred.shape[-1] == 23  # logits
        return 2.0 * super().compute_loss(x, y, y_pred, sample_weight, training)


def test_an_evaluation_without_logits(tiny_decoder, calls):
    from finetune_tf.tasks.token_scores import token_scores

    with quiet():
        model = ft.load(tiny_decoder)
        test = ft.data.from_arrays(TEXTS)
        metrics = ft.evaluate(model, test).metrics
    assert set(calls) == {"token_scores"}
    inputs, targets = next(iter(test.batches(model, batch_size=len(TEXTS))))
    losses, hits = np.moveaxis(np.asarray(token_scores(model(inputs), targets)), -1, 0)
    count = np.sum(targets != IGNORED)
    assert metrics["perplexity"] == pytest.approx(np.exp(losses.sum() / count), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(hits.sum() / count)


@pytest.mark.slow
def test_what_needs_logits_gets_them(calls):
    """Other losses, metrics and models, and compilation by XLA."""
    loss = ft.presets.LOSSES["classes"]()
    expected, _ = from_logits(loaded())
    smoothed = ft.presets.cross_entropy(label_smoothing=0.1)["loss"]
    top = keras.metrics.SparseTopKCategoricalAccuracy(k=2)
    for options, factor in (
        ({"loss": loss, "metrics": [top]}, 1.0),
        ({"loss": loss, "weighted_metrics": [top]}, 1.0),
        ({"loss": loss, "jit_compile": True}, 1.0),
        ({"loss": loss, "loss_weights": 3.0}, 3.0),
        ({"loss": lambda y, logits: keras.ops.mean(logits)}, None),
        ({"loss": smoothed}, None),
    ):
        with quiet():
            model = loaded()
            model.compile(keras.optimizers.SGD(1.0), **options)
            found = np.ravel(model.train_on_batch({"input_ids": IDS}, next_tokens()))[0]
        if factor is not None:
            np.testing.assert_allclose(found, factor * expected, rtol=1e-5)
    model = loaded()
    own = Doubled.from_config(model.get_config())
    own.set_weights(model.get_weights())
    np.testing.assert_allclose(step(compiled(own))[0], 2 * expected, rtol=1e-6)
    assert not calls


@pytest.mark.slow
def test_a_resized_vocabulary(tiny_decoder, calls):
    with quiet():
        model = ft.load(tiny_decoder)
        ids = {"input_ids": np.array([[4, 5]])}
        assert model.predict(ids, verbose=0).shape[-1] == len(model.tokenizer)
        model.tokenizer.add_tokens(["podcast"])
        model.resize_token_embeddings(len(model.tokenizer))
        compiled(model)
        new = np.array([[len(model.tokenizer) - 1, IGNORED]])
        logits = np.asarray(model(ids))
        assert model.output_shape == (None, None, len(model.tokenizer)) and logits.shape == (
            1,
            2,
            21,
        )
        expected = float(ft.presets.LOSSES["classes"]()(new, logits))
        found = model.train_on_batch(ids, new)
    assert calls
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_batch_without_targets_has_the_loss_zero():
    model = compiled(loaded())
    found = model.train_on_batch({"input_ids": IDS}, np.full(IDS.shape, IGNORED))
    assert float(found) == 0.0


@pytest.mark.parametrize("by_row", [True, False])
def test_the_kernel_in_chunks(by_row):
    """More tokens than fit into a chunk; tokens without targets contribute nothing."""
    random = np.random.default_rng(0)
    hidden = tf.constant(random.normal(size=(600, 8)))
    table = tf.constant(random.normal(size=(40, 8) if by_row else (8, 40)))
    targets = np.where(random.random(600) < 0.2, IGNORED, random.integers(0, 40, 600))
    given = (tf.constant(targets.astype("int32")), tf.constant(random.random(600), "float32"))
    results = []
    for module in (vocabulary, tensorflow_vocabulary):
        with tf.GradientTape() as tape:
            tape.watch([hidden, table])
            total, scores = module.weighted_cross_entropy(hidden, table, *given, by_row)
            loss = tf.cast(total, "float64") / 7
        results.append([total, scores, *tape.gradient(loss, [hidden, table])])
        np.testing.assert_allclose(
            module.token_scores(hidden, table, given[0], by_row), scores, rtol=1e-6
        )
    for found, expected in zip(*results, strict=True):
        assert relative_error([found.numpy()], [expected.numpy()]) < 1e-6


def test_no_task_other_than_language_models_is_affected():
    from finetune_tf.model.vocabulary_loss import output_layer

    for task in ("text-classification", "fill-mask"):
        assert task in TASKS
        with quiet():
            assert output_layer(ft.load(REFERENCES / "bert" / task, task)) is None
