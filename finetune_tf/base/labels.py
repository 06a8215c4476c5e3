"""Labels: the names behind the logits, in logit order."""

import math
import unicodedata
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral
from typing import Any, Literal, Self, get_args

from finetune_tf.errors import DataError

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]

_MOST = 1_000_000  # outputs that a model may have; more is a mistake in the call
_SHOWN = 20  # names that a message lists


class Labels(tuple[str, ...]):
    """Names of the outputs, in order, with the kind of problem they belong to.

    Args:
        names: One name per logit. A regression has exactly one.
        problem_type: As in Hugging Face configs. By default one name means a regression and
            several mean that exactly one of them is right.

    Raises:
        DataError: If there is no name, a name twice, something that is no name, or the problem
            type does not fit.
    """

    problem_type: ProblemType

    def __new__(cls, names: Iterable[object], problem_type: ProblemType | None = None) -> Self:
        """Makes checked labels."""
        if not isinstance(names, Iterable) or isinstance(names, set | frozenset):
            raise DataError(
                f"Labels are a list of names in the order of the outputs, found {names!r}."
            )
        labels = super().__new__(cls, map(_name, names))
        if problem_type is None:
            problem_type = "regression" if len(labels) == 1 else "single_label_classification"
        if problem_type not in get_args(ProblemType):
            raise DataError(
                f"Unknown problem type {problem_type!r}: choose one of {get_args(ProblemType)}."
            )
        if not labels:
            raise DataError("There are no labels. Name at least one, or one for a regression.")
        repeated = sorted(name for name, count in Counter(labels).items() if count > 1)
        if repeated:
            raise DataError(
                f"Each label needs a name of its own; found twice: {repeated[:_SHOWN]}."
            )
        if problem_type == "regression" and len(labels) > 1:
            raise DataError(f"A regression has one output, found {len(labels)}: {labels.told()}.")
        if problem_type == "single_label_classification" and len(labels) == 1:
            raise DataError(
                f"Found one class only, {labels[0]!r}: a classifier needs two or more. "
                "For a number, use the problem type 'regression'."
            )
        labels.problem_type = problem_type
        return labels

    @classmethod
    def of(cls, labels: "Labels | int | Iterable[object] | Mapping[object, object]") -> Self:
        """Accepts what a user may write for labels.

        Args:
            labels: Names in order, how many there are, or `Labels`; or names by number or numbers
                by name, as in a config's id2label and label2id.

        Raises:
            DataError: If it is nothing of that.
        """
        if isinstance(labels, cls):
            return labels
        if isinstance(labels, Integral) and not isinstance(labels, bool):
            if not 1 <= labels <= _MOST:
                raise DataError(f"labels= as a number is from 1 to {_MOST:,}, found {labels!r}.")
            return cls(f"LABEL_{i}" for i in range(int(labels)))
        if isinstance(labels, str):
            raise DataError(f"Labels are a list of names, found the single text {labels!r}.")
        if isinstance(labels, bytes) or not isinstance(labels, Iterable):
            raise DataError(f"Labels are a list of names, or how many there are; found {labels!r}.")
        return cls(_in_order(labels) if isinstance(labels, Mapping) else labels)

    def index_of(self, value: object) -> int | None:
        """The place of a label: by its name, else by its number where no name is a number.

        Blanks around a name do not count, and 1, 1.0, "1" and "1.0" are the same.

        Returns:
            From 0, or None if it is none of the labels.
        """
        name, places = label_text(value), self._places
        if name in places:
            return places[name]
        number = whole_number(name)
        for spelling in (name.strip(), number):
            if spelling in places:
                return places[spelling]
        if number is not None and self._names_no_number:
            return int(number) if len(number) < 10 and 0 <= int(number) < len(self) else None
        return None

    def number_of(self, value: object) -> int | None:
        """An old name of `index_of`, for one version."""
        text = "Labels.number_of is now Labels.index_of; the old name goes in the next version."
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return self.index_of(value)

    @property
    def _places(self) -> dict[str, int]:
        """The number of each name, and of each name in its plainest spelling."""
        if "_kept_places" not in self.__dict__:
            places = {name: i for i, name in enumerate(self)}
            for i, name in enumerate(self):
                places.setdefault(name.strip(), i)
                if (number := whole_number(name)) is not None:
                    places.setdefault(number, i)
            self._kept_places = places
        return self._kept_places

    @property
    def _names_no_number(self) -> bool:
        if "_kept_names_no_number" not in self.__dict__:
            self._kept_names_no_number = not any(whole_number(name) is not None for name in self)
        return self._kept_names_no_number

    def told(self) -> str:
        """The names for a message; of many the first ones and how many there are."""
        shown = ", ".join(self[:_SHOWN])
        return shown if len(self) <= _SHOWN else f"{shown}, … ({len(self):,} in all)"

    def __reduce__(self) -> tuple:
        return type(self), (tuple(self), self.problem_type)

    def __repr__(self) -> str:
        return f"Labels({list(self)}, problem_type={self.problem_type!r})"


def _in_order(labels: Mapping) -> list[str]:
    """Names by number, or numbers by name, as a list."""
    numbers = [str(i) for i in range(len(labels))]
    names = {str(number): str(name) for number, name in labels.items()}
    if set(names) != set(numbers):
        names = {number: name for name, number in names.items()}
    if set(names) != set(numbers):
        raise DataError(
            "Labels in a dict are names by number from 0 on, {0: 'negative', 1: 'positive'}, or "
            f"numbers by name; found {dict(labels)}."
        )
    return [names[number] for number in numbers]


def _name(value: Any) -> str:
    """The name of a label that somebody gave."""
    value = value.item() if hasattr(value, "item") and not isinstance(value, str) else value
    is_name = isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    if not is_name:
        raise DataError(
            f"The name of a label is a text or a number, found {value!r}. Write its name."
        )
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return label_text(value)


def label_text(value: object) -> str:
    """A label as text."""
    try:
        return value if isinstance(value, str) else str(value)
    except ValueError:  # Python does not write out integers of more than 4,300 digits
        return f"a number of {value.bit_length():,} bits"


def is_integer_text(value: str) -> bool:
    """Whether a text writes a whole number, such as "3" or "-1"."""
    return value.isascii() and value.removeprefix("-").isdigit()


def number_in(text: str) -> float | None:
    """The finite number that a text writes in ASCII digits, or None."""
    if not text.isascii() or "_" in text:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def whole_number(text: str) -> str | None:
    """A text that writes a whole number in its plainest form ("1" for "1.0"), else None."""
    text = text.strip()
    if is_integer_text(text):
        return text
    number = number_in(text)
    return None if number is None or not number.is_integer() else str(int(number))


def similar_key(name: str) -> str:
    """What stays the same of a name when its case, blanks, width or invisible marks differ."""
    seen = (c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    key = " ".join("".join(seen).casefold().split())  # without marks of no width
    number = whole_number(key)
    if number is not None:  # "01" and "1"
        return str(int(number)) if len(number) < 20 else number
    return {"true": "1", "false": "0"}.get(key, key)


def unseen_labels(names: Collection[str], labels: Labels) -> str:
    """What to do about labels that are none of those known, as sentences after an error.

    Args:
        names: The labels that are unknown.
        labels: Those that are known.

    Returns:
        Empty if there are none, else begins with a blank.
    """
    if not names:
        return ""
    if set(names) & {"-1", "-100"}:
        hidden = "-1" if "-1" in names else "-100"
        return f" A label of {hidden} often marks a hidden one: read such data with label=None."
    known = {similar_key(label): label for label in labels}
    meant = [
        f"{name!r} differs from {known[similar_key(name)]!r} by case or blanks only"
        for name in sorted(names)
        if similar_key(name) in known
    ]
    if meant:
        return f" {'; '.join(meant[:3])}: correct the spelling."
    if all(whole_number(name) is not None for name in names) and labels._names_no_number:
        return (
            f" As numbers, labels count from 0 to {len(labels) - 1}: name them in the order of "
            "their numbers with labels=[…]."
        )
    which = ", ".join(map(repr, sorted(names)[:3])) + (", …" if len(names) > 3 else "")
    return (
        f" Nothing can be learned or measured about a class that the training data lack ({which}):"
        " add examples of it there and name it among labels=[…], or leave such rows out."
    )
