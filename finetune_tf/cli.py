"""The command line: each command is a few calls of the library's public functions."""

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from finetune_tf.errors import CheckpointError, FinetuneError

app = typer.Typer(
    help="Fine-tune Hugging Face checkpoints with Keras 3.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Checkpoint = Annotated[
    str, typer.Argument(help="A checkpoint folder, or a Hub id such as bert-base-uncased.")
]
Data = Annotated[
    str,
    typer.Argument(
        help="A .csv, .tsv or .jsonl file, a TFDS data set such as glue/sst2, or 'reviews', the "
        "data set that comes with finetune_tf."
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
Task = Annotated[
    str, typer.Option(help="text-classification, token-classification or question-answering.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Texts a step.")]


@app.command()
def train(
    checkpoint: Checkpoint,
    data: Data,
    output: Annotated[Path, typer.Option(help="Folder for config, history, report, checkpoint.")],
    validation: Annotated[
        str | None, typer.Option(help="Data that tell how good an epoch is; else a tenth of DATA.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="Data for the report; else there is none.")] = (
        None
    ),
    text: Text = None,
    text_pair: TextPair = None,
    label: Label = ["label"],  # noqa: B006  (typer copies it)
    question: Question = None,
    context: Context = None,
    answers: Answers = None,
    problem_type: Annotated[
        str | None,
        typer.Option(
            help="single_label_classification, multi_label_classification or regression; by "
            "default read off the labels. Whole numbers as scores need it."
        ),
    ] = None,
    task: Task = "text-classification",
    tokens: Tokens = None,
    tags: Tags = None,
    policy: Annotated[str, typer.Option(help="What learns: full, head or head-first.")] = "full",
    epochs: Annotated[int, typer.Option(min=1, help="Rounds through the data.")] = 3,
    batch_size: BatchSize = 32,
    learning_rate: Annotated[
        float | None, typer.Option(help="By default one that fits what learns.")
    ] = None,
    label_smoothing: Annotated[
        float, typer.Option(help="Share of the probability spread over all labels, such as 0.1.")
    ] = 0.0,
    keep: Annotated[
        str, typer.Option(help="best or last: the epoch whose weights are kept.")
    ] = "best",
    pooling: Annotated[str, typer.Option(help="auto, pooler, cls or mean.")] = "auto",
    max_length: Annotated[int | None, typer.Option(help="Tokens a text may have.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32 or mixed_bfloat16.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of weights, order and dropout.")] = 0,
) -> None:
    """Fine-tune CHECKPOINT on DATA, measure it against a baseline, save it."""
    import finetune_tf as ft

    columns = _columns(text, text_pair, label)
    columns |= {"tokens": tokens, "tags": tags}
    columns |= {"question": question, "context": context, "answers": answers}
    train_set, default_validation, default_test = _splits(
        data, columns | {"problem_type": problem_type}
    )
    given = columns | {"labels": train_set.labels}
    _make_folder(output)
    result = ft.finetune(
        checkpoint,
        train_set,
        _examples(validation, "validation", given) if validation else default_validation,
        _examples(test, "test", given) if test else default_test,
        task=task,
        policy=policy,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate="auto" if learning_rate is None else learning_rate,
        label_smoothing=label_smoothing,
        keep=keep,
        pooling=pooling,
        max_length=max_length,
        dtype=dtype,
        seed=seed,
    )
    if result.report is not None:
        print(f"\n{result.report}\n")
    print(f"Everything of this run is in {result.save(output)}.")


@app.command()
def evaluate(
    checkpoint: Checkpoint,
    data: Data,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="auto, or one of the task: tfidf, majority, ridge, mean, dictionary, overlap, "
            "first; needs --train."
        ),
    ] = None,
    train: Annotated[str | None, typer.Option(help="Data the baseline learns from.")] = None,
    text: Text = None,
    text_pair: TextPair = None,
    label: Label = ["label"],  # noqa: B006  (typer copies it)
    task: Task = "text-classification",
    tokens: Tokens = None,
    tags: Tags = None,
    question: Question = None,
    context: Context = None,
    answers: Answers = None,
    batch_size: BatchSize = 64,
    output: Annotated[Path | None, typer.Option(help="Folder for the report.")] = None,
) -> None:
    """Measure CHECKPOINT on the labelled texts of DATA."""
    import finetune_tf as ft
    from finetune_tf.training.devices import device_line

    print(device_line())
    model = ft.load(checkpoint, task)
    columns = _columns(text, text_pair, label) | {"labels": model.labels}
    columns |= {"tokens": tokens, "tags": tags}
    columns |= {"question": question, "context": context, "answers": answers}
    report = ft.evaluate(
        model,
        _examples(data, "test", columns),
        baseline=baseline,
        train=_examples(train, "train", columns) if train else None,
        batch_size=batch_size,
    )
    print(report)
    if output:
        print(f"The report is in {report.save(output)}.")


@app.command()
def predict(
    checkpoint: Checkpoint,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; without any, one a line is read from stdin.")
    ] = None,
    task: Task = "text-classification",
    question: Annotated[
        list[str] | None, typer.Option(help="Instead of TEXTS: a question, once for each context.")
    ] = None,
    context: Annotated[
        list[str] | None, typer.Option(help="The text in which the answer stands.")
    ] = None,
    batch_size: BatchSize = 64,
) -> None:
    """Label TEXTS, or answer questions; prints one JSON object a line."""
    import finetune_tf as ft
    from finetune_tf.training.devices import device_line

    if question or context:
        asked = {"question": question, "context": context}
        asked |= {"texts": texts} if texts else {}
    else:
        asked = {"texts": texts or [line.strip() for line in sys.stdin if line.strip()]}
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for the predictions alone
        print(device_line())
        predictions = ft.predict(ft.load(checkpoint, task), **asked, batch_size=batch_size)
    asked = {"text" if name == "texts" else name: values for name, values in asked.items()}
    for i, found in enumerate(predictions):
        told = {"entities": [*map(vars, found)]} if isinstance(found, list) else vars(found)
        given = {name: values[i] for name, values in asked.items()}
        print(json.dumps(given | told, ensure_ascii=False))


@app.command()
def export(
    checkpoint: Checkpoint,
    output: Annotated[Path, typer.Argument(help="Folder; other files in it are kept.")],
    format: Annotated[
        str, typer.Option(help="tf_saved_model, or openvino (the extra of that name).")
    ] = "tf_saved_model",
    task: Task = "text-classification",
) -> None:
    """Write CHECKPOINT's forward pass for serving."""
    import finetune_tf as ft

    ft.load(checkpoint, task).export(output, format)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the run.")] = Path("finetune_tf_demo"),
) -> None:
    """Fine-tune a real BERT on the included reviews: a few minutes on two cores."""
    from finetune_tf.demo import run

    _make_folder(output)
    run(output)


def main() -> None:
    """Runs the command line; mistakes of the caller are one line and exit code 2."""
    try:
        app()
    except FinetuneError as error:
        print(f"finetune-tf: {error}", file=sys.stderr)
        sys.exit(2)


def _columns(text: str | None, text_pair: str | None, label: list[str]) -> dict[str, Any]:
    return {
        "text": text,
        "text_pair": text_pair,
        "label": label[0] if len(label) == 1 else label,
    }


def _make_folder(folder: Path) -> None:
    """Before training, so that it is not lost to a folder that cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be written ({error.strerror}). Choose a folder you may write to."
        ) from None


def _splits(data: str, columns: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Training data, and what else the source brings along by itself."""
    if data == "reviews":
        import finetune_tf as ft

        return tuple(ft.data.reviews(split) for split in ("train", "validation", "test"))
    return _examples(data, "train", columns), None, None


def _examples(source: str, split: str, columns: dict[str, Any]) -> Any:
    """Examples of a file, of the included reviews, or of TFDS ("name" or "name:split")."""
    import finetune_tf as ft

    columns = {name: value for name, value in columns.items() if value is not None}
    suffix = Path(source).suffix.lower()
    if suffix in (".csv", ".tsv", ".txt"):
        return ft.data.from_csv(source, **columns)
    if suffix in (".jsonl", ".json", ".ndjson"):
        return ft.data.from_jsonl(source, **columns)
    name, _, asked = source.partition(":")
    if name == "reviews":
        return ft.data.reviews(asked or split)
    return ft.data.from_tfds(name, split=asked or split, **columns)
