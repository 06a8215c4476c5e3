"""A report as one HTML file: what it shows, what it leaves out, and what it refuses."""

import ast
import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers_models import small_model
from helpers_reports import EVIL, HISTORY, SETTINGS, report_on, results

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, DataError, DataTypeError, ModelError
from finetune_tf.evaluation.bootstrap import Difference
from finetune_tf.evaluation.report import Baseline
from finetune_tf.pages.sections import SECTIONS

MOODS = ("bad", "good")
ALL = {"results": results(), "history": HISTORY, "settings": SETTINGS}


class Parsed(HTMLParser):
    """The tags of a page with their attributes, and the words that are not data or code."""

    DATA = ("bdi", "code", "pre", "style", "title")
    VOID = ("meta", "img", "br")

    def __init__(self, page):
        super().__init__()
        self.tags, self.words, self.within = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag not in self.VOID:
            is_data = tag in self.DATA or "passage" in attributes.get("class", "")
            self.within.append((tag, is_data))

    def handle_endtag(self, tag):
        assert self.within.pop()[0] == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if not any(is_data for _, is_data in self.within):
            self.words.append(data)


def page_of(report, path, lang="en", **others):
    return report.save_html(path / "report.html", lang, **others).read_text("utf-8")


def text_of(page):
    """What a reader sees."""
    body = re.sub(r"</?(bdi|code|span)[^>]*>", "", page.partition("</head>")[2])
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


@pytest.fixture(scope="module")
def report():
    return report_on(duplicates=3, contradictions=2)


@pytest.fixture(scope="module", params=["en", "zh"])
def full(request, report, tmp_path_factory):
    """The language and the text of a page with everything that needs no model."""
    folder = tmp_path_factory.mktemp("pages")
    return request.param, page_of(report, folder, request.param, **ALL, explanations=0)


def test_sections_are_linked_in_reading_order(full):
    _, page = full
    tags = Parsed(page).tags
    shown = [attributes["id"] for tag, attributes in tags if tag == "section"]
    links = [attributes["href"][1:] for tag, attributes in tags if tag == "a"]
    expected = [key for key in SECTIONS if key not in LEFT_OUT]
    assert links == shown == expected


LEFT_OUT = {"predictions", "pictures", "side_by_side"}


def test_nothing_of_data_becomes_markup_and_nothing_is_loaded(full):
    _, page = full
    tags = Parsed(page).tags
    assert {tag for tag, _ in tags}.isdisjoint({"script", "img", "iframe", "link", "object"})
    for _, attributes in tags:
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("href", "#").startswith("#")
        assert "src" not in attributes
    assert "url(" not in page and "@import" not in page
    assert "<script" not in page and "\x1b" not in page and "\u202e" not in page
    assert html.escape(EVIL) in page
    assert not re.search(r' id="(\w+)".* id="\1"', page, re.DOTALL)


def test_a_chinese_page_has_no_english_sentence(report, tmp_path):
    page = page_of(report, tmp_path, "zh", **ALL)
    parsed = Parsed(page)
    read = [*parsed.words, *(a.get("aria-label", "") for tag, a in parsed.tags if tag != "svg")]
    english = [text for text in read if re.search(r"[A-Za-z]{2,} [A-Za-z]{2,}", text)]
    assert not english
    assert 'lang="zh-Hans"' in page and "模型优于基线" in page


def test_numbers_are_the_same_in_both_languages(report, tmp_path):
    numbers = [
        re.findall(r"[-+]?\d+\.\d{3}", text_of(page_of(report, tmp_path, lang, **ALL)))
        for lang in ("en", "zh")
    ]
    assert sorted(numbers[0]) == sorted(numbers[1]) and len(numbers[0]) > 100


def test_the_summary_has_the_metric_with_its_interval_beside_the_baseline(report, tmp_path):
    text = text_of(page_of(report, tmp_path))
    value, baseline = report.metrics["accuracy"], report.baseline.metrics["accuracy"]
    assert f"accuracy {value:.3f} 95% interval" in text
    assert f"{report.interval.low:.3f} to {report.interval.high:.3f}" in text
    assert f"baseline {baseline:.3f}" in text
    assert "3 of 300 test texts also occur in the training examples" in text
    assert "2 of 300 test texts also occur with another label" in text


@pytest.mark.parametrize(
    ("kind", "difference", "sentence"),
    [
        ("single_label_classification", (0.1, 0.05, 0.15), "The model is better than the baseline"),
        ("single_label_classification", (-0.1, -0.15, -0.05), "The model is worse than the"),
        ("single_label_classification", (0.1, -0.05, 0.25), "does not show that the model differs"),
        ("fill-mask", (-3.0, -4.0, -2.0), "The model is better than the baseline"),
        ("fill-mask", (3.0, 2.0, 4.0), "The model is worse than the baseline"),
    ],
)
def test_the_verdict_follows_from_the_interval(kind, difference, sentence, tmp_path):
    metric = "perplexity" if kind == "fill-mask" else "accuracy"
    report = report_on(
        MOODS, kind=kind, baseline=Baseline("tfidf", {metric: 0.7}),
        difference=Difference(metric, *difference, 2000),
    )  # fmt: skip
    report.metrics.setdefault(metric, 0.8)
    text = page_of(report, tmp_path)
    assert sentence in text
    assert ("Lower is better." in text) == (kind == "fill-mask")


def test_without_a_baseline_the_page_says_that_nothing_was_compared(tmp_path):
    text = text_of(page_of(report_on(MOODS, baseline=None, difference=None), tmp_path))
    assert "Nothing was compared" in text and "difference" not in text


def test_what_is_left_out_says_what_would_provide_it(report, tmp_path):
    page = page_of(report, tmp_path)
    needs = {
        title: re.findall(r"<code>(\w+=)</code>", names)
        for title, names in re.findall(r"<li>([^<]+?): give (.*?) to <code>save_html", page)
    }
    assert needs == {
        "Learning curves": ["history="],
        "Calibration": ["model="],
        "Parts of the test set": ["model="],
        "Highest losses": ["model="],
        "Likely label errors in the test set": ["model="],
        "Near duplicates": ["model=", "train="],
        "Drift between training and test": ["model=", "train="],
    }


def test_a_report_without_its_examples_says_how_to_get_them(tmp_path):
    model = small_model(MOODS)
    text = text_of(page_of(report_on(MOODS), tmp_path, model=model))
    assert "Calibration: the report does not have its test examples; make it with evaluate" in text


def test_learning_curves_say_when_the_validation_loss_was_lowest(report, tmp_path):
    text = text_of(page_of(report, tmp_path, history=HISTORY))
    assert "lowest after epoch 2 of 3 (0.450) and rose afterwards" in text
    falling = {"loss": [3.0, 2.0], "val_loss": [2.0, 1.0]}
    assert "after the last of 2 epochs" in text_of(page_of(report, tmp_path, history=falling))
    page_of(report, tmp_path, history={"loss": [float("nan")]})  # a diverged fit of one epoch
    nan = float("nan")
    rare = {"loss": [4.0, 3.0, 2.0, 1.0], "val_loss": [nan, 0.5, nan, 0.75]}
    assert "lowest after epoch 2 of 4" in text_of(page_of(report, tmp_path, history=rare))


def test_many_classes_are_listed_by_their_confusions_and_the_page_stays_small(tmp_path):
    names = [f'class {i} "of" many' for i in range(150)]
    report = report_on(names, rows=20_000)
    page = page_of(report, tmp_path, **{**ALL, "results": results(names, rows=500)})
    assert len(page) < 1_500_000
    text = text_of(page)
    assert "The 20 most frequent confusions" in text
    assert "100 classes with a higher F1 are left out." in text
    assert "450 more rows are left out." in text  # of the likely label errors
    assert page.count("line 49<") == 2 and "line 50<" not in page


def test_long_texts_are_cut_and_say_by_how_much(full):
    assert "[…+4,400]" in full[1] and "[…+4,700]" in full[1]
    assert max(map(len, re.findall("w+", full[1]))) == 600


def test_numbers_are_drawn_and_have_no_confusions(tmp_path):
    labels = ft.Labels(["stars"])
    targets = np.linspace(1, 5, 2000)
    report = ft.evaluation.Report(
        "stars", labels, {"pearson": 1.0, "mse": 0.01}, {}, None, targets, targets + 0.1
    )
    page = page_of(report, tmp_path)
    assert page.count('class="point"') == 1500
    text = text_of(page)
    assert "The picture shows 1,500 of 2,000 predictions, drawn at random." in text
    assert "Confusions" not in text and "label errors" not in text
    assert "Pearson correlation is 1.000" in text


def test_generated_texts_are_shown_side_by_side(tmp_path):
    example = {"source": EVIL, "reference": "رائع", "prediction": "great"}
    report = report_on(
        MOODS, kind="single_label_classification", examples=[example] * 3,
        notes=["nrefs:1|case:mixed", "rouge-score: F-measure, words of the letters a to z and "
               "digits, stemmed."],
    )  # fmt: skip
    page = page_of(report, tmp_path, "zh")
    assert "测试集的前 3 个样本" in re.sub("<.*?>", "", page)
    assert "<code>nrefs:1|case:mixed</code>" in page and "取词干" in page


def test_a_command_that_was_typed_is_shown_instead_of_a_snippet(report, tmp_path):
    typed = page_of(report, tmp_path, settings={"command": "finetune-tf train 'a <b>.csv'"})
    assert "<code>finetune-tf train &#x27;a &lt;b&gt;.csv&#x27;</code>" in typed
    snippet = page_of(report, tmp_path, settings=SETTINGS)
    assert "test = ...  # read the data: &lt;b&gt;test&lt;/b&gt;.csv" in snippet
    assert "    learning_rate=" not in snippet and "    seed=1," in snippet


def test_a_snippet_is_python(report, tmp_path):
    settings = {**SETTINGS, "train": "two\nlines # of data", "checkpoint": "quote\"'\\"}
    page = page_of(report, tmp_path, settings=settings)
    (code,) = re.findall(r"<pre.*?><code>(.*?)</code>", page, re.DOTALL)
    tree = ast.parse(html.unescape(code))
    (call,) = [
        n for n in ast.walk(tree) if isinstance(n, ast.Call) and "finetune(" in ast.unparse(n)
    ]
    assert call.args[0].value == "quote\"'\\"


def test_a_snippet_has_the_code_of_selectors_and_objectives(report, tmp_path):
    given = {
        "policy": str(ft.select.head() | ~ft.select.blocks(0, 2)),
        "rates": {str(ft.select.head()): 10.0, "embeddings/word": 0.5},
        "objectives": [repr(ft.objectives.RDrop(2.0)), repr(ft.objectives.Mixup())],
    }
    page = page_of(report, tmp_path, settings={**SETTINGS, **given})
    (code,) = re.findall(r"<pre.*?><code>(.*?)</code>", page, re.DOTALL)
    (call,) = re.findall(r"ft.finetune(\(.*?\n\))", html.unescape(code), re.DOTALL)
    names = {"ft": ft, "train": 0, "validation": 0, "test": 0}
    arguments = eval(f"dict{call.replace(repr(SETTINGS['checkpoint']) + ',', '', 1)}", names)
    assert str(arguments["policy"]) == given["policy"]
    assert {str(key): factor for key, factor in arguments["rates"].items()} == given["rates"]
    assert [repr(each) for each in arguments["objectives"]] == given["objectives"]


class TestFiles:
    def test_a_missing_folder_is_created_and_an_earlier_file_replaced(self, report, tmp_path):
        path = tmp_path / "new" / "folder" / "page.html"
        assert report.save_html(path) == path
        path.write_text("old")
        report.save_html(str(path), "zh")
        assert path.read_text("utf-8").startswith('<!doctype html>\n<html lang="zh-Hans">')
        assert [each.name for each in path.parent.iterdir()] == ["page.html"]

    def test_a_folder_is_no_file(self, report, tmp_path):
        message = rf"{tmp_path} is a folder. Name a file in it, such as {tmp_path}/report.html."
        with pytest.raises(DataError, match=re.escape(message)):
            report.save_html(tmp_path)

    def test_where_nothing_can_be_written(self, report, tmp_path):
        (tmp_path / "file").write_text("text")
        with pytest.raises(DataError, match="cannot be written"):
            report.save_html(tmp_path / "file" / "report.html")

    def test_a_report_saves_its_page_beside_the_other_files(self, tmp_path):
        folder = report_on(MOODS).save(tmp_path / "out", lang="zh", history=HISTORY)
        assert {path.name for path in folder.iterdir()} == {
            "report.json", "report.txt", "report.png", "report.html",
        }  # fmt: skip
        assert "学习曲线" in (folder / "report.html").read_text("utf-8")


class TestRefused:
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"lang": "fr"}, ArgumentError, "lang='fr': a report can be written in 'en' and 'zh'"),
            ({"explanations": -1}, ArgumentError, "explanations must be an integer >= 0 and <= 50"),
            ({"explanations": 51}, ArgumentError, "explanations must be an integer >= 0 and <= 50"),
            ({"train": ["a text"]}, DataTypeError, "train= must be Examples, as from_csv returns"),
            ({"settings": 3}, DataTypeError, "settings= must be a dict, such as the settings of"),
            ({"history": [0.1]}, DataTypeError, "history= expects what model.fit returns"),
            ({"results": ["text"]}, ArgumentError, "results= takes Measured, Slices, TopLosses,"),
            ({"results": results()[:1] * 2}, ArgumentError, "two results of the kind Measured"),
            ({"language": "en"}, ArgumentError, "lang"),
        ],
    )  # fmt: skip
    def test_arguments(self, report, tmp_path, arguments, error, message):
        with pytest.raises(error, match=re.escape(message)):
            report.save_html(tmp_path / "report.html", **arguments)
        assert not list(tmp_path.iterdir())

    def test_another_model(self, report, tmp_path):
        with pytest.raises(ModelError, match="model= must be the model that was evaluated"):
            report.save_html(tmp_path / "report.html", model=small_model())
