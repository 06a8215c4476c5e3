"""Attention within shifted windows of an image, and merging of patches (Liu et al. 2021, Swin).

Shape legend: B batch, R rows and S columns of the grid of patches, L = R S tokens, W tokens of a
window, N windows of an image, H heads, D features.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.architectures.attention import MultiHeadAttention
from finetune_tf.architectures.layers import PACKAGE, ConfigLayer, LayerNorm, dense


@keras.saving.register_keras_serializable(PACKAGE)
class WindowAttention(MultiHeadAttention):
    """Multi-head attention among the patches of a square window, with learned relative positions.

    Args:
        hidden_size: D.
        num_heads: H.
        grid: (R, S), the rows and columns of patches.
        window: Rows and columns of a window. The grid is padded with zeros to a multiple of it.
        shift: By how many patches the windows are shifted, so that they cross the borders of those
            of another block; 0 for no shift.
        drop_path: Rate at which the output is dropped for a complete image (Huang et al. 2016).
        **kwargs: Arguments of `MultiHeadAttention`.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        grid: Sequence[int] = (1, 1),
        window: int = 7,
        shift: int = 0,
        drop_path: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(hidden_size, num_heads, **kwargs)
        grid = tuple(grid)
        self.record_arguments(locals())
        self._grid, self._window, self._shift = grid, window, shift
        self._padded = tuple(-(-size // window) * window for size in grid)
        self.drop_path = None
        if drop_path:
            self.drop_path = keras.layers.Dropout(
                drop_path, noise_shape=(None, 1, 1), dtype=self.dtype_policy, name="drop_path"
            )

    def build(self, x_shape: tuple, *others: Any) -> None:
        """Builds the projections and the table of relative positions."""
        super().build(x_shape)
        size = (2 * self._window - 1) ** 2
        self.position_bias = self.add_weight(
            shape=(size, self.num_heads), initializer="zeros", name="position_bias"
        )

    def call(
        self,
        x: Any,
        context: Any = None,
        attention_mask: Any = None,
        positions: Any = None,
        start: Any = 0,
        cache: tuple | None = None,
        training: bool | None = None,
    ) -> Any:
        """Maps (B, L, D) to (B, L, D); the other arguments are not used."""
        batch = ops.shape(x)[0]
        mask = None
        if self._shift:
            mask = ops.tile(ops.convert_to_tensor(self._mask()), (batch, 1, 1))[:, None]
        bias = ops.take(self.position_bias, self._relative_index(), axis=0)  # (W, W, H)
        bias = ops.transpose(bias, (2, 0, 1))[None]
        attended = super().call(
            self._windows_of(x), attention_mask=mask, positions=bias, training=training
        )
        x = self._image_of(attended, batch)
        return x if self.drop_path is None else self.drop_path(x, training=training)

    def _windows_of(self, x: Any) -> Any:
        """(B, L, D) to (B N, W, D)."""
        (rows, columns), (high, wide), size = self._grid, self._padded, self._window
        features = x.shape[-1]
        x = ops.reshape(x, (-1, rows, columns, features))
        if (high, wide) != (rows, columns):
            x = ops.pad(x, ((0, 0), (0, high - rows), (0, wide - columns), (0, 0)))
        if self._shift:
            x = ops.roll(x, (-self._shift, -self._shift), axis=(1, 2))
        x = ops.reshape(x, (-1, high // size, size, wide // size, size, features))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, size * size, features))

    def _image_of(self, windows: Any, batch: Any) -> Any:
        """(B N, W, D) to (B, L, D)."""
        (rows, columns), (high, wide), size = self._grid, self._padded, self._window
        features = windows.shape[-1]
        x = ops.reshape(windows, (batch, high // size, wide // size, size, size, features))
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (batch, high, wide, features))
        if self._shift:
            x = ops.roll(x, (self._shift, self._shift), axis=(1, 2))
        return ops.reshape(x[:, :rows, :columns], (batch, rows * columns, features))

    def _mask(self) -> np.ndarray:
        """(N, W, W), True for patches that are neighbours in the image and not only in a window.

        Shifting an image is cyclic, so the last windows join patches of its opposite sides.
        """
        size = self._window
        regions = [
            (np.arange(n) >= n - size).astype(int) + (np.arange(n) >= n - self._shift)
            for n in self._padded
        ]
        image = regions[0][:, None] * 3 + regions[1][None, :]
        high, wide = self._padded
        windows = image.reshape(high // size, size, wide // size, size).swapaxes(1, 2)
        windows = windows.reshape(-1, size * size)
        return windows[:, :, None] == windows[:, None, :]

    def _relative_index(self) -> np.ndarray:
        """(W, W), the row of the table for each pair of a query and a key."""
        size = self._window
        places = np.stack(np.meshgrid(*[np.arange(size)] * 2, indexing="ij")).reshape(2, -1)
        distances = places[:, :, None] - places[:, None, :] + size - 1
        return distances[0] * (2 * size - 1) + distances[1]


@keras.saving.register_keras_serializable(PACKAGE)
class PatchMerging(ConfigLayer):
    """Joins patches two by two, so that a quarter of them remains with twice the features.

    Args:
        grid: (R, S), the rows and columns of patches.
        features: D.
        initializer_range: Standard deviation of a new kernel.
    """

    def __init__(
        self, grid: Sequence[int], features: int, initializer_range: float = 0.02, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        grid = tuple(grid)
        self.record_arguments(locals())
        policy = self.dtype_policy
        self.norm = LayerNorm(1e-5, dtype=policy, name="norm")
        self.reduction = dense(
            2 * features, initializer_range, use_bias=False, dtype=policy, name="reduction"
        )

    def build(self, input_shape: tuple) -> None:
        """Builds the normalisation and the projection."""
        shape = (*input_shape[:-1], 4 * input_shape[-1])
        self.norm.build(shape)
        self.reduction.build(shape)

    def call(self, x: Any) -> Any:
        """Maps (B, L, D) to (B, L / 4, 2 D); the grid is padded with zeros to even numbers."""
        (rows, columns), features = self._config["grid"], self._config["features"]
        x = ops.reshape(x, (-1, rows, columns, features))
        if rows % 2 or columns % 2:
            x = ops.pad(x, ((0, 0), (0, rows % 2), (0, columns % 2), (0, 0)))
        parts = [x[:, row::2, column::2] for column in range(2) for row in range(2)]
        x = ops.concatenate(parts, axis=-1)
        count = -(-rows // 2) * -(-columns // 2)
        x = ops.reshape(x, (-1, count, 4 * features))
        return self.reduction(self.norm(x))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape (B, L / 4, 2 D)."""
        (rows, columns), features = self._config["grid"], self._config["features"]
        return (input_shape[0], -(-rows // 2) * -(-columns // 2), 2 * features)
