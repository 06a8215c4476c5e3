"""The end of a chain in a model of several chains, such as encoder and decoder, or two towers."""

from typing import Any

import keras

from finetune_tf.architectures.layers import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
class EndOfChain(keras.layers.Layer):
    """An identity layer that marks the end of a chain of stages.

    Its input is the finished output of the chain, which later layers read: the output of an encoder
    that every block of a decoder attends to, or the text vector of one of two towers. `ft.stages`
    cuts each chain separately and names its stages "chain/stage":

        memory = EndOfChain(name="encoder")(encoder_norm(hidden))

    Args:
        name: The name of the chain.
        **kwargs: Arguments of every Keras layer.
    """

    ends_chain = True

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name=name, autocast=False, **kwargs)

    def call(self, hidden: Any) -> Any:
        """Returns its input, of any shape."""
        return hidden

    def compute_output_spec(self, hidden: Any) -> keras.KerasTensor:
        """Returns a spec with the shape and dtype of the input."""
        return keras.KerasTensor(hidden.shape, hidden.dtype)
