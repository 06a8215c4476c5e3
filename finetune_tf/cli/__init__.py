"""The command line: each command calls a few public functions of the library."""

import sys

from finetune_tf.cli.commands import app
from finetune_tf.errors import FinetuneError

__all__ = ["app", "main"]


def main() -> None:
    """Runs the command line; an error of the library prints one line and exits with code 2."""
    try:
        app()
    except FinetuneError as error:
        print(f"finetune-tf: {error}", file=sys.stderr)
        sys.exit(2)
