"""The small layers that every architecture is made of.

Shape legend: B batch, L length, D features.
"""

from typing import Any, Literal

import keras
from keras import ops

from finetune_tf import kernels

PACKAGE = "finetune_tf"


class ConfigLayer(keras.layers.Layer):
    """A layer whose Keras config is the arguments of its constructor.

    The constructor of a subclass calls `self.record_arguments(locals())` after that of its base
    class and before it assigns other local variables. Changed arguments, such as defaults that
    depend on each other, are recorded as they are then.
    """

    def record_arguments(self, arguments: dict[str, Any], *left_out: str) -> None:
        """Adds the arguments of a constructor to the config.

        Args:
            arguments: The local variables of the constructor.
            *left_out: Further arguments that are not part of the config. `self`, `kwargs` and
                arguments that are layers never are.
        """
        ignored = {"self", "kwargs", "__class__", *left_out}
        own = {
            name: value
            for name, value in arguments.items()
            if name not in ignored and not isinstance(value, keras.layers.Layer)
        }
        self._config = {**getattr(self, "_config", {}), **own}

    def get_config(self) -> dict:
        """Keras config."""
        return {**super().get_config(), **self._config}


@keras.saving.register_keras_serializable(PACKAGE)
class Dense(keras.layers.Dense):
    """Keras's Dense layer, with a kernel in which product and bias are one operation."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """(…, D) to (…, units)."""
        return kernels.dense(inputs, self.kernel, self.bias)


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


def query_rows(x: Any, axis: int, start: Any, count: Any) -> Any:
    """The rows of a query, taken from what was made for every row of its context.

    Args:
        x: A mask or positions, whose `axis` has a row for each token of the context, or a single
            row for all of them.
        axis: The one to cut.
        start: Where in the context the query begins.
        count: Rows to take.
    """
    if x.shape[axis] == 1:
        return x
    begin, size = [0] * len(x.shape), list(ops.shape(x))
    begin[axis], size[axis] = start, count
    return ops.slice(x, begin, size)


@keras.saving.register_keras_serializable(PACKAGE)
class FirstToken(keras.layers.Layer):
    """The first token alone, as the query of a block of which nothing else is asked for."""

    def call(self, hidden: Any) -> Any:
        """(B, L, D) to (B, 1, D)."""
        return hidden[:, 0][:, None]  # TensorFlow knows of `hidden[:, :1]` only "0 or 1 rows"

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """(B, 1, D)."""
        return (input_shape[0], 1, input_shape[-1])


@keras.saving.register_keras_serializable(PACKAGE)
class Table(keras.layers.Embedding):
    """Keras's Embedding layer, which reads the rows it needs and not the whole table."""

    def call(self, inputs: Any) -> Any:
        """(…,) ids to (…, output_dim)."""
        return ops.cast(kernels.embedding_lookup(self.embeddings, inputs), self.compute_dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class LayerNorm(ConfigLayer):
    """Layer normalisation whose parameters and arithmetic stay in float32.

    Args:
        epsilon: Added to the variance.
        use_bias: Whether there is an offset `beta` besides the scale `gamma`.
    """

    def __init__(self, epsilon: float = 1e-12, use_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.record_arguments(locals())
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


@keras.saving.register_keras_serializable(PACKAGE)
class RMSNorm(LayerNorm):
    """Division by the root mean square (Zhang and Sennrich 2019), in float32 inside.

    Args:
        epsilon: Added to the mean square.
    """

    def __init__(self, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(epsilon, **{**kwargs, "use_bias": False})

    def call(self, x: Any) -> Any:
        """Normalises the last axis of `x`."""
        return kernels.rms_norm(x, self.gamma, self.epsilon)

    def of_sum(
        self, x: Any, residual: Any, dropout: keras.layers.Dropout, training: bool | None
    ) -> Any:
        """Normalises the sum of a residual and of `x` with dropout."""
        return self(residual + dropout(x, training=training))


@keras.saving.register_keras_serializable(PACKAGE)
class FeedForward(ConfigLayer):
    """Two Dense layers with an activation between them, gated if asked for.

    Gated (Shazeer 2020), what comes out of the activation is multiplied with a second projection
    of the input, the gate.

    Args:
        intermediate_size: Width between the two.
        hidden_size: D.
        activation: A Hugging Face activation name.
        initializer_range: Standard deviation of new kernels.
        gated: Where the gate comes from: "apart" from a Dense layer of its own, "second_half" or
            "first_half" from that half of a first Dense layer that is twice as wide; None for no
            gate.
        use_bias: Of the Dense layers before the activation.
        dropout: Rate between the two.
        output_bias: Of the last Dense layer; by default `use_bias`.
    """

    def __init__(
        self,
        intermediate_size: int,
        hidden_size: int,
        activation: str = "gelu",
        initializer_range: float = 0.02,
        gated: Literal["apart", "first_half", "second_half"] | None = None,
        use_bias: bool = True,
        dropout: float = 0.0,
        output_bias: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        output_bias = use_bias if output_bias is None else output_bias
        self.record_arguments(locals())
        make = {"initializer_range": initializer_range, "dtype": self.dtype_policy}
        self._joined = gated in ("first_half", "second_half")
        width = 2 * intermediate_size if self._joined else intermediate_size
        self.intermediate = dense(width, **make, use_bias=use_bias, name="intermediate")
        self.gate = None
        if gated == "apart":
            self.gate = dense(intermediate_size, **make, use_bias=use_bias, name="gate")
        self.output_dense = dense(hidden_size, **make, use_bias=output_bias, name="output")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")
        self._activate = kernels.activation(activation)

    def build(self, input_shape: tuple) -> None:
        """Builds the Dense layers."""
        self.intermediate.build(input_shape)
        if self.gate is not None:
            self.gate.build(input_shape)
        self.output_dense.build((*input_shape[:-1], self._config["intermediate_size"]))

    def call(self, x: Any, training: bool | None = None) -> Any:
        """(B, L, D) to (B, L, D)."""
        if self._joined:
            inner, gate = ops.split(self.intermediate(x), 2, axis=-1)
            if self._config["gated"] == "first_half":
                inner, gate = gate, inner
            inner = self._activate(inner) * gate
        else:
            inner = kernels.activated(self.intermediate, x, self._config["activation"], training)
            inner = inner if self.gate is None else inner * self.gate(x)
        return self.output_dense(self.dropout(inner, training=training))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """(B, L, D), as the input."""
        return input_shape
