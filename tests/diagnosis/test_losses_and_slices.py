"""`top_losses` finds confident mistakes, `slices` the parts on which a model is worse."""

import json

import numpy as np
import pytest
from helpers_decisions import drawn_case, texts_at_random
from helpers_tasks import small_task_model

import finetune_tf as ft
from finetune_tf.diagnosis.slicing import holm
from finetune_tf.errors import ArgumentError, DataError, ModelError


def test_the_highest_losses_are_those_of_confident_mistakes(tiny_bert):
    model, examples = drawn_case("one label", tiny_bert, temperature=1.0, rows=60)
    top = ft.diagnosis.top_losses(model, examples, n=5)
    chances = [
        each.probabilities[label]
        for each, label in zip(ft.predict(model, examples), examples.columns["label"], strict=True)
    ]
    assert [row.row for row in top.rows] == np.argsort(chances, kind="stable")[:5].tolist()
    for row in top.rows:
        assert row.probability == pytest.approx(chances[row.row], rel=1e-5)
        assert row.loss == pytest.approx(-np.log(chances[row.row]), rel=1e-5)
        assert row.text == examples.columns["text"][row.row]
    assert top.mean_loss == pytest.approx(-np.mean(np.log(chances)), rel=1e-5)
    assert "5 rows with the highest losses of 60" in str(top)
    json.dumps(top.to_dict())


def test_a_result_without_a_figure_says_so_and_is_saved_without_one(tiny_bert, tmp_path):
    model, examples = drawn_case("one label", tiny_bert, temperature=1.0, rows=20)
    top = ft.diagnosis.top_losses(model, examples, n=2)
    with pytest.raises(DataError, match="TopLosses has no figure; print it"):
        top.plot()
    (tmp_path / "report.png").write_bytes(b"earlier")
    top.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.txt"]


@pytest.mark.parametrize("case", ["several labels", "tokens"])
def test_several_labels_and_words_have_losses(case, tiny_bert):
    model, examples = drawn_case(case, tiny_bert, temperature=1.0, rows=30)
    top = ft.diagnosis.top_losses(model, examples, n=40)
    assert len(top.rows) == 30
    assert [row.loss for row in top.rows] == sorted((row.loss for row in top.rows), reverse=True)
    assert top.share_of_loss == pytest.approx(1.0)


def test_the_predicted_labels_of_top_losses_follow_thresholds(tiny_bert):
    for case, thresholds in (
        ("two labels", {"pos": 0.8}),
        ("several labels", {"a": 0.9, "b": 0.2}),
    ):
        model, examples = drawn_case(case, tiny_bert, temperature=1.0, rows=100)
        plain = {
            row.row: row.predicted for row in ft.diagnosis.top_losses(model, examples, 100).rows
        }
        model.config["label_thresholds"] = thresholds
        predicted = [
            each.label if isinstance(each.label, str) else ", ".join(each.label) or "none"
            for each in ft.predict(model, examples)
        ]
        found = ft.diagnosis.top_losses(model, examples, 100).rows
        assert {row.row: row.predicted for row in found} == dict(enumerate(predicted))
        assert plain != dict(enumerate(predicted))


def test_a_regression_has_no_top_losses(tiny_bert):
    model = small_task_model("number", tiny_bert)
    with pytest.raises(ModelError, match="found a model for regression, which has none"):
        ft.diagnosis.top_losses(model, ft.data.from_arrays(["a film"], [0.5]))


@pytest.fixture(scope="module")
def spoiled(tiny_bert):
    """A model, and examples of which a quarter, those of "web", have labels at random."""
    model, examples = drawn_case("two labels", tiny_bert, temperature=0.2, rows=400)
    sources = np.random.default_rng(2).choice(["book", "mail", "news", "web"], 400)
    generator = np.random.default_rng(3)
    labels = [
        generator.choice(["neg", "pos"]) if source == "web" else label
        for source, label in zip(sources, examples.columns["label"], strict=True)
    ]
    columns = {"text": examples.columns["text"], "label": labels, "source": list(sources)}
    return model, ft.data.Examples(columns, examples.labels, "spoiled")


def test_the_worst_slice_is_found_and_others_are_not_accused(spoiled):
    model, examples = spoiled
    found = ft.diagnosis.slices(model, examples, by=("length", "label", "source"))
    worst = found.rows[0]
    assert (worst.by, worst.value, worst.is_clear) == ("source", "web", True)
    assert worst.difference.high < 0
    inside = [source == "web" for source in examples.columns["source"]]
    hits = np.array(
        [
            each.label == label
            for each, label in zip(
                ft.predict(model, examples), examples.columns["label"], strict=True
            )
        ]
    )
    assert worst.size == sum(inside)
    assert worst.metric.value == pytest.approx(hits[inside].mean())
    assert worst.difference.value == pytest.approx(
        hits[inside].mean() - hits[np.logical_not(inside)].mean()
    )
    assert found.overall.value == pytest.approx(hits.mean())
    assert not any(row.is_clear for row in found.rows if row.by == "length")
    assert "web" in str(found)
    json.dumps(found.to_dict())


def test_slices_can_be_given_as_values(spoiled):
    model, examples = spoiled
    sizes = np.arange(len(examples)) / 7
    found = ft.diagnosis.slices(model, examples, by={"size": sizes, "rare": [1] + [0] * 399})
    assert [row.by for row in found.rows] == ["size"] * 4  # quarters
    assert {row.size for row in found.rows} == {100}
    assert found.too_small == 2
    assert "2 slices have too few examples" in str(found)


def test_quarters_of_large_numbers_have_names_of_their_own(spoiled):
    """With six digits, all four would be "1.7e+09 to 1.7e+09"."""
    model, examples = spoiled
    found = ft.diagnosis.slices(
        model, examples, by={"time": [1_700_000_000 + i for i in range(400)]}
    )
    assert {row.size for row in found.rows} == {100}
    assert sorted(row.value for row in found.rows) == [
        "1700000000 to 1700000099",
        "1700000100 to 1700000199",
        "1700000200 to 1700000299",
        "1700000300 to 1700000399",
    ]


def test_random_slices_are_seldom_clear(spoiled):
    model, examples = spoiled
    generator = np.random.default_rng(5)
    noise = {f"noise {i}": list(generator.choice(["a", "b", "c"], 400)) for i in range(10)}
    found = ft.diagnosis.slices(model, examples, by=noise)
    assert len(found.rows) == 30
    assert not any(row.is_clear for row in found.rows)


def test_words_are_sliced_by_the_f1_of_their_entities(tiny_bert):
    model, examples = drawn_case("tokens", tiny_bert, temperature=0.2, rows=60)
    found = ft.diagnosis.slices(model, examples, min_rows=10)
    assert found.metric == "f1"
    assert {row.by for row in found.rows} == {"length"}


def test_a_regression_is_not_divided_by_its_own_numbers(tiny_bert):
    """Within a quarter of the numbers, the correlation of every model is lower than in the rest."""
    model = small_task_model("number", tiny_bert)
    texts = texts_at_random(200)
    values = [each.score + 0.1 * (i % 7) for i, each in enumerate(ft.predict(model, texts))]
    examples = ft.data.from_arrays(texts, values, problem_type="regression")
    assert {row.by for row in ft.diagnosis.slices(model, examples).rows} == {"length"}
    with pytest.raises(ArgumentError, match="by='label' would divide a regression by the numbers"):
        ft.diagnosis.slices(model, examples, by="label")


def test_slices_on_which_the_metric_says_nothing_are_left_out(tiny_bert):
    model, examples = drawn_case("several labels", tiny_bert, temperature=1.0, rows=300)
    without = [not names for names in examples.columns["label"]]
    assert sum(without) >= 10
    found = ft.diagnosis.slices(model, examples, by={"has a label": without}, min_rows=10)
    # No prediction gives texts without labels an F1 above 0; neither can others be set beside it.
    assert not found.rows and found.without_metric == 2
    assert "2 slices were left out because micro_f1 says nothing there" in str(found)

    number = small_task_model("number", tiny_bert)
    values = [float(i % 4 if i < 100 else 1) for i in range(200)]
    numbers = ft.data.from_arrays(texts_at_random(200), values, problem_type="regression")
    found = ft.diagnosis.slices(number, numbers, by={"source": ["a"] * 100 + ["b"] * 100})
    assert not found.rows and found.without_metric == 2  # Pearson's correlation with a constant

    model, examples = drawn_case("tokens", tiny_bert, temperature=0.2, rows=60)
    tags = [["O"] * len(row) if i < 10 else row for i, row in enumerate(examples.columns["tags"])]
    examples = ft.data.Examples({**examples.columns, "tags": tags}, examples.labels, "words")
    found = ft.diagnosis.slices(model, examples, by={"first": np.arange(60) < 10}, min_rows=10)
    assert not found.rows and found.without_metric == 2  # sentences without entities


def test_holm_is_stricter_than_no_correction_and_milder_than_bonferroni():
    p_values = [0.001, 0.02, 0.03, 0.5]
    adjusted = holm(p_values)
    assert adjusted == pytest.approx([0.004, 0.06, 0.06, 0.5])
    assert holm([]) == []


def test_unknown_columns_and_wrong_values_are_explained(spoiled):
    model, examples = spoiled
    with pytest.raises(DataError, match="spoiled has no column 'city': by= names 'length', or a"):
        ft.diagnosis.slices(model, examples, by="city")
    with pytest.raises(DataError, match="one value for each example: expected 400, found 2"):
        ft.diagnosis.slices(model, examples, by={"city": ["x", "y"]})
    with pytest.raises(ArgumentError, match="must have a list with one value for each example"):
        ft.diagnosis.slices(model, examples, by={"city": "Paris"})
    with pytest.raises(DataError, match="has no labels"):
        ft.diagnosis.slices(model, ft.data.from_arrays(texts_at_random(3)))
