"""Hugging Face checkpoints: finding, opening and describing folders, with their tokenizers."""

from finetune_tf.checkpoints.checkpoint import Checkpoint, open_checkpoint

__all__ = ["Checkpoint", "open_checkpoint"]
