"""Metrics in all forms that Keras accepts have correct values for each task."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers_tasks import CASES, VOCABULARY, rows_for, small_task_model
from sklearn import metrics as sklearn_metrics

import finetune_tf as ft
from finetune_tf import messages
from finetune_tf.errors import ModelError
from finetune_tf.training.metrics import OnLogits

M = keras.metrics


def compiled(case, metrics, loss=None, **kwargs):
    model = small_task_model(case)
    with messages.quiet():
        model.compile(keras.optimizers.SGD(0.0), loss, metrics, run_eagerly=True, **kwargs)
    return model


def measured(case, metrics, loss=None, targets=None, weights=None, **kwargs):
    """Results of `evaluate`, with the counted logits (n, classes) and targets (n, …)."""
    model = compiled(case, metrics, loss, **kwargs)
    ids, given = rows_for(case)
    given = given if targets is None else targets
    found = model.evaluate(ids, given, sample_weight=weights, verbose=0, return_dict=True)
    logits = np.asarray(model(ids), "float64")
    if case in ("one label", "two labels", "tokens", "words", "answers"):
        logits, given = logits.reshape(-1, logits.shape[-1]), np.ravel(given)
        logits, given = logits[given != -100], given[given != -100]
    return found, logits, given


def softmax(logits):
    exponents = np.exp(logits - logits.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


FORMS = {
    "list": lambda: ["accuracy"],
    "text": lambda: "accuracy",
    "tuple": lambda: ("acc",),
    "nested": lambda: [["accuracy"]],
    "by output": lambda: {"classifier": "accuracy"},
    "by output, nested": lambda: {"classifier": ["Accuracy"]},
}


class TestAccuracy:
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("case", ["one label", "two labels", "tokens", "words", "answers"])
    def test_of_the_targets_that_count(self, case, form):
        found, logits, targets = measured(case, FORMS[form]())
        found.pop("loss")
        assert list(found.values()) == pytest.approx([(logits.argmax(-1) == targets).mean()])

    def test_of_tokens_that_are_all_right_is_one(self):
        model = compiled("tokens", ["accuracy"])
        ids, targets = rows_for("tokens")
        right = np.where(targets == -100, -100, np.asarray(model(ids)).argmax(-1))
        assert model.evaluate(ids, right, verbose=0, return_dict=True)["accuracy"] == 1.0

    @pytest.mark.parametrize("form", FORMS)
    def test_of_several_labels_counts_from_the_probability_one_half(self, form):
        found, logits, targets = measured("several labels", FORMS[form]())
        found.pop("loss")
        assert list(found.values()) == pytest.approx([((logits >= 0) == targets).mean()])

    @pytest.mark.parametrize(
        "metric",
        ["accuracy", "binary_accuracy", "BinaryAccuracy", M.BinaryAccuracy, M.binary_accuracy],
    )
    def test_of_one_output_that_says_yes_or_no(self, metric):
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        answers = np.array([0, 1, 1, 0])
        found, logits, _ = measured("number", [metric], loss, targets=answers)
        found.pop("loss")
        assert list(found.values()) == pytest.approx([((logits[:, 0] > 0) == answers).mean()])

    def test_of_rows_of_0_and_1(self):
        model = compiled("one label", ["accuracy"], "categorical_crossentropy")
        ids, targets = rows_for("one label")
        found = model.evaluate(ids, np.eye(3)[targets], verbose=0, return_dict=True)
        logits = np.asarray(model(ids))
        assert found["accuracy"] == pytest.approx((logits.argmax(-1) == targets).mean())

    def test_weighted_by_text(self):
        weights = np.array([2.0, 0.0, 0.5, 3.0])
        for case in ("one label", "tokens", "several labels"):
            found, _, _ = measured(case, ["acc"], weights=weights, weighted_metrics=["accuracy"])
            model, (ids, targets) = small_task_model(case), rows_for(case)
            logits = np.asarray(model(ids))
            right = (
                (logits >= 0) == targets
                if case == "several labels"
                else logits.argmax(-1) == targets
            )
            counted = targets != -100
            each = weights.reshape(-1, *(1,) * (right.ndim - 1)) * counted
            assert found["accuracy"] == pytest.approx((right * each).sum() / each.sum())
            assert found["acc"] == pytest.approx(right[counted].mean())


def log_loss(rows, chances):
    return -(rows * np.log(chances)).sum(-1).mean()


def yes_no(targets, chances):
    """The expected values of the binary metrics, from targets and probabilities."""
    said = chances > 0.5
    return {
        "binary_accuracy": (said == targets).mean(),
        "precision": sklearn_metrics.precision_score(targets, said, zero_division=0),
        "recall": sklearn_metrics.recall_score(targets, said),
        "true_positives": (said & (targets > 0)).sum(),
        "false_negatives": (~said & (targets > 0)).sum(),
        "auc": sklearn_metrics.roc_auc_score(targets, chances),
        "binary_crossentropy": sklearn_metrics.log_loss(targets, chances, labels=[0, 1]),
    }


YES_NO = [
    *("binary_accuracy", "precision", "recall", "true_positives", "false_negatives", "auc"),
    "binary_crossentropy",
]


def objects():
    return [
        *(M.BinaryAccuracy(), M.Precision(), M.Recall(), M.TruePositives(), M.FalseNegatives()),
        *(M.AUC(num_thresholds=2000), M.BinaryCrossentropy()),
    ]


def on_logits():
    return [
        *(M.BinaryAccuracy(threshold=0.0), M.Precision(thresholds=0), M.Recall(thresholds=[0.0])),
        *(M.TruePositives(thresholds=0), M.FalseNegatives(thresholds=0.0)),
        *(M.AUC(num_thresholds=2000, from_logits=True), M.BinaryCrossentropy(from_logits=True)),
    ]


ALIKE = pytest.mark.parametrize(
    "make", [lambda: YES_NO, objects, on_logits], ids=["names", "objects", "logits"]
)


def values(found):
    return {re.sub(r"_\d+$", "", name): float(value) for name, value in found.items()}


class TestProbabilities:
    @ALIKE
    def test_of_two_classes_are_those_of_the_second(self, make):
        found, logits, targets = measured("two labels", make())
        expected = yes_no(targets, softmax(logits)[:, 1])
        assert {n: v for n, v in values(found).items() if n != "loss"} == pytest.approx(
            expected, abs=1e-3
        )

    @ALIKE
    def test_of_several_labels_are_sigmoids(self, make):
        found, logits, targets = measured("several labels", make())
        expected = yes_no(targets.ravel(), sigmoid(logits).ravel())
        assert {n: v for n, v in values(found).items() if n != "loss"} == pytest.approx(
            expected, abs=1e-3
        )

    @ALIKE
    def test_of_one_output(self, make):
        answers = np.array([0, 1, 1, 0])
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        found, logits, _ = measured("number", make(), loss, targets=answers)
        expected = yes_no(answers, sigmoid(logits[:, 0]))
        assert {n: v for n, v in values(found).items() if n != "loss"} == pytest.approx(
            expected, abs=1e-3
        )

    @pytest.mark.parametrize("case", ["one label", "tokens"])
    def test_of_several_classes_are_softmaxes(self, case):
        given = [
            M.SparseCategoricalAccuracy(name="sparse"),
            M.SparseTopKCategoricalAccuracy(k=2, name="top"),
            M.SparseCategoricalCrossentropy(name="loss_of_numbers"),
            M.SparseCategoricalCrossentropy(from_logits=True, name="loss_of_logits"),
            M.CategoricalAccuracy(name="rows"),
            M.CategoricalCrossentropy(name="loss_of_rows"),
            M.TopKCategoricalAccuracy(k=2, name="top_of_rows"),
            M.F1Score(average="macro", name="f1"),
            M.Precision(class_id=1, name="precision_1"),
            M.Recall(class_id=1, name="recall_1"),
            M.Recall(top_k=1, name="recall_top"),
            M.AUC(num_thresholds=2000, multi_label=True, name="auc"),
            M.Accuracy(name="decisions"),
            M.MeanIoU(num_classes=3, name="iou"),
        ]
        found, logits, targets = measured(case, given)
        chances, best = softmax(logits), logits.argmax(-1)
        rows = np.eye(3)[targets]
        right = (best == targets).mean()
        top = (np.argsort(logits, -1)[:, -2:] == targets[:, None]).any(-1).mean()
        share = log_loss(rows, chances)
        f1 = sklearn_metrics.f1_score(
            targets, best, average="macro", zero_division=0, labels=range(3)
        )
        said = chances[:, 1] > 0.5
        confusion = sklearn_metrics.confusion_matrix(targets, best, labels=range(3))
        union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
        expected = {
            **{name: right for name in ("sparse", "rows", "recall_top", "decisions")},
            **{"top": top, "top_of_rows": top, "f1": f1},
            **{name: share for name in ("loss_of_numbers", "loss_of_logits", "loss_of_rows")},
            "precision_1": sklearn_metrics.precision_score(targets == 1, said, zero_division=0),
            "recall_1": sklearn_metrics.recall_score(targets == 1, said),
            "auc": sklearn_metrics.roc_auc_score(rows, chances, average="macro"),
            "iou": (np.diag(confusion) / np.maximum(union, 1))[union > 0].mean(),
        }
        found.pop("loss")
        assert {n: float(v) for n, v in found.items()} == pytest.approx(expected, abs=2e-3)

    def test_the_f1_score_of_several_labels(self):
        found, logits, targets = measured("several labels", ["f1_score"])
        expected = sklearn_metrics.f1_score(targets, logits > 0, average=None, zero_division=0)
        np.testing.assert_allclose(found["f1_score"], expected, atol=1e-5)
        with pytest.warns(UserWarning, match=r"F1Score without a threshold.* Write threshold=0\.5"):
            compiled("several labels", [M.F1Score()])
        found, *_ = measured("several labels", [M.F1Score(threshold=0.5)])
        np.testing.assert_allclose(found["f1_score"], expected, atol=1e-5)

    def test_words_of_the_vocabulary(self):
        given = [
            "accuracy",
            M.SparseTopKCategoricalAccuracy(k=3),
            "sparse_categorical_crossentropy",
        ]
        found, logits, targets = measured("words", given)
        top = (np.argsort(logits, -1)[:, -3:] == targets[:, None]).any(-1).mean()
        assert found["sparse_top_k_categorical_accuracy"] == pytest.approx(top)
        share = log_loss(np.eye(VOCABULARY)[targets], softmax(logits))
        assert found["sparse_categorical_crossentropy"] == pytest.approx(share, rel=1e-5)

    def test_a_config_a_class_and_a_function(self):
        for metric in (
            {"class_name": "Precision", "config": {"name": "precision"}},
            M.Precision,
            "Precision",
        ):
            found, logits, targets = measured("two labels", [metric])
            expected = yes_no(targets, softmax(logits)[:, 1])["precision"]
            found.pop("loss")
            assert list(found.values()) == pytest.approx([expected])
        found, logits, targets = measured("tokens", [M.sparse_categorical_accuracy])
        right = (logits.argmax(-1) == targets).mean()
        assert found["sparse_categorical_accuracy"] == pytest.approx(right)


class TestNumbers:
    def test_are_as_keras_has_them(self):
        found, logits, targets = measured(
            "number", ["mae", "mse", M.RootMeanSquaredError(), "r2_score"]
        )
        errors = logits[:, 0] - targets
        assert found["mae"] == pytest.approx(abs(errors).mean(), rel=1e-5)
        assert found["mse"] == pytest.approx((errors**2).mean(), rel=1e-5)
        assert found["root_mean_squared_error"] == pytest.approx(
            np.sqrt((errors**2).mean()), rel=1e-5
        )
        expected = sklearn_metrics.r2_score(targets, logits[:, 0])
        assert found["r2_score"] == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("case", ["number", "vectors"])
    @pytest.mark.parametrize("metric", ["accuracy", "AUC", M.Precision(), "f1_score", M.Accuracy()])
    def test_have_no_classes(self, case, metric):
        with pytest.raises(
            ModelError, match=r"The metric \w+ does not fit the model, which returns"
        ):
            compiled(case, [metric])


class TestRefused:
    @pytest.mark.parametrize(
        "metric", ["sparse_categorical_accuracy", M.SparseTopKCategoricalAccuracy()]
    )
    @pytest.mark.parametrize("case", ["several labels", "number", "vectors"])
    def test_metrics_of_class_numbers_where_there_are_none(self, case, metric):
        with pytest.raises(ModelError, match="does not fit the model, which returns"):
            compiled(case, [metric])

    @pytest.mark.parametrize("case", ["words", "answers"])
    @pytest.mark.parametrize("metric", [M.F1Score(), "AUC", M.Precision(), "categorical_accuracy"])
    def test_rows_over_a_vocabulary(self, case, metric):
        with pytest.raises(ModelError, match="needs one-hot targets over all classes"):
            compiled(case, [metric])

    def test_unknown_names(self):
        with pytest.raises(ModelError, match="There is no metric 'acurracy'. Leave metrics out"):
            compiled("one label", ["acurracy"])

    @pytest.mark.parametrize("metric", [M.Mean(), M.Sum()])
    def test_what_is_no_metric_of_predictions(self, metric):
        with pytest.raises(ModelError, match="does not compare targets with predictions"):
            compiled("one label", [metric])


def test_somebodys_own_metric_gets_what_the_model_gives(capsys):
    def spread(targets, logits):
        return keras.ops.max(logits, axis=-1) - keras.ops.min(logits, axis=-1)

    model = small_task_model("tokens")
    model.compile(keras.optimizers.SGD(0.0), metrics=[spread], run_eagerly=True)
    said = (
        "compile: metric 'spread' receives logits as the model returns them, with targets of -100 "
    )
    assert said in capsys.readouterr().out
    ids, targets = rows_for("tokens")
    logits = np.asarray(model(ids))
    found = model.evaluate(ids, targets, verbose=0, return_dict=True)["spread"]
    assert found == pytest.approx((logits.max(-1) - logits.min(-1)).mean(), rel=1e-5)


def test_what_a_metric_of_two_classes_is_about_is_said(capsys):
    small_task_model("two labels").compile(metrics=[M.Precision(name="precision")])
    said = "compile: metric 'precision' uses the second label, 'pos', as the positive class."
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("case", ["two labels", "several labels", "tokens"])
def test_saved_and_loaded(case, tmp_path):
    given = [M.AUC(name="auc"), M.F1Score(threshold=0.5, average="micro", name="f1"), "accuracy"]
    model = compiled(case, given, weighted_metrics=["binary_accuracy"])
    ids, targets = rows_for(case)
    expected = model.evaluate(ids, targets, verbose=0, return_dict=True)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.evaluate(ids, targets, verbose=0, return_dict=True) == pytest.approx(expected)
    metric = OnLogits(M.Precision(class_id=1), "softmax", "rows")
    copy = OnLogits.from_config(metric.get_config())
    assert (copy.name, copy.metric.class_id) == (metric.name, 1)


@pytest.mark.slow
def test_in_a_traced_fit_with_weights_of_classes():
    model = small_task_model("tokens")
    model.compile(
        keras.optimizers.SGD(0.0), metrics=[], weighted_metrics=["accuracy", M.Recall(class_id=0)]
    )
    ids, targets = rows_for("tokens")
    found = model.fit(ids, targets, class_weight={"O": 3.0}, verbose=0).history
    logits = np.asarray(model(ids))
    weights = np.where(targets == 0, 3.0, 1.0) * (targets != -100)
    right = (logits.argmax(-1) == targets) * weights
    assert found["accuracy"][0] == pytest.approx(right.sum() / weights.sum(), rel=1e-5)
    assert model.metrics[1].metrics[1].name.startswith("recall")


def test_with_the_old_classes(tiny_bert):
    from finetune_tf.compat import TFBertForSequenceClassification

    model = TFBertForSequenceClassification.from_pretrained(tiny_bert, num_labels=2)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss, ["accuracy", "precision"], run_eagerly=True)
    ids, targets = rows_for("two labels")
    found = model.evaluate(ids, targets, verbose=0, return_dict=True)
    chances = softmax(np.asarray(model(ids).logits, "float64"))
    expected = yes_no(targets, chances[:, 1])
    assert found["precision"] == pytest.approx(expected["precision"], abs=1e-6)
    assert found["accuracy"] == pytest.approx(expected["binary_accuracy"])
    weighted = model.evaluate(ids, targets, class_weight={1: 5.0}, verbose=0, return_dict=True)
    losses = -np.log(np.take_along_axis(chances, targets[:, None], 1)[:, 0])
    assert weighted["loss"] == pytest.approx((losses * np.where(targets, 5, 1)).mean(), rel=1e-5)


def test_the_presets_keep_their_metrics():
    for case in CASES:
        model = small_task_model(case)
        with messages.quiet():
            model.compile(**ft.presets.PRESETS[model.task.output_kind]())
        assert model.compiled


@pytest.mark.parametrize("case", ["two labels", "several labels", "tokens", "number"])
def test_early_stopping_knows_which_way_is_better(case):
    names = {"number": ["mae"]}.get(case, ["accuracy", "binary_crossentropy"])
    if case == "tokens":
        names = ["accuracy"]
    model = compiled(case, names)
    ids, targets = rows_for(case)
    for name in names:
        stop = keras.callbacks.EarlyStopping(name)
        model.fit(ids, targets, verbose=0, callbacks=[stop])
        better, worse = (1.0, 0.0) if name == "accuracy" else (0.0, 1.0)
        assert stop._is_improvement(better, worse) and not stop._is_improvement(worse, better)


def test_a_compile_without_metrics_has_none_of_an_earlier_one():
    model = compiled("one label", ["accuracy"])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    ids, targets = rows_for("one label")
    assert list(model.evaluate(ids, targets, verbose=0, return_dict=True)) == ["loss"]
