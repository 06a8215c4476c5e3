"""`finetune`: the public verbs in a row, and the folder of a run."""

from finetune_tf.recipe.recipe import FinetuneResult, finetune

__all__ = ["FinetuneResult", "finetune"]
