"""Presets: optimizer, loss and metrics for `model.compile`, with defaults for fine-tuning.

    model.compile(**ft.presets.cross_entropy())
    model.compile(**ft.presets.mean_squared_error(learning_rate=2e-5, weight_decay=0.0))

All models of finetune_tf return logits, and all losses here expect logits.
"""

from finetune_tf.training.label_presets import focal, huber, ordinal
from finetune_tf.training.pair_presets import contrastive, pairwise_sigmoid, similarity
from finetune_tf.training.preset_table import PRESETS
from finetune_tf.training.presets import (
    LOSSES,
    binary_cross_entropy,
    cross_entropy,
    make_optimizer,
    mean_squared_error,
)

__all__ = [
    "LOSSES",
    "PRESETS",
    "binary_cross_entropy",
    "contrastive",
    "cross_entropy",
    "focal",
    "huber",
    "make_optimizer",
    "mean_squared_error",
    "ordinal",
    "pairwise_sigmoid",
    "similarity",
]
