"""`ft.interpolation_curve`: mixtures of weights before and after fine-tuning on several tests."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers_images import TINY_VIT, levels
from helpers_models import small_model
from helpers_tasks import small_task_model

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, DataError, DataTypeError, ModelError
from finetune_tf.evaluation import CurvePoint, InterpolationCurve
from finetune_tf.evaluation.bootstrap import Difference
from finetune_tf.messages import quiet

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of")
GOOD = ["a good film", "the good story", "good and long", "a fine good actor", "the film was good"]
BAD = ["a bad film", "the bad story", "bad and long", "a fine bad actor", "the film was bad"]
# The labels of the new reviews are the opposite of those of the old ones.
OLD = ft.data.from_arrays([*GOOD, *BAD], ["yes"] * 5 + ["no"] * 5, name="old reviews")
NEW = ft.data.from_arrays([*BAD, *GOOD], ["yes"] * 5 + ["no"] * 5, name="new reviews")
TESTS = {"old": OLD, "new": NEW}


def fitted(model, examples, steps=20, rate=0.05):
    """The model after a few steps with all examples in one batch."""
    if getattr(model, "optimizer", None) is None:
        model.compile(keras.optimizers.Adam(rate))
    inputs, targets = next(examples.batches(model, len(examples)).as_numpy_iterator())
    for _ in range(steps):
        model.train_on_batch(inputs, targets)
    return model


def copied(model):
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


@pytest.fixture(scope="module")
def pair(tiny_bert):
    """A model that knows the old reviews, and what is left of it after a fit on the new ones."""
    keras.utils.set_random_seed(0)
    with quiet():
        model = fitted(small_model(checkpoint=tiny_bert), OLD)
        before = copied(model)
        return before, fitted(model, NEW)


@pytest.fixture(scope="module")
def curve(pair):
    return ft.interpolation_curve(*pair, TESTS, shares=[0.25, 0.75])


def accuracies(curve, name):
    return [point.metrics["accuracy"] for point in curve.by_name()[name]]


@pytest.mark.slow
def test_it_shows_what_was_learned_and_what_was_forgotten(curve):
    assert [(point.share, point.name) for point in curve.points] == [
        (share, name) for share in (0.0, 0.25, 0.75, 1.0) for name in ("old", "new")
    ]
    old, new = accuracies(curve, "old"), accuracies(curve, "new")
    assert (old[0], old[-1]) == (1.0, 0.0)
    assert (new[0], new[-1]) == (0.0, 1.0)
    assert curve.best("old") == 0.0
    assert new[curve.by_name()["new"].index(point_at(curve, "new", curve.best("new")))] == 1.0


def point_at(curve, name, share):
    return next(point for point in curve.by_name()[name] if point.share == share)


@pytest.mark.slow
def test_points_are_evaluations_of_mixtures(pair, curve):
    before, after = pair
    mixture = ft.interpolate(before, after, 0.25)
    point = point_at(curve, "new", 0.25)
    of_before, of_mixture = ft.compare({"before": before, "mixture": mixture}, NEW).rows
    assert point.metrics == of_mixture.metrics
    assert point.from_before == of_mixture.difference
    assert point_at(curve, "new", 0.0).metrics == of_before.metrics
    of_after, of_mixture = ft.compare({"after": after, "mixture": mixture}, NEW).rows
    assert point.from_after == of_mixture.difference
    assert point_at(curve, "new", 1.0).metrics == of_after.metrics


def test_the_ends_are_the_two_models(curve):
    for name in TESTS:
        first, last = point_at(curve, name, 0.0), point_at(curve, name, 1.0)
        assert first.from_before is None and last.from_after is None
        assert first.from_after.value == -last.from_before.value


class CountedModel(ft.FineTuneModel):
    """Counts how often the model is traced."""

    traces = 0

    def call(self, *args, **kwargs):
        type(self).traces += 1
        return super().call(*args, **kwargs)


@pytest.mark.slow
def test_one_copy_is_traced_once_for_all_shares(pair):
    before, after = pair
    counted = CountedModel.from_config(after.get_config())
    counted.set_weights(after.get_weights())
    CountedModel.traces = 0
    weights = [model.get_weights() for model in (before, counted)]
    curve = ft.interpolation_curve(before, counted, {"new": NEW})
    assert CountedModel.traces == 1
    assert [point.share for point in curve.points] == [i / 10 for i in range(11)]
    for model, earlier in zip((before, counted), weights, strict=True):
        for now, then in zip(model.get_weights(), earlier, strict=True):
            np.testing.assert_array_equal(now, then)


@pytest.mark.slow
def test_jax_does_not_delete_weights_of_the_models(tiny_bert):
    """JAX may delete the arrays that a model ran on, so the copy must not share any."""
    pytest.importorskip("jax")
    script = f"""if True:
        import finetune_tf as ft
        from helpers_models import small_model
        from finetune_tf.messages import quiet
        before, after = (small_model(checkpoint={str(tiny_bert)!r}) for _ in range(2))
        after.set_weights([w + 0.1 for w in after.get_weights()])
        texts = ft.data.from_arrays(["a good film", "a bad film"], ["yes", "no"])
        with quiet():
            curve = ft.interpolation_curve(before, after, {{"texts": texts}}, shares=[0.5])
            middle, end = (ft.interpolate(before, after, share) for share in (0.5, 1))
            ft.evaluate(middle, texts), ft.evaluate(end, texts)
        expected = [(a + b) / 2 for a, b in zip(before.get_weights(), after.get_weights())]
        print(max(abs(a - b).max() for a, b in zip(expected, middle.get_weights())) < 1e-6)
    """
    path = f"{ROOT}{os.pathsep}{ROOT}/tests"
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "True"


@pytest.mark.slow
def test_images_of_other_colors():
    """A small ViT that learns other colors."""
    red, green = (
        ft.data.from_arrays(
            image=[levels(color, seed=seed) for seed in range(4) for color in (warm, "blue")],
            label=["warm", "cold"] * 4,
        )
        for warm in ("red", "green")
    )
    with quiet():
        model = ft.load(TINY_VIT, labels=red.labels, new_head=True)
        before = copied(fitted(model, red, steps=8, rate=0.003))
        after = fitted(model, green, steps=8)
        curve = ft.interpolation_curve(before, after, {"red": red, "green": green}, [0.5])
    assert accuracies(curve, "red")[0] == accuracies(curve, "green")[-1] == 1.0
    assert accuracies(curve, "green")[0] < 1.0


@pytest.mark.slow
@pytest.mark.parametrize("case", ["words", "tokens", "several labels", "number"])
def test_other_tasks(case, tiny_bert):
    texts = GOOD + BAD
    tags = [["B-X"] + ["O"] * (len(text.split()) - 1) for text in texts]
    examples = {
        "words": lambda: ft.data.from_arrays(texts),
        "tokens": lambda: ft.data.from_arrays(tokens=[t.split() for t in texts], tags=tags),
        "several labels": lambda: ft.data.from_arrays(
            texts, [["a"], ["b", "c"]] * 5, problem_type="multi_label_classification"
        ),
        "number": lambda: ft.data.from_arrays(texts, np.arange(10.0).tolist()),
    }[case]()
    before = small_task_model(case, tiny_bert)
    after = copied(before)
    rng = np.random.default_rng(0)
    after.set_weights([w + rng.normal(0, 0.3, w.shape) for w in before.get_weights()])
    curve = ft.interpolation_curve(before, after, {"test": examples}, shares=[0.5])
    models = (before, ft.interpolate(before, after, 0.5), after)
    expected = [ft.evaluate(model, examples).metrics for model in models]
    assert [point.metrics for point in curve.points] == expected


class TestBest:
    """A curve of two test sets: the new one rises up to 0.75, the old one falls from there on."""

    SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
    NEW = (0.5, 0.6, 0.8, 0.9, 0.9)
    OLD = (0.8, 0.8, 0.78, 0.7, 0.6)

    def curve(self, kind="single_label_classification", metric="accuracy"):
        def point(share, name, values):
            change = values[self.SHARES.index(share)] - values[0]
            from_before = Difference(metric, change, change - 0.05, change + 0.05, 2000)
            return CurvePoint(
                share,
                name,
                {metric: values[self.SHARES.index(share)]},
                from_before if share else None,
                None,
            )

        points = [
            point(share, name, values)
            for share in self.SHARES
            for name, values in (("new", self.NEW), ("old", self.OLD))
        ]
        return InterpolationCurve({"new": 100, "old": 100}, None, points, kind, {})

    def test_is_the_smallest_of_equal_shares(self):
        assert self.curve().best("new") == 0.75
        assert self.curve().best("old") == 0.0

    def test_is_not_clearly_worse_elsewhere(self):
        assert self.curve().best("new", keep="old") == 0.5
        assert self.curve().best("new", keep=["old", "new"]) == 0.5

    def test_lower_may_be_better(self):
        curve = self.curve("fill-mask", "perplexity")
        assert curve.best("new") == 0.0
        assert curve.best("old") == 1.0
        assert curve.best("old", keep="new") == 0.0

    def test_a_metric_that_is_no_number_is_never_best(self):
        curve = self.curve()
        points = [
            replace(point, metrics={"accuracy": float("nan")}) if point.share == 0.75 else point
            for point in curve.points
        ]
        assert replace(curve, points=points).best("new") == 1.0

    def test_an_unknown_name(self):
        for wrong in ({"on": "test"}, {"on": "new", "keep": "test"}):
            with pytest.raises(DataError, match=r"no test set 'test'; there are \['new', 'old'\]"):
                self.curve().best(**wrong)


class TestWhatItShows:
    def test_as_text(self, curve):
        lines = str(curve).splitlines()
        assert lines[0] == "old: 10 texts"
        header, first = lines[2], lines[3]
        assert header.split()[:4] == ["share", "accuracy", "macro_f1", "mcc"]
        assert [part.strip() for part in header.split("accuracy against")[1:]] == [
            "before",
            "after",
        ]
        assert first.split()[:2] == ["0", "1.000"] and " - " in first
        assert "+1.000 (95% interval +1.00 to +1.00)" in first
        assert repr(curve) == (
            "<InterpolationCurve of accuracy at 4 shares: old 1.000 to 0.000, new 0.000 to 1.000>"
        )

    def test_as_a_figure(self, curve):
        values, differences = curve.plot().axes
        assert values.get_title(loc="left") == "accuracy"
        assert [text.get_text() for text in values.get_legend().get_texts()] == ["old", "new"]
        line = values.lines[0]
        assert list(line.get_xdata()) == [0.0, 0.25, 0.75, 1.0]
        assert list(line.get_ydata()) == accuracies(curve, "old")
        assert differences.get_title(loc="left") == "Difference in accuracy to before, 95% interval"

    def test_in_a_folder(self, curve, tmp_path):
        folder = curve.save(tmp_path / "curve")
        found = json.loads((folder / "report.json").read_text())
        assert found["main_metric"] == "accuracy" and found["texts"] == {"old": 10, "new": 10}
        assert len(found["points"]) == 8
        assert (folder / "report.txt").read_text() == f"{curve}\n"
        assert (folder / "report.png").stat().st_size > 1000


class TestErrors:
    @pytest.mark.parametrize("shares", [[0.5, 1.5], ["half"], [None]])
    def test_a_share_out_of_range(self, pair, shares):
        with pytest.raises(ArgumentError, match="^share must be a number >= 0 and <= 1, found"):
            ft.interpolation_curve(*pair, TESTS, shares=shares)

    @pytest.mark.parametrize("shares", [0.5, "0.5"])
    def test_shares_that_are_no_list(self, pair, shares):
        with pytest.raises(DataTypeError, match="shares must be a list of numbers from 0 to 1, fo"):
            ft.interpolation_curve(*pair, TESTS, shares=shares)

    @pytest.mark.parametrize("tests", [OLD, {}, [OLD], None])
    def test_tests_without_names(self, pair, tests):
        with pytest.raises(DataTypeError, match="interpolation_curve expects a dict of name to ex"):
            ft.interpolation_curve(*pair, tests)

    def test_a_test_that_is_no_examples(self, pair):
        with pytest.raises(DataTypeError, match="Examples, found list"):
            ft.interpolation_curve(*pair, {"old": OLD, "new": ["a good film"]})

    def test_a_test_without_labels(self, pair):
        with pytest.raises(DataError, match="has no labels, so nothing can be measured"):
            ft.interpolation_curve(*pair, {"old": ft.data.from_arrays(GOOD)})

    def test_other_models(self, pair):
        with pytest.raises(
            ModelError, match="before is a model for text-class.*and after for fill"
        ):
            ft.interpolation_curve(pair[0], small_task_model("words"), TESTS)

    def test_a_head_that_was_never_trained(self, tiny_bert):
        with quiet():
            before, after = (ft.load(tiny_bert, labels=OLD.labels) for _ in range(2))
        with pytest.raises(
            ModelError, match=r"The head of before \(classifier\) was never trained"
        ):
            ft.interpolation_curve(before, after, TESTS)
