"""`serve`: a server of a saved model."""

import os
from pathlib import Path

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import CheckpointError, ModelError
from finetune_tf.model.loading import load
from finetune_tf.serving.address import bound
from finetune_tf.serving.limits import Limits
from finetune_tf.serving.model_server import ModelServer, require_packages
from finetune_tf.training.untrained import untrained_message


@names_checked
def serve(
    folder: str | Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    max_batch: int = 32,
    max_wait_ms: float = 5,
    max_waiting: int = 256,
    max_length: int | None = None,
    max_body_bytes: int = Limits.max_body_bytes,
    max_texts: int = Limits.max_texts,
    max_characters: int = Limits.max_characters,
) -> None:
    """Serves the predictions of a saved model over HTTP, until SIGTERM or Ctrl-C.

    POST /predict takes the inputs of the task in JSON and returns what `ft.predict` returns; GET /
    describes them. GET /health, /ready and /metrics are for whatever watches the server. Requests
    that arrive at the same time are computed in one batch. A signal to stop takes effect when
    every request that was accepted is answered.

    The server has neither encryption nor passwords: put a reverse proxy in front of it if others
    can reach it. It needs the extra `finetune-tf[serve]`.

    Args:
        folder: A folder of `save_pretrained`.
        host: The address on which the server listens; by default only this machine reaches it.
        port: The port; 0 for any free one, which is printed.
        max_batch: Rows of a batch; 1 for no batching.
        max_wait_ms: Milliseconds that a request waits for others to share a batch with.
        max_waiting: Rows that may wait for a batch. Requests beyond that get the status 503.
        max_length: Tokens of a text; by default what the model accepts. Requests with longer texts
            get the status 413, unless they permit that texts lose their end.
        max_body_bytes: Bytes of a request.
        max_texts: Texts, pairs, questions or images of a request.
        max_characters: Characters of a text.

    Raises:
        ArgumentError: If a number is out of range, the port is taken, or the model does not accept
            `max_length`.
        CheckpointError: If the folder is no checkpoint.
        MissingExtraError: If Starlette or uvicorn is not installed.
        ModelError: If the model is not trained.

    Example:
        >>> ft.serve("my-model", port=8000)
        Traceback (most recent call last):
            ...
        finetune_tf.errors.CheckpointError: There is no folder 'my-model'. ...
    """
    check(
        port=port,
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        max_waiting=max_waiting,
        max_length=max_length,
        max_body_bytes=max_body_bytes,
        max_texts=max_texts,
        max_characters=max_characters,
    )
    require_packages()
    if not os.path.isdir(folder):
        raise CheckpointError(
            f"There is no folder {str(folder)!r}. serve takes a folder that "
            "model.save_pretrained(folder) has written."
        )
    limits = Limits(max_body_bytes, max_texts, max_characters, max_length)
    with bound(host, port) as listener:  # before the model is loaded, which takes a while
        model = load(folder)
        if message := untrained_message(model):
            raise ModelError(
                f"{message} Serve a model that was trained for {model.task.name}, or train this "
                "one first."
            )
        ModelServer(model, limits, max_batch, max_wait_ms / 1000, max_waiting).run(listener)
