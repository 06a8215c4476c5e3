"""The small layers that every architecture is made of.

Shape legend: B batch, L length, H heads, D features, F features of one head.
"""

from typing import Any

import keras
from keras import ops

from finetune_tf import kernels

PACKAGE = "finetune_tf"


def dense(units: int, initializer_range: float, *, dtype: Any, name: str) -> keras.layers.Dense:
    """A Dense layer with the initialisation that BERT and its kin use."""
    return keras.layers.Dense(
        units,
        kernel_initializer=keras.initializers.RandomNormal(stddev=initializer_range),
        dtype=dtype,
        name=name,
    )


@keras.saving.register_keras_serializable(PACKAGE)
class LayerNorm(keras.layers.Layer):
    """Layer normalisation whose parameters and arithmetic stay in float32.

    Args:
        epsilon: Added to the variance.
    """

    def __init__(self, epsilon: float = 1e-12, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape: tuple) -> None:
        """Creates `gamma` and `beta`, each (D,)."""
        # autocast=False: a mixed policy would hand bfloat16 copies to the kernel.
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(shape=shape, initializer="ones", name="gamma", autocast=False)
        self.beta = self.add_weight(shape=shape, initializer="zeros", name="beta", autocast=False)

    def call(self, x: Any) -> Any:
        """Normalises the last axis of `x`."""
        return kernels.layer_norm(x, self.gamma, self.beta, self.epsilon)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """The shape does not change."""
        return input_shape

    def get_config(self) -> dict:
        """Keras config."""
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(PACKAGE)
class SelfAttention(keras.layers.Layer):
    """Multi-head self-attention (Vaswani et al. 2017), output projection included.

    Args:
        hidden_size: D, split evenly over the heads.
        num_heads: H.
        dropout: Rate on the attention weights.
        initializer_range: Standard deviation of new kernels.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        dropout: float = 0.0,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.head_size = hidden_size // num_heads
        self.dropout_rate = dropout
        self.initializer_range = initializer_range

        make = {"initializer_range": initializer_range, "dtype": self.dtype_policy}
        self.query = dense(hidden_size, **make, name="query")
        self.key = dense(hidden_size, **make, name="key")
        self.value = dense(hidden_size, **make, name="value")
        self.output_dense = dense(hidden_size, **make, name="output")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, hidden_shape: tuple, attention_mask_shape: tuple | None = None) -> None:
        """Builds the four projections."""
        for projection in (self.query, self.key, self.value, self.output_dense):
            projection.build(hidden_shape)

    def call(self, hidden: Any, attention_mask: Any, training: bool | None = None) -> Any:
        """Attends from every position to the unmasked ones.

        Args:
            hidden: (B, L, D).
            attention_mask: (B, L), 1 for real tokens.
            training: Whether dropout is active.

        Returns:
            (B, L, D).
        """
        query = self._split_heads(self.query(hidden))  # (B, H, L, F)
        key = self._split_heads(self.key(hidden))
        value = self._split_heads(self.value(hidden))
        # Scaling the query is cheaper than scaling the scores.
        query = query * ops.cast(self.head_size**-0.5, query.dtype)
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))  # (B, H, L, L)
        weights = kernels.masked_softmax(scores, attention_mask)
        weights = self.dropout(weights, training=training)
        mixed = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))  # (B, L, H, F)
        return self.output_dense(ops.reshape(mixed, ops.shape(hidden)))

    def _split_heads(self, x: Any) -> Any:
        batch, length = ops.shape(x)[:2]
        x = ops.reshape(x, (batch, length, self.num_heads, self.head_size))
        return ops.transpose(x, (0, 2, 1, 3))

    def compute_output_shape(
        self, hidden_shape: tuple, attention_mask_shape: tuple | None = None
    ) -> tuple:
        """(B, L, D), as the input."""
        return hidden_shape

    def get_config(self) -> dict:
        """Keras config."""
        return {
            **super().get_config(),
            "hidden_size": self.hidden_size,
            "num_heads": self.num_heads,
            "dropout": self.dropout_rate,
            "initializer_range": self.initializer_range,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class FeedForward(keras.layers.Layer):
    """Two Dense layers with an activation between them.

    Args:
        intermediate_size: Width between the two.
        activation: A Hugging Face activation name.
        initializer_range: Standard deviation of new kernels.
    """

    def __init__(
        self,
        intermediate_size: int,
        hidden_size: int,
        activation: str = "gelu",
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.intermediate_size = intermediate_size
        self.hidden_size = hidden_size
        self.activation = activation
        self.initializer_range = initializer_range

        make = {"initializer_range": initializer_range, "dtype": self.dtype_policy}
        self.intermediate = dense(intermediate_size, **make, name="intermediate")
        self.output_dense = dense(hidden_size, **make, name="output")
        self._activate = kernels.activation(activation)

    def build(self, input_shape: tuple) -> None:
        """Builds both Dense layers."""
        self.intermediate.build(input_shape)
        self.output_dense.build((*input_shape[:-1], self.intermediate_size))

    def call(self, x: Any) -> Any:
        """(B, L, D) to (B, L, D)."""
        return self.output_dense(self._activate(self.intermediate(x)))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """(B, L, D), as the input."""
        return input_shape

    def get_config(self) -> dict:
        """Keras config."""
        return {
            **super().get_config(),
            "intermediate_size": self.intermediate_size,
            "hidden_size": self.hidden_size,
            "activation": self.activation,
            "initializer_range": self.initializer_range,
        }
