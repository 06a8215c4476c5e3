"""Hugging Face checkpoints: finding, reading and writing them, family by family."""

from finetune_tf.checkpoints.checkpoint import Checkpoint, open_checkpoint
from finetune_tf.checkpoints.family import Family, Head
from finetune_tf.checkpoints.registry import FAMILIES, family_of

__all__ = ["FAMILIES", "Checkpoint", "Family", "Head", "family_of", "open_checkpoint"]
