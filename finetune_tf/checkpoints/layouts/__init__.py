"""The supported layouts of checkpoint folders: one object each."""

from pathlib import Path

from finetune_tf.checkpoints.layouts.layout import Layout, Modules
from finetune_tf.checkpoints.layouts.sentence_transformers import SENTENCE_TRANSFORMERS
from finetune_tf.checkpoints.layouts.transformers import TRANSFORMERS

__all__ = ["SENTENCE_TRANSFORMERS", "TRANSFORMERS", "Layout", "Modules", "read_modules"]

# The most specific layout comes first: every folder also has the layout of transformers.
_LAYOUTS: tuple[Layout, ...] = (SENTENCE_TRANSFORMERS, TRANSFORMERS)


def read_modules(folder: Path) -> Modules:
    """Reads which modules follow the transformer, with the first layout that applies.

    Raises:
        CheckpointError: If a file of that layout is damaged or missing.
    """
    found = (layout.read(folder) for layout in _LAYOUTS)
    return next(modules for modules in found if modules is not None)
