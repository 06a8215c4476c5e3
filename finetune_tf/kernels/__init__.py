"""The hot arithmetic, behind one door.

Layers and optimizers import these names and never ask which backend runs them. A faster version
for one backend stands in a module named after it, under the same name and with the same results.
"""

import keras

from finetune_tf.kernels.portable import ACTIVATIONS, activation, layer_norm, masked_softmax

if keras.backend.backend() == "tensorflow":
    from finetune_tf.kernels.tensorflow import adamw_update
else:
    from finetune_tf.kernels.portable import adamw_update

__all__ = ["ACTIVATIONS", "activation", "adamw_update", "layer_norm", "masked_softmax"]
