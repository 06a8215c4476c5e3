"""Embeddings of clips: tubelets as tokens (Arnab et al. 2021; Tong et al. 2022).

Shape legend: B batch, T frames, H height, W width, C channels, N tubelets, D features.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.architectures.layers import PACKAGE, ConfigLayer
from finetune_tf.architectures.positions import sinusoidal_table


@keras.saving.register_keras_serializable(PACKAGE)
class TubeletEmbeddings(ConfigLayer):
    """Tubelets of a clip as tokens, with fixed sinusoidal positions.

    A tubelet is a patch of the same place in a few successive frames. It is projected by one matrix
    product, which equals PyTorch's convolution with windows that do not overlap. Frames and pixels
    beyond the last whole tubelet are not used. Tokens are in the order time, row, column.

    Args:
        hidden_size: D.
        tubelet_size: (frames, height, width) of a tubelet.
        initializer_range: Standard deviation of new weights.
    """

    role = "embeddings"

    def __init__(
        self,
        hidden_size: int,
        tubelet_size: Sequence[int],
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        tubelet_size = tuple(tubelet_size)
        self.record_arguments(locals())

    def build(self, input_shape: tuple) -> None:
        """Creates the projection (frames, height, width, C, D)."""
        size = self._config["hidden_size"]
        normal = keras.initializers.RandomNormal(stddev=self._config["initializer_range"])
        kernel = (*self._config["tubelet_size"], input_shape[-1], size)
        self.kernel = self.add_weight(shape=kernel, initializer=normal, name="kernel")
        self.bias = self.add_weight(shape=(size,), initializer="zeros", name="bias")

    def call(self, clips: Any) -> Any:
        """Maps (B, T, H, W, C) to (B, N, D)."""
        window, counts = self._config["tubelet_size"], self._counts(clips.shape)
        full = [count * size for count, size in zip(counts, window, strict=True)]
        x = clips[:, : full[0], : full[1], : full[2]]
        pairs = [size for pair in zip(counts, window, strict=True) for size in pair]
        x = ops.reshape(x, (-1, *pairs, clips.shape[-1]))
        x = ops.transpose(x, (0, 1, 3, 5, 2, 4, 6, 7))
        width = int(np.prod(window)) * clips.shape[-1]
        x = ops.reshape(x, (-1, int(np.prod(counts)), width))
        kernel = ops.reshape(self.kernel, (width, -1))
        tokens = ops.matmul(x, ops.cast(kernel, x.dtype)) + ops.cast(self.bias, x.dtype)
        return tokens + ops.cast(self._positions(clips.shape), tokens.dtype)

    def _counts(self, shape: tuple) -> tuple[int, ...]:
        """The tubelets of clips (B, T, H, W, C) along time, rows and columns."""
        sizes = zip(shape[1:4], self._config["tubelet_size"], strict=True)
        return tuple(size // of_tubelet for size, of_tubelet in sizes)

    def _positions(self, shape: tuple) -> np.ndarray:
        """Positions (N, D): a sine in each even feature, a cosine in each odd one."""
        size = self._config["hidden_size"]
        table = sinusoidal_table(int(np.prod(self._counts(shape))), size)
        positions = np.empty_like(table)
        sines = -(-size // 2)
        positions[:, 0::2], positions[:, 1::2] = table[:, :sines], table[:, sines:]
        return positions

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape (B, N, D)."""
        return (
            input_shape[0],
            int(np.prod(self._counts(input_shape))),
            self._config["hidden_size"],
        )
