"""The layouts that checkpoint folders have: one object each."""

from pathlib import Path

from finetune_tf.checkpoints.layouts.layout import Layout, Modules
from finetune_tf.checkpoints.layouts.sentence_transformers import SENTENCE_TRANSFORMERS
from finetune_tf.checkpoints.layouts.transformers import TRANSFORMERS

__all__ = ["SENTENCE_TRANSFORMERS", "TRANSFORMERS", "Layout", "Modules", "read_modules"]

# The most particular one first: every folder is one of transformers, too.
_LAYOUTS: tuple[Layout, ...] = (SENTENCE_TRANSFORMERS, TRANSFORMERS)


def read_modules(folder: Path) -> Modules:
    """What stands behind the transformer, as the first layout says that knows the folder.

    Raises:
        CheckpointError: If a file of that layout is damaged or missing.
    """
    found = (layout.read(folder) for layout in _LAYOUTS)
    return next(modules for modules in found if modules is not None)
