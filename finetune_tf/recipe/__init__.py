"""`finetune`: the complete workflow in one call, and the folder of a run."""

from finetune_tf.recipe.recipe import FinetuneResult, finetune

__all__ = ["FinetuneResult", "finetune"]
