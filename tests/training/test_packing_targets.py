"""Packed rows of texts with numbers as targets: empty places never count."""

import keras
import numpy as np
import pytest
from helpers_packing import (
    CONVOLVED,
    ENCODERS,
    TEXTS,
    WITH_EMPTY,
    batch_of,
    check_step,
    in_places,
    loaded,
    of_families,
)

import finetune_tf as ft
from finetune_tf.errors import DataError, ModelError
from finetune_tf.messages import quiet

L, M = keras.losses, keras.metrics
pytestmark = pytest.mark.jax
SEVERAL = {
    "labels": ["a", "b", "c"], "problem_type": "multi_label_classification", "new_head": True
}  # fmt: skip
NUMBER = {"labels": ["stars"], "problem_type": "regression", "new_head": True}
KINDS = {"several labels": SEVERAL, "number": NUMBER}
WEIGHTS = np.array([1.0, 3.0, 0.0, 0.5, 2.0, 4.0], "float32")


def measured(kind, packing, loss=None, metrics=(), weights=None, **options):
    """What `test_on_batch` returns for the texts, padded or packed."""
    model = loaded("bert", "text-classification", **KINDS[kind])
    with quiet():
        if loss is None and not metrics:
            model.compile(keras.optimizers.SGD(0.0))
        else:
            given = {"metrics": [m() for m in metrics], "weighted_metrics": [m() for m in metrics]}
            model.compile(keras.optimizers.SGD(0.0), loss, **given)
    inputs, targets = batch_of(model, packing)
    if packing and weights is not None:
        weights = in_places(weights, 9.0)  # that of an empty place does not matter
    return model.test_on_batch(inputs, targets, weights, return_dict=True, **options)


def assert_equal(kind, **options):
    """The same losses and metrics with and without packing."""
    padded, packed = (measured(kind, packing, **options) for packing in (False, WITH_EMPTY))
    assert len(packed) == len(padded)  # Keras numbers the names of metrics of one class
    for (name, value), found in zip(padded.items(), packed.values(), strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5, err_msg=name)
    return padded


@pytest.mark.parametrize("kind", KINDS)
def test_empty_places_have_no_target(kind):
    model = loaded("bert", "text-classification", **KINDS[kind])
    (_, padded), (inputs, targets) = batch_of(model, False), batch_of(model, WITH_EMPTY)
    assert (inputs["text_starts"] == -1).sum() == 3
    np.testing.assert_array_equal(targets, in_places(padded, np.nan))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", of_families([n for n in ENCODERS if n not in CONVOLVED]))
def test_a_step_equals_that_of_padded_rows(family, kind):
    check_step(family, "text-classification", WITH_EMPTY, **KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_metrics_of_the_preset(kind):
    assert len(assert_equal(kind)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_sample_weights(kind):
    plain, weighted = measured(kind, False), assert_equal(kind, weights=WEIGHTS)
    assert abs(plain["loss"] - weighted["loss"]) > 1e-3


@pytest.mark.slow
def test_class_weights():
    """With several labels, and of one output that says yes or no."""
    plain = assert_equal("several labels")
    options = {"class_weight": {"a": 5.0, "c": 0.0}}
    for weights in (None, WEIGHTS):
        weighted = assert_equal("several labels", weights=weights, **options)
        assert abs(plain["loss"] - weighted["loss"]) > 1e-3
    yes_no = {"loss": L.BinaryCrossentropy(from_logits=True), "class_weight": {0: 1.0, 1: 9.0}}
    assert_equal("number", **yes_no)
    assert_equal("number", weights=WEIGHTS, **yes_no)


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["sum", "mean", "mean_with_sample_weight"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_reductions(weights, reduction):
    assert_equal("number", loss=L.Huber(reduction=reduction), weights=weights)
    loss = L.BinaryFocalCrossentropy(from_logits=True, reduction=reduction)
    assert_equal("several labels", loss=loss, weights=weights)


@pytest.mark.slow
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_metrics(weights):
    numbers = [
        M.MeanSquaredError,
        M.RootMeanSquaredError,
        M.R2Score,
        M.LogCoshError,
        M.MeanAbsolutePercentageError,
    ]
    assert_equal("number", loss="mse", metrics=numbers, weights=weights)
    decisions = [
        M.BinaryAccuracy,
        M.BinaryCrossentropy,
        M.AUC,
        M.Precision,
        M.Recall,
        M.FalsePositives,
        lambda: M.AUC(multi_label=True, num_labels=3, name="by_label"),
        lambda: M.F1Score(threshold=0.5),
        M.Hinge,
    ]
    assert_equal("several labels", metrics=decisions, loss="bce", weights=weights)
    yes_no = [M.BinaryAccuracy, M.AUC, M.Recall]
    loss = L.BinaryCrossentropy(from_logits=True)
    assert_equal("number", metrics=yes_no, loss=loss, weights=weights)


@pytest.mark.slow
@pytest.mark.needs_tensorflow("these metrics of Keras ask JAX for 64 bits, which warns")
def test_areas_of_overlap():
    """These metrics count in integers, the entries of all rows."""
    found = []
    for packing in (False, WITH_EMPTY):
        model = loaded("bert", "text-classification", **SEVERAL)
        metrics = [
            M.BinaryIoU(target_class_ids=[0, 1], threshold=0.5),
            M.MeanIoU(2),
            M.OneHotIoU(3, target_class_ids=[0, 1]),
        ]
        with quiet():
            model.compile(keras.optimizers.SGD(0.0), "bce", metrics)
        found.append(model.test_on_batch(*batch_of(model, packing)))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


def test_a_number_of_minus_100_is_a_number():
    model = loaded("bert", "text-classification", **NUMBER)
    with quiet():
        model.compile(keras.optimizers.SGD(0.0), "mae")
    inputs, targets = batch_of(model, WITH_EMPTY)
    targets = np.where(np.isnan(targets), targets, -100.0).astype("float32")
    logits = np.asarray(model(inputs))[:, 0]
    expected = np.abs(logits + 100)[~np.isnan(targets)].mean()
    assert model.test_on_batch(inputs, targets) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_a_fit_and_an_evaluation(tiny_bert):
    """Several batches, with what depends on the rows of each of them in `metrics`."""
    words = ["dull", "fine", "good"]
    texts = [f"a {'very ' * (i % 7)}{words[i % 3]} film" for i in range(60)]
    examples = ft.data.from_arrays(texts, [i % 3 + 0.5 for i in range(60)])
    with quiet():
        model = ft.load(tiny_bert, labels=examples.labels, dropout=0.0)
        model.compile(keras.optimizers.SGD(0.05), "mse", metrics=["mae", "r2_score"])
        packed = examples.batches(model, 16, packing=24)
        padded = examples.batches(model, 60, buckets=1)
    found, expected = (
        model.evaluate(batches, verbose=0, return_dict=True) for batches in (packed, padded)
    )
    for name in ("loss", "mae", "r2_score"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5)
    history = model.fit(packed, epochs=8, validation_data=padded, verbose=0).history
    assert history["val_mae"][-1] < 0.9 * expected["mae"]


@pytest.mark.slow
def test_measures_see_texts_alone(tiny_bert):
    texts = ["a " * (1 + i % 5) + "film" for i in range(10)]
    examples = ft.data.from_arrays(texts, [i + 0.5 for i in range(10)])
    with quiet():
        model = ft.load(tiny_bert, labels=examples.labels)
        model.compile()
    seen = []

    def note(logits, targets):
        seen.append((logits.shape, sorted(targets.tolist())))
        return {}

    with quiet():
        measure = ft.callbacks.Measure(note, examples.batches(model, 5, packing=14))
        model.fit(examples.batches(model, 5), callbacks=[measure], verbose=0)
    assert seen == [((10, 1), [i + 0.5 for i in range(10)])]


class TestRefusals:
    """What may count empty places is an error, and no wrong number."""

    def test_losses_of_ones_own(self):
        def largest(targets, outputs):
            return keras.ops.max(keras.ops.abs(targets - outputs))

        model = loaded("bert", "text-classification", **NUMBER)
        with quiet():
            model.compile(keras.optimizers.SGD(0.0), largest)
        with pytest.raises(ModelError, match="loss 'largest' is not known to leave out the empty"):
            model.train_on_batch(*batch_of(model, WITH_EMPTY))

    @pytest.mark.slow
    def test_metrics_of_ones_own(self):
        def largest(targets, outputs):
            return keras.ops.abs(targets - outputs)

        for given in ({"metrics": [largest]}, {"weighted_metrics": [largest]}):
            model = loaded("bert", "text-classification", **NUMBER)
            with quiet():
                model.compile(keras.optimizers.SGD(0.0), "mse", **given)
            with pytest.raises(ModelError, match="metric 'largest' is not known to leave out"):
                model.train_on_batch(*batch_of(model, WITH_EMPTY))

    def test_targets_that_are_missing(self):
        model = loaded("bert", "text-classification", **NUMBER)
        inputs, targets = batch_of(model, WITH_EMPTY)
        wrong = np.append(np.float32(np.nan), targets[1:])
        with pytest.raises(DataError, match="Targets must be finite numbers, found nan"):
            model.train_on_batch(inputs, wrong)
        model = loaded("bert", "text-classification", **SEVERAL)
        inputs, targets = batch_of(model, WITH_EMPTY)
        with pytest.raises(DataError, match="between 0 and 1, one for each label, found 2"):
            model.train_on_batch(inputs, targets + 1)

    def test_one_target_for_each_text_and_not_for_each_place(self):
        model = loaded("bert", "text-classification", **NUMBER)
        inputs, _ = batch_of(model, WITH_EMPTY)
        with pytest.raises(DataError, match="have 9 places for targets, found 6 targets"):
            model.train_on_batch(inputs, np.ones(len(TEXTS), "float32"))
