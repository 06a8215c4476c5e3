"""Reports and comparisons as text, HTML, JSON and figures."""

import builtins
import json
import sys

import numpy as np
import pytest

from finetune_tf.base.labels import Labels
from finetune_tf.errors import MissingExtraError
from finetune_tf.evaluation import Comparison, Report
from finetune_tf.evaluation.bootstrap import Difference
from finetune_tf.evaluation.comparison import Row
from finetune_tf.evaluation.metrics import compute_metrics, confusion, per_class
from finetune_tf.evaluation.report import Baseline

MOODS = Labels(["negative", "positive"])


def make_report(labels, targets, predictions, baseline=None, **others):
    targets, predictions = np.array(targets), np.array(predictions)
    if baseline is not None:
        others["baseline"] = Baseline("tfidf", compute_metrics(targets, np.array(baseline), labels))
    return Report(
        name="reviews",
        labels=labels,
        metrics=compute_metrics(targets, predictions, labels),
        per_class=per_class(targets, predictions, labels),
        confusion=confusion(targets, predictions, labels),
        targets=targets,
        predictions=predictions,
        **others,
    )


@pytest.fixture
def moods():
    return make_report(
        MOODS, [0, 0, 1, 1], [0, 0, 1, 0], baseline=[0, 1, 1, 0],
        difference=Difference("accuracy", 0.25, -0.25, 0.75, 2000), duplicates=1,
    )  # fmt: skip


@pytest.fixture
def comparison():
    return Comparison(
        name="reviews",
        texts=1234,
        labels=MOODS,
        rows=[
            Row("full", {"accuracy": 0.9, "mcc": 0.8}, 109_483_778, None),
            Row("head", {"accuracy": 0.8, "mcc": 0.6}, 1538,
                Difference("accuracy", -0.1, -0.13, -0.07, 2000)),
            Row("baseline tfidf", {"accuracy": 0.7, "mcc": 0.4}, None,
                Difference("accuracy", -0.2, -0.24, -0.16, 2000)),
        ],
    )  # fmt: skip


def test_classes_without_a_correct_prediction_are_listed():
    labels = Labels(["common", "rare", "rarer", "absent"])
    report = make_report(labels, [0, 0, 0, 1, 1, 2], [0, 0, 0, 0, 0, 0])
    assert str(report).endswith(
        "Never predicted correctly: rarer (1 in the test set), rare (2 in the test set). If a "
        "class is rare in the training data, collect more examples of it, or increase its weight "
        "with class_weight=."
    )


def test_many_classes_without_a_correct_prediction_are_counted():
    labels = Labels(f"c{i}" for i in range(12))
    report = make_report(labels, list(range(12)), [0] * 12)
    assert "c5 (1 in the test set) and 6 more. If a class" in str(report)


def test_a_report_as_text(moods):
    assert (
        str(moods)
        == """\
reviews: 4 texts

          fine-tuned  baseline tfidf
accuracy       0.750           0.500
macro_f1       0.733           0.500
mcc            0.577           0.000

accuracy: fine-tuned 0.750, baseline tfidf 0.500, difference +0.250 (95% interval -0.25 to +0.75)\
; the interval includes 0, no clear difference

1 of 4 test texts also occur in the training examples: \
results on new texts may be worse than these metrics.

class     precision  recall     f1  support
negative      0.667   1.000  0.800        2
positive      1.000   0.500  0.667        2"""
    )
    assert repr(moods) == "<Report on reviews: accuracy 0.750, 4 texts>"


def test_a_clear_difference_has_no_note():
    report = make_report(
        MOODS, [0, 1], [0, 1], baseline=[1, 0], duplicates=0,
        difference=Difference("accuracy", 0.213, 0.152, 0.274, 2000),
    )  # fmt: skip

    assert "difference +0.213 (95% interval +0.15 to +0.27)\n" in str(report)
    assert "No test text occurs in the training examples." in str(report)


def test_wide_characters_are_aligned():
    lines = str(make_report(Labels(["好", "不好"]), [0, 1], [0, 1])).splitlines()

    assert lines[-2:] == [
        "好         1.000   1.000  1.000        1",
        "不好       1.000   1.000  1.000        1",
    ]


def test_of_many_classes_those_with_the_lowest_f1_are_shown():
    labels = Labels([f"class_{i}" for i in range(40)])
    targets = np.arange(30)
    text = str(make_report(labels, targets, np.where(targets == 7, 8, targets)))

    assert "The 20 of 40 classes with the lowest f1:" in text
    shown = [line.split()[0] for line in text.splitlines() if line.startswith("class_")]
    assert shown[:2] == ["class_7", "class_8"]
    assert len(shown) == 20
    assert "class_35" not in shown


def test_a_comparison_as_text(comparison):
    text = """\
reviews: 1,234 texts

model           accuracy    mcc    trainable                 accuracy against full
full               0.900  0.800  109,483,778                                     -
head               0.800  0.600        1,538  -0.100 (95% interval -0.13 to -0.07)
baseline tfidf     0.700  0.400            -  -0.200 (95% interval -0.24 to -0.16)"""
    assert str(comparison) == text


def test_html_is_escaped(moods):
    report = make_report(Labels(["<b>", "c"]), [0, 1], [0, 1])

    assert "<td>&lt;b&gt;</td>" in report._repr_html_()
    assert "<th>fine-tuned</th><th>baseline tfidf</th>" in moods._repr_html_()


def test_to_dict(moods):
    values = json.loads(json.dumps(moods.to_dict(), allow_nan=False))

    assert values["metrics"]["accuracy"] == 0.75
    assert values["confusion"] == [[2, 0], [1, 1]]
    assert values["labels"] == ["negative", "positive"]
    assert values["baseline"]["name"] == "tfidf"
    assert values["difference"] == {
        "metric": "accuracy", "value": 0.25, "low": -0.25, "high": 0.75, "n": 2000,
    }  # fmt: skip
    assert values["per_class"]["positive"]["support"] == 2


def test_saving_writes_text_json_and_figure(moods, comparison, tmp_path):
    for document in (moods, comparison):
        folder = document.save(tmp_path / "new" / "folder")

        # A comparison has no page, and removes that of an earlier report.
        page = ["report.html"] if document is moods else []
        assert sorted(path.name for path in folder.iterdir()) == [
            *page, "report.json", "report.png", "report.txt",
        ]  # fmt: skip
        assert (folder / "report.txt").read_text("utf-8") == f"{document}\n"
        assert json.loads((folder / "report.json").read_text("utf-8")) == document.to_dict()
        assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")


def test_saving_works_without_matplotlib(moods, tmp_path, monkeypatch):
    real_import = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(f"No module named {name!r}")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)

    with pytest.raises(MissingExtraError, match=r"pip install 'finetune-tf\[report\]'"):
        moods.plot()
    moods.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "report.html", "report.json", "report.txt",
    ]  # fmt: skip


def shown_texts(figure):
    return {text.get_text() for text in figure.findobj(match=lambda a: hasattr(a, "get_text"))}


def test_figure_of_single_label_classification(moods):
    figure = moods.plot()

    assert {"negative", "positive", "0.750", "0.500", "+0.250"} <= shown_texts(figure)
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_figure_of_multi_label_classification():
    labels = Labels(["food", "price"], "multi_label_classification")
    report = make_report(labels, [[1, 0], [1, 1]], [[1, 0], [1, 0]])

    assert {"f1 of each label", "food", "price", "1.000", "0.000"} <= shown_texts(report.plot())


def test_figure_of_a_comparison(comparison):
    figure = comparison.plot()

    assert {"head", "0.800", "-0.100", "-0.200"} <= shown_texts(figure)
    assert "Difference in accuracy to full, 95% interval" in shown_texts(figure)
    alone = Comparison("reviews", 10, MOODS, comparison.rows[:1]).plot()
    assert {"full", "0.900"} <= shown_texts(alone)


def test_long_names_keep_both_ends():
    report = make_report(Labels(["transfer_not_received_by_1", "b"]), [0, 1], [0, 1])

    assert "transfer_n…ived_by_1" in shown_texts(report.plot())


def test_figure_of_a_regression():
    report = make_report(Labels(["stars"]), [1.0, 2.0, 3.0], [1.5, 2.0, 2.5])

    axes = report.plot().axes[0]

    assert axes.collections[0].get_offsets().tolist() == [[1.0, 1.5], [2.0, 2.0], [3.0, 2.5]]
    assert axes.get_xlabel() == "truth"


def test_names_without_a_font_are_replaced_by_numbers(monkeypatch):
    from finetune_tf.evaluation import figures

    monkeypatch.setattr(figures, "_CJK_FONTS", ())
    report = make_report(Labels(["好", "bad"]), [0, 1], [0, 1])

    figure = report.plot()

    assert {"class 0", "bad"} <= shown_texts(figure)
    assert figure._repr_png_()


def test_drawing_does_not_use_pyplot(moods, tmp_path):
    loaded = "matplotlib.pyplot" in sys.modules

    moods.save(tmp_path)

    assert ("matplotlib.pyplot" in sys.modules) == loaded
