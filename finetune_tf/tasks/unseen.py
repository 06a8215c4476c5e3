"""Converts labels of examples to the numbers of a model's outputs; explains unknown labels."""

from collections.abc import Sequence
from typing import Any

from finetune_tf.base.labels import Labels, label_text, understood, unseen_labels, whole_number
from finetune_tf.errors import DataError
from finetune_tf.messages import say
from finetune_tf.tasks.task import Columns

_SHOWN = 5  # classes that a message lists


def label_numbers(
    rows: Sequence[Sequence[Any]], labels: Labels, examples: Columns, what: str = "label"
) -> list[list[int]]:
    """The number of each label among the model's labels.

    Class numbers of the examples are those of their own labels, which may have another order.

    Args:
        rows: The labels of each row.
        labels: The labels of the model.
        examples: The examples that the rows belong to.
        what: Name of a label in messages: "label" or "tag".

    Raises:
        DataError: If a label is not one of the model's; it names all such rows.
    """
    own, known = getattr(examples, "labels", None), {}
    names: dict[Any, object] = {}
    for row in rows:
        for value in row:
            if value not in known:
                names[value] = understood(value, own, labels)
                known[value] = labels.index_of(names[value])
    numbers = [[known[value] for value in row] for row in rows]
    wrong = [
        (i, next(value for value in row if known[value] is None))
        for i, row in enumerate(rows)
        if any(known[value] is None for value in row)
    ]
    if wrong:
        row, value = wrong[0]
        unknown = {label_text(names[value]) for value, number in known.items() if number is None}
        at = ""
        if what == "tag":
            at = f" at the word {examples.columns['tokens'][row][list(rows[row]).index(value)]!r}"
        more = f" So it is in {examples.places.listed(wrong)}." if len(wrong) > 1 else ""
        error = DataError(
            f"{examples.places.title(row)} of {examples.name} has the {what} "
            f"{names[value]!r}{at}, which is none of the model's {len(labels):,} labels: "
            f"{labels.listed()}.{more}{unseen_labels(unknown, labels)}"
        )
        error.rows = [row for row, _ in wrong]
        error.reason = f"with an unknown {what}"
        raise error
    return numbers


def say_class_numbers(labels: Labels | None, examples: Columns) -> None:
    """Says which names a model gives to labels that are numbers without names.

    Two data sets may number the same classes in another order, such as those of MNLI, and then the
    numbers of one mean other classes to a model for the other.

    Args:
        labels: The labels of the model.
        examples: The examples.
    """
    own = getattr(examples, "labels", None)
    if not labels or not own or "regression" in (labels.problem_type, own.problem_type):
        return
    are_numbers = all(whole_number(name) is not None for name in own)
    if not are_numbers or tuple(labels) == tuple(Labels.of(len(labels))):
        return
    read = [(name, labels.index_of(name)) for name in own]
    if any(number is None or labels[number] == name for name, number in read):
        return
    listed = ", ".join(f"{name} is {labels[number]!r}" for name, number in read[:_SHOWN])
    more = ", …" if len(read) > _SHOWN else ""
    say(
        f"{examples.name}: labels that are numbers are read as class numbers of the model: "
        f"{listed}{more}. If the data number the classes in another order, name them in that "
        "order when reading the data: labels=[…]."
    )
