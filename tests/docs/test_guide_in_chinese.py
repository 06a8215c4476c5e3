"""The guide in Chinese is the guide: the same sections, code, formulas, tables and lists."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
FORMULA = re.compile(r"^\$\$.*?\$\$$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
HAN = re.compile(r"[\u4e00-\u9fff]")


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return FENCE.sub("", text)


def sections(text: str) -> list[str]:
    """What stands below each heading."""
    return re.split(r"^#+ .+$", without_code(text), flags=re.MULTILINE)[1:]


ENGLISH, CHINESE = text_of("guide.md"), text_of("guide.zh-CN.md")


def test_code_and_its_order_are_the_same():
    english = FENCE.findall(ENGLISH)
    assert len(english) > 50
    assert FENCE.findall(CHINESE) == english


def test_formulas_are_the_same():
    english = FORMULA.findall(without_code(ENGLISH))
    assert english
    assert FORMULA.findall(without_code(CHINESE)) == english


def test_the_chinese_guide_has_every_section_on_its_level_and_in_its_place():
    english, chinese = (HEADING.findall(without_code(text)) for text in (ENGLISH, CHINESE))
    assert [level for level, _ in chinese] == [level for level, _ in english]
    # A name such as BLEU is the same in both languages; everything else is translated.
    assert all(HAN.search(title) for _, title in chinese)


@pytest.mark.parametrize(
    ("what", "pattern"),
    [("rows of tables", r"^ *\|.+\|$"), ("items of lists", r"^ *(?:-|\d+\.) ")],
)
def test_each_section_has_the_same_tables_and_lists(what, pattern):
    titles = [title for _, title in HEADING.findall(without_code(ENGLISH))]
    counts = [
        [len(re.findall(pattern, section, re.MULTILINE)) for section in sections(text)]
        for text in (ENGLISH, CHINESE)
    ]
    assert sum(counts[0]) > 20
    different = [
        f"{title}: {english} {what} in English, {chinese} in Chinese"
        for title, english, chinese in zip(titles, *counts, strict=True)
        if english != chinese
    ]
    assert not different


def test_each_paragraph_with_more_than_names_is_chinese():
    paragraphs = re.split(r"\n\s*\n", FORMULA.sub("", without_code(CHINESE)))
    english = [
        each
        for each in paragraphs
        if each.strip() and not HAN.search(each) and "[English]" not in each
    ]
    assert not english


def test_names_in_code_are_those_of_the_english_section():
    """A name that is left out, or spelled differently, is a sentence that is missing or wrong."""
    for title, english, chinese in zip(
        HEADING.findall(without_code(ENGLISH)), sections(ENGLISH), sections(CHINESE), strict=True
    ):
        names = [set(re.findall(r"`(ft\.[\w.]+)", section)) for section in (english, chinese)]
        assert names[1] == names[0], f"{title[1]}: {names[0] ^ names[1]}"
