"""The commands of the command line."""

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import finetune_tf as ft
from finetune_tf.cli import options
from finetune_tf.cli.ending import Commands, end, save, save_interrupted
from finetune_tf.cli.generating import generate
from finetune_tf.cli.page import check_language, save_page, typed_command
from finetune_tf.cli.reading import check_encoding, examples, files_of, lines, splits
from finetune_tf.cli.resuming import folder_of_saves, is_finished, remove_saves
from finetune_tf.cli.serving import serve
from finetune_tf.cli.trained import complete_rows, load_trained, say_if_files
from finetune_tf.cli.tuning import tune
from finetune_tf.errors import ArgumentError, TrainingInterrupted
from finetune_tf.evaluation.evaluators.registry import EVALUATORS
from finetune_tf.pages import COMMAND
from finetune_tf.recipe.run_folder import REPORT, check_output, check_run
from finetune_tf.training.devices import device_line

app = typer.Typer(
    cls=Commands,
    help="Fine-tune Hugging Face checkpoints with Keras 3.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_OVERWRITE_OPTION = "--overwrite"
_EXPORTED_FILES = ("config.json", "export.json", "saved_model.pb", "openvino_model.")
_EXPORTED_FILES += ("model.onnx", "model.tflite")
_BASELINES = ", ".join(dict.fromkeys(name for e in EVALUATORS.values() for name in e.baselines))


def _print_version(is_requested: bool) -> None:
    if is_requested:
        print(f"finetune-tf {ft.__version__}")
        raise typer.Exit


@app.callback()
def of_all_commands(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Fine-tune Hugging Face checkpoints with Keras 3."""


@app.command()
@options.takes_task_options
@options.reads_data
def train(
    checkpoint: options.Checkpoint,
    data: options.Data,
    columns: dict[str, Any],
    task_options: dict[str, Any],
    output: Annotated[
        Path, typer.Option(help="Write settings, history, report and checkpoint to this folder.")
    ],
    validation: Annotated[
        str | None, typer.Option(help="Use this validation data; by default a tenth of DATA.")
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="Write a report on this test data; by default there is none.")
    ] = None,
    overwrite: options.Overwrite = False,
    problem_type: Annotated[
        str | None,
        typer.Option(
            help="Choose single_label_classification, multi_label_classification or regression; "
            "by default inferred from the labels. Set regression if your scores are integers."
        ),
    ] = None,
    task: options.Task = None,
    policy: Annotated[
        str, typer.Option(help="Choose what to train: full, head or head-first.")
    ] = "full",
    epochs: Annotated[int, typer.Option(min=1, help="Set the number of epochs.")] = 3,
    batch_size: options.BatchSize = 32,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Set the peak learning rate; by default chosen by what is trained."),
    ] = None,
    optimizer: Annotated[
        str, typer.Option(help="Choose adamw, sgd, or the name of another Keras optimizer.")
    ] = "adamw",
    schedule: Annotated[
        str,
        typer.Option(
            help="Choose how the rate changes: linear, cosine, one-cycle, polynomial or constant."
        ),
    ] = "linear",
    warmup_ratio: Annotated[
        float | None,
        typer.Option(help="Set the share of the steps in which the rate rises; by default 0.1."),
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="Set the weight decay of adamw.")] = 0.01,
    rates: options.Rates = None,
    label_smoothing: Annotated[
        float, typer.Option(help="Spread this share of the probability over all labels, e.g. 0.1.")
    ] = 0.0,
    class_weight: options.ClassWeight = None,
    keep: Annotated[
        str, typer.Option(help="Keep the weights of the best or the last epoch: best or last.")
    ] = "best",
    pooling: Annotated[
        str, typer.Option(help="Choose the pooling: auto, pooler, cls or mean.")
    ] = "auto",
    dropout: Annotated[
        float | None, typer.Option(help="Replace every dropout rate of the checkpoint.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Truncate texts to this number of tokens.")
    ] = None,
    packing: options.Packing = "off",
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Choose the precision: float32 (the default), mixed_bfloat16, or auto for the "
            "faster of the two on this device."
        ),
    ] = None,
    baseline: Annotated[
        str, typer.Option(help="Compare with a baseline: auto, the name of a baseline, or none.")
    ] = "auto",
    store_features: Annotated[
        str,
        typer.Option(
            help="Choose where to cache the outputs of frozen blocks: memory, the path of a "
            "folder, or off."
        ),
    ] = "memory",
    verbose: Annotated[
        int | None,
        typer.Option(
            min=0, max=2, help="Show no progress (0), a progress bar (1), or a line per epoch (2)."
        ),
    ] = None,
    resume: options.Resume = False,
    seed: options.Seed = 0,
    lang: options.Lang = "en",
) -> None:
    """Fine-tune CHECKPOINT on DATA, compare it with a baseline and save it.

    Ctrl-C finishes the current step and saves the best weights so far. A second Ctrl-C stops at
    once and saves nothing. With --resume, the same command continues after Ctrl-C or a crash.
    """
    if resume and is_finished(output, overwrite):
        print(f"The run in {output} is finished; nothing is trained.")
        return
    check_run(output, overwrite, _OVERWRITE_OPTION)
    check_language(lang)
    if problem_type is not None:
        columns["problem_type"] = problem_type
    train_set, default_validation, default_test = splits(data, columns)
    columns_with_labels = columns | {"labels": train_set.labels}
    try:
        result = ft.finetune(
            checkpoint,
            train_set,
            examples(validation, "validation", columns_with_labels)
            if validation
            else default_validation,
            examples(test, "test", columns_with_labels) if test else default_test,
            task=task,
            policy=policy,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate="auto" if learning_rate is None else learning_rate,
            optimizer=optimizer,
            schedule=schedule,
            warmup_ratio=warmup_ratio,
            weight_decay=weight_decay,
            rates=options.rates(rates),
            label_smoothing=label_smoothing,
            class_weight=options.class_weights(class_weight, train_set.labels),
            keep=keep,
            pooling=pooling,
            dropout=dropout,
            max_length=max_length,
            packing=options.packing(packing),
            dtype=dtype,
            baseline=None if baseline == "none" else baseline,
            store_features=options.store_features(store_features),
            verbose="auto" if verbose is None else verbose,
            seed=seed,
            resume=folder_of_saves(output) if resume else False,
            **task_options,
        )
    except TrainingInterrupted as stop:
        if resume:
            end(stop, f"{stop}")
        save_interrupted(stop, output, overwrite)
    if result.report is not None:
        print(f"\n{result.report}\n")
    result.settings[COMMAND] = typed_command()
    folder = save(result, output, overwrite)
    print(f"The run is saved in {folder}.")
    if resume:
        remove_saves(output)
    if result.report is not None:
        print(f"The report is in {save_page(result, folder, lang)}.")


@app.command()
@options.reads_data
def evaluate(
    checkpoint: options.Checkpoint,
    data: options.Data,
    columns: dict[str, Any],
    baseline: Annotated[
        str | None,
        typer.Option(
            help=f"Compare with a baseline: auto, or one of the task: {_BASELINES}. Requires "
            "--train."
        ),
    ] = None,
    train: Annotated[
        str | None, typer.Option(help="Fit the baseline to this training data.")
    ] = None,
    task: options.Task = None,
    batch_size: options.BatchSize = 64,
    seed: options.Seed = 0,
    output: Annotated[Path | None, typer.Option(help="Write the report to this folder.")] = None,
    overwrite: options.Overwrite = False,
    lang: options.Lang = "en",
) -> None:
    """Evaluate CHECKPOINT on the labelled examples of DATA."""
    if output:
        check_output(output, REPORT, overwrite, _OVERWRITE_OPTION)
    check_language(lang)
    print(device_line())
    model = load_trained(checkpoint, task)
    if model.labels is not None:
        columns["labels"] = model.labels
    train_set = examples(train, "train", columns) if train else None
    report = ft.evaluate(
        model,
        examples(data, "test", columns),
        baseline=baseline,
        train=train_set,
        batch_size=batch_size,
        seed=seed,
    )
    print(report)
    if output:
        page = {"model": model, "train": train_set, "settings": {COMMAND: typed_command()}}
        print(f"The report is saved in {report.save(output, lang=lang, **page)}.")


@app.command()
@options.takes_inputs
def predict(
    checkpoint: options.Checkpoint,
    inputs: dict[str, Any],
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            help="The texts, or the files and folders of images or videos; by default they are "
            "read from stdin, one per line."
        ),
    ] = None,
    text_pair: Annotated[
        list[str] | None, typer.Option(help="Add the second text; give it once for each text.")
    ] = None,
    task: options.Task = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="Read stdin in this encoding, such as cp1252; by default utf-8."),
    ] = None,
    batch_size: options.BatchSize = 64,
) -> None:
    """Predict the labels of TEXTS or images, or answer questions. Print a JSON object per line.

    For an empty line of input, print an object without a prediction, so that the lines of input
    and output match.
    """
    if texts or inputs:
        check_encoding(encoding, "texts on standard input")
    columns: dict[str, Any] = {**inputs, **({"texts": texts} if texts else {})}
    if not columns:
        columns["texts"] = lines(encoding)
    if text_pair:
        columns["text_pair"] = text_pair
    with contextlib.redirect_stdout(sys.stderr):  # only predictions go to standard output
        print(device_line())
        model = load_trained(checkpoint, task)
        if model.task.preprocessor == "image_processor":
            column = model.task.columns[0]
            given = [*columns.pop("texts", ()), *columns.pop(column, ())]
            columns[column] = files_of(given, column)
        else:
            say_if_files(texts or [], "predict")
        inputs, complete = columns, None
        has_rows = not columns.keys().isdisjoint(("texts", "image", "video"))
        if has_rows and len(set(map(len, columns.values()))) == 1:
            complete = complete_rows(columns)
            inputs = {name: [values[i] for i in complete] for name, values in columns.items()}
        predictions = iter(ft.predict(model, **inputs, batch_size=batch_size))
    named = {"text" if name == "texts" else name: values for name, values in columns.items()}
    for i in range(len(next(iter(named.values())))):
        record = {name: values[i] for name, values in named.items()}
        if complete is None or i in complete:
            record |= model.task.as_json(next(predictions))
        print(json.dumps(record, ensure_ascii=False))


app.command()(generate)
app.command()(serve)
app.command()(tune)


@app.command()
@options.reads_data
def export(
    checkpoint: options.Checkpoint,
    output: Annotated[
        Path, typer.Argument(help="The folder to write to; other files in it are kept.")
    ],
    columns: dict[str, Any],
    format: Annotated[
        str,
        typer.Option(
            help="Choose the format: tf_saved_model, litert, openvino or onnx. The last two "
            "require the extra of their name."
        ),
    ] = "tf_saved_model",
    quantize: Annotated[
        str | None,
        typer.Option(help="Write int8 for int8 weights; not for tf_saved_model."),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="Examples, as for train: with --format openvino --quantize int8, activations "
            "are int8 as well."
        ),
    ] = None,
    strings: Annotated[
        bool,
        typer.Option(
            "--strings",
            help="Read texts, and tokenize them in the graph (requires the extra text).",
        ),
    ] = False,
    image_bytes: Annotated[
        bool,
        typer.Option(
            "--image-bytes",
            help="Read the bytes of JPEG and PNG files, and prepare the images in the graph.",
        ),
    ] = False,
    task: options.Task = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Export CHECKPOINT for serving."""
    if calibration is None and columns != {"label": "label"}:  # the default
        named = ", ".join(columns)
        raise ArgumentError(
            f"The options about columns ({named}) are for the file of --calibration: name it as "
            "well."
        )
    # A graph may be written into the folder of its own checkpoint, whose config.json it shares. In
    # the folder of another checkpoint, the two config.json files would be mixed up.
    is_own_folder = os.path.isdir(checkpoint) and output.resolve() == Path(checkpoint).resolve()
    names = _EXPORTED_FILES[1:] if is_own_folder else _EXPORTED_FILES
    check_output(output, names, overwrite, _OVERWRITE_OPTION)
    given = None if calibration is None else examples(calibration, "train", columns)
    load_trained(checkpoint, task).export(
        output,
        format,
        quantize=quantize,
        calibration=given,
        strings=strings,
        image_bytes=image_bytes,
    )


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Write the run to this folder.")] = Path(
        "finetune_tf_demo"
    ),
    overwrite: options.Overwrite = False,
) -> None:
    """Fine-tune MiniLM on the included reviews, which takes a few minutes on two cores."""
    from finetune_tf.demo import run

    check_run(output, overwrite, _OVERWRITE_OPTION)
    try:
        run(output, overwrite)
    except TrainingInterrupted as stop:
        save_interrupted(stop, output, overwrite)
