"""Methods by the number of examples: `learning_curve`, and where to switch."""

import json

import numpy as np
import pytest
from helpers_models import write_checkpoint

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, DataError
from finetune_tf.fewshot import CurveCell, LearningCurve
from finetune_tf.fewshot import curve as curve_module
from finetune_tf.fewshot.draws import draw_splits

FILMS = [f"{first} {noun}" for first in ("a", "the", "very", "long") for noun in ("film", "story")]
TRAIN = ft.data.from_arrays(
    [f"{film} good" for film in FILMS] + [f"{film} bad" for film in FILMS],
    ["good"] * 8 + ["bad"] * 8,
)
TEST = ft.data.from_arrays(
    ["good actor", "a good actor", "bad actor", "a bad actor"], ["good", "good", "bad", "bad"]
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("curve") / "encoder", blocks=1)


def cells(method, *values):
    return [
        CurveCell(method, shots, each, seconds=1.0)
        for shots, each in zip((8, 16, 32), values, strict=True)
    ]


CURVE = LearningCurve(
    [
        *cells("tfidf", (0.50, 0.52, 0.51), (0.60, 0.61, 0.62), (0.70, 0.71, 0.72)),
        *cells("probe", (0.60, 0.63, 0.61), (0.70, 0.71, 0.73), (0.75, 0.77, 0.76)),
        *cells("contrastive", (0.50, 0.70, 0.63), (0.80, 0.82, 0.84), (0.85, 0.86, 0.88)),
        *cells("full", (0.40, 0.45, 0.60), (0.70, 0.60, 0.80), (0.84, 0.87, 0.88)),
    ],
    "accuracy", "reviews", 100, 3,
)  # fmt: skip


def test_texts_that_training_knows_are_counted(encoder, capsys):
    options = {"shots": [2], "splits": 2, "methods": "tfidf"}
    ft.learning_curve(encoder, TRAIN, TRAIN[:5], **options)
    assert "5 of 5 test texts also occur in the training examples." in capsys.readouterr().out
    ft.learning_curve(encoder, TRAIN, TEST, **options)
    assert "also occur" not in capsys.readouterr().out


@pytest.mark.slow
def test_methods_are_measured_on_the_same_draws(encoder, capsys):
    options = {"shots": [2, 4], "splits": 2, "steps": 4}
    curve = ft.learning_curve(
        encoder, TRAIN, TEST, **options, methods=["contrastive", "probe", "tfidf", "prototypes"]
    )
    assert curve.methods == ["tfidf", "prototypes", "probe", "contrastive"]
    assert curve.shots == [2, 4]
    assert all(len(cell.values) == 2 and cell.seconds > 0 for cell in curve.cells)
    assert all(0 <= value <= 1 for cell in curve.cells for value in cell.values)
    assert "Draw 2 of 2, 4 examples a class: tfidf" in capsys.readouterr().out


@pytest.mark.slow
def test_every_training_starts_from_the_same_weights(encoder):
    options = {"shots": [2, 4], "splits": 2, "steps": 4}
    curve = ft.learning_curve(encoder, TRAIN, TEST, **options)
    assert curve.methods == ["tfidf", "probe", "contrastive", "full"]
    # A method alone has the results that it has among others.
    for method in ("contrastive", "full"):
        alone = ft.learning_curve(encoder, TRAIN, TEST, **options, methods=[method])
        for cell in alone.cells:
            assert cell.values == curve.cell(method, cell.shots).values


def test_draws_with_fewer_examples_are_part_of_larger_ones():
    groups = [np.arange(10), np.arange(10, 20)]
    first, second = map(np.stack, draw_splits(groups, 2, 4, seed=0))
    assert first.shape == (2, 4) and len(np.unique(first)) == 8
    assert (first[0] < 10).all() and (first[1] >= 10).all()
    assert (first != second).any()
    assert (np.stack(draw_splits(groups, 2, 4, seed=0)[1]) == second).all()


def test_texts_without_any_of_several_labels_are_drawn(encoder, monkeypatch):
    labels = [["good"]] * 8 + [[]] * 6
    train = ft.data.from_arrays(
        TRAIN.columns["text"][:14],
        labels,
        labels=ft.Labels(["good"], "multi_label_classification"),
    )
    test = ft.data.from_arrays(
        TRAIN.columns["text"][6:10], [["good"], ["good"], [], []], labels=train.labels
    )
    seen, run = [], curve_module._Runs.run
    monkeypatch.setattr(curve_module._Runs, "run", lambda *args: seen.append(args[2]) or run(*args))
    ft.learning_curve(encoder, train, test, shots=[4, 8], splits=2, methods=["tfidf"])
    assert [((rows < 8).sum(), (rows >= 8).sum()) for rows in seen] == [(4, 4), (8, 6)] * 2


def test_full_fine_tuning_has_the_steps_of_the_other_methods(encoder, monkeypatch):
    """Three epochs for nine steps of four batches each, but not one for two steps."""
    found, fit = [], ft.FineTuneModel.fit

    def counted(model, *args, **kwargs):
        before = int(model.optimizer.iterations)
        fit(model, *args, **kwargs)
        found.append(int(model.optimizer.iterations) - before)

    monkeypatch.setattr(ft.FineTuneModel, "fit", counted)
    for steps in (2, 9):
        options = {"methods": ["full"], "steps": steps, "batch_size": 4}
        ft.learning_curve(encoder, TRAIN, TEST, [8], 2, **options)
    assert found == [2, 2, 12, 12]


def test_two_draws_with_the_same_difference_prove_little():
    """Two texts of 200 more are as many as rounding to single texts may hide; ten texts are not."""
    for lead, leads in ((0.01, False), (0.05, True)):
        values = {"tfidf": (0.5, 0.75), "probe": (0.5 + lead, 0.75 + lead)}
        found = [CurveCell(method, 8, each, 1.0) for method, each in values.items()]
        curve = LearningCurve(found, "accuracy", "reviews", 200, 2)
        assert curve.leads("probe", "tfidf", 8) == leads


def test_where_to_switch():
    assert CURVE.leads_from("tfidf") is None
    assert CURVE.leads_from("probe") == 8
    assert CURVE.leads_from("contrastive") == 16
    assert CURVE.leads_from("full") is None
    assert [CURVE.recommended(n) for n in (8, 16, 32)] == ["probe", "contrastive", "contrastive"]
    assert CURVE.advice() == (
        "probe leads tfidf by more than its interval from 8 examples a class on. contrastive leads "
        "tfidf and probe by more than its interval from 16 examples a class on. full never leads "
        "tfidf and probe and contrastive lastingly by more than its interval. Where to switch: "
        "probe at 8, contrastive from 16 examples a class."
    )


def test_the_curve_is_a_table_a_page_and_a_figure(tmp_path):
    text = str(CURVE)
    assert "0.510 ± 0.025" in text and "reviews: 100 texts, 3 random draws" in text
    assert "<td>contrastive</td>" in CURVE._repr_html_()
    (axes,) = CURVE.plot().axes
    assert [line.get_label() for line in axes.lines] == CURVE.methods
    folder = CURVE.save(tmp_path / "curve")
    saved = json.loads((folder / "report.json").read_text())
    assert saved["recommended"]["16"] == "contrastive" and saved["leads_from"]["full"] is None
    assert (folder / "report.png").exists()
    with pytest.raises(DataError, match=r"The curve has no cell 'svm' at 8; it has the methods"):
        CURVE.cell("svm", 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": (8, 4)}, r"shots must be increasing numbers .*, found \[8, 4\]"),
        ({"shots": (4, 4)}, r"shots must be increasing numbers .*, found \[4, 4\]"),
        ({"shots": ()}, r"shots must be increasing numbers .*, found \[\]"),
        ({"shots": 8}, r"shots must be a list such as \(8, 16, 32, 64\), found 8"),
        ({"shots": (1, 2)}, r"shots must be an integer >= 2, found 1"),
        ({"splits": 1}, r"splits must be an integer >= 2, found 1"),
        ({"methods": ["probe", "svm"]}, r"methods must be among tfidf, .*, found \['svm'\]"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ArgumentError, match=message):
        ft.learning_curve("no-such-checkpoint", TRAIN, TEST, **options)


def test_more_shots_than_examples():
    with pytest.raises(
        DataError,
        match=r"shots goes up to 9 examples of each class, but arrays has 8 of '(bad|good)'\. "
        "Choose smaller shots, or add examples of the class",
    ):
        ft.learning_curve("no-such-checkpoint", TRAIN, TEST, shots=(4, 9))


def test_a_class_that_only_the_test_has():
    test = ft.data.from_arrays(["a film", "a story"], ["good", "mixed"])
    with pytest.raises(DataError, match=r"test= has the class 'mixed', which the training exa"):
        ft.learning_curve("no-such-checkpoint", TRAIN, test, shots=(4,))


def test_a_test_without_labels():
    with pytest.raises(DataError, match=r"test= needs labels, but arrays has the columns text\."):
        ft.learning_curve("no-such-checkpoint", TRAIN, ft.data.from_arrays(FILMS), shots=(4,))
