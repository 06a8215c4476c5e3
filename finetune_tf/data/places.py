"""Where rows are in their source: lines of a file, rows of a sheet, positions in an array."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

SHOWN = 5  # rows that a message names


@dataclass(frozen=True)
class Places:
    """The place of each row in the file or table that it comes from.

    Attributes:
        numbers: For each row the line on which it begins in a text file, the row of a sheet, or
            its position in an array.
        unit: What is counted: "line", "item" or "row".
        counted_from: The number of the first one: 1 for lines and rows of files, 0 for positions
            in arrays and data frames. Messages mention the latter.
    """

    numbers: Sequence[int]
    unit: str = "row"
    counted_from: int = 0

    def __len__(self) -> int:
        return len(self.numbers)

    def at(self, rows: Sequence[int]) -> Self:
        """The places of some of the rows."""
        return type(self)([self.numbers[row] for row in rows], self.unit, self.counted_from)

    def name(self, row: int) -> str:
        """The place of one row: "line 3"."""
        return f"{self.unit} {self.numbers[row]:,}"

    def title(self, row: int) -> str:
        """The place of one row as the beginning of a sentence: "Line 3"."""
        return self.name(row).capitalize()

    def names(self, rows: Sequence[int]) -> str:
        """The places of the first few of some rows: "line 3, line 8, …"."""
        return ", ".join(map(self.name, rows[:SHOWN])) + (", …" if len(rows) > SHOWN else "")

    def listed(self, wrong: Sequence[tuple[int, Any]]) -> str:
        """Formats the first few rows with their values, and the number of all.

        Args:
            wrong: Row number and value of each.

        Returns:
            A text such as "line 3 (None); 1 of 20 rows".
        """
        shown = ", ".join(f"{self.name(row)} ({shortened(value)})" for row, value in wrong[:SHOWN])
        more = ", …" if len(wrong) > SHOWN else ""
        origin = ", counted from 0" if self.counted_from == 0 else ""
        return f"{shown}{more}; {len(wrong):,} of {len(self):,} rows{origin}"


def shortened(value: Any, length: int = 40) -> str:
    """The representation of a value, cut to a length."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of too many digits, a list within itself
        text = f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= length else text[: length - 3] + "…"


def counted(number: int, one: str, many: str) -> str:
    """A number with what it counts: "1 row", "2,000 rows"."""
    return f"{number:,} {one if number == 1 else many}"
