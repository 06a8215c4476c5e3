"""Labels: the class names of a model, in the order of its logits."""

import math
import unicodedata
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral
from typing import Any, Literal, Self, get_args

from finetune_tf.errors import DataError

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]

_MAX_LABELS = 1_000_000  # a larger number of outputs is certainly a mistake in the call
_MAX_SHOWN = 20  # the number of names that a message lists


class Labels(tuple[str, ...]):
    """Class names in the order of the logits, with the problem type; a tuple of strings.

    Args:
        names: One name per logit; exactly one name for a regression.
        problem_type: "single_label_classification", "multi_label_classification" or "regression",
            as in Hugging Face configs. By default, one name means a regression and several names
            mean single-label classification.

    Raises:
        DataError: If `names` is empty, contains a duplicate or a value that is not a name, or does
            not fit the problem type.

    Example:
        >>> labels = ft.Labels(["negative", "positive"])
        >>> labels[1], labels.index_of("positive"), labels.problem_type
        ('positive', 1, 'single_label_classification')
        >>> ft.Labels(["fear", "joy"], problem_type="multi_label_classification").problem_type
        'multi_label_classification'
    """

    problem_type: ProblemType

    def __new__(cls, names: Iterable[object], problem_type: ProblemType | None = None) -> Self:
        """Creates labels after checking them."""
        if not isinstance(names, Iterable) or isinstance(names, set | frozenset):
            raise DataError(
                f"Labels must be a list of names in the order of the outputs, found {names!r}."
            )
        labels = super().__new__(cls, map(_name, names))
        if problem_type is None:
            problem_type = "regression" if len(labels) == 1 else "single_label_classification"
        if problem_type not in get_args(ProblemType):
            raise DataError(
                f"Unknown problem type {problem_type!r}: choose one of {get_args(ProblemType)}."
            )
        if not labels:
            raise DataError(
                "There are no labels. Pass one name for a regression, or two or more for classes."
            )
        repeated = sorted(name for name, count in Counter(labels).items() if count > 1)
        if repeated:
            raise DataError(
                f"Label names must be unique; these occur twice: {repeated[:_MAX_SHOWN]}."
            )
        if problem_type == "regression" and len(labels) > 1:
            raise DataError(
                f"A regression has one output, found {len(labels)} labels: {labels.listed()}."
            )
        if problem_type == "single_label_classification" and len(labels) == 1:
            raise DataError(
                f"A classifier needs at least two classes, found only {labels[0]!r}. "
                "To predict a number, use the problem type 'regression'."
            )
        labels.problem_type = problem_type
        return labels

    @classmethod
    def of(cls, labels: "Labels | int | Iterable[object] | Mapping[object, object]") -> Self:
        """Creates labels from any form that `ft.load(…, labels=…)` accepts.

        Args:
            labels: `Labels`, a list of names in order, the number of classes, or a dict as in a
                Hugging Face config: id2label (index to name) or label2id (name to index).

        Raises:
            DataError: If `labels` has none of these forms.

        Example:
            >>> list(ft.Labels.of({"positive": 1, "negative": 0}))
            ['negative', 'positive']
            >>> list(ft.Labels.of(2))
            ['LABEL_0', 'LABEL_1']
        """
        if isinstance(labels, cls):
            return labels
        if isinstance(labels, Integral) and not isinstance(labels, bool):
            if not 1 <= labels <= _MAX_LABELS:
                raise DataError(
                    f"The number of labels must be from 1 to {_MAX_LABELS:,}, found {labels!r}."
                )
            return cls(f"LABEL_{i}" for i in range(int(labels)))
        if isinstance(labels, str):
            raise DataError(f"Labels must be a list of names, found the string {labels!r}.")
        if isinstance(labels, bytes) or not isinstance(labels, Iterable):
            raise DataError(
                f"Labels must be a list of names or the number of labels, found {labels!r}."
            )
        return cls(_names_in_order(labels) if isinstance(labels, Mapping) else labels)

    def index_of(self, value: object) -> int | None:
        """Returns the class index of a label.

        Leading and trailing spaces are ignored, and 1, 1.0, "1" and "1.0" are the same label. If no
        label name is a number, a number is accepted as a class index.

        Args:
            value: The name of a label, or a number.

        Returns:
            The index, counted from 0; None if there is no such label.

        Example:
            >>> labels = ft.Labels(["1 star", "2 stars"])
            >>> labels.index_of(" 2 stars"), labels.index_of(0), labels.index_of("3 stars")
            (1, 0, None)
        """
        name, places = label_text(value), self._index_by_name
        if name in places:
            return places[name]
        number = whole_number(name)
        for spelling in (name.strip(), number):
            if spelling in places:
                return places[spelling]
        if number is not None and self._has_no_numeric_name:
            return int(number) if len(number) < 10 and 0 <= int(number) < len(self) else None
        return None

    def number_of(self, value: object) -> int | None:
        """The deprecated name of `index_of`."""
        text = "Labels.number_of is deprecated and will be removed: use Labels.index_of instead."
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return self.index_of(value)

    @property
    def _index_by_name(self) -> dict[str, int]:
        """The index of each name and of its normalized spellings."""
        if "_cached_index_by_name" not in self.__dict__:
            places = {name: i for i, name in enumerate(self)}
            for i, name in enumerate(self):
                places.setdefault(name.strip(), i)
                if (number := whole_number(name)) is not None:
                    places.setdefault(number, i)
            self._cached_index_by_name = places
        return self._cached_index_by_name

    @property
    def _has_no_numeric_name(self) -> bool:
        if "_cached_has_no_numeric_name" not in self.__dict__:
            self._cached_has_no_numeric_name = not any(
                whole_number(name) is not None for name in self
            )
        return self._cached_has_no_numeric_name

    def listed(self) -> str:
        """Formats the names for a message: the first 20 names and, if there are more, the number.

        Example:
            >>> ft.Labels(["bad", "good"]).listed()
            'bad, good'
        """
        shown = ", ".join(self[:_MAX_SHOWN])
        return shown if len(self) <= _MAX_SHOWN else f"{shown}, … ({len(self):,} in all)"

    def __reduce__(self) -> tuple:
        return type(self), (tuple(self), self.problem_type)

    def __repr__(self) -> str:
        return f"Labels({list(self)}, problem_type={self.problem_type!r})"


def _names_in_order(labels: Mapping) -> list[str]:
    """Converts id2label (index to name) or label2id (name to index) to a list of names."""
    numbers = [str(i) for i in range(len(labels))]
    names = {str(number): str(name) for number, name in labels.items()}
    if set(names) != set(numbers):
        names = {number: name for name, number in names.items()}
    if set(names) != set(numbers):
        raise DataError(
            "A dict of labels must map the indices 0, 1, … to names, as in {0: 'negative', 1: "
            f"'positive'}}, or names to indices; found {dict(labels)}."
        )
    return [names[number] for number in numbers]


def _name(value: Any) -> str:
    """Converts a user's label to its name."""
    value = value.item() if hasattr(value, "item") and not isinstance(value, str) else value
    is_name = isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    if not is_name:
        raise DataError(
            f"The name of a label must be a string or a number, found {value!r}. Pass its name."
        )
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return label_text(value)


def label_text(value: object) -> str:
    """Returns a label as a string."""
    try:
        return value if isinstance(value, str) else str(value)
    except ValueError:  # Python does not convert integers of more than 4,300 digits
        return f"a number of {value.bit_length():,} bits"


def understood(value: object, own: Labels | None, labels: Labels) -> object:
    """Returns a label of some data as a model with other labels has to read it.

    A class number is the index of a name among the labels of its own data, which were read with
    `labels=["good", "bad"]`; a model may have the same names in another order. It remains a number
    where the labels of one side are no names, such as LABEL_0.

    Args:
        value: A label of the data: a name or a number.
        own: The labels of the data; None if they have none.
        labels: The labels of the model.

    Example:
        >>> from finetune_tf.base.labels import understood
        >>> understood(0, ft.Labels(["good", "bad"]), ft.Labels(["bad", "good"]))
        'good'
        >>> understood(0, ft.Labels(["good", "bad"]), ft.Labels.of(2))
        0
    """
    if own is None or own.problem_type == "regression" or tuple(own) == tuple(labels):
        return value
    index = own.index_of(value)
    return value if index is None or any(map(has_no_names, (own, labels))) else own[index]


def has_no_names(labels: Iterable[str]) -> bool:
    """Whether labels are only numbered, as LABEL_0, LABEL_1 and so on.

    Example:
        >>> from finetune_tf.base.labels import has_no_names
        >>> has_no_names(ft.Labels.of(2)), has_no_names(ft.Labels(["bad", "good"]))
        (True, False)
    """
    return all(name == f"LABEL_{i}" for i, name in enumerate(labels))


def is_integer_text(value: str) -> bool:
    """Whether a string is an integer, such as "3" or "-1"."""
    return value.isascii() and value.removeprefix("-").isdigit()


def number_in(text: str) -> float | None:
    """Parses a finite number in ASCII digits; returns None for any other string."""
    if not text.isascii() or "_" in text:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def whole_number(text: str) -> str | None:
    """Normalizes the spelling of an integer; returns None for any other string.

    Example:
        >>> from finetune_tf.base.labels import whole_number
        >>> whole_number(" 1.0"), whole_number("-3"), whole_number("one")
        ('1', '-3', None)
    """
    text = text.strip()
    if is_integer_text(text):
        return text
    number = number_in(text)
    return None if number is None or not number.is_integer() else str(int(number))


def similar_key(name: str) -> str:
    """Returns a key that ignores case, spaces, full-width forms and invisible characters.

    Two names with the same key look alike.

    Example:
        >>> from finetune_tf.base.labels import similar_key
        >>> similar_key("Very  Good") == similar_key("very good ")
        True
    """
    visible = (c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    key = " ".join("".join(visible).casefold().split())
    number = whole_number(key)
    if number is not None:  # "01" and "1" have the same key
        return str(int(number)) if len(number) < 20 else number
    return {"true": "1", "false": "0"}.get(key, key)


def unseen_labels(names: Collection[str], labels: Labels) -> str:
    """Returns advice about unknown labels, to append to an error message.

    Args:
        names: The unknown labels.
        labels: The known labels.

    Returns:
        Sentences that begin with a space; an empty string if `names` is empty.
    """
    if not names:
        return ""
    if set(names) & {"-1", "-100"}:
        hidden = "-1" if "-1" in names else "-100"
        return (
            f" A label of {hidden} often means that the labels are withheld: read such data with "
            "label=None."
        )
    known = {similar_key(label): label for label in labels}
    meant = [
        f"{name!r} differs from {known[similar_key(name)]!r} only by case or spaces"
        for name in sorted(names)
        if similar_key(name) in known
    ]
    if meant:
        return f" {'; '.join(meant[:3])}: correct the spelling."
    if all(whole_number(name) is not None for name in names) and labels._has_no_numeric_name:
        return (
            f" Numeric labels must be from 0 to {len(labels) - 1}: pass the names in the order of "
            "their indices with labels=[…]."
        )
    which = ", ".join(map(repr, sorted(names)[:3])) + (", …" if len(names) > 3 else "")
    return (
        f" A class without training examples can be neither learned nor measured ({which}): add"
        " training examples of it and include it in labels=[…], or leave such rows out."
    )
