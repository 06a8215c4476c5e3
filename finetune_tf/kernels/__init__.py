"""Performance-critical operations: activations, normalisation, softmax, dropout and AdamW.

Layers and optimizers import these names and do not check which backend is active. `portable`
implements every operation with `keras.ops`. A module named after a backend holds faster
implementations for it, with the same names and results.
"""

import keras

from finetune_tf.kernels.adamw import adamw_numbers
from finetune_tf.kernels.choice import portable_only
from finetune_tf.kernels.host_memory import (
    is_host_memory_separate,
    keep_on_host,
    why_no_host_memory,
)
from finetune_tf.kernels.memory import keep_buffers
from finetune_tf.kernels.portable import (
    ACTIVATIONS,
    activation,
    layer_norm,
    rms_norm,
)
from finetune_tf.kernels.remat import remat

if keras.backend.backend() == "tensorflow":
    from finetune_tf.kernels.tensorflow import (
        activated,
        add_norm,
        batch_norm,
        batched_matmul,
        dense,
        embedding_lookup,
        masked_softmax,
        reshaped_rows,
    )
    from finetune_tf.kernels.tensorflow_devices import (
        device_count,
        divided_among_devices,
        gathered,
        is_first_device,
        of_all_devices,
        seed_of_device,
        summed_over_devices,
        with_common_shapes,
    )
    from finetune_tf.kernels.tensorflow_updates import (
        adamw_update,
        global_norm,
        is_tracing,
        move_towards,
        scaled_gradient,
        summed_gradient,
        traced,
        updates_together,
        waiting_for,
    )
    from finetune_tf.kernels.tensorflow_vocabulary import token_scores, weighted_cross_entropy
else:
    from finetune_tf.kernels.adamw import adamw_update, updates_together
    from finetune_tf.kernels.devices import (
        device_count,
        divided_among_devices,
        gathered,
        is_first_device,
        of_all_devices,
        seed_of_device,
        summed_over_devices,
        with_common_shapes,
    )
    from finetune_tf.kernels.portable import (
        activated,
        add_norm,
        batch_norm,
        batched_matmul,
        dense,
        embedding_lookup,
        global_norm,
        is_tracing,
        masked_softmax,
        move_towards,
        reshaped_rows,
        scaled_gradient,
        summed_gradient,
        traced,
        waiting_for,
    )
    from finetune_tf.kernels.vocabulary import token_scores, weighted_cross_entropy

__all__ = [
    "ACTIVATIONS",
    "activated",
    "activation",
    "adamw_numbers",
    "adamw_update",
    "add_norm",
    "batch_norm",
    "dense",
    "batched_matmul",
    "device_count",
    "divided_among_devices",
    "embedding_lookup",
    "gathered",
    "global_norm",
    "is_first_device",
    "is_host_memory_separate",
    "is_tracing",
    "keep_buffers",
    "keep_on_host",
    "layer_norm",
    "masked_softmax",
    "move_towards",
    "of_all_devices",
    "portable_only",
    "remat",
    "reshaped_rows",
    "rms_norm",
    "scaled_gradient",
    "seed_of_device",
    "summed_gradient",
    "summed_over_devices",
    "token_scores",
    "traced",
    "updates_together",
    "waiting_for",
    "weighted_cross_entropy",
    "why_no_host_memory",
    "with_common_shapes",
]
