"""Rows that cannot be used: they raise an error, or are left out and counted."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from finetune_tf.data.places import Places
from finetune_tf.errors import ArgumentError, DataError, DataTypeError
from finetune_tf.messages import say

if TYPE_CHECKING:
    from finetune_tf.data.examples import Examples


class Dropped:
    """Decides about rows that cannot be used, and counts those that are left out.

    Args:
        name: Name of the source in messages.
        on_invalid: "raise" an error about the first such rows, or "drop" them.

    Attributes:
        drops: Whether such rows are left out.
        count: How many were left out so far.

    Raises:
        ArgumentError: If `on_invalid` is neither.
    """

    def __init__(self, name: str, on_invalid: str = "raise") -> None:
        if on_invalid not in ("raise", "drop"):
            raise ArgumentError(f"on_invalid is 'raise' or 'drop', found {on_invalid!r}.")
        self._name = name
        self.drops = on_invalid == "drop"
        self._places: dict[str, list[str]] = {}
        self.count = 0

    def refuse(self, error: DataError | DataTypeError, places: list[str]) -> None:
        """Raises the error, or records that its rows are left out.

        Args:
            error: An error about single rows.
            places: Where these rows are in the source: "line 3".
        """
        if not self.drops:
            error.args = (f'{error} With on_invalid="drop" such rows are left out.',)
            raise error
        self._places.setdefault(error.reason, []).extend(places)
        self.count += len(places)

    def without_invalid(
        self,
        make: "Callable[[list[list], Places], Examples]",
        columns: list[list],
        places: Places,
    ) -> "Examples":
        """Makes examples from columns; with "drop", without the rows that errors name.

        Args:
            make: Checks columns (and their places) and makes examples from them.
            columns: The values of each column.
            places: Where the rows are in the source.
        """
        total = len(places) + self.count
        while True:
            try:
                examples = make(columns, places)
                break
            except (DataError, DataTypeError) as error:
                wrong = set(error.rows)
                if not wrong or len(wrong) == len(places):
                    raise
                self.refuse(error, [places.name(row) for row in sorted(wrong)])
            kept = [row for row in range(len(places)) if row not in wrong]
            columns = [[values[row] for row in kept] for values in columns]
            places = places.at(kept)
        if self.count:
            reasons = "; ".join(
                f"{len(found):,} {reason} ({', '.join(found[:3])}{', …' if len(found) > 3 else ''})"
                for reason, found in self._places.items()
            )
            say(f"{self._name}: {self.count:,} of {total:,} rows are left out: {reasons}.")
        return examples
