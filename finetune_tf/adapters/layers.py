"""The layers that adapters add to a Dense layer, and what each of them changes.

A layer calls its active adapters at three places: before the matrix product, between it and the
bias, and after the bias. An adapter that can be merged also has `effective`, the kernel and the
bias that compute the same without it.

Shape legend: D inputs and U units of the adapted layer, R rank.
"""

import math
from typing import Any

import keras
from keras import ops

from finetune_tf import kernels
from finetune_tf.architectures.layers import PACKAGE, ConfigLayer
from finetune_tf.base.keras_internals import full_precision

PREFIX = "adapter_"  # of the attribute and the layer; the name of the adapter follows


class Adapter(ConfigLayer):
    """Base class: a sublayer of the layer that it adapts. By default it changes nothing.

    Args:
        name: The name of the adapter.
        inputs: D, of the adapted layer.
        units: U, of the adapted layer.
    """

    changes_output = False
    is_mergeable = True
    scales_others = False  # whether it multiplies what other adapters of the layer add

    def __init__(self, name: str, inputs: int, units: int, **kwargs: Any) -> None:
        super().__init__(name=f"{PREFIX}{name}", **kwargs)
        self.adapter_name, self.rows, self.columns = name, inputs, units
        self.is_merged = False

    @property
    def usual_rate(self) -> float:
        """The learning rate "auto": the wider the model, the lower.

        For a width of 768 it is 6e-4 (Hu et al. 2021 take 4e-4 to 5e-4 for RoBERTa base), for 4,096
        2e-4 and for 8,192 1e-4 (as Dettmers et al. 2023, QLoRA, for Llama 7B and 65B). For 384 it
        is 1e-3, which docs/recipes.md compares with other rates.
        """
        width = min(self.rows, self.columns)
        return float(f"{min(1e-3 * (384 / width) ** 0.75, 2e-3):.1g}")

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor, apart from the sizes and the name."""
        return dict(self._config)

    def change_input(self, x: Any) -> Any:
        """Changes the input (…, D) of the layer."""
        return x

    def change_product(self, output: Any, x: Any, kernel: Any, training: bool | None) -> Any:
        """Changes the matrix product (…, U) of an input `x` (…, D) and the kernel (D, U)."""
        return output

    def change_output(self, y: Any, training: bool | None = None) -> Any:
        """Changes the output (…, U) of the layer."""
        return y

    def effective(self, kernel: Any, bias: Any | None) -> tuple[Any, Any | None]:
        """Returns the kernel (D, U) and the bias (U,) with which the layer needs no adapter.

        Only adapters with `is_mergeable` have them.
        """
        raise NotImplementedError

    def start_from(self, kernel: Any) -> None:
        """Sets initial values that depend on the kernel (D, U) of the layer."""


@keras.saving.register_keras_serializable(PACKAGE)
class LowRank(Adapter):
    """LoRA: adds the product of two narrow matrices to the kernel; see `settings.LoRA`.

    Args:
        name: As for `Adapter`.
        inputs: As for `Adapter`.
        units: As for `Adapter`.
        rank: R.
        alpha: Numerator of the scale.
        dropout: Dropout rate of the input of the two matrices.
        use_rslora: Whether the scale is alpha / sqrt(R) instead of alpha / R.
        use_dora: Whether each column of the kernel has a magnitude that is trained separately.
        bias: As for `settings.LoRA`; the layer itself does not use it.
    """

    kind = "LoRA"

    def __init__(
        self,
        name: str,
        inputs: int,
        units: int,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        use_rslora: bool = False,
        use_dora: bool = False,
        bias: str = "none",
        **kwargs: Any,
    ) -> None:
        super().__init__(name, inputs, units, **kwargs)
        self.record_arguments(locals(), "name", "inputs", "units")
        self.rank, self.alpha, self.use_dora = rank, alpha, use_dora
        self.scale = alpha / (math.sqrt(rank) if use_rslora else rank)
        self.magnitude = self.dropout = None
        if dropout:
            self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape: tuple) -> None:
        """Creates the matrices, of which the second is zero, so that nothing changes at first."""
        bound = self.rows**-0.5
        start = keras.initializers.RandomUniform(-bound, bound)
        self.lora_a = self.add_weight((self.rows, self.rank), start, name="lora_a")
        self.lora_b = self.add_weight((self.rank, self.columns), "zeros", name="lora_b")
        if self.use_dora:
            self.magnitude = self.add_weight((self.columns,), "ones", name="magnitude")

    def start_from(self, kernel: Any) -> None:
        """Sets the magnitudes of DoRA to the norms of the columns of the kernel."""
        if self.magnitude is not None:
            wide = ops.cast(kernel, "float32")
            self.magnitude.assign(ops.sqrt(ops.sum(ops.square(wide), axis=0)))

    def change_product(self, output: Any, x: Any, kernel: Any, training: bool | None) -> Any:
        """Adds the low-rank product; DoRA scales the sum of both."""
        dropped = x if self.dropout is None else self.dropout(x, training=training)
        narrow = kernels.dense(dropped, self.lora_a, None)  # (…, R)
        low = kernels.dense(narrow * self.scale, self.lora_b, None)
        if self.magnitude is None:
            return output + low
        ratio = ops.cast(self._ratio(kernel), output.dtype)
        if self.dropout is None:
            return (output + low) * ratio
        # As in PEFT, dropout also applies to the part of the change that comes from the kernel.
        return output + (ratio - 1) * kernels.dense(dropped, kernel, None) + ratio * low

    def effective(self, kernel: Any, bias: Any | None) -> tuple[Any, Any | None]:
        """Adds the product of the matrices to the kernel."""
        with full_precision():
            low = ops.matmul(self.lora_a, self.lora_b) * self.scale
            changed = ops.cast(kernel, low.dtype) + low
            return (changed if self.magnitude is None else changed * self._ratio(kernel)), bias

    def _ratio(self, kernel: Any) -> Any:
        """Returns each magnitude divided by the norm of its column, (U,), in float32.

        The norm is a constant for gradients (Liu et al. 2024, section 4.3). It is computed from
        products with the narrow matrices, so that the sum of both kernels is never stored. A mixed
        policy must not round the kernel first.
        """
        with full_precision():
            kernel, a, b = (
                ops.cast(each, "float32") for each in (kernel, self.lora_a, self.lora_b)
            )
            across = ops.matmul(ops.transpose(a), kernel)  # (R, U)
            within = ops.matmul(ops.matmul(ops.transpose(a), a), b)  # (R, U)
            squares = ops.sum(ops.square(kernel), axis=0)
            squares += self.scale * ops.sum((2.0 * across + self.scale * within) * b, axis=0)
            return ops.cast(self.magnitude, "float32") / ops.stop_gradient(ops.sqrt(squares))


@keras.saving.register_keras_serializable(PACKAGE)
class Factors(Adapter):
    """IA3: a factor for each input or each output of the layer; see `settings.IA3`.

    Args:
        name: As for `Adapter`.
        inputs: As for `Adapter`.
        units: As for `Adapter`.
        on_input: Whether the input is multiplied instead of the output.
    """

    kind = "IA3"
    usual_rate = 3e-3  # Liu et al. 2022
    scales_others = True

    def __init__(
        self, name: str, inputs: int, units: int, on_input: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(name, inputs, units, **kwargs)
        self.record_arguments(locals(), "name", "inputs", "units")
        self.on_input, self.changes_output = on_input, not on_input

    def build(self, input_shape: tuple) -> None:
        """Creates the factors, which start at 1."""
        size = self.rows if self.on_input else self.columns
        self.factors = self.add_weight((size,), "ones", name="factors")

    def change_input(self, x: Any) -> Any:
        """Multiplies the input."""
        return x * ops.cast(self.factors, x.dtype) if self.on_input else x

    def change_output(self, y: Any, training: bool | None = None) -> Any:
        """Multiplies the output, bias included."""
        return y if self.on_input else y * ops.cast(self.factors, y.dtype)

    def effective(self, kernel: Any, bias: Any | None) -> tuple[Any, Any | None]:
        """Multiplies the rows of the kernel, or its columns and the bias."""
        with full_precision():
            factors = ops.cast(self.factors, "float32")
            kernel = ops.cast(kernel, "float32")
            if self.on_input:
                return kernel * factors[:, None], bias
            return kernel * factors, None if bias is None else ops.cast(bias, "float32") * factors


@keras.saving.register_keras_serializable(PACKAGE)
class NarrowNetwork(Adapter):
    """A bottleneck after a layer, with a residual; see `settings.Bottleneck`.

    Args:
        name: As for `Adapter`.
        inputs: As for `Adapter`.
        units: As for `Adapter`.
        size: Width of the bottleneck.
        activation: A Hugging Face activation name.
    """

    kind = "Bottleneck"
    changes_output = True
    is_mergeable = False

    def __init__(
        self,
        name: str,
        inputs: int,
        units: int,
        size: int = 64,
        activation: str = "gelu",
        **kwargs: Any,
    ) -> None:
        super().__init__(name, inputs, units, **kwargs)
        self.record_arguments(locals(), "name", "inputs", "units")
        self._size, self._activate = size, kernels.activation(activation)

    def build(self, input_shape: tuple) -> None:
        """Creates both projections; the second is zero, so that nothing changes at first."""
        start = keras.initializers.RandomNormal(stddev=0.01)
        self.down = self.add_weight((self.columns, self._size), start, name="down_kernel")
        self.down_bias = self.add_weight((self._size,), "zeros", name="down_bias")
        self.up = self.add_weight((self._size, self.columns), "zeros", name="up_kernel")
        self.up_bias = self.add_weight((self.columns,), "zeros", name="up_bias")

    def change_output(self, y: Any, training: bool | None = None) -> Any:
        """Adds the output of the bottleneck."""
        inner = self._activate(kernels.dense(y, self.down, self.down_bias))
        return y + kernels.dense(inner, self.up, self.up_bias)


KINDS: dict[str, type[Adapter]] = {each.kind: each for each in (LowRank, Factors, NarrowNetwork)}
