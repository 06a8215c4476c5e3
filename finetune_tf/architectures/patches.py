"""The first layers of image models: normalisation of pixels, and embeddings of patches.

Shape legend: B batch, H height, W width, C channels, N patches, S special tokens, D features.
"""

from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from finetune_tf.architectures.layers import PACKAGE, ConfigLayer, LayerNorm


@keras.saving.register_keras_serializable(PACKAGE)
class PixelNormalization(ConfigLayer):
    """Maps levels from 0 to 255 to the numbers that a checkpoint was trained on; without weights.

    It is a part of the model, so that images cannot be normalised with the values of another
    checkpoint. The arithmetic is in float32, or in float64 if the compute dtype is float64.

    Args:
        image_size: (H, W) of the images.
        scale: Factor of the levels, usually 1 / 255.
        mean: Mean of each channel, subtracted after scaling.
        stddev: Standard deviation of each channel.
        frames: T, the number of frames of a clip, where the inputs are clips (B, T, H, W, C); None
            for images.
    """

    def __init__(
        self,
        image_size: Sequence[int],
        scale: float = 1 / 255,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        stddev: Sequence[float] = (1.0, 1.0, 1.0),
        frames: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        image_size, mean, stddev = tuple(image_size), tuple(mean), tuple(stddev)
        self.record_arguments(locals())

    @property
    def input_shape_of_images(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return (*self._config["image_size"], len(self._config["mean"]))

    @property
    def shape_of_inputs(self) -> tuple[int, ...]:
        """(H, W, C), or (T, H, W, C) for clips."""
        frames, shape = self._config["frames"], self.input_shape_of_images
        return shape if frames is None else (frames, *shape)

    def for_clips(self, frames: int) -> Self:
        """Returns the same layer for clips.

        Args:
            frames: T.
        """
        return type(self).from_config(self.get_config() | {"frames": frames})

    def call(self, pixels: Any) -> Any:
        """Maps levels (B, H, W, C) to numbers (B, H, W, C) in the compute dtype; clips likewise."""
        # One product and one sum: (x * scale - mean) / stddev.
        wide = "float64" if self.compute_dtype == "float64" else "float32"
        stddev = np.asarray(self._config["stddev"], "float64")
        factor = (self._config["scale"] / stddev).astype(wide)
        offset = (-np.asarray(self._config["mean"], "float64") / stddev).astype(wide)
        return ops.cast(ops.cast(pixels, wide) * factor + offset, self.compute_dtype)

    def compute_output_spec(self, pixels: Any) -> keras.KerasTensor:
        """The shape of the levels in the compute dtype."""
        return keras.KerasTensor(pixels.shape, self.compute_dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class PatchEmbeddings(ConfigLayer):
    """Patches of an image as tokens, after special tokens, with learned positions.

    A patch is projected by a matrix product, which equals PyTorch's convolution with patches that
    do not overlap (Dosovitskiy et al. 2021).

    Args:
        hidden_size: D.
        image_size: (H, W) of the images for which there are positions.
        patch_size: (height, width) of a patch.
        special_tokens: Names of the learned tokens before the patches; the first one is that of the
            class.
        dropout: Dropout rate of the output.
        initializer_range: Standard deviation of new weights.
        has_mask_token: Whether there is a token (1, D) that replaces hidden patches in pretraining.
            It is kept for PyTorch, which reads it, and has no effect here.
        layer_norm_eps: Epsilon of a normalisation of the projected patches; None for no such
            normalisation.
        pads: Whether an image is padded with zeros to whole patches; otherwise pixels beyond the
            last whole patch are not used.
        has_positions: Whether there are learned positions.
        use_bias: Whether the projection has a bias.
    """

    role = "embeddings"

    def __init__(
        self,
        hidden_size: int,
        image_size: Sequence[int],
        patch_size: Sequence[int],
        special_tokens: Sequence[str] = ("class_token",),
        dropout: float = 0.0,
        initializer_range: float = 0.02,
        has_mask_token: bool = False,
        layer_norm_eps: float | None = None,
        pads: bool = False,
        has_positions: bool = True,
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        image_size, patch_size = tuple(image_size), tuple(patch_size)
        special_tokens = tuple(special_tokens)
        self.record_arguments(locals())
        self.patch_size = patch_size
        self.special_names = special_tokens
        self.grid = tuple(
            of_image // of_patch for of_image, of_patch in zip(image_size, patch_size, strict=True)
        )
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")
        self.norm = None
        if layer_norm_eps is not None:
            self.norm = LayerNorm(layer_norm_eps, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape: tuple) -> None:
        """Creates the projection, the special tokens and the positions (1, S + N, D)."""
        names, size = self._config["special_tokens"], self._config["hidden_size"]
        normal = keras.initializers.RandomNormal(stddev=self._config["initializer_range"])
        kernel = (*self.patch_size, input_shape[-1], size)
        self.kernel = self.add_weight(shape=kernel, initializer=normal, name="kernel")
        self.bias = None
        if self._config["use_bias"]:
            self.bias = self.add_weight(shape=(size,), initializer="zeros", name="bias")
        self.special_tokens = [
            self.add_weight(shape=(1, 1, size), initializer=normal, name=name) for name in names
        ]
        if self._config["has_mask_token"]:
            self.mask_token = self.add_weight(
                shape=(1, size), initializer="zeros", trainable=False, name="mask_token"
            )
        if self._config["has_positions"]:
            count = len(names) + self.grid[0] * self.grid[1]
            self.positions = self.add_weight(
                shape=(1, count, size), initializer=normal, name="positions"
            )
        if self.norm is not None:
            self.norm.build((None, None, size))

    def call(self, pixels: Any, training: bool | None = None) -> Any:
        """Maps (B, H, W, C) to (B, S + N, D)."""
        tokens = self._project(pixels)
        tokens = tokens if self.norm is None else self.norm(tokens)
        batch, size = ops.shape(tokens)[0], self._config["hidden_size"]
        special = [
            ops.broadcast_to(ops.cast(token, tokens.dtype), (batch, 1, size))
            for token in self.special_tokens
        ]
        tokens = ops.concatenate([*special, tokens], axis=1)
        if self._config["has_positions"]:
            tokens = tokens + ops.cast(self._positions_for(pixels.shape), tokens.dtype)
        return self.dropout(tokens, training=training)

    def _project(self, pixels: Any) -> Any:
        """(B, H, W, C) to (B, N, D)."""
        (height, width), channels = self.patch_size, pixels.shape[-1]
        rows, columns = self.grid_of_shape(pixels.shape)
        full = (rows * height, columns * width)
        if self._config["pads"] and full != tuple(pixels.shape[1:3]):
            missing = [(0, n - size) for n, size in zip(full, pixels.shape[1:3], strict=True)]
            pixels = ops.pad(pixels, ((0, 0), *missing, (0, 0)))
        x = pixels[:, : full[0], : full[1]]
        batch = ops.shape(x)[0]
        x = ops.reshape(x, (batch, rows, height, columns, width, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        x = ops.reshape(x, (batch, rows * columns, height * width * channels))
        kernel = ops.reshape(self.kernel, (height * width * channels, -1))
        tokens = ops.matmul(x, ops.cast(kernel, x.dtype))
        return tokens if self.bias is None else tokens + ops.cast(self.bias, x.dtype)

    def grid_of(self, pixels: PixelNormalization) -> tuple[int, int]:
        """Returns the rows and columns of the patches of prepared images.

        Args:
            pixels: The layer below, which knows the size of the images.
        """
        return self.grid_of_shape((None, *pixels.input_shape_of_images))

    def grid_of_shape(self, shape: tuple) -> tuple[int, int]:
        """Returns the rows and columns of the patches of images (B, H, W, C)."""
        extra = [size - 1 if self._config["pads"] else 0 for size in self.patch_size]
        return tuple(
            (size + more) // of_patch
            for size, more, of_patch in zip(shape[1:3], extra, self.patch_size, strict=True)
        )

    def _positions_for(self, shape: tuple) -> Any:
        """The positions (1, S + N, D), interpolated where an image has another number of patches.

        The interpolation is bicubic, without antialiasing, as in transformers.
        """
        wanted = self.grid_of_shape(shape)
        if wanted == self.grid:
            return self.positions
        count = len(self._config["special_tokens"])
        special, patches = self.positions[:, :count], self.positions[:, count:]
        grid = ops.reshape(patches, (*self.grid, -1))
        rows, columns = (
            bicubic_matrix(new, old) for new, old in zip(wanted, self.grid, strict=True)
        )
        grid = ops.einsum("ir,jc,rcd->ijd", rows, columns, ops.cast(grid, "float32"))
        flat = ops.reshape(grid, (1, wanted[0] * wanted[1], -1))
        return ops.concatenate([ops.cast(special, "float32"), flat], axis=1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape (B, S + N, D)."""
        rows, columns = self.grid_of_shape(input_shape)
        count = len(self._config["special_tokens"]) + rows * columns
        return (input_shape[0], count, self._config["hidden_size"])


def bicubic_matrix(new: int, old: int) -> np.ndarray:
    """The matrix (new, old) of a bicubic interpolation of `old` values to `new` ones, float32.

    It equals `torch.nn.functional.interpolate` without aligned corners: Keys's kernel (1981) with
    a = -0.75, and values repeated at the border.

    Example:
        >>> from finetune_tf.architectures.patches import bicubic_matrix
        >>> bicubic_matrix(3, 3).round(6).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    a = -0.75
    places = (np.arange(new) + 0.5) * old / new - 0.5
    matrix = np.zeros((new, old))
    for offset in range(-1, 3):
        index = np.floor(places).astype(int) + offset
        distance = np.abs(places - index)
        near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
        far = a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a
        weight = np.where(distance <= 1, near, far)
        np.add.at(matrix, (np.arange(new), index.clip(0, old - 1)), weight)
    return matrix.astype("float32")
