"""The words of a page in English and Chinese."""

import ast
import re
from pathlib import Path

import pytest

import finetune_tf
from finetune_tf.errors import ArgumentError
from finetune_tf.evaluation.evaluators.registry import EVALUATORS
from finetune_tf.pages.words import CATALOGUES, Words

PAGES = Path(finetune_tf.__file__).parent / "pages"
ENGLISH = CATALOGUES["en"]


@pytest.mark.parametrize("lang", CATALOGUES)
def test_all_languages_have_the_same_texts_with_the_same_values_and_code(lang):
    others = CATALOGUES[lang]
    assert others.keys() == ENGLISH.keys()
    for key, text in others.items():
        for pattern in (r"\{\w+\}", r"`[^`]*`"):
            assert sorted(re.findall(pattern, text)) == sorted(re.findall(pattern, ENGLISH[key]))


def test_no_chinese_text_has_two_english_words_in_a_row():
    for key, text in CATALOGUES["zh"].items():
        plain = re.sub(r"`[^`]*`|evaluate\(.*?\)", "", text)
        assert not re.search(r"[A-Za-z]{2,} [A-Za-z]{2,}", plain), key


def test_every_key_that_is_written_in_the_code_exists_and_every_text_is_used():
    """Keys that are put together, such as f"unit.{unit}", name their group."""
    written, groups = set(), set()
    for path in PAGES.rglob("*.py"):
        if path.name.startswith("words_"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                written.add(node.value)
            if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                groups.add(node.values[0].value)
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("words", "words.html"):
                key = node.args[0]
                if isinstance(key, ast.Constant):
                    assert key.value in ENGLISH, f"{path.name}: {key.value}"
    groups |= {
        f"{name}." for name in written if f"{name}." in {k.split(".")[0] + "." for k in ENGLISH}
    }
    unused = [
        k for k in ENGLISH if k not in written and not k.startswith(tuple(filter(None, groups)))
    ]
    assert not unused


@pytest.mark.parametrize("lang", CATALOGUES)
def test_units_and_main_metrics_of_all_tasks_have_names(lang):
    words = Words(lang)
    for kind, evaluator in EVALUATORS.items():
        for key in (f"unit.{evaluator.unit}", f"unit.{evaluator.example_unit}"):
            assert words.has(key), kind
        assert words.has(f"metric.{evaluator.main_metric}"), kind


@pytest.mark.parametrize("lang", ["de", "EN", "", None, 3])
def test_other_languages_are_refused_with_what_exists(lang):
    with pytest.raises(ArgumentError) as error:
        Words(lang)
    assert str(error.value) == (
        f"lang={lang!r}: a report can be written in 'en' and 'zh', English and Chinese."
    )


@pytest.mark.parametrize(
    ("lang", "value", "shown"),
    [
        ("en", "12 to 20", "12 to 20"),
        ("zh", "12 to 20", "12 至 20"),
        ("zh", "-1.5 to 1e+06", "-1.5 至 1e+06"),
        ("zh", "from 12 to 20", "from 12 to 20"),
        ("zh", "good", "good"),
    ],
)
def test_ranges_of_numbers_are_translated_and_names_are_not(lang, value, shown):
    assert Words(lang).range_of(value) == shown


def test_values_are_escaped_and_code_is_marked():
    words = Words("en")
    assert words.html("summary.baseline_named", name="<b>") == "baseline <bdi>&lt;b&gt;</bdi>"
    assert words.html("worst.needs_model").endswith(
        "give <code>model=</code> to <code>save_html</code>."
    )
