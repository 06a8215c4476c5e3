"""The command line: each command is a few calls of the library's public functions."""

import sys

from finetune_tf.cli.commands import app
from finetune_tf.errors import FinetuneError

__all__ = ["app", "main"]


def main() -> None:
    """Runs the command line; mistakes of the caller are one line and exit code 2."""
    try:
        app()
    except FinetuneError as error:
        print(f"finetune-tf: {error}", file=sys.stderr)
        sys.exit(2)
