"""Performance-critical operations: activations, normalisation, softmax, dropout and AdamW.

Layers and optimizers import these names and do not check which backend is active. `portable`
implements every operation with `keras.ops`. A module named after a backend holds faster
implementations for it, with the same names and results.
"""

import keras

from finetune_tf.kernels.memory import keep_buffers
from finetune_tf.kernels.portable import (
    ACTIVATIONS,
    activation,
    adamw_numbers,
    layer_norm,
    rms_norm,
)
from finetune_tf.kernels.remat import remat

if keras.backend.backend() == "tensorflow":
    from finetune_tf.kernels.tensorflow import (
        activated,
        add_norm,
        batch_norm,
        dense,
        embedding_lookup,
        masked_softmax,
    )
    from finetune_tf.kernels.tensorflow_updates import (
        adamw_update,
        divided_among_devices,
        global_norm,
        is_tracing,
        move_towards,
        scaled_gradient,
        summed_gradient,
        summed_over_devices,
        traced,
    )
    from finetune_tf.kernels.tensorflow_vocabulary import token_scores, weighted_cross_entropy
else:
    from finetune_tf.kernels.portable import (
        activated,
        adamw_update,
        add_norm,
        batch_norm,
        dense,
        embedding_lookup,
        global_norm,
        is_tracing,
        masked_softmax,
        move_towards,
        scaled_gradient,
        summed_gradient,
        summed_over_devices,
        traced,
    )
    from finetune_tf.kernels.vocabulary import (
        divided_among_devices,
        token_scores,
        weighted_cross_entropy,
    )

__all__ = [
    "ACTIVATIONS",
    "activated",
    "activation",
    "adamw_numbers",
    "adamw_update",
    "add_norm",
    "batch_norm",
    "dense",
    "divided_among_devices",
    "embedding_lookup",
    "global_norm",
    "is_tracing",
    "keep_buffers",
    "layer_norm",
    "masked_softmax",
    "move_towards",
    "remat",
    "rms_norm",
    "scaled_gradient",
    "summed_gradient",
    "summed_over_devices",
    "token_scores",
    "traced",
    "weighted_cross_entropy",
]
