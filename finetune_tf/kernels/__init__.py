"""The hot arithmetic, behind one door.

Layers import these names and never ask which backend or device runs them. Faster versions for
one backend belong beside `portable` and are chosen here.
"""

from finetune_tf.kernels.portable import (
    ACTIVATIONS,
    activation,
    adamw_step,
    layer_norm,
    masked_softmax,
)

__all__ = ["ACTIVATIONS", "activation", "adamw_step", "layer_norm", "masked_softmax"]
