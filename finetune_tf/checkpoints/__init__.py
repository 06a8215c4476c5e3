"""Hugging Face checkpoint folders: locating, opening and describing them, and their tokenizers."""

from finetune_tf.checkpoints.checkpoint import Checkpoint, open_checkpoint

__all__ = ["Checkpoint", "open_checkpoint"]
