"""Where a model consists of several chains: encoder and decoder, two towers."""

from typing import Any

import keras

from finetune_tf.architectures.layers import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
class EndOfChain(keras.layers.Layer):
    """Declares that a chain of stages ends here; computes nothing.

    What goes through it is finished and read further up: the output of an encoder that every block
    of a decoder attends to, the vector that one tower of two makes of a text. `ft.stages` cuts
    each chain by itself, and names its stages "chain/stage":

        memory = EndOfChain(name="encoder")(encoder_norm(hidden))

    Args:
        name: The name of the chain.
        **kwargs: As for every Keras layer.
    """

    ends_chain = True

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name=name, autocast=False, **kwargs)

    def call(self, hidden: Any) -> Any:
        """What is given, of any shape."""
        return hidden

    def compute_output_spec(self, hidden: Any) -> keras.KerasTensor:
        """Shape and type do not change."""
        return keras.KerasTensor(hidden.shape, hidden.dtype)
