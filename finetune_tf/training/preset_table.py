"""The default preset for each kind of outputs."""

from collections.abc import Callable
from typing import Any

from finetune_tf.tasks import Kind
from finetune_tf.training.pair_presets import contrastive, pairwise_sigmoid, similarity
from finetune_tf.training.presets import binary_cross_entropy, cross_entropy, mean_squared_error

#: The default preset for each kind of outputs.
PRESETS: dict[Kind, Callable[..., dict[str, Any]]] = {
    "classes": cross_entropy,
    "several": binary_cross_entropy,
    "number": mean_squared_error,
    "vectors": similarity,
    "pairs": contrastive,
    "independent_pairs": pairwise_sigmoid,
}
