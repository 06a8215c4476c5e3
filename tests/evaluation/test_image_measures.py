"""Measures and reports of image classification: top-5 accuracy, and the most confident mistakes."""

import base64
import io
import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from helpers_images import TINY_VIT, levels, write_image
from PIL import Image

import finetune_tf as ft
from finetune_tf.errors import DataError
from finetune_tf.evaluation.evaluators.images import Top5
from finetune_tf.evaluation.mistakes import Mistake, find_mistakes
from finetune_tf.messages import quiet

LABELS = ["ant", "bee", "$cat", "dog", "eel", "fox", "猫"]
RANDOM = np.random.default_rng(0)
IMAGES = [levels(("red", "blue", "green")[i % 3], seed=i) for i in range(28)]
EXAMPLES = ft.data.from_arrays(
    image=IMAGES, label=[LABELS[i % 7] for i in range(28)], labels=LABELS, name="animals"
)
TARGETS = np.arange(28) % 7


@pytest.fixture(scope="module")
def model():
    with quiet():
        return ft.load(TINY_VIT, labels=LABELS, new_head=True)


def evaluated(model, test=EXAMPLES, **options):
    with quiet():
        return ft.evaluate(model, test, **options)


@pytest.fixture(scope="module")
def report(model):
    return evaluated(model, baseline="auto", train=EXAMPLES)


@pytest.fixture(scope="module")
def probabilities(model):
    with quiet():
        found = ft.predict(model, EXAMPLES)
    return np.array([list(each.probabilities.values()) for each in found])


def test_top5_by_hand():
    scores = np.array(
        [
            [0.30, 0.25, 0.20, 0.12, 0.08, 0.05],
            [0.30, 0.25, 0.20, 0.12, 0.05, 0.08],
            [1 / 6] * 6,  # equal scores rank by class index, as for argmax
            [1 / 6] * 6,
        ]
    )
    targets = np.array([4, 4, 4, 5])
    assert Top5().statistics(targets, scores).ravel().tolist() == [1, 0, 1, 0]
    assert Top5().measure(targets, scores, None) == {"top5_accuracy": 0.5}


@pytest.mark.slow
def test_top5_is_that_of_sorted_scores(report, probabilities):
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    expected = np.mean([target in row for target, row in zip(TARGETS, best, strict=True)])
    assert list(report.metrics) == ["accuracy", "macro_f1", "mcc", "top5_accuracy"]
    assert report.metrics["top5_accuracy"] == pytest.approx(expected)
    assert report.metrics["accuracy"] <= expected < 1


def test_top5_has_a_paired_interval(report):
    (found,) = report.further_differences
    assert found.metric == "top5_accuracy"
    expected = report.metrics["top5_accuracy"] - report.baseline.metrics["top5_accuracy"]
    assert found.value == pytest.approx(expected)
    assert found.low <= found.value <= found.high and found.low < found.high
    assert f"top5_accuracy: fine-tuned {report.metrics['top5_accuracy']:.3f}, base" in str(report)
    assert report.to_dict()["further_differences"][0]["metric"] == "top5_accuracy"


def test_five_classes_have_no_top5(model):
    labels = LABELS[:5]
    test = ft.data.from_arrays(image=IMAGES[:5], label=labels, labels=labels)
    with quiet():
        small = ft.load(TINY_VIT, labels=labels, new_head=True)
    found = evaluated(small, test)
    assert list(found.metrics) == ["accuracy", "macro_f1", "mcc"]
    assert found.further_differences == []


def test_predictions_without_scores_have_no_top5(model, probabilities, report):
    named = evaluated(model, baseline=[LABELS[row.argmax()] for row in probabilities])
    assert "top5_accuracy" in named.metrics
    assert "top5_accuracy" not in named.baseline.metrics
    assert named.further_differences == []
    line = next(line for line in str(named).splitlines() if line.startswith("top5_accuracy"))
    assert line.split()[-1] == "-"
    named.plot()
    scored = evaluated(model, baseline=probabilities)
    assert scored.baseline.metrics == pytest.approx(scored.metrics)
    assert [each.value for each in scored.further_differences] == [0.0]


def test_labels_in_another_order(model, report, tmp_path):
    """The scores of a compared model follow the order of the labels of the first one."""
    order = [3, 1, 6, 0, 5, 2, 4]
    with quiet():
        other = ft.load(TINY_VIT, labels=[LABELS[i] for i in order], new_head=True)
    for name in ("kernel", "bias"):
        source, to = (getattr(m.get_layer("classifier").dense, name) for m in (model, other))
        to.assign(np.asarray(source)[..., order])
    with quiet():
        comparison = ft.compare({"a": model, "b": other}, EXAMPLES)
    first, second = comparison.rows
    assert second.metrics == pytest.approx(first.metrics)
    assert [each.value for each in second.further_differences] == [0.0]
    assert "top5_accuracy against a" in str(comparison)


def test_classes_and_confusions(report):
    assert list(report.per_class) == LABELS
    assert report.confusion.shape == (7, 7) and report.confusion.sum() == 28
    assert np.trace(report.confusion) / 28 == pytest.approx(report.metrics["accuracy"])


class TestMistakes:
    def test_they_are_the_most_confident_wrong_predictions(self, model, report, probabilities):
        predictions = probabilities.argmax(1)
        wrong = np.flatnonzero(predictions != TARGETS)
        confidence = probabilities.max(1)[wrong]
        rows = wrong[np.argsort(-confidence, kind="stable")][:12]
        assert len(wrong) > 12
        assert [each.image for each in report.mistakes] == [f"row {row}" for row in rows]
        for mistake, row in zip(report.mistakes, rows, strict=True):
            assert mistake.target == LABELS[TARGETS[row]]
            assert mistake.prediction == LABELS[predictions[row]]
            assert mistake.score == pytest.approx(probabilities[row].max(), abs=1e-6)
            np.testing.assert_array_equal(mistake.pixels, model.image_processor(IMAGES[row]))

    @pytest.mark.slow
    def test_files(self, report, tmp_path):
        report.save(tmp_path)
        assert (tmp_path / "mistakes.png").read_bytes().startswith(b"\x89PNG")
        first = json.loads((tmp_path / "report.json").read_text())["mistakes"][0]
        mistake = report.mistakes[0]
        assert first == {
            "image": mistake.image,
            "target": mistake.target,
            "prediction": mistake.prediction,
            "score": mistake.score,
        }
        assert "The most confident mistakes:" in (tmp_path / "report.txt").read_text()

    def test_a_figure_of_an_earlier_report_is_removed(self, report, tmp_path, monkeypatch):
        (tmp_path / "mistakes.png").write_bytes(b"earlier")
        type(report)(**{**report.__dict__, "mistakes": []}).save(tmp_path)
        assert not (tmp_path / "mistakes.png").exists() and (tmp_path / "report.png").exists()
        (tmp_path / "mistakes.png").write_bytes(b"earlier")
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        report.save(tmp_path)
        written = ["report.html", "report.json", "report.txt"]
        assert sorted(path.name for path in tmp_path.iterdir()) == written

    def test_html_has_the_thumbnails(self, report):
        found = re.findall(r'src="data:image/png;base64,([^"]+)"', report._repr_html_())
        assert len(found) == 12
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[0]))))
        np.testing.assert_array_equal(pixels, report.mistakes[0].pixels)

    def test_the_figure_has_titles_and_pixels(self, report):
        figure = report.plot_mistakes()
        assert len(figure.axes) == 12
        for axes, mistake in zip(figure.axes, report.mistakes, strict=True):
            np.testing.assert_array_equal(axes.images[0].get_array(), mistake.pixels)
            prediction, target = axes.get_title().split("\n")
            assert prediction.endswith(f" {mistake.score:.0%}") and target.startswith("label: ")
            if mistake.target != "猫":  # some systems have no font for it
                assert target == f"label: {mistake.target}"

    def test_an_image_that_cannot_be_read_again(self, model, probabilities, tmp_path, monkeypatch):
        """Images that were not stored are read again, and the file may be gone by then."""
        monkeypatch.setattr("finetune_tf.images.prepared.make_store", lambda *_: None)
        row = int(np.argmax(probabilities.argmax(1) != TARGETS))
        paths = [write_image(tmp_path / "a<b" / f"{i}.png", seed=i) for i in range(2)]
        test = ft.data.from_arrays(image=paths, label=["ant", "ant"], labels=LABELS)
        encoded, scores = test.encoded(model), np.tile(probabilities[row], (2, 1))
        paths[0].unlink()
        targets = np.full(2, TARGETS[row])
        gone, found = find_mistakes(
            test, encoded, targets, scores.argmax(axis=1), scores, model.labels
        )
        assert gone.pixels is None and found.pixels.shape == (21, 21, 3)
        assert gone.image == str(paths[0]) and gone.short_name == "a<b/0.png"
        mistakes = [gone, found]
        report = ft.evaluation.Report(
            "test", model.labels, {"accuracy": 0.0}, {}, None, targets, targets,
            kind="images/single_label_classification", mistakes=mistakes,
        )  # fmt: skip
        figure = report.plot_mistakes()
        assert [len(axes.images) for axes in figure.axes] == [0, 1]
        assert figure.axes[0].texts[0].get_text() == "cannot be read"
        assert "a&lt;b/0.png cannot be read" in report._repr_html_()
        assert "a<b" not in report._repr_html_()

    def test_a_large_image_becomes_a_thumbnail(self, model):
        large = RANDOM.integers(0, 256, (300, 200, 3)).astype("uint8")
        encoded = SimpleNamespace(inputs={"pixel_values": SimpleNamespace(rows=[large])})
        test = EXAMPLES[:1]
        targets, predictions = np.array([1]), np.array([0])
        (found,) = find_mistakes(test, encoded, targets, predictions, np.eye(7)[:1], model.labels)
        assert found.pixels.shape == (160, 107, 3)

    def test_thresholds_decide_what_is_a_mistake(self, model):
        """The second image is predicted correctly, although another class is more probable."""
        pixels = np.zeros((21, 21, 3), "uint8")
        encoded = SimpleNamespace(inputs={"pixel_values": SimpleNamespace(rows=[pixels] * 2)})
        targets, scores = np.array([0, 1]), np.array([[0.7, 0.3], [0.6, 0.4]])
        (found,) = find_mistakes(
            EXAMPLES[:2], encoded, targets, np.array([1, 1]), scores, ft.Labels(["a", "b"])
        )
        assert (found.target, found.prediction, found.score) == ("a", "b", 0.3)

    def test_a_report_without_mistakes(self, report):
        perfect = type(report)(**{**report.__dict__, "mistakes": []})
        assert "mistakes" not in str(perfect) and "<figure" not in perfect._repr_html_()
        with pytest.raises(DataError, match="has no mistakes to draw"):
            perfect.plot_mistakes()

    def test_a_saved_model_does_not_name_files(self, model, report):
        assert report.to_dict()["mistakes"] and model.info.record["result"]["mistakes"] == []

    def test_names(self):
        assert Mistake("/a/b/c.png", "x", "y", 0.5).short_name == "b/c.png"
        assert Mistake("row 3", "x", "y", 0.5).short_name == "row 3"
