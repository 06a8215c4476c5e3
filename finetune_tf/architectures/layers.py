"""The small layers that every architecture is made of.

Shape legend: B batch, L length, D features.
"""

from typing import Any

import keras
from keras import ops

from finetune_tf import kernels

PACKAGE = "finetune_tf"


@keras.saving.register_keras_serializable(PACKAGE)
class Dense(keras.layers.Dense):
    """Keras's Dense layer, with a kernel in which product and bias are one operation."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """(…, D) to (…, units)."""
        return kernels.dense(inputs, self.kernel, self.bias, training=training)


def dense(
    units: int, initializer_range: float, *, dtype: Any, name: str, use_bias: bool = True
) -> Dense:
    """A Dense layer with the initialisation that BERT and its kin use."""
    return Dense(
        units,
        use_bias=use_bias,
        kernel_initializer=keras.initializers.RandomNormal(stddev=initializer_range),
        dtype=dtype,
        name=name,
    )


def first_row(x: Any, axis: int) -> Any:
    """All but the first row of an axis left out; TensorFlow knows of `x[:1]` only "0 or 1 rows"."""
    return ops.expand_dims(x[(slice(None),) * axis + (0,)], axis)


@keras.saving.register_keras_serializable(PACKAGE)
class Table(keras.layers.Embedding):
    """Keras's Embedding layer, which reads the rows it needs and not the whole table."""

    def call(self, inputs: Any) -> Any:
        """(…,) ids to (…, output_dim)."""
        return ops.cast(kernels.rows(self.embeddings, inputs), self.compute_dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class LayerNorm(keras.layers.Layer):
    """Layer normalisation whose parameters and arithmetic stay in float32.

    Args:
        epsilon: Added to the variance.
        use_bias: Whether there is an offset `beta` besides the scale `gamma`.
    """

    def __init__(self, epsilon: float = 1e-12, use_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.use_bias = use_bias

    def build(self, input_shape: tuple) -> None:
        """Creates `gamma` and `beta`, each (D,)."""
        # autocast=False: a mixed policy would hand bfloat16 copies to the kernel.
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(shape=shape, initializer="ones", name="gamma", autocast=False)
        self.beta = None
        if self.use_bias:
            self.beta = self.add_weight(
                shape=shape, initializer="zeros", name="beta", autocast=False
            )

    def call(self, x: Any) -> Any:
        """Normalises the last axis of `x`."""
        return kernels.layer_norm(x, self.gamma, self.beta, self.epsilon)

    def of_sum(
        self, x: Any, residual: Any, dropout: keras.layers.Dropout, training: bool | None
    ) -> Any:
        """Normalises the sum of a residual and of `x` with dropout, in one pass where that pays."""
        return kernels.add_norm(x, residual, self.gamma, self.beta, self.epsilon, dropout, training)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """The shape does not change."""
        return input_shape

    def get_config(self) -> dict:
        """Keras config."""
        return {**super().get_config(), "epsilon": self.epsilon, "use_bias": self.use_bias}


@keras.saving.register_keras_serializable(PACKAGE)
class FeedForward(keras.layers.Layer):
    """Two Dense layers with an activation between them, gated if asked for.

    Gated (Shazeer 2020), the first Dense is twice as wide, and the activation of its first half
    is multiplied with its second half.

    Args:
        intermediate_size: Width between the two.
        hidden_size: D.
        activation: A Hugging Face activation name.
        initializer_range: Standard deviation of new kernels.
        gated: Whether a second half gates the first.
        use_bias: Of both Dense layers.
        dropout: Rate between the two.
    """

    def __init__(
        self,
        intermediate_size: int,
        hidden_size: int,
        activation: str = "gelu",
        initializer_range: float = 0.02,
        gated: bool = False,
        use_bias: bool = True,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._config = {
            "intermediate_size": intermediate_size,
            "hidden_size": hidden_size,
            "activation": activation,
            "initializer_range": initializer_range,
            "gated": gated,
            "use_bias": use_bias,
            "dropout": dropout,
        }
        make = {
            "initializer_range": initializer_range,
            "dtype": self.dtype_policy,
            "use_bias": use_bias,
        }
        width = 2 * intermediate_size if gated else intermediate_size
        self.intermediate = dense(width, **make, name="intermediate")
        self.output_dense = dense(hidden_size, **make, name="output")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")
        self._activate = kernels.activation(activation)

    def build(self, input_shape: tuple) -> None:
        """Builds both Dense layers."""
        self.intermediate.build(input_shape)
        self.output_dense.build((*input_shape[:-1], self._config["intermediate_size"]))

    def call(self, x: Any, training: bool | None = None) -> Any:
        """(B, L, D) to (B, L, D)."""
        if self._config["gated"]:
            x, gate = ops.split(self.intermediate(x), 2, axis=-1)
            x = self._activate(x) * gate
        else:
            inner = self.intermediate
            name = self._config["activation"]
            x = kernels.dense(x, inner.kernel, inner.bias, name, training)
        return self.output_dense(self.dropout(x, training=training))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """(B, L, D), as the input."""
        return input_shape

    def get_config(self) -> dict:
        """Keras config."""
        return {**super().get_config(), **self._config}
