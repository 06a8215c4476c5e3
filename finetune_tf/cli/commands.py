"""The commands."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import finetune_tf as ft
from finetune_tf.cli import options
from finetune_tf.cli.ending import Commands, save, save_interrupted
from finetune_tf.cli.reading import examples, lines, splits
from finetune_tf.errors import ModelError, TrainingInterrupted
from finetune_tf.evaluation.evaluators.registry import EVALUATORS
from finetune_tf.messages import say
from finetune_tf.recipe.run_folder import REPORT, check_output, check_run
from finetune_tf.training.devices import device_line
from finetune_tf.training.untrained import untrained_message

app = typer.Typer(
    cls=Commands,
    help="Fine-tune Hugging Face checkpoints with Keras 3.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_HOW = "--overwrite"
_EXPORTED = ("config.json", "saved_model.pb", "openvino_model.")
_BASELINES = ", ".join(dict.fromkeys(name for e in EVALUATORS.values() for name in e.baselines))


def _print_version(asked: bool) -> None:
    if asked:
        print(f"finetune-tf {ft.__version__}")
        raise typer.Exit


@app.callback()
def of_all_commands(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Say the version and exit."
        ),
    ] = False,
) -> None:
    """Fine-tune Hugging Face checkpoints with Keras 3."""


@app.command()
@options.reads_data
def train(
    checkpoint: options.Checkpoint,
    data: options.Data,
    columns: dict[str, Any],
    output: Annotated[Path, typer.Option(help="Folder for config, history, report, checkpoint.")],
    validation: Annotated[
        str | None, typer.Option(help="Data that tell how good an epoch is; else a tenth of DATA.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="Data for the report; else there is none.")] = (
        None
    ),
    overwrite: options.Overwrite = False,
    problem_type: Annotated[
        str | None,
        typer.Option(
            help="single_label_classification, multi_label_classification or regression; by "
            "default read off the labels. Whole numbers as scores need it."
        ),
    ] = None,
    task: options.Task = None,
    policy: Annotated[str, typer.Option(help="What learns: full, head or head-first.")] = "full",
    epochs: Annotated[int, typer.Option(min=1, help="Rounds through the data.")] = 3,
    batch_size: options.BatchSize = 32,
    learning_rate: Annotated[
        float | None, typer.Option(help="By default one that fits what learns.")
    ] = None,
    optimizer: Annotated[
        str, typer.Option(help="adamw, sgd, or another Keras optimizer's name.")
    ] = "adamw",
    label_smoothing: Annotated[
        float, typer.Option(help="Share of the probability spread over all labels, such as 0.1.")
    ] = 0.0,
    class_weight: options.ClassWeight = None,
    keep: Annotated[
        str, typer.Option(help="best or last: the epoch whose weights are kept.")
    ] = "best",
    pooling: Annotated[str, typer.Option(help="auto, pooler, cls or mean.")] = "auto",
    dropout: Annotated[
        float | None, typer.Option(help="Replaces every dropout rate of the checkpoint.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="Tokens a text may have.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32 (the default), mixed_bfloat16, or auto for the faster of the two on this "
            "device."
        ),
    ] = None,
    baseline: Annotated[
        str, typer.Option(help="What the test is compared with: auto, a baseline's name, or none.")
    ] = "auto",
    store_features: Annotated[
        str,
        typer.Option(
            help="Where to keep what frozen blocks compute: memory, a folder, or off to compute "
            "it in each epoch."
        ),
    ] = "memory",
    verbose: Annotated[
        int | None,
        typer.Option(min=0, max=2, help="0 no progress bar, 1 a bar, 2 a line an epoch."),
    ] = None,
    seed: options.Seed = 0,
) -> None:
    """Fine-tune CHECKPOINT on DATA, measure it against a baseline, save it.

    Ctrl-C finishes the step and saves the best weights so far; a second one ends at once.
    """
    check_run(output, overwrite, _HOW)
    if problem_type is not None:
        columns["problem_type"] = problem_type
    train_set, default_validation, default_test = splits(data, columns)
    given = columns | {"labels": train_set.labels}
    try:
        result = ft.finetune(
            checkpoint,
            train_set,
            examples(validation, "validation", given) if validation else default_validation,
            examples(test, "test", given) if test else default_test,
            task=task,
            policy=policy,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate="auto" if learning_rate is None else learning_rate,
            optimizer=optimizer,
            label_smoothing=label_smoothing,
            class_weight=options.class_weights(class_weight, train_set.labels),
            keep=keep,
            pooling=pooling,
            dropout=dropout,
            max_length=max_length,
            dtype=dtype,
            baseline=None if baseline == "none" else baseline,
            store_features=options.store_features(store_features),
            verbose="auto" if verbose is None else verbose,
            seed=seed,
        )
    except TrainingInterrupted as stop:
        save_interrupted(stop, output, overwrite)
    if result.report is not None:
        print(f"\n{result.report}\n")
    print(f"Everything of this run is in {save(result, output, overwrite)}.")


@app.command()
@options.reads_data
def evaluate(
    checkpoint: options.Checkpoint,
    data: options.Data,
    columns: dict[str, Any],
    baseline: Annotated[
        str | None,
        typer.Option(help=f"auto, or one of the task: {_BASELINES}; needs --train."),
    ] = None,
    train: Annotated[str | None, typer.Option(help="Data the baseline learns from.")] = None,
    task: options.Task = None,
    batch_size: options.BatchSize = 64,
    seed: options.Seed = 0,
    output: Annotated[Path | None, typer.Option(help="Folder for the report.")] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Measure CHECKPOINT on the labelled texts of DATA."""
    if output:
        check_output(output, REPORT, overwrite, _HOW)
    print(device_line())
    model = _trained(checkpoint, task)
    if model.labels is not None:
        columns["labels"] = model.labels
    report = ft.evaluate(
        model,
        examples(data, "test", columns),
        baseline=baseline,
        train=examples(train, "train", columns) if train else None,
        batch_size=batch_size,
        seed=seed,
    )
    print(report)
    if output:
        print(f"The report is in {report.save(output)}.")


@app.command()
@options.takes_inputs
def predict(
    checkpoint: options.Checkpoint,
    inputs: dict[str, Any],
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; without any, one a line is read from stdin.")
    ] = None,
    text_pair: Annotated[
        list[str] | None, typer.Option(help="The second text, once for each of TEXTS.")
    ] = None,
    task: options.Task = None,
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of stdin, such as cp1252; by default utf-8.")
    ] = None,
    batch_size: options.BatchSize = 64,
) -> None:
    """Label TEXTS, or answer questions; prints one JSON object a line.

    An empty line gives an object without a prediction, so that lines of input and output match.
    """
    if inputs:
        asked = inputs | ({"texts": texts} if texts else {})
    else:
        asked = {"texts": texts or lines(encoding)}
        asked |= {"text_pair": text_pair} if text_pair else {}
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for the predictions alone
        print(device_line())
        model = _trained(checkpoint, task)
        rows, kept = asked, None
        if "texts" in asked and len(set(map(len, asked.values()))) == 1:
            kept = _not_empty(asked)
            rows = {name: [values[i] for i in kept] for name, values in asked.items()}
        predictions = iter(ft.predict(model, **rows, batch_size=batch_size))
    named = {"text" if name == "texts" else name: values for name, values in asked.items()}
    for i in range(len(next(iter(named.values())))):
        told = {name: values[i] for name, values in named.items()}
        if kept is None or i in kept:
            told |= model.task.as_json(next(predictions))
        print(json.dumps(told, ensure_ascii=False))


@app.command()
def export(
    checkpoint: options.Checkpoint,
    output: Annotated[Path, typer.Argument(help="Folder; other files in it are kept.")],
    format: Annotated[
        str, typer.Option(help="tf_saved_model, or openvino (the extra of that name).")
    ] = "tf_saved_model",
    task: options.Task = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Write CHECKPOINT's forward pass for serving."""
    # Beside its own checkpoint a graph belongs; beside another one their configs would be mixed.
    beside_checkpoint = Path(checkpoint).is_dir() and output.resolve() == Path(checkpoint).resolve()
    check_output(output, _EXPORTED[1:] if beside_checkpoint else _EXPORTED, overwrite, _HOW)
    _trained(checkpoint, task).export(output, format)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the run.")] = Path("finetune_tf_demo"),
    overwrite: options.Overwrite = False,
) -> None:
    """Fine-tune a real BERT on the included reviews: a few minutes on two cores."""
    from finetune_tf.demo import run

    check_run(output, overwrite, _HOW)
    try:
        run(output, overwrite)
    except TrainingInterrupted as stop:
        save_interrupted(stop, output, overwrite)


def _trained(checkpoint: str, task: str | None) -> Any:
    """A model whose head is not random.

    Raises:
        ModelError: If it is.
    """
    model = ft.load(checkpoint, task)
    if message := untrained_message(model):
        raise ModelError(
            f"{message} Give a checkpoint that was fine-tuned for {model.task.name}, or train this "
            "one first: finetune-tf train."
        )
    return model


def _not_empty(asked: dict[str, list[str]]) -> list[int]:
    """The numbers of the rows in which nothing is empty."""
    rows = list(zip(*asked.values(), strict=True))
    kept = [i for i, row in enumerate(rows) if all(value.strip() for value in row)]
    if len(kept) < len(rows):
        say(
            f"{len(rows) - len(kept):,} of {len(rows):,} texts are empty: what is printed for them "
            "has no prediction."
        )
    return kept
