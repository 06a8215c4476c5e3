"""Pages with a model: every task that evaluate reports on gets the sections that make sense."""

import re

import numpy as np
import pytest
from helpers_images import TINY_VIT, levels
from helpers_reports import EVIL, results

import finetune_tf as ft
from finetune_tf.messages import quiet

TEXTS = ("a very good film", "the actor was great", "a very bad film", "the actor was poor")


def sections_of(report, tmp_path, lang="en", **inputs):
    """The page and the keys of its sections."""
    with quiet():
        page = report.save_html(tmp_path / "report.html", lang, **inputs).read_text("utf-8")
    return page, re.findall(r'<section id="(\w+)"', page)


def evaluated(checkpoint, examples, task=None, **options):
    with quiet():
        model = ft.load(checkpoint, task, labels=examples.labels, **options)
        return model, ft.evaluate(model, examples)


@pytest.fixture(scope="module")
def films():
    """120 reviews with different texts, one of them with markup."""
    texts = [f"{TEXTS[i % 4]} {'very ' * (i % 7)}film {'the ' * (i % 11)}" for i in range(120)]
    texts[3] = f"{EVIL} {texts[3]}"
    return ft.data.from_arrays(texts, ["good", "good", "<b>bad</b>", "<b>bad</b>"] * 30, name="f")


@pytest.mark.slow
def test_a_classifier_of_texts_has_all_sections(tiny_bert, films, tmp_path):
    model, report = evaluated(tiny_bert, films)
    page, sections = sections_of(report, tmp_path, model=model, train=films, explanations=2)
    assert sections == [
        "summary", "confusion", "classes", "calibration", "slices", "worst", "label_errors",
        "near_duplicates", "drift", "settings", "reproduce", "left_out",
    ]  # fmt: skip
    assert page.count('class="explanation"') == 2 and "completeness error" in page
    (left_out,) = re.findall(r'id="left_out">(.*?)</section>', page)
    assert left_out.count("<li>") == 1 and "history=" in left_out
    assert "<script" not in page and "<img" not in page

    with quiet():
        others = ft.diagnosis.top_losses(model, films.take(60))
    page, _ = sections_of(report, tmp_path, model=model, results=[others, *results()[:1]])
    assert "not those of the report, so they are not explained." in page


@pytest.mark.slow
def test_results_on_other_data_say_so_and_are_not_mixed_with_the_test(tiny_bert, films, tmp_path):
    """Other examples of the same number, such as those of the validation."""
    model, report = evaluated(tiny_bert, films[:60])
    with quiet():
        labels = ["good"] * 20 + films.columns["label"][80:]
        columns = {"text": films.columns["text"][60:], "label": labels}
        validation = ft.data.Examples(columns, films.labels, "validation")
        given = [ft.diagnosis.top_losses(model, validation), ft.diagnosis.slices(model, validation)]
    page, _ = sections_of(report, tmp_path, model=model, results=given)
    assert "not those of the report, so they are not explained." in page
    assert page.count("This is a result on <bdi>validation</bdi>.") == 2
    accuracy = given[1].overall
    assert accuracy.value != report.metrics["accuracy"]
    assert f"is {accuracy.value:.3f} (95% interval" in re.sub("<[^>]*>", "", page)


@pytest.mark.slow
def test_a_model_that_was_changed_after_the_report_is_noticed(tiny_bert, films, tmp_path):
    """Most sections would otherwise be about another model than the metrics."""
    model, report = evaluated(tiny_bert, films[:58])
    same, _ = sections_of(report, tmp_path, model=model, explanations=0)
    dense = model.get_layer("classifier").dense
    dense.set_weights([-each for each in dense.get_weights()])
    other, _ = sections_of(report, tmp_path, model=model, explanations=0)
    message = "The model that was given predicts otherwise than the one of this report"
    assert message not in same and message in other


@pytest.mark.slow
class TestOtherTasks:
    def test_several_labels(self, tiny_bert, tmp_path):
        labels = ft.Labels(["a", "b", "<c>"], "multi_label_classification")
        rows = [["a"], ["a", "<c>"], [], ["b"]] * 30
        examples = ft.data.from_arrays(list(TEXTS) * 30, rows, labels=labels)
        model, report = evaluated(tiny_bert, examples)
        page, sections = sections_of(report, tmp_path, model=model, explanations=1)
        assert {"classes", "calibration", "slices", "worst"} <= set(sections)
        assert not {"confusion", "predictions", "label_errors"} & set(sections)

    def test_a_regression(self, tiny_bert, tmp_path):
        scores = np.random.default_rng(0).uniform(1, 5, 120).tolist()
        examples = ft.data.from_arrays(list(TEXTS) * 30, scores, problem_type="regression")
        model, report = evaluated(tiny_bert, examples)
        page, sections = sections_of(report, tmp_path, "zh", model=model)
        assert {"predictions", "slices"} <= set(sections)
        assert not {"confusion", "classes", "calibration", "worst"} & set(sections)

    def test_tags_of_words(self, tiny_bert, tmp_path):
        rows = [["a", "good", "film"], ["the", "actor"]] * 60
        tags = [["O", "B-X", "I-X"], ["O", "B-X"]] * 60
        examples = ft.data.from_arrays(tokens=rows, tags=tags)
        model, report = evaluated(tiny_bert, examples, "token-classification")
        page, sections = sections_of(report, tmp_path, model=model, explanations=1)
        assert {"calibration", "slices", "worst"} <= set(sections)
        assert "confusion" not in sections and "120 sentences" in re.sub("<.*?>", "", page)

    def test_answers(self, tiny_bert, tmp_path):
        examples = ft.data.from_arrays(
            question=["the film"] * 40, context=["a very good film"] * 40,
            answers=[{"text": ["good"], "answer_start": [7]}] * 40,
        )  # fmt: skip
        model, report = evaluated(tiny_bert, examples, "question-answering")
        _, sections = sections_of(report, tmp_path, model=model, explanations=1)
        assert "summary" in sections and not {"confusion", "calibration", "worst"} & set(sections)

    def test_hidden_words(self, tiny_bert, tmp_path):
        examples = ft.data.from_arrays(list(TEXTS) * 30)
        model, report = evaluated(tiny_bert, examples, "fill-mask")
        page, sections = sections_of(report, tmp_path, model=model)
        assert "perplexity" in page and not {"confusion", "worst"} & set(sections)

    def test_generated_texts(self, tiny_t5, tmp_path):
        examples = ft.data.from_arrays(source=list(TEXTS) * 10, target=list(TEXTS) * 10)
        model, report = evaluated(tiny_t5, examples, "text2text-generation")
        page, sections = sections_of(report, tmp_path, "zh", model=model)
        assert "side_by_side" in sections and not {"confusion", "worst"} & set(sections)

    def test_images(self, tmp_path):
        colors = ("red", "blue", "green")
        examples = ft.data.from_arrays(
            image=[levels(colors[i % 3], seed=i) for i in range(120)],
            label=[colors[i % 3] for i in range(120)],
        )
        model, report = evaluated(TINY_VIT, examples, new_head=True)
        page, sections = sections_of(report, tmp_path, model=model, train=examples, explanations=2)
        assert {"confusion", "calibration", "worst", "pictures"} <= set(sections)
        assert page.count("data:image/jpeg;base64,") == 4  # the pictures and their scores
        assert page.count("data:image/png;base64,") == len(report.mistakes)
        assert len(page) < 2_000_000
