"""What stands on a backbone: poolings and heads.

Shape legend: B batch, L length, D features, C outputs.
"""

from typing import Any, Literal

import keras
from keras import ops

from finetune_tf import kernels
from finetune_tf.architectures.layers import PACKAGE, dense
from finetune_tf.errors import ModelError


@keras.saving.register_keras_serializable(PACKAGE)
class Pooling(keras.layers.Layer):
    """One vector a text, without weights.

    Args:
        mode: "cls" takes the first token, "mean" the average of the unmasked ones.
    """

    def __init__(self, mode: Literal["cls", "mean"], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if mode not in ("cls", "mean"):
            raise ModelError(f"Pooling knows 'cls' and 'mean', found {mode!r}.")
        self.mode = mode

    def call(self, hidden: Any, attention_mask: Any) -> Any:
        """(B, L, D) and (B, L) to (B, D)."""
        if self.mode == "cls":
            return hidden[:, 0]
        # Long bfloat16 sums lose digits; the sum over tokens runs in float32.
        kept = ops.cast(attention_mask, "float32")[:, :, None]
        total = ops.sum(ops.cast(hidden, "float32") * kept, axis=1)
        return ops.cast(total / ops.maximum(ops.sum(kept, axis=1), 1e-9), hidden.dtype)

    def compute_output_shape(
        self, hidden_shape: tuple, attention_mask_shape: tuple | None = None
    ) -> tuple:
        """(B, D)."""
        return (hidden_shape[0], hidden_shape[-1])

    def get_config(self) -> dict:
        """Keras config."""
        return {**super().get_config(), "mode": self.mode}


@keras.saving.register_keras_serializable(PACKAGE)
class Pooler(keras.layers.Layer):
    """BERT's own pooler: a Dense layer with an activation on the first token.

    Args:
        hidden_size: D.
        activation: A Hugging Face activation name.
        initializer_range: Standard deviation of a new kernel.
    """

    def __init__(
        self,
        hidden_size: int,
        activation: str = "tanh",
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._config = {
            "hidden_size": hidden_size,
            "activation": activation,
            "initializer_range": initializer_range,
        }
        self.dense = dense(hidden_size, initializer_range, dtype=self.dtype_policy, name="dense")
        self._activate = kernels.activation(activation)

    def build(self, input_shape: tuple) -> None:
        """Builds the Dense layer on (B, D)."""
        self.dense.build((input_shape[0], input_shape[-1]))

    def call(self, hidden: Any) -> Any:
        """(B, L, D) to (B, D)."""
        return self._activate(self.dense(hidden[:, 0]))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """(B, D)."""
        return (input_shape[0], self._config["hidden_size"])

    def get_config(self) -> dict:
        """Keras config."""
        return {**super().get_config(), **self._config}


@keras.saving.register_keras_serializable(PACKAGE)
class ClassificationHead(keras.layers.Layer):
    """Dropout and a Dense layer: features to logits.

    It computes in float32 whatever the policy around it is, because bfloat16 logits cost
    accuracy in the loss and break metrics downstream.

    Args:
        num_labels: C.
        dropout: Rate on the features.
        initializer_range: Standard deviation of a new kernel.
    """

    def __init__(
        self,
        num_labels: int,
        dropout: float = 0.1,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self._config = {
            "num_labels": num_labels,
            "dropout": dropout,
            "initializer_range": initializer_range,
        }
        self.dropout = keras.layers.Dropout(dropout, dtype="float32", name="dropout")
        self.dense = dense(num_labels, initializer_range, dtype="float32", name="dense")

    def build(self, input_shape: tuple) -> None:
        """Builds the Dense layer."""
        self.dense.build(input_shape)

    def call(self, features: Any, training: bool | None = None) -> Any:
        """(B, D) to (B, C), float32."""
        return self.dense(self.dropout(features, training=training))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """(B, C)."""
        return (*input_shape[:-1], self._config["num_labels"])

    def get_config(self) -> dict:
        """Keras config."""
        return {**super().get_config(), **self._config}
