"""The checkpoint's own tokenizer, in its fast version."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune_tf.errors import CheckpointError
from finetune_tf.return_tensors import with_tensorflow

_FILES = ("tokenizer.json", "vocab.*", "*.model")  # any of them holds a vocabulary


def load_tokenizer(source: str | Path) -> Any:
    """The fast tokenizer of a checkpoint folder; it knows `return_tensors="tf"`.

    Raises:
        CheckpointError: If the folder is gone, or holds no tokenizer, or only one in Python.
    """
    folder = Path(source)
    if not folder.is_dir():
        # transformers would take the path for a Hub id and wait for an answer.
        raise CheckpointError(
            f"The folder {source}, which the tokenizer is loaded from, is not there. Put it back, "
            "or name another one: model.info.tokenizer = 'folder'."
        )
    if not any(path for name in _FILES for path in folder.glob(name)):
        # transformers would make up a tokenizer that knows no word.
        raise CheckpointError(
            f"There is no tokenizer in {source}: expected tokenizer.json or vocab.txt. Copy the "
            "tokenizer files of the checkpoint there."
        )
    with _without_notice():
        from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source))
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"The tokenizer in {source} cannot be read: {error}. A checkpoint for texts holds "
            "tokenizer.json or vocab.txt."
        ) from None
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"The tokenizer in {source} is {type(tokenizer).__name__}, which has no fast version; "
            "save one with tokenizer.json."
        )
    tokenizer.__class__ = with_tensorflow(type(tokenizer))
    return tokenizer


@contextmanager
def _without_notice() -> Iterator[None]:
    """Transformers announces on import that PyTorch is missing, which is how it is meant here."""
    name = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
