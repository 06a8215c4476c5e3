"""The options that commands share, and what they mean to the library's functions."""

from typing import Annotated, Any

import typer

from finetune_tf.base.labels import Labels
from finetune_tf.errors import ArgumentError
from finetune_tf.tasks import TASKS

Checkpoint = Annotated[
    str, typer.Argument(help="A checkpoint folder, or a Hub id such as bert-base-uncased.")
]
Data = Annotated[
    str,
    typer.Argument(
        help="A file (.csv, .tsv, .jsonl, .json or .xlsx), a TFDS data set such as glue/sst2, or "
        "'reviews', the data set that comes with finetune_tf."
    ),
]
Text = Annotated[str | None, typer.Option(help="Column of the texts.")]
TextPair = Annotated[str | None, typer.Option(help="Column of the second texts, if any.")]
Label = Annotated[
    list[str],
    typer.Option(
        help="Column of the labels; given several times, columns of 0 and 1, one a label."
    ),
]
Tokens = Annotated[
    str | None, typer.Option(help="Column of lists of words, for token-classification.")
]
Tags = Annotated[str | None, typer.Option(help="Column of the words' labels.")]
Question = Annotated[
    str | None, typer.Option(help="Column of the questions, for question-answering.")
]
Context = Annotated[
    str | None, typer.Option(help="Column of the contexts in which the answers stand.")
]
Answers = Annotated[str | None, typer.Option(help="Column of the answers, as in SQuAD.")]
Encoding = Annotated[
    str | None, typer.Option(help="Of text files, such as cp1252; by default utf-8.")
]
Delimiter = Annotated[
    str | None,
    typer.Option(help="What stands between the columns of a .csv file; by default found out."),
]
Quotechar = Annotated[
    str | None, typer.Option(help="What encloses texts in a .csv file; by default '\"'.")
]
OnInvalid = Annotated[
    str | None,
    typer.Option(help="raise or drop: what to do about rows without a text or with a wrong label."),
]
Task = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(TASKS)}; by default what the checkpoint was trained for, or "
        "text-classification."
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Texts a step.")]
Seed = Annotated[int, typer.Option(help="Of whatever is drawn by chance.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier results.")]
ClassWeight = Annotated[
    list[str] | None,
    typer.Option(
        help="LABEL=NUMBER, once for each label that does not count 1 in the loss.",
        metavar="LABEL=NUMBER",
    ),
]


def class_weights(given: list[str] | None, labels: Labels | None) -> dict[int, float] | None:
    """What `--class-weight` says, by the numbers of the labels.

    Args:
        given: "LABEL=NUMBER", or None.
        labels: Of the training data.

    Raises:
        ArgumentError: If one has another form, or there is no such label.
    """
    if not given:
        return None
    weights: dict[int, float] = {}
    for option in given:
        name, equals, number = option.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = -1.0
        if not equals or not 0 <= weight < float("inf"):
            raise ArgumentError(
                f"--class-weight is LABEL=NUMBER with a number from 0 on, found {option!r}."
            )
        place = None if labels is None else labels.index_of(name)
        if place is None:
            known = ", ".join(labels) if labels else "there are none in the data"
            raise ArgumentError(f"--class-weight names the label {name!r}; labels: {known}.")
        weights[place] = weight
    return weights


def store_features(given: str) -> bool | str:
    """What `--store-features` says, as `finetune` takes it."""
    return {"memory": True, "off": False}.get(given, given)


def columns(
    text: str | None, text_pair: str | None, label: list[str], **others: Any
) -> dict[str, Any]:
    """What a reader of data is told, by name; what was not given is left out."""
    given = {"text": text, "text_pair": text_pair}
    given |= {"label": label[0] if len(label) == 1 else label, **others}
    if given.get("delimiter") == r"\t":  # how a tab is written where a shell passes no real one
        given["delimiter"] = "\t"
    return {name: value for name, value in given.items() if value is not None}
