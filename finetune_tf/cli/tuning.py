"""The command `tune`, which searches settings of `train`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import finetune_tf as ft
from finetune_tf.cli import options
from finetune_tf.cli.ending import end
from finetune_tf.cli.reading import examples, splits
from finetune_tf.errors import ArgumentError, TrainingInterrupted

_SEARCH_HELP = (
    "NAME=VALUES, once for each setting that is searched: values in a list, such as "
    "batch_size=[16,32], or bounds, such as learning_rate=1e-5..1e-4. By default learning_rate, "
    "batch_size and epochs."
)


def space_of(given: list[str] | None) -> dict[str, Any] | None:
    """The space that `--search` states; None if it is not given.

    Args:
        given: Texts "NAME=[VALUE, VALUE]" or "NAME=LOW..HIGH".

    Raises:
        ArgumentError: If a text has another form, or a setting is given twice.

    Example:
        >>> from finetune_tf.cli.tuning import space_of
        >>> space_of(["batch_size=[16, 32]", "epochs=2..5"])
        {'batch_size': [16, 32], 'epochs': Between(low=2, high=5)}
    """
    if not given:
        return None
    space: dict[str, Any] = {}
    for option in given:
        name, _, text = option.partition("=")
        low, dots, high = text.partition("..")
        try:
            values = ft.between(json.loads(low), json.loads(high)) if dots else json.loads(text)
        except json.JSONDecodeError:
            values = None
        if not name or (not dots and not isinstance(values, list)) or values is None:
            raise ArgumentError(
                "--search is NAME=[VALUE, VALUE, …] with values in JSON, or NAME=LOW..HIGH; found "
                f"{option!r}."
            )
        if name in space:
            raise ArgumentError(f"--search names {name} twice.")
        space[name] = values
    return space


@options.takes_task_options
@options.reads_data
def tune(
    checkpoint: options.Checkpoint,
    data: options.Data,
    columns: dict[str, Any],
    task_options: dict[str, Any],
    output: Annotated[
        Path, typer.Option(help="Store the search in this folder, and continue it there.")
    ],
    minutes: Annotated[
        float | None, typer.Option(help="Begin no further trial after this time.")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Run this number of trials.")] = None,
    search: Annotated[
        list[str] | None, typer.Option(help=_SEARCH_HELP, metavar="NAME=VALUES")
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(help="Choose by this validation data; by default by a tenth of DATA."),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(help="Measure the lead over the default settings on this test data."),
    ] = None,
    problem_type: Annotated[
        str | None,
        typer.Option(
            help="Choose single_label_classification, multi_label_classification or regression; "
            "by default inferred from the labels."
        ),
    ] = None,
    task: options.Task = None,
    policy: Annotated[
        str | None, typer.Option(help="Train full, head or head-first in all trials.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Truncate texts to this number of tokens.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Choose the precision: float32, mixed_bfloat16 or auto.")
    ] = None,
    seed: options.Seed = 0,
) -> None:
    """Search settings of train for CHECKPOINT on DATA, and compare the best with the default ones.

    The same command continues a search that was interrupted. At the end, the call of ft.finetune
    with the best settings is printed, and written to --output with the report.
    """
    if problem_type is not None:
        columns["problem_type"] = problem_type
    train_set, default_validation, default_test = splits(data, columns)
    with_labels = columns | {"labels": train_set.labels}
    given = {"task": task, "policy": policy, "max_length": max_length, "dtype": dtype}
    fixed = {name: value for name, value in given.items() if value is not None}
    try:
        result = ft.tune(
            checkpoint,
            train_set,
            examples(validation, "validation", with_labels) if validation else default_validation,
            examples(test, "test", with_labels) if test else default_test,
            folder=output,
            space=space_of(search),
            minutes=minutes,
            trials=trials,
            seed=seed,
            **fixed,
            **task_options,
        )
    except TrainingInterrupted as stop:
        end(stop, f"Interrupted. The same command continues the search in {output}.")
    print(f"\n{result}\n\n{result.code()}\n\nThe report is saved in {result.save(output)}.")
