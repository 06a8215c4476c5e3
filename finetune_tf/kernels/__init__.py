"""The hot arithmetic, behind one door.

Layers and optimizers import these names and never ask which backend runs them. A faster version
for one backend stands in a module named after it, under the same name and with the same results.
"""

import keras

from finetune_tf.kernels.memory import keep_buffers
from finetune_tf.kernels.portable import ACTIVATIONS, activation, adamw_numbers, layer_norm
from finetune_tf.kernels.recomputing import recomputed

if keras.backend.backend() == "tensorflow":
    from finetune_tf.kernels.tensorflow import (
        adamw_update,
        add_norm,
        dense,
        global_norm,
        masked_softmax,
    )
else:
    from finetune_tf.kernels.portable import (
        adamw_update,
        add_norm,
        dense,
        global_norm,
        masked_softmax,
    )

__all__ = [
    "ACTIVATIONS",
    "activation",
    "adamw_numbers",
    "adamw_update",
    "add_norm",
    "dense",
    "global_norm",
    "keep_buffers",
    "layer_norm",
    "masked_softmax",
    "recomputed",
]
