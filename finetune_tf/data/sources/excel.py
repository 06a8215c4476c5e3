"""Examples from Excel sheets."""

from pathlib import Path
from typing import Any

from finetune_tf.base.labels import ProblemType
from finetune_tf.base.spelling import names_checked
from finetune_tf.data.columns import synonyms_of_other_columns
from finetune_tf.data.examples import Examples
from finetune_tf.data.places import Places
from finetune_tf.data.sources.building import (
    GivenLabels,
    LabelColumns,
    OnInvalid,
    Wanted,
    build_examples,
)
from finetune_tf.data.sources.dropping import Dropped
from finetune_tf.data.sources.text_files import as_path, read_bytes
from finetune_tf.errors import DataError, MissingExtraError


@names_checked(also=synonyms_of_other_columns)
def from_excel(
    path: str | Path,
    text: str | None = None,
    text_pair: str | None = None,
    label: LabelColumns | None = "label",
    labels: GivenLabels | None = None,
    problem_type: ProblemType | None = None,
    sheet: str | int = 0,
    on_invalid: OnInvalid = "raise",
    **columns: str,
) -> Examples:
    """Reads a sheet of an Excel file (.xlsx) whose first row names the columns.

    Args:
        path: The file.
        text: Column of the texts.
        text_pair: Column of the second texts.
        label: Column of the labels; or several columns of 0 and 1, one for each label; or None.
        labels: Names of the labels in the order of their numbers; by default they are inferred.
        problem_type: As in Hugging Face configs; by default it is inferred from the column.
        sheet: Name of the sheet, or its number, counted from 0; by default the first one.
        on_invalid: What to do about rows in which a text or label is missing or wrong: "raise" an
            error that names them, or "drop" them and say how many there are.
        **columns: Other columns by their names in `data.columns.COLUMNS`, where further columns can
            be added: `image=` and `video=` (paths, relative to the folder of the file), or
            `question=`, `context=` and `answers=`. These are read instead of the texts, and
            `answers=` instead of `label`.

    Raises:
        DataError: If the file is missing or not an .xlsx file, a sheet or column is missing, or a
            text or label is missing or wrong.
        MissingExtraError: If the package openpyxl is not installed.
        UnknownArgumentError: If there is no such argument.
    """
    path = as_path(path)
    dropped = Dropped(path.name, on_invalid)
    header, rows, numbers = _read(path, sheet)
    values = dict(zip(header, zip(*rows, strict=True), strict=False))
    return build_examples(
        available=header,
        read=values.__getitem__,
        wanted=Wanted(
            text or "text", text_pair, label, columns, labels, problem_type, text is not None
        ),
        name=path.name,
        dropped=dropped,
        folder=path.parent,
        places=Places(numbers, "row", 1),
    )


def _read(path: Path, sheet: str | int) -> tuple[list[str], list[list[Any]], list[int]]:
    """Returns the header, the rows that are not empty, and their numbers as Excel shows them."""
    read_bytes(path)  # raises the same error for a missing file as the other sources
    try:
        import openpyxl
    except ImportError as error:
        raise MissingExtraError(
            "Excel files are read with the package openpyxl, which is not installed. Install it "
            "with: pip install 'finetune-tf[excel]'"
        ) from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # a file that is damaged or something else fails in any way
        raise DataError(
            f"{path.name} is no Excel file that can be read ({type(error).__name__}: {error}). "
            "Save it as .xlsx, or as CSV for ft.data.from_csv."
        ) from None
    try:
        table = _sheet(book, sheet, path)
        table.reset_dimensions()  # the size that the file states is sometimes wrong
        rows: list[list[Any]] = []
        numbers: list[int] = []
        for number, cells in enumerate(table.iter_rows(), start=1):
            # An error such as #N/A counts as a missing value.
            row = [None if cell.data_type == "e" else cell.value for cell in cells]
            if any(value is not None for value in row):
                rows.append(row)
                numbers.append(number)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{path.name} is damaged ({type(error).__name__}: {error}). Save it again."
        ) from None
    finally:
        book.close()
    if not rows:
        raise DataError(f"{path.name} is empty: at least one example is needed.")
    width = max(map(len, rows))
    rows = [row + [None] * (width - len(row)) for row in rows]
    header = ["" if name is None else str(name).strip() for name in rows.pop(0)]
    if not rows:
        raise DataError(f"{path.name} has a header but no rows: at least one example is needed.")
    return header, rows, numbers[1:]


def _sheet(book: Any, sheet: str | int, path: Path) -> Any:
    names = book.sheetnames
    number = isinstance(sheet, int) and not isinstance(sheet, bool) and 0 <= sheet < len(names)
    if not number and sheet not in names:
        listed = ", ".join(map(repr, names))
        raise DataError(f"{path.name} has no sheet {sheet!r}; its sheets are {listed}.")
    table = book[names[sheet] if number else sheet]
    if not hasattr(table, "iter_rows"):
        raise DataError(f"The sheet {sheet!r} of {path.name} is a chart, not a table of cells.")
    return table
