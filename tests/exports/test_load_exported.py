"""An exported folder predicts and is compared as the model that it was made of."""

import numpy as np
import pytest
from helpers_exports import ENGINES, require, small_exportable
from helpers_models import ENGLISH

import finetune_tf as ft
from finetune_tf.messages import quiet
from finetune_tf.tasks.question_answering import QuestionAnswering

TEXTS = ["a very good film", "the actor was dull", "bad", "a fine story and a great actor"]


@pytest.fixture(scope="module")
def saved(tiny_bert, tmp_path_factory):
    """A small classifier, and the folder that it was exported to."""
    model = small_exportable("two labels", tiny_bert)
    with quiet():
        return model, model.export(tmp_path_factory.mktemp("exports") / "served")


def test_predictions_are_those_of_the_model(saved):
    model, folder = saved
    served = ft.load_exported(folder)
    assert (served.name, served.labels, served.max_length) == (
        "tf_saved_model",
        model.labels,
        model.max_length,
    )
    found, wanted = ft.predict(served, TEXTS), ft.predict(model, TEXTS)
    assert [each.label for each in found] == [each.label for each in wanted]
    np.testing.assert_allclose(
        [each.score for each in found], [each.score for each in wanted], atol=1e-6
    )
    assert repr(served) == f"<ExportedModel {folder}: tf_saved_model, text-classification>"


def test_it_is_evaluated_beside_the_model(saved):
    model, folder = saved
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(ENGLISH, 5)) for _ in range(40)]
    test = ft.data.from_arrays(texts, generator.choice(["neg", "pos"], 40).tolist())
    served = ft.load_exported(folder)
    comparison = ft.compare({"model": model, "served": served}, test)
    first, second = comparison.rows
    assert first.metrics == pytest.approx(second.metrics)
    assert (second.difference.value, second.difference.low, second.difference.high) == (0, 0, 0)
    assert second.trainable_parameters == 0
    report = ft.evaluate(model, test, baseline=served)
    assert report.baseline.name == "tf_saved_model" and report.difference.value == 0
    assert ft.evaluate(served, test).metrics == pytest.approx(report.metrics)


@pytest.mark.parametrize("case", ["several labels", "number", "tokens", "answers", "vectors"])
def test_every_task_of_texts(case, tiny_bert, tmp_path):
    given = {"texts": TEXTS}
    if case == "answers":
        given = {"question": ["was it good", "a film"], "context": ["the film was very good"] * 2}
    with quiet():
        model = small_exportable(case, tiny_bert)
        served = ft.load_exported(model.export(tmp_path / "served"))
        found, wanted = ft.predict(served, **given), ft.predict(model, **given)
    assert str(found) == str(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("format", ENGINES)
@pytest.mark.parametrize("case", ["two labels", "tokens", "answers", "vectors"])
def test_every_engine(format, case, tiny_bert, tmp_path):
    require(format)
    given = {"texts": TEXTS}
    if case == "answers":
        given = {"question": ["was it good", "a film"], "context": ["the film was very good"] * 2}
    with quiet():
        model = small_exportable(case, tiny_bert)
        served = ft.load_exported(model.export(tmp_path / "served", format))
        found, wanted = ft.predict(served, **given), ft.predict(model, **given)
    if case == "vectors":
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    else:
        rounded = [str(each).replace(" ", "") for each in (found, wanted)]
        assert rounded[0] == rounded[1]


def test_a_length_that_was_chosen_for_a_model_of_answers(tiny_bert, tmp_path, monkeypatch):
    """Rows of a context are as long as those of the model, and not as is usual for the task."""
    monkeypatch.setattr(QuestionAnswering, "usual_length", 16)
    with quiet():
        model = ft.load(tiny_bert, "question-answering", max_length=24)
        served = ft.load_exported(model.export(tmp_path / "served"))
    assert (
        (served.row_length, served.max_length) == (model.row_length, model.max_length) == (24, 24)
    )
    with quiet():
        usual = ft.load(tiny_bert, "question-answering")
        served = ft.load_exported(usual.export(tmp_path / "usual"))
    assert (
        (served.row_length, served.max_length) == (usual.row_length, usual.max_length) == (16, 32)
    )
