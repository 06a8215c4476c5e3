"""The model class, and what it is loaded, saved, exported and run with."""

from finetune_tf.model.finetune_model import FineTuneModel

__all__ = ["FineTuneModel"]
