"""The command `generate`, which prints new texts of a model."""

import contextlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

import finetune_tf as ft
from finetune_tf.cli import options
from finetune_tf.cli.generation_options import takes_generation_options
from finetune_tf.cli.reading import check_encoding, lines, lines_of_file
from finetune_tf.cli.trained import complete_rows, load_trained, say_if_files
from finetune_tf.errors import ArgumentError, DataError
from finetune_tf.generation.settings import GenerationSettings
from finetune_tf.training.devices import device_line

# Options of `ft.generate` that `ft.stream` does not have.
_NOT_OF_STREAMS = ("batch_size", "length_penalty", "early_stopping", "num_return_sequences")
_NOT_OF_STREAMS += ("return_scores",)


@takes_generation_options
def generate(
    checkpoint: options.Checkpoint,
    generation: dict[str, Any],
    prompts: Annotated[
        list[str] | None,
        typer.Argument(help="The prompts; by default they are read from stdin, one per line."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Read the prompts from this text file instead, one per line."),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="Read stdin or the file in this encoding; by default utf-8."),
    ] = None,
    chat: Annotated[
        bool,
        typer.Option("--chat", help="Send each prompt as the message of a user to a chat model."),
    ] = False,
    stream: Annotated[
        bool | None,
        typer.Option(
            help="Print the text of one prompt piece by piece instead of as JSON; by default if "
            "standard output is a terminal."
        ),
    ] = None,
    task: options.Task = None,
) -> None:
    """Continue PROMPTS, or translate or summarize them. Print one JSON object per line.

    Settings that are not given are those of the checkpoint's generation_config.json. For an empty
    line of input, print an object without a text, so that the lines of input and output match.
    """
    if prompts and file is not None:
        raise ArgumentError("Give either prompts or --file, not both.")
    if prompts:
        check_encoding(encoding, "prompts on standard input or in a file")
    texts = prompts or (lines(encoding) if file is None else lines_of_file(file, encoding))
    if stream and len(texts) != 1:
        raise ArgumentError(
            f"--stream prints the text of one prompt, found {len(texts):,}. Leave it out, so that "
            "each prompt gets a line."
        )
    is_terminal = sys.stdout.isatty()
    with contextlib.redirect_stdout(sys.stderr):  # only texts go to standard output
        print(device_line())
        model = load_trained(checkpoint, task)
        say_if_files(prompts or [], "generate")
        complete = complete_rows({"text": texts})
        asked = [[{"role": "user", "content": texts[i]}] if chat else texts[i] for i in complete]
        if stream is None:
            stream = is_terminal and len(texts) == 1 and _can_stream(model, generation)
        if stream:
            if not asked:
                raise DataError("The prompt is empty, so there is nothing to continue.")
            pieces = ft.stream(model, asked[0], **_for_stream(generation))
        else:
            found = iter(_generated(model, asked, generation))
    if stream:
        _print_pieces(pieces)
        return
    for i, text in enumerate(texts):
        record = {"text": text} | (next(found) if i in complete else {})
        print(json.dumps(record, ensure_ascii=False))


def _generated(model: Any, prompts: list, generation: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns what is printed of each prompt: a text, or a list of texts, and perhaps scores."""
    found = ft.generate(model, prompts, **generation)
    if not generation.get("return_scores"):
        return [model.task.as_json(text) for text in found]
    return [model.task.as_json(text) | {"score": score} for text, score in zip(*found, strict=True)]


def _for_stream(generation: dict[str, Any]) -> dict[str, Any]:
    """Returns the options of `ft.stream`.

    Raises:
        ArgumentError: If an option has no meaning for it.
    """
    without = dict(generation)
    without.pop("batch_size", None)  # which always has a value
    for name in _NOT_OF_STREAMS:
        if name in without:
            option = "scores" if name == "return_scores" else name.replace("_", "-")
            raise ArgumentError(f"--{option} has no meaning for a stream. Add --no-stream.")
    return without


def _can_stream(model: Any, generation: dict[str, Any]) -> bool:
    """Returns whether the text of a prompt is known before its end."""
    if any(name in generation for name in _NOT_OF_STREAMS if name != "batch_size"):
        return False
    settings = GenerationSettings.of(model)
    beams = generation.get("num_beams", settings.num_beams)
    return beams == 1 and settings.num_return_sequences == 1


def _print_pieces(pieces: Iterable[str]) -> None:
    """Prints pieces of a text as soon as there are any, and a line end after the last one."""
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
