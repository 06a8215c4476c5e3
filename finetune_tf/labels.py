"""Labels: the names behind the logits, in logit order."""

from collections.abc import Iterable, Mapping
from typing import Literal, Self, get_args

from finetune_tf.errors import DataError

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]


class Labels(tuple[str, ...]):
    """Names of the outputs, in order, with the kind of problem they belong to.

    Args:
        names: One name per logit. A regression has exactly one.
        problem_type: As in Hugging Face configs. By default one name means a regression and
            several mean that exactly one of them is right.

    Raises:
        DataError: If there is no name, a name twice, or the problem type does not fit.
    """

    problem_type: ProblemType

    def __new__(cls, names: Iterable[object], problem_type: ProblemType | None = None) -> Self:
        """Makes checked labels."""
        labels = super().__new__(cls, (str(name) for name in names))
        if problem_type is None:
            problem_type = "regression" if len(labels) == 1 else "single_label_classification"
        if problem_type not in get_args(ProblemType):
            raise DataError(
                f"Unknown problem type {problem_type!r}: choose one of {get_args(ProblemType)}."
            )
        if not labels:
            raise DataError("There are no labels. Name at least one, or one for a regression.")
        repeated = sorted({name for name in labels if labels.count(name) > 1})
        if repeated:
            raise DataError(f"Each label needs a name of its own; found twice: {repeated}.")
        if problem_type == "regression" and len(labels) > 1:
            raise DataError(f"A regression has one output, found {len(labels)}: {tuple(labels)}.")
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
        if isinstance(labels, int) and not isinstance(labels, bool):
            return cls(f"LABEL_{i}" for i in range(labels))
        if isinstance(labels, str):
            raise DataError(f"Labels are a list of names, found the single text {labels!r}.")
        return cls(_in_order(labels) if isinstance(labels, Mapping) else labels)

    def number_of(self, value: object) -> int | None:
        """The place of a label: by its name, else by its number where no name is a number.

        Returns:
            From 0, or None if it is none of the labels.
        """
        name = str(value)
        if name in self:
            return self.index(name)
        if is_integer_text(name) and not any(map(is_integer_text, self)):
            return int(name) if 0 <= int(name) < len(self) else None
        return None

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


def is_integer_text(value: str) -> bool:
    """Whether a text writes a whole number, such as "3" or "-1"."""
    return value.isascii() and value.removeprefix("-").isdigit()
