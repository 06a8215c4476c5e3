"""Training: selectors, freezing, optimizers, learning-rate schedules and presets."""

from finetune_tf.training import presets, select
from finetune_tf.training.freezing import count_parameters, freeze, train_only
from finetune_tf.training.optimizers import AdamW
from finetune_tf.training.schedules import Warmup, WarmupLinearDecay

__all__ = [
    "AdamW",
    "Warmup",
    "WarmupLinearDecay",
    "count_parameters",
    "freeze",
    "presets",
    "select",
    "train_only",
]
