"""Batch normalisation, and convolutions that are followed by it.

Shape legend: B batch, H height, W width, C channels.
"""

from collections.abc import Callable
from typing import Any, Literal

import keras
from keras import ops

from finetune_tf import kernels
from finetune_tf.architectures.layers import PACKAGE, ConfigLayer


@keras.saving.register_keras_serializable(PACKAGE)
class BatchNorm(ConfigLayer):
    """Batch normalisation (Ioffe and Szegedy 2015) as PyTorch computes it, in float32.

    By default a training step normalises with the stored statistics and leaves them as they are,
    because small batches of other images would ruin them. With `learns_statistics`, it normalises
    with those of the batch, and the stored ones move towards them; the variance that is stored is
    the unbiased one. The statistics of a frozen layer never move.

    Args:
        epsilon: Added to the variance.
        momentum: Share of the statistics of a batch in the new stored ones, as in PyTorch.
        learns_statistics: Whether training uses and stores the statistics of batches; see
            `train_batch_statistics`.
    """

    def __init__(
        self,
        epsilon: float = 1e-5,
        momentum: float = 0.1,
        learns_statistics: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs, autocast=False)
        self.record_arguments(locals(), "learns_statistics")
        self.learns_statistics = learns_statistics
        self.observer: Callable[[Any], None] | None = None  # is passed each input

    def build(self, input_shape: tuple) -> None:
        """Creates `gamma`, `beta`, `mean` and `variance`, each (C,)."""
        new = {"shape": (input_shape[-1],), "autocast": False}
        self.gamma = self.add_weight(initializer="ones", name="gamma", **new)
        self.beta = self.add_weight(initializer="zeros", name="beta", **new)
        # Several devices store the mean of what each of them finds.
        new |= {"trainable": False, "aggregation": "mean"}
        self.mean = self.add_weight(initializer="zeros", name="mean", **new)
        self.variance = self.add_weight(initializer="ones", name="variance", **new)

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Normalises each channel of `x` (B, H, W, C)."""
        if self.observer is not None:
            self.observer(x)
        if self.reads_batch(training):
            return self._of_batch(x)
        scale, shift = self.scale_and_shift()
        return ops.cast(ops.cast(x, scale.dtype) * scale + shift, self.compute_dtype)

    def reads_batch(self, training: bool | None) -> bool:
        """Returns whether a call normalises with the statistics of the batch."""
        return bool(training and self.learns_statistics and self.trainable)

    def scale_and_shift(self) -> tuple[Any, Any]:
        """Returns the factors and summands (C,) to which the stored statistics amount."""
        scale = self.gamma * ops.rsqrt(self.variance + self._config["epsilon"])
        return scale, self.beta - self.mean * scale

    def _of_batch(self, x: Any) -> Any:
        epsilon, share = self._config["epsilon"], self._config["momentum"]
        out, mean, variance = kernels.batch_norm(x, self.gamma, self.beta, epsilon)
        for stored, found in ((self.mean, mean), (self.variance, variance)):
            stored.assign(stored + share * (found - stored))
        return ops.cast(out, self.compute_dtype)

    def get_config(self) -> dict:
        """Keras config."""
        return {**super().get_config(), "learns_statistics": self.learns_statistics}

    def compute_output_spec(self, x: Any, training: bool | None = None) -> keras.KerasTensor:
        """The shape of the input, in the compute dtype."""
        return keras.KerasTensor(x.shape, self.compute_dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class ConvNorm(ConfigLayer):
    """A convolution without bias, batch normalisation and an activation.

    With stored statistics, the scale of the normalisation is multiplied into the kernel at each
    call, which saves passes over the image and, in training, the memory of one. The stored weights
    are those of the two layers.

    Args:
        channels: Number of output channels.
        kernel_size: Height and width of the window.
        strides: Step of the window.
        activation: A Hugging Face activation name; None for no activation.
        depthwise: Whether each channel is convolved by itself; `channels` is then that of the
            input.
        dilation: Distance of the pixels in the window.
        padding: "half" of the window on each side, as in PyTorch, or "same" as in TensorFlow, which
            pads strided convolutions less before than after the image.
        epsilon: As for `BatchNorm`.
        momentum: As for `BatchNorm`.
        learns_statistics: As for `BatchNorm`.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        strides: int = 1,
        activation: str | None = None,
        depthwise: bool = False,
        dilation: int = 1,
        padding: Literal["half", "same"] = "half",
        epsilon: float = 1e-5,
        momentum: float = 0.1,
        learns_statistics: bool = False,
        **kwargs: Any,
    ) -> None:
        # Otherwise the kernel would be rounded before it is multiplied.
        super().__init__(**kwargs, autocast=False)
        self.record_arguments(locals(), "learns_statistics")
        policy = self.dtype_policy
        # PyTorch's initial values: Kaiming's, with the fan of the outputs (He et al. 2015).
        start = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
        # Both kinds of padding are the same where the step is 1.
        is_same = padding == "same" or strides == 1
        self._around = 0 if is_same else (kernel_size - 1) // 2 * dilation
        # A window of one pixel reads every `strides`-th pixel, which `call` selects itself: the
        # gradient of such a convolution writes outside of its memory in TensorFlow's oneDNN
        # kernels (2.21, kernel 1, stride 2, channels that are no multiple of 16).
        self._every = strides if kernel_size == 1 else 1
        options = {
            "strides": strides // self._every,
            "dilation_rate": dilation,
            "padding": "same" if is_same else "valid",
            "data_format": "channels_last",
            "use_bias": False,
            "dtype": policy,
            "name": "convolution",
        }
        if depthwise:
            self.convolution = keras.layers.DepthwiseConv2D(
                kernel_size, depthwise_initializer=start, **options
            )
        else:
            self.convolution = keras.layers.Conv2D(
                channels, kernel_size, kernel_initializer=start, **options
            )
        self.norm = BatchNorm(epsilon, momentum, learns_statistics, dtype=policy, name="norm")
        self._activate = None if activation is None else kernels.activation(activation)

    def build(self, input_shape: tuple) -> None:
        """Builds the convolution and the normalisation."""
        self.convolution.build(input_shape)
        self.norm.build(self.compute_output_shape(input_shape))

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Maps (B, H, W, C) to (B, H', W', channels)."""
        if self._every > 1:
            x = x[:, :: self._every, :: self._every, :]
        if self._around:
            around = (self._around, self._around)
            x = ops.pad(x, ((0, 0), around, around, (0, 0)))
        if self.norm.reads_batch(training) or self.norm.observer is not None:
            x = self.norm(self.convolution(x), training=training)
        else:
            x = self._folded(x)
        return x if self._activate is None else self._activate(x)

    def _folded(self, x: Any) -> Any:
        scale, shift = self.norm.scale_and_shift()
        is_depthwise = self._config["depthwise"]  # of the kernel (height, width, channels, 1)
        kernel = self.convolution.kernel * (scale[:, None] if is_depthwise else scale)
        convolve = ops.depthwise_conv if is_depthwise else ops.conv
        x = convolve(
            ops.cast(x, self.compute_dtype),
            ops.cast(kernel, self.compute_dtype),
            strides=self.convolution.strides,
            padding=self.convolution.padding,
            data_format=self.convolution.data_format,
            dilation_rate=self.convolution.dilation_rate,
        )
        return x + ops.cast(shift, x.dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape (B, H', W', channels)."""
        batch, height, width, channels = input_shape
        strides = self._config["strides"]
        # Of odd windows, both kinds of padding give the same sizes.
        sizes = [None if size is None else -(-size // strides) for size in (height, width)]
        return (batch, *sizes, channels if self._config["depthwise"] else self._config["channels"])

    def get_config(self) -> dict:
        """Keras config."""
        return {**super().get_config(), "learns_statistics": self.norm.learns_statistics}
