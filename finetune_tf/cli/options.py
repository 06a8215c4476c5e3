"""The options that commands share, and the arguments of the library that they set."""

import functools
import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from finetune_tf.base.labels import Labels
from finetune_tf.data.columns import COLUMNS, TEXT_COLUMNS
from finetune_tf.errors import ArgumentError
from finetune_tf.tasks import TASKS
from finetune_tf.tasks import task_options as names_of_task_options
from finetune_tf.training import select

Checkpoint = Annotated[
    str, typer.Argument(help="A checkpoint folder, or a Hub id such as bert-base-uncased.")
]
Data = Annotated[
    str,
    typer.Argument(
        help="A file (.csv, .tsv, .jsonl, .json or .xlsx), a folder with a folder of images for "
        "each class, a TFDS data set such as glue/sst2, or 'reviews', the data set that comes with "
        "finetune_tf."
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(TASKS)}; by default what the checkpoint was trained for, or "
        "text-classification."
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Texts or images in a batch.")]
Seed = Annotated[int, typer.Option(help="Seed of all random choices.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier results.")]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Save the state of the training in OUTPUT.resume, and continue from there if the same "
        "command was stopped before.",
    ),
]
Lang = Annotated[
    str, typer.Option(help="The language of report.html: en (English) or zh (Chinese).")
]
ClassWeight = Annotated[
    list[str] | None,
    typer.Option(
        help="LABEL=NUMBER, once for each label that does not count 1 in the loss.",
        metavar="LABEL=NUMBER",
    ),
]
Rates = Annotated[
    list[str] | None,
    typer.Option(
        help="GROUP=FACTOR, once for each group of weights with another learning rate: head, "
        "embeddings, biases, norms, or a regular expression for paths of variables.",
        metavar="GROUP=FACTOR",
    ),
]

Packing = Annotated[
    str,
    typer.Option(
        help="Train on rows of several short texts: on, off, auto where it seems less work, or the "
        "number of tokens of a row."
    ),
]


def packing(given: str) -> bool | int | str:
    """The argument `packing` that `--packing` states.

    Raises:
        ArgumentError: If it is none of its values.
    """
    if given.isdecimal():
        return int(given)
    values = {"on": True, "off": False, "auto": "auto"}
    if given not in values:
        raise ArgumentError(
            f"--packing is on, off, auto, or the number of tokens of a row, found {given!r}."
        )
    return values[given]


def rates(given: list[str] | None) -> dict[Any, float] | None:
    """The factors that `--rates` states, by selector or regular expression.

    Args:
        given: Texts "GROUP=FACTOR", or None.

    Raises:
        ArgumentError: If a text has another form, or a group is given twice.
    """
    found: dict[Any, float] = {}
    names: set[str] = set()
    for option in given or ():
        name, _, number = option.rpartition("=")
        try:
            factor = float(number)
        except ValueError:
            name = ""
        if not name:
            raise ArgumentError(
                f"--rates is GROUP=FACTOR, such as head=10 or embeddings=0.5; found {option!r}."
            )
        if name in names:
            raise ArgumentError(f"--rates names {name} twice.")
        names.add(name)
        is_selector = name in ("head", "embeddings", "biases", "norms")
        found[getattr(select, name)() if is_selector else name] = factor
    return found or None


def class_weights(given: list[str] | None, labels: Labels | None) -> dict[str, float] | None:
    """The weights that `--class-weight` states, by the names of the labels.

    Their numbers would not do: a trained head keeps its own order of the same labels.

    Args:
        given: Texts "LABEL=NUMBER", or None.
        labels: The labels of the training data.

    Raises:
        ArgumentError: If a text has another form, there is no such label, or it is given twice.
    """
    if not given:
        return None
    weights: dict[str, float] = {}
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
        if labels[place] in weights:
            raise ArgumentError(f"--class-weight names the label {labels[place]!r} twice.")
        weights[labels[place]] = weight
    return weights


def task_options(given: list[str] | None) -> dict[str, Any]:
    """The options of `--options NAME=VALUE`; a value is JSON or, if that fails, a text.

    Args:
        given: The options as typed.

    Raises:
        ArgumentError: If one has no name, a name of no task's option, or that of another one.
    """
    found = {}
    for option in given or ():
        name, equals, value = option.partition("=")
        if not equals or name not in names_of_task_options():
            raise ArgumentError(
                f"--options is NAME=VALUE with one of {', '.join(names_of_task_options())}; "
                f"found {option!r}."
            )
        if name in found:
            raise ArgumentError(f"--options names {name} twice.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _task_options() -> dict[str, tuple[Any, Any]]:
    """Annotation and default of the options of `train` that set options of the task."""
    texts = {
        "prefix": "Write this in front of each source, such as 'summarize: '. Predictions use it.",
        "source_language": "For translation: the language of the sources, such as en, or en_XX.",
        "target_language": "For translation: the language of the targets, such as de, or de_DE.",
    }
    length = typer.Option(min=1, help="Truncate targets to this number of tokens.")
    listed = typer.Option(
        help="NAME=VALUE, once for each other option of the task, such as stride=64.",
        metavar="NAME=VALUE",
    )
    return {
        **{n: (Annotated[str | None, typer.Option(help=text)], None) for n, text in texts.items()},
        "max_target_length": (Annotated[int | None, length], None),
        "options": (Annotated[list[str] | None, listed], None),
    }


def options_of_task(
    options: list[str] | None,
    source_language: str | None,
    target_language: str | None,
    **given: Any,
) -> dict[str, Any]:
    """The options of the task, those of `--options` included.

    Raises:
        ArgumentError: If an option is given twice, or one of the two languages is missing.
    """
    found = task_options(options)
    named = {name: value for name, value in given.items() if value is not None}
    if source_language is not None or target_language is not None:
        if source_language is None or target_language is None:
            raise ArgumentError("Give both --source-language and --target-language, or neither.")
        named["languages"] = [source_language, target_language]
    if twice := named.keys() & found.keys():
        raise ArgumentError(
            f"{min(twice)} is given twice: as an option of its own and in --options. Leave one out."
        )
    return found | named


def store_features(given: str) -> bool | str:
    """The value of `--store-features` as `finetune` accepts it."""
    return {"memory": True, "off": False}.get(given, given)


def _other_columns() -> dict[str, tuple[Any, Any]]:
    """Annotation and default of the options for the columns besides `TEXT_COLUMNS`."""
    others = {}
    for name, column in COLUMNS.items():
        if name not in TEXT_COLUMNS:
            tasks = ", ".join(task.name for task in TASKS.values() if name in task.columns)
            text = f"Column of {column.values}{f', for {tasks}' if tasks else ''}."
            others[name] = (Annotated[str | None, typer.Option(help=text)], None)
    return others


def _data_options() -> dict[str, tuple[Any, Any]]:
    """Annotation and default of the options about the content of data, by name."""
    optional = {
        "encoding": "Encoding of text files, such as cp1252; by default utf-8.",
        "delimiter": "The character between the columns of a .csv file; by default inferred.",
        "quotechar": "The character around texts in a .csv file; by default '\"'.",
        "on_invalid": "raise or drop: what to do about rows without a text or with a wrong label.",
    }
    label = "Column of the labels; if given several times, columns of 0 and 1, one for each label."
    return {
        "text": (Annotated[str | None, typer.Option(help="Column of the texts.")], None),
        "text_pair": (
            Annotated[str | None, typer.Option(help="Column of the second texts.")],
            None,
        ),
        "label": (Annotated[list[str], typer.Option(help=label)], ["label"]),
        **_other_columns(),
        **{
            name: (Annotated[str | None, typer.Option(help=text)], None)
            for name, text in optional.items()
        },
    }


def arguments_of_source(label: list[str], **given: Any) -> dict[str, Any]:
    """The options about data as arguments of `ft.data.from_csv` and the other sources."""
    if given.get("delimiter") == r"\t":  # how a tab is written in a shell
        given["delimiter"] = "\t"
    given["label"] = label[0] if len(label) == 1 else label
    return {name: value for name, value in given.items() if value is not None}


def _inputs_of_predict() -> dict[str, tuple[Any, Any]]:
    """Annotation and default of the options of `predict` that give inputs besides texts."""
    return {
        name: (
            Annotated[
                list[str] | None,
                typer.Option(help=f"Instead of TEXTS: {column.values}, once for each row."),
            ],
            None,
        )
        for name, column in COLUMNS.items()
        if column.is_option_of_predict
    }


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value}


def with_options(
    parameter: str,
    options: Callable[[], dict[str, tuple[Any, Any]]],
    combine: Callable[..., dict[str, Any]],
) -> Callable[[Callable], Callable]:
    """A decorator that replaces one parameter of a command by several options.

    Args:
        parameter: The parameter.
        options: Returns annotation and default of each option by its name.
        combine: Makes the value of the parameter from the values of the options.
    """

    def decorate(command: Callable) -> Callable:
        made = options()

        @functools.wraps(command)
        def called(**given: Any) -> Any:
            values = {name: given.pop(name) for name in made}
            return command(**given, **{parameter: combine(**values)})

        keyword, parameters = inspect.Parameter.KEYWORD_ONLY, []
        for old in inspect.signature(command).parameters.values():
            if old.name == parameter:
                parameters += [
                    inspect.Parameter(name, keyword, default=default, annotation=annotation)
                    for name, (annotation, default) in made.items()
                ]
            else:
                parameters.append(old.replace(kind=keyword))
        called.__signature__ = inspect.Signature(parameters)
        return called

    return decorate


#: Decorates a command that reads data: its parameter `columns` becomes one option for each column
#: of `data.columns.COLUMNS` and for what else the sources accept. The command gets a dict of the
#: options that were given, by the arguments of the sources.
reads_data = with_options("columns", _data_options, arguments_of_source)
#: Decorates `predict`: its parameter `inputs` becomes one option for each column whose values can
#: be typed. The command gets a dict of those that were given.
takes_inputs = with_options("inputs", _inputs_of_predict, _given)
#: Decorates `train`: its parameter `task_options` becomes one option for each option of the tasks
#: from text to text, and `--options` for the others. The command gets a dict of those given.
takes_task_options = with_options("task_options", _task_options, options_of_task)
