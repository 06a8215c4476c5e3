"""The class names of transformers 4's TensorFlow models, for scripts that still use them.

Each is a thin subclass of `FineTuneModel`: no second model and no second training loop.
"""

from pathlib import Path
from typing import Any

import keras

from finetune_tf.loading import load
from finetune_tf.model import FineTuneModel


@keras.saving.register_keras_serializable("finetune_tf")
class TFBertForSequenceClassification(FineTuneModel):
    """BERT with a classifier on its own pooler, as the class of that name had it."""

    @classmethod
    def from_pretrained(
        cls, checkpoint: str | Path, num_labels: int | None = None, **options: Any
    ) -> "TFBertForSequenceClassification":
        """Loads a checkpoint.

        Args:
            checkpoint: A folder or a Hub id.
            num_labels: How many labels a new head has; by default those of the checkpoint, or 2.
            **options: As `finetune_tf.load` takes them.

        Raises:
            CheckpointError: As `finetune_tf.load` does.
        """
        options = {"labels": num_labels, "pooling": "pooler", **options}
        return load(checkpoint, "text-classification", model_class=cls, **options)


_NAMES = ("TFBertForSequenceClassification",)


def __getattr__(name: str) -> object:
    raise AttributeError(f"finetune_tf has no class {name!r}; there is: {', '.join(_NAMES)}.")
