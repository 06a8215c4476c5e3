"""Convolutional networks of images: groups of layers, residual blocks and the stem of a ResNet.

Shape legend: B batch, H height, W width, C channels.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from finetune_tf import kernels
from finetune_tf.architectures.batch_norm import ConvNorm
from finetune_tf.architectures.layers import PACKAGE, ConfigLayer


@keras.saving.register_keras_serializable(PACKAGE)
class Group(ConfigLayer):
    """Layers that are called one after the other, as one stage of a model.

    Args:
        layers: The layers, whose names differ.
        role: The role of the stage; see `graph.roles`.
    """

    def __init__(
        self, layers: Sequence[keras.layers.Layer], role: str = "block", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs, autocast=False)
        self.layers = list(layers)
        self.role = role
        self._config = {"role": role}

    def build(self, input_shape: tuple) -> None:
        """Builds the layers."""
        for layer in self.layers:
            layer.build(input_shape)
            input_shape = self._shape_after(layer, input_shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Calls the layers in order."""
        for layer in self.layers:
            # Keras's convolutions have no argument `training`.
            has_modes = "training" in inspect.signature(layer.call).parameters
            x = layer(x, training=training) if has_modes else layer(x)
        return x

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape of the last layer's output."""
        for layer in self.layers:
            input_shape = self._shape_after(layer, input_shape)
        return input_shape

    def _shape_after(self, layer: keras.layers.Layer, shape: tuple) -> tuple:
        # Some layers define the shape of their output, others its shape and dtype.
        return layer.compute_output_spec(keras.KerasTensor(shape, self.compute_dtype)).shape

    def get_config(self) -> dict:
        """Keras config, with the layers that were handed in."""
        layers = [keras.saving.serialize_keras_object(layer) for layer in self.layers]
        for layer in layers:
            layer.pop("build_config", None)  # they are built as parts of this layer
        return {**super().get_config(), "layers": layers}

    @classmethod
    def from_config(cls, config: dict) -> "Group":
        """Restores the layers, then the group."""
        layers = [keras.saving.deserialize_keras_object(layer) for layer in config["layers"]]
        return cls(**{**config, "layers": layers})


@keras.saving.register_keras_serializable(PACKAGE)
class Residual(Group):
    """Layers whose output is added to their input (He et al. 2016).

    Args:
        layers: The layers, whose names differ.
        shortcut: Maps the input before it is added, where its shape differs from that of the
            output; None for the input itself.
        activation: A Hugging Face activation name for the sum; None for no activation.
        scale: Initial value of a factor for each channel of the layers' output; None for no such
            factors.
        drop_path: Rate at which the output of the layers is dropped for a complete image, which is
            stochastic depth (Huang et al. 2016).
    """

    def __init__(
        self,
        layers: Sequence[keras.layers.Layer],
        shortcut: keras.layers.Layer | None = None,
        activation: str | None = None,
        scale: float | None = None,
        drop_path: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(layers, **kwargs)
        self._config |= {"activation": activation, "scale": scale, "drop_path": drop_path}
        self.shortcut = shortcut
        self.scale = None
        self._activate = None if activation is None else kernels.activation(activation)
        self.drop_path = None
        if drop_path:
            policy, shape = self.dtype_policy, (None, 1, 1, 1)
            self.drop_path = keras.layers.Dropout(
                drop_path, noise_shape=shape, dtype=policy, name="drop_path"
            )

    def build(self, input_shape: tuple) -> None:
        """Builds the layers and the shortcut."""
        super().build(input_shape)
        if self.shortcut is not None:
            self.shortcut.build(input_shape)
        if self._config["scale"] is not None:
            channels = self.compute_output_shape(input_shape)[-1]
            start = keras.initializers.Constant(self._config["scale"])
            self.scale = self.add_weight(shape=(channels,), initializer=start, name="scale")

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Maps (B, H, W, C) to (B, H', W', channels)."""
        residual = x if self.shortcut is None else self.shortcut(x, training=training)
        x = super().call(x, training=training)
        x = x if self.scale is None else x * ops.cast(self.scale, x.dtype)
        x = x if self.drop_path is None else self.drop_path(x, training=training)
        x = x + residual
        return x if self._activate is None else self._activate(x)

    def get_config(self) -> dict:
        """Keras config, with the layers that were handed in."""
        shortcut = self.shortcut
        if shortcut is not None:
            shortcut = keras.saving.serialize_keras_object(shortcut)
            shortcut.pop("build_config", None)
        return {**super().get_config(), "shortcut": shortcut}

    @classmethod
    def from_config(cls, config: dict) -> "Residual":
        """Restores the layers and the shortcut, then the block."""
        shortcut = config["shortcut"]
        if shortcut is not None:
            shortcut = keras.saving.deserialize_keras_object(shortcut)
        return super().from_config({**config, "shortcut": shortcut})


@keras.saving.register_keras_serializable(PACKAGE)
class PaddedShortcut(ConfigLayer):
    """A shortcut without weights: pixels are left out, and channels of zeros are added.

    Option A of He et al. 2016, section 4.2. Half of the zeros come before the channels.

    Args:
        channels: Number of output channels, at least that of the input.
        strides: Of that many rows and columns, one is kept.
    """

    def __init__(self, channels: int, strides: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.record_arguments(locals())

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Maps (B, H, W, C) to (B, H / strides, W / strides, channels)."""
        strides, added = self._config["strides"], self._config["channels"] - x.shape[-1]
        x = x[:, ::strides, ::strides, :]
        return ops.pad(x, ((0, 0), (0, 0), (0, 0), (added // 2, added - added // 2)))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape (B, H / strides, W / strides, channels), rounded up."""
        batch, *sizes, _ = input_shape
        strides, channels = self._config["strides"], self._config["channels"]
        return (batch, *(None if s is None else -(-s // strides) for s in sizes), channels)


@keras.saving.register_keras_serializable(PACKAGE)
class Stem(ConfigLayer):
    """The first convolution of a ResNet, of 7 x 7, and a maximum over windows of 3 x 3.

    Args:
        channels: Number of output channels.
        activation: A Hugging Face activation name.
        small: Whether it is one convolution of 3 x 3 instead, which keeps the size of the image.
        learns_statistics: As for `BatchNorm`.
    """

    role = "embeddings"

    def __init__(
        self,
        channels: int,
        activation: str = "relu",
        learns_statistics: bool = False,
        small: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs, autocast=False)
        self.record_arguments(locals(), "learns_statistics")
        options = {"learns_statistics": learns_statistics, "dtype": self.dtype_policy}
        window, step = (3, 1) if small else (7, 2)
        self.layer = ConvNorm(channels, window, step, activation, name="layer", **options)

    def build(self, input_shape: tuple) -> None:
        """Builds the convolution."""
        self.layer.build(input_shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Maps (B, H, W, C) to (B, H / 4, W / 4, channels), or to (B, H, W, channels)."""
        x = self.layer(x, training=training)
        if self._config["small"]:
            return x
        # The activation may be negative, so the border must not win over any value.
        x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-float("inf"))
        return ops.max_pool(x, 3, 2, padding="valid")

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape (B, H / 4, W / 4, channels), rounded up, or (B, H, W, channels)."""
        batch, *sizes, channels = shape = self.layer.compute_output_shape(input_shape)
        if self._config["small"]:
            return shape
        return (batch, *(None if s is None else (s - 1) // 2 + 1 for s in sizes), channels)

    def get_config(self) -> dict:
        """Keras config."""
        learns = self.layer.norm.learns_statistics
        return {**super().get_config(), "learns_statistics": learns}
