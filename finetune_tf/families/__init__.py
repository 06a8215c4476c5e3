"""Model families: one file each, which maps a checkpoint's config to layers and a weight table."""

from finetune_tf.families.family import Family, Head
from finetune_tf.families.registry import FAMILIES, family_of

__all__ = ["FAMILIES", "Family", "Head", "family_of"]
