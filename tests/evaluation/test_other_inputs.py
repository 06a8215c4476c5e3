"""Models of texts, of images and of both on one test: does the picture help?"""

import numpy as np
import pytest
from helpers_images import TINY_VIT, levels

import finetune_tf as ft
from finetune_tf.errors import DataError, ModelError
from finetune_tf.evaluation.evaluators.registry import EVALUATORS
from finetune_tf.messages import quiet

COLORS = ("red", "blue", "green")
TEXTS = ("the film was very good", "the story was dull")


def examples(count=24, **options):
    """The label is the color of the image if the text is the first one, else "none"."""
    rows = range(count)
    return ft.data.from_arrays(
        image=[levels(COLORS[i % 3], seed=i % 6) for i in rows],
        text=[TEXTS[i // 6 % 2] for i in rows],
        label=[COLORS[i % 3] if i // 6 % 2 == 0 else "none" for i in rows],
        name="colors",
        **options,
    )


TEST = examples()
LABELS = list(TEST.labels)


def models_of(tiny_bert, labels):
    with quiet():
        text = ft.load(tiny_bert, "text-classification", labels=labels)
        image = ft.load(TINY_VIT, labels=labels, new_head=True)
        both = ft.fuse(image, text, labels=labels, size=8)
    return {"text": text, "image": image, "both": both}


@pytest.fixture(scope="module")
def models(tiny_bert):
    return models_of(tiny_bert, LABELS)


@pytest.fixture(scope="module")
def comparison(models):
    with quiet():
        return ft.compare(models, TEST, baseline="auto", train=TEST)


@pytest.mark.slow
def test_each_model_reads_its_columns(models, comparison):
    """The rows are those of an evaluation of each model alone, with differences to the first."""
    assert [row.name for row in comparison.rows] == [*models, "baseline both"]
    first = comparison.rows[0].metrics["accuracy"]
    for row, model in zip(comparison.rows, models.values(), strict=False):
        with quiet():
            alone = ft.evaluate(model, TEST)
        assert row.metrics == pytest.approx(alone.metrics)
        if row.difference is not None:
            assert row.difference.value == pytest.approx(row.metrics["accuracy"] - first)
            assert row.difference.low <= row.difference.value <= row.difference.high


def test_questions_about_images_are_counted_as_examples(models, comparison):
    assert str(comparison).startswith("colors: 24 examples\n")
    assert "24 of 24 test examples also occur" in str(comparison)
    with quiet():
        reports = [str(ft.evaluate(model, TEST)) for model in models.values()]
    units = [report.splitlines()[0] for report in reports]
    assert units == ["colors: 24 texts", "colors: 24 images", "colors: 24 examples"]


def test_models_of_one_kind_keep_their_unit(models):
    with quiet():
        twice = ft.compare({"a": models["text"], "b": models["text"]}, TEST)
    assert twice.kind == "single_label_classification" and twice.unit == "texts"


def test_a_model_of_images_is_a_baseline_for_one_of_texts(models):
    with quiet():
        report = ft.evaluate(models["text"], TEST, baseline=models["image"])
        alone = ft.evaluate(models["image"], TEST)
    assert report.unit == "examples" and not report.mistakes
    assert report.baseline.metrics == pytest.approx(alone.metrics)


@pytest.mark.slow
def test_labels_in_another_order(tiny_bert, models):
    order = [2, 0, 3, 1]
    with quiet():
        other = ft.load(tiny_bert, "text-classification", labels=[LABELS[i] for i in order])
        text = models["text"]
        other.set_weights(text.get_weights())
        for name in ("kernel", "bias"):
            source, to = (getattr(m.get_layer("classifier").dense, name) for m in (text, other))
            to.assign(np.asarray(source)[..., order])
        found = ft.compare({"both": models["both"], "text": text, "other": other}, TEST)
    assert found.rows[1].metrics == pytest.approx(found.rows[2].metrics)


class TestWhatCannotBeCompared:
    def test_other_labels(self, tiny_bert, models):
        with quiet():
            other = ft.load(tiny_bert, "text-classification", labels=["yes", "no"])
            with pytest.raises(ModelError, match="need the same labels"):
                ft.compare({"image": models["image"], "text": other}, TEST)

    def test_several_labels_with_one_label(self, tiny_bert, models):
        labels = ft.Labels(LABELS, "multi_label_classification")
        with quiet():
            other = ft.load(tiny_bert, "text-classification", labels=labels)
            with pytest.raises(ModelError, match=r"outputs of the same kind: .*single.*multi"):
                ft.compare({"image": models["image"], "text": other}, TEST)

    def test_numbers_with_labels(self, tiny_bert, models):
        with quiet():
            number = ft.load(tiny_bert, labels=ft.Labels(["stars"], "regression"))
            with pytest.raises(ModelError, match="need the same labels"):
                ft.compare({"image": models["image"], "text": number}, TEST)

    def test_a_column_that_is_missing(self, models):
        images = ft.data.from_arrays(
            image=TEST.columns["image"], label=TEST.columns["label"], labels=LABELS
        )
        with quiet(), pytest.raises(ModelError, match="image-text-classification reads"):
            ft.compare({"image": models["image"], "both": models["both"]}, images)


@pytest.fixture(scope="module")
def accuracy(models):
    def measured(name):
        with quiet():
            report = ft.evaluate(models["both"], TEST, baseline=name, train=examples(48))
        return report.baseline.metrics["accuracy"]

    return {name: measured(name) for name in ("both", "tfidf", "colors", "majority")}


class TestBaselines:
    """With the color of the image and the text, four labels can be told apart; with one, not."""

    @pytest.mark.slow
    def test_both_know_more_than_either(self, accuracy):
        assert accuracy["majority"] == 0.5
        assert accuracy["tfidf"] < accuracy["both"] and accuracy["colors"] < accuracy["both"]
        assert accuracy["both"] == 1.0

    def test_regression(self):
        numbers = [float(i % 3 + 2 * (i // 6 % 2)) for i in range(24)]
        test = ft.data.from_arrays(
            image=TEST.columns["image"],
            text=TEST.columns["text"],
            label=numbers,
            problem_type="regression",
        )
        evaluator = EVALUATORS["examples/regression"]
        targets = np.float32(numbers)
        found = {
            name: predict(test, targets, test, test.labels, 0).values
            for name, predict in evaluator.baselines.items()
        }
        assert list(found) == ["both", "tfidf", "colors", "mean"]
        scores = {
            name: evaluator.measure(targets, values, test.labels)["pearson"]
            for name, values in found.items()
        }
        assert scores["both"] > max(scores["tfidf"], scores["colors"]) > scores["mean"] == 0

    def test_several_labels(self):
        labels = [[COLORS[i % 3], TEXTS[i // 6 % 2][:9]] for i in range(24)]
        test = ft.data.from_arrays(
            image=TEST.columns["image"], text=TEST.columns["text"], label=labels
        )
        evaluator = EVALUATORS["examples/multi_label_classification"]
        targets = np.float32([[name in row for name in test.labels] for row in labels])
        found = evaluator.baselines["both"](test, targets, test, test.labels, 0)
        assert evaluator.measure(targets, found.values, test.labels)["micro_f1"] == 1.0

    def test_an_unknown_name(self, models):
        with quiet(), pytest.raises(DataError, match=r"'auto' or one of \['both', 'tfidf', 'colo"):
            ft.evaluate(models["both"], TEST, baseline="ridge", train=TEST)


@pytest.fixture(scope="module")
def report(models):
    with quiet():
        return ft.evaluate(models["both"], TEST)


class TestMistakes:
    def test_they_have_the_text_beside_the_image(self, report):
        rows = [int(each.image.removeprefix("row ")) for each in report.mistakes]
        assert rows and [each.text for each in report.mistakes] == [
            TEST.columns["text"][row] for row in rows
        ]
        assert report.to_dict()["mistakes"][0]["text"] == report.mistakes[0].text
        lines = str(report).splitlines()
        table = lines[lines.index("The most confident mistakes:") + 2 :]
        assert table[0].split() == ["image", "text", "label", "predicted", "probability"]
        assert report.mistakes[0].text in "\n".join(table)

    @pytest.mark.slow
    def test_files(self, report, tmp_path):
        report.save(tmp_path)
        assert (tmp_path / "mistakes.png").is_file()
        assert f"<figcaption>{report.mistakes[0].text}<br>" in report._repr_html_()
