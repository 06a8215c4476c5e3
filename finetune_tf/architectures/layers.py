"""Basic layers that all architectures use.

Shape legend: B batch, L length, D features.
"""

from typing import Any, Literal

import keras
from keras import ops

from finetune_tf import kernels
from finetune_tf.base.adapter_records import require_recorded

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
        """Keras config.

        Raises:
            ModelError: If an adapter would be lost; see `base.adapter_records`.
        """
        require_recorded(self)
        return {**super().get_config(), **self._config}


@keras.saving.register_keras_serializable(PACKAGE)
class Dense(keras.layers.Dense):
    """Keras's Dense layer with a kernel that fuses the matrix product and the bias.

    Adapters of the package `adapters` are sublayers, which change the input, the matrix product or
    the output. Code that reads the kernel instead of calling the layer has to check `is_plain`, or
    call `product`.

    Attributes:
        active_adapters: Names of the adapters that take part in a call. The adapter "x" is the
            sublayer `adapter_x`.
    """

    active_adapters: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether the layer computes `x @ kernel + bias` and nothing else."""
        return self.ends_with_bias and not self.active_adapters

    @property
    def ends_with_bias(self) -> bool:
        """Whether the layer computes `product(x) + bias`, so that the bias can be fused."""
        is_own = type(self) is Dense and self.quantization_mode is None
        return is_own and not any(adapter.changes_output for adapter in adapters_in_use(self))

    def get_config(self) -> dict:
        """Keras config; see `ConfigLayer.get_config`."""
        require_recorded(self)
        return super().get_config()

    def product(self, inputs: Any, training: bool | None = None) -> Any:
        """Maps (…, D) to (…, units) without the bias; active adapters change the result."""
        return adapted_product(self, inputs, training)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Maps (…, D) to (…, units)."""
        if not self.active_adapters:
            return kernels.dense(inputs, self.kernel, self.bias)
        output = self.product(inputs, training)
        if self.bias is not None:
            output = output + ops.cast(self.bias, output.dtype)
        for adapter in adapters_in_use(self):
            output = adapter.change_output(output, training)
        return output


def adapters_in_use(layer: keras.layers.Layer) -> list[Any]:
    """Returns the active adapters of a layer in the order in which they are applied."""
    return [getattr(layer, f"adapter_{name}") for name in getattr(layer, "active_adapters", ())]


def adapted_product(layer: keras.layers.Dense, inputs: Any, training: bool | None = None) -> Any:
    """Multiplies with the kernel of a Dense layer, with its active adapters and without the bias.

    Args:
        layer: A Dense layer of this library or of Keras.
        inputs: (…, D).
        training: Whether the dropout of adapters is active.

    Returns:
        (…, units).
    """
    adapters = adapters_in_use(layer)
    for adapter in adapters:
        inputs = adapter.change_input(inputs)
    output = kernels.dense(inputs, layer.kernel, None)
    for adapter in adapters:
        output = adapter.change_product(output, inputs, layer.kernel, training)
    return output


def dense(
    units: int, initializer_range: float, *, dtype: Any, name: str, use_bias: bool = True
) -> Dense:
    """Makes a Dense layer whose kernel is initialised from a normal distribution, as in BERT."""
    return Dense(
        units,
        use_bias=use_bias,
        kernel_initializer=keras.initializers.RandomNormal(stddev=initializer_range),
        dtype=dtype,
        name=name,
    )


def query_rows(x: Any, axis: int, start: Any, count: Any) -> Any:
    """Slices the rows of a query from a tensor that has a row for each token of its context.

    Args:
        x: A mask or positions. Its `axis` has a row for each token of the context, or a single row
            that is valid for all tokens, in which case `x` is returned unchanged.
        axis: The axis to slice.
        start: Index of the first query token in the context; or (B, Q), the index of each, where
            the query is not a part without gaps.
        count: Number of rows, Q.

    Example:
        >>> query_rows(keras.ops.arange(6), 0, start=2, count=3).numpy()
        array([2, 3, 4], dtype=int32)
    """
    if x.shape[axis] == 1:
        return x
    if len(getattr(start, "shape", ())) == 2:
        return _rows_at(x, axis, ops.maximum(start, 0))
    begin, size = [0] * len(x.shape), list(ops.shape(x))
    begin[axis], size[axis] = start, count
    return ops.slice(x, begin, size)


def _rows_at(x: Any, axis: int, places: Any) -> Any:
    """Selects rows of `x` (B or 1, …) along an axis; places (B, Q) are those of each text."""
    if x.shape[0] == 1:  # the same for all texts
        return ops.moveaxis(ops.take(x[0], places, axis=axis - 1), axis - 1, 0)
    ones = (1,) * (len(x.shape) - axis - 1)
    places = ops.reshape(places, (-1, *(1,) * (axis - 1), ops.shape(places)[1], *ones))
    return ops.take_along_axis(x, places, axis=axis)


@keras.saving.register_keras_serializable(PACKAGE)
class FirstToken(keras.layers.Layer):
    """Selects the first token, as the query of a block whose other outputs are not needed."""

    def call(self, hidden: Any) -> Any:
        """Maps (B, L, D) to (B, 1, D)."""
        # TensorFlow cannot infer that `hidden[:, :1]` has exactly one row.
        return hidden[:, 0][:, None]

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape (B, 1, D)."""
        return (input_shape[0], 1, input_shape[-1])


@keras.saving.register_keras_serializable(PACKAGE)
class Table(keras.layers.Embedding):
    """Keras's Embedding layer with a lookup that reads only the needed rows of the table."""

    def call(self, inputs: Any) -> Any:
        """Maps ids (…,) to (…, output_dim)."""
        return ops.cast(kernels.embedding_lookup(self.embeddings, inputs), self.compute_dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class LayerNorm(ConfigLayer):
    """Layer normalisation (Ba et al. 2016) whose parameters and arithmetic are always in float32.

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
        # Without autocast=False, a mixed policy would pass bfloat16 copies to the kernel.
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
        """Normalises residual + dropout(x), in one fused kernel where that is faster."""
        return kernels.add_norm(x, residual, self.gamma, self.beta, self.epsilon, dropout, training)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape of the input."""
        return input_shape


@keras.saving.register_keras_serializable(PACKAGE)
class RMSNorm(LayerNorm):
    """Root mean square normalisation (Zhang and Sennrich 2019), computed in float32.

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
        """Normalises residual + dropout(x)."""
        return self(residual + dropout(x, training=training))


@keras.saving.register_keras_serializable(PACKAGE)
class FeedForward(ConfigLayer):
    """Two Dense layers with an activation between them, optionally gated.

    In a gated linear unit (Shazeer 2020), the output of the activation is multiplied by a second
    projection of the input, the gate.

    Args:
        intermediate_size: Width between the two Dense layers.
        hidden_size: D.
        activation: A Hugging Face activation name.
        initializer_range: Standard deviation of new kernels.
        gated: How the gate is computed: "apart" by a separate Dense layer, "second_half" or
            "first_half" as that half of the output of a first Dense layer of double width; None for
            no gate.
        use_bias: Whether the Dense layers before the activation have a bias.
        dropout: Dropout rate between the two Dense layers.
        output_bias: Whether the last Dense layer has a bias; by default `use_bias`.
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
        options = {"initializer_range": initializer_range, "dtype": self.dtype_policy}
        self._has_fused_gate = gated in ("first_half", "second_half")
        width = 2 * intermediate_size if self._has_fused_gate else intermediate_size
        self.intermediate = dense(width, **options, use_bias=use_bias, name="intermediate")
        self.gate = None
        if gated == "apart":
            self.gate = dense(intermediate_size, **options, use_bias=use_bias, name="gate")
        self.output_dense = dense(hidden_size, **options, use_bias=output_bias, name="output")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")
        self._activate = kernels.activation(activation)

    def build(self, input_shape: tuple) -> None:
        """Builds the Dense layers."""
        self.intermediate.build(input_shape)
        if self.gate is not None:
            self.gate.build(input_shape)
        self.output_dense.build((*input_shape[:-1], self._config["intermediate_size"]))

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Maps (B, L, D) to (B, L, D)."""
        if self._has_fused_gate:
            inner, gate = ops.split(self.intermediate(x), 2, axis=-1)
            if self._config["gated"] == "first_half":
                inner, gate = gate, inner
            inner = self._activate(inner) * gate
        else:
            inner = kernels.activated(self.intermediate, x, self._config["activation"], training)
            inner = inner if self.gate is None else inner * self.gate(x)
        return self.output_dense(self.dropout(inner, training=training))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape (B, L, D), the shape of the input."""
        return input_shape
