"""The model class, and loading, saving, exporting and running models."""

from finetune_tf.model.finetune_model import FineTuneModel

__all__ = ["FineTuneModel"]
