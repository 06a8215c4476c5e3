"""The command `serve`, which answers HTTP requests with the predictions of a model."""

from pathlib import Path
from typing import Annotated

import typer

import finetune_tf as ft
from finetune_tf.serving.limits import Limits


def serve(
    folder: Annotated[Path, typer.Argument(help="A folder with a trained model.")],
    host: Annotated[
        str, typer.Option(help="Listen on this address; 0.0.0.0 for all of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Listen on this port; 0 for any free one.")] = 8000,
    max_batch: Annotated[int, typer.Option(min=1, help="Rows of a batch; 1 for none.")] = 32,
    max_wait_ms: Annotated[
        float, typer.Option(help="Milliseconds that a request waits for others.")
    ] = 5,
    max_waiting: Annotated[
        int, typer.Option(min=1, help="Rows that may wait; requests beyond that get 503.")
    ] = 256,
    max_length: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of a text; by default what the model accepts."),
    ] = None,
    max_body_bytes: Annotated[
        int, typer.Option(min=1, help="Bytes of a request.")
    ] = Limits.max_body_bytes,
    max_texts: Annotated[
        int, typer.Option(min=1, help="Texts, pairs, questions or images of a request.")
    ] = Limits.max_texts,
    max_characters: Annotated[
        int, typer.Option(min=1, help="Characters of a text.")
    ] = Limits.max_characters,
) -> None:
    """Serve the predictions of the model in FOLDER over HTTP, until SIGTERM or Ctrl-C.

    POST /predict takes the inputs of the task in JSON; GET / describes them. Requires the extra
    serve.
    """
    ft.serve(
        folder,
        host,
        port,
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        max_waiting=max_waiting,
        max_length=max_length,
        max_body_bytes=max_body_bytes,
        max_texts=max_texts,
        max_characters=max_characters,
    )
