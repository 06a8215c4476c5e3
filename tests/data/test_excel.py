"""Excel sheets as a source."""

import datetime
import sys

import pytest

from finetune_tf.base.labels import Labels
from finetune_tf.data import from_csv, from_excel
from finetune_tf.errors import DataError, MissingExtraError

openpyxl = pytest.importorskip("openpyxl")


@pytest.fixture
def write(tmp_path):
    """Writes sheets of rows by name, and returns the path of the file."""

    def write(**sheets):
        book = openpyxl.Workbook()
        book.remove(book.active)
        for name, rows in sheets.items():
            sheet = book.create_sheet(name)
            for row in rows:
                sheet.append(row)
        book.save(tmp_path / "a.xlsx")
        return tmp_path / "a.xlsx"

    return write


def message(*args, **options) -> str:
    with pytest.raises(DataError) as error:
        from_excel(*args, **options)
    return str(error.value)


ROWS = [["id", "text", "label"], [1, "good, very", "pos"], [], [2, "bad", "neg"]]


def test_a_sheet(write):
    examples = from_excel(write(train=ROWS))
    assert examples.columns == {"text": ["good, very", "bad"], "label": ["pos", "neg"]}
    assert examples.labels == Labels(["neg", "pos"])
    assert examples.name == "a.xlsx"


def test_sheets_by_name_and_number(write):
    path = write(notes=[["a"]], train=ROWS)
    assert from_excel(path, sheet="train").columns == from_excel(path, sheet=1).columns
    for wrong in ("test", 2, -1, None, True):
        assert message(path, sheet=wrong) == (
            f"a.xlsx has no sheet {wrong!r}; its sheets are 'notes', 'train'."
        )


def test_numbers_and_booleans_are_named_as_in_other_sources(write):
    numbers = [["text", "label"], ["a", 1.0], ["b", 0]]
    assert from_excel(write(train=numbers)).labels == Labels(["0", "1"])
    booleans = [["text", "label"], ["a", True], ["b", False]]
    assert from_excel(write(train=booleans)).labels == Labels(["False", "True"])
    scores = [["text", "label"], ["a", 1.5], ["b", 2]]
    assert from_excel(write(train=scores)).columns["label"] == [1.5, 2.0]


def test_rows_are_told_as_excel_counts_them(write, capsys):
    path = write(train=[*ROWS, [3, "fine", None], [4, None, "pos"], [5, "odd", "#N/A"]])
    assert "Labels of a.xlsx are missing: row 5 (None), row 7 (None); 2 of 5 rows." in message(path)
    assert len(from_excel(path, on_invalid="drop")) == 2
    assert capsys.readouterr().out == (
        "a.xlsx: 3 of 5 rows are left out: 1 with an empty text (row 6); 2 without a label (row "
        "5, row 7).\n"
    )


def test_dates_are_no_labels(write):
    with pytest.raises(TypeError, match="A label of a.xlsx is a text or a number"):
        from_excel(write(train=[["text", "label"], ["a", datetime.date(2020, 1, 1)], ["b", "x"]]))


def test_what_cannot_be_read(write, tmp_path):
    assert "There is no file" in message(tmp_path / "no.xlsx")
    assert "is a folder" in message(tmp_path)
    assert message(write(train=[])) == "a.xlsx is empty: at least one example is needed."
    assert message(write(train=ROWS[:1])) == (
        "a.xlsx has a header but no rows: at least one example is needed."
    )
    assert "a.xlsx has no column 'review'. Its columns are 'id', 'text', 'label'." in message(
        write(train=ROWS), text="review"
    )
    (tmp_path / "b.xlsx").write_bytes((tmp_path / "a.xlsx").read_bytes()[:2000])
    assert "b.xlsx is no Excel file that can be read (BadZipFile" in message(tmp_path / "b.xlsx")
    (tmp_path / "c.xlsx").write_text("text,label\n")
    assert "is no Excel file that can be read" in message(tmp_path / "c.xlsx")
    with pytest.raises(DataError, match="an Excel sheet or a ZIP archive: read sheets with"):
        from_csv(tmp_path / "a.xlsx")


def test_the_extra_is_named(write, monkeypatch):
    path = write(train=ROWS)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingExtraError) as error:
        from_excel(path)
    assert str(error.value) == (
        "Excel files are read with the package openpyxl, which is not installed. Install it with: "
        "pip install 'finetune-tf[excel]'"
    )
