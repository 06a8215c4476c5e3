"""Training: selectors, freezing, optimizers and learning-rate schedules."""

from finetune_tf.training import objectives, select
from finetune_tf.training.batch_statistics import (
    measure_batch_statistics,
    train_batch_statistics,
)
from finetune_tf.training.freezing import count_parameters, freeze, train_only
from finetune_tf.training.optimizers import AdamW
from finetune_tf.training.rates import by_pattern, layerwise, with_rates
from finetune_tf.training.schedules import Schedule, Warmup, WarmupLinearDecay

__all__ = [
    "AdamW",
    "Schedule",
    "Warmup",
    "WarmupLinearDecay",
    "by_pattern",
    "count_parameters",
    "freeze",
    "layerwise",
    "measure_batch_statistics",
    "objectives",
    "select",
    "train_batch_statistics",
    "train_only",
    "with_rates",
]
