"""Families of models: a file each, from the config of a checkpoint to layers and weight tables."""

from finetune_tf.families.family import Family, Head
from finetune_tf.families.registry import FAMILIES, family_of

__all__ = ["FAMILIES", "Family", "Head", "family_of"]
