"""Models of images on the frames of clips: a backbone for each frame, and a head over time.

Shape legend: B batch, T frames, H height, W width, C channels, L tokens, D features, G cells along
a side of the grid, F features of a clip.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import ops

from finetune_tf.architectures.chains import EndOfChain
from finetune_tf.architectures.encoder import Backbone, bert_block
from finetune_tf.architectures.layers import PACKAGE, ConfigLayer, Dense, LayerNorm
from finetune_tf.architectures.patches import PixelNormalization

#: How the features of the frames of a clip are combined.
Temporal = Literal["convolution", "attention", "mean", "difference", "single"]
TEMPORAL: tuple[str, ...] = get_args(Temporal)
#: The name of the chain of stages that computes the features of frames.
FRAMES = "frames"
GRID = 2  # G: more cells would locate motion better, and take more memory
WINDOW = 3  # frames that a convolution over time combines
_WIDTH, _HEADS = 128, 4
_OF_FRAME = GRID * GRID * _WIDTH


@keras.saving.register_keras_serializable(PACKAGE)
class FramePixels(PixelNormalization):
    """Normalizes the levels of clips, and makes each frame a row of the batch.

    A backbone of images then computes all frames at once: (B, T, H, W, C) to (B T, H, W, C).
    """

    @property
    def rows_of_each(self) -> int:
        """T, the rows that a row of the inputs becomes; see `graph.pieces.rows_of_each`."""
        return self._config["frames"]

    def call(self, pixels: Any) -> Any:
        """Maps levels (B, T, H, W, C) to numbers (B T, H, W, C) in the compute dtype."""
        return super().call(ops.reshape(pixels, (-1, *self.input_shape_of_images)))

    def compute_output_spec(self, pixels: Any) -> keras.KerasTensor:
        """(B T, H, W, C) in the compute dtype."""
        return keras.KerasTensor((None, *self.input_shape_of_images), self.compute_dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class FrameGrid(ConfigLayer):
    """Averages the features of each frame over the cells of a grid, and collects those of a clip.

    One average over a frame would say what is in it and not where, so that motion could not be
    seen. Cells are those of PyTorch's adaptive average pooling: they overlap by one place where
    the grid does not divide the features, and repeat where there are fewer places than cells.

    Args:
        frames: T.
        places: (rows, columns) of features that are tokens; None for features (B T, H, W, D).
        special_tokens: Tokens before those of the places, which are left out.
    """

    joins_rows = True  # the counterpart of `FramePixels.rows_of_each`

    def __init__(
        self,
        frames: int,
        places: tuple[int, int] | None = None,
        special_tokens: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        places = None if places is None else tuple(places)
        self.record_arguments(locals())

    def call(self, features: Any) -> Any:
        """Maps (B T, H, W, D), or tokens (B T, L, D), to (B, T, G, G, D)."""
        places, size = self._config["places"], features.shape[-1]
        if places is not None:
            features = features[:, self._config["special_tokens"] :]
            features = ops.reshape(features, (-1, *places, size))
        wide = self._wide(features)
        rows, columns = (cells_matrix(n).astype(wide) for n in features.shape[1:3])
        grid = ops.einsum("ir,jc,brcd->bijd", rows, columns, ops.cast(features, wide))
        return ops.reshape(grid, (-1, self._config["frames"], GRID, GRID, size))

    def _wide(self, features: Any) -> str:
        """The dtype of the averages: bfloat16 would lose the small differences between frames."""
        is_wide = keras.backend.standardize_dtype(features.dtype) == "float64"
        return "float64" if is_wide else "float32"

    def compute_output_spec(self, features: Any) -> keras.KerasTensor:
        """(B, T, G, G, D) in float32, or float64 for features in float64."""
        shape = (None, self._config["frames"], GRID, GRID, features.shape[-1])
        return keras.KerasTensor(shape, self._wide(features))


def cells_matrix(places: int) -> np.ndarray:
    """The matrix (G, places) that averages the places of each cell, float32.

    Example:
        >>> from finetune_tf.architectures.frames import cells_matrix
        >>> cells_matrix(4).tolist(), cells_matrix(1).tolist()
        ([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]], [[1.0], [1.0]])
    """
    matrix = np.zeros((GRID, places), "float32")
    for cell in range(GRID):
        start, end = cell * places // GRID, -(-(cell + 1) * places // GRID)
        matrix[cell, start:end] = 1 / (end - start)
    return matrix


@keras.saving.register_keras_serializable(PACKAGE)
class TemporalHead(ConfigLayer):
    """Combines the features of the frames of a clip: (B, T, G, G, D) to (B, F).

    The features of each cell are normalized and projected first. Then

    - "convolution" applies a convolution of three frames over all cells to the differences from the
      mean over time, so that what does not move cannot drown what does, and averages over time; the
      mean itself is appended;
    - "attention" applies a transformer block to the cells of all frames, with learned positions of
      standard deviation 1, because smaller ones do not tell the order of frames, and averages;
    - "mean" averages over the frames, which loses their order;
    - "difference" subtracts the mean of the first half of the frames from that of the second half;
      the middle one of an odd number of frames is left out;
    - "single" selects the middle frame.

    The layer computes in float32 under every dtype policy.

    Args:
        kind: One of these words.
        frames: T.
    """

    role = "head"

    def __init__(self, kind: Temporal, frames: int, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.record_arguments(locals())
        self.kind, self.frames = kind, frames
        options = {"dtype": self.dtype_policy}
        self.norm = LayerNorm(1e-6, **options, name="norm")
        self.projection = _dense("projection", options)
        self.motion_norm = self.convolution = self.block = None
        if kind == "convolution":
            self.motion_norm = LayerNorm(1e-6, **options, name="motion_norm")
            self.convolution = _dense("convolution", options)
        elif kind == "attention":
            self.block = bert_block(
                hidden_size=_WIDTH,
                num_heads=_HEADS,
                intermediate_size=2 * _WIDTH,
                activation="gelu",
                dropout=0.0,
                attention_dropout=0.0,
                layer_norm_eps=1e-6,
                initializer_range=_WIDTH**-0.5,
                norm_first=True,
                name="block",
                **options,
            )

    def build(self, input_shape: tuple) -> None:
        """Creates the weights."""
        self.norm.build(input_shape)
        self.projection.build(input_shape)
        if self.convolution is not None:
            self.motion_norm.build((None, None, _OF_FRAME))
            self.convolution.build((None, None, WINDOW * _OF_FRAME))
        if self.block is not None:
            tokens = self.frames * GRID * GRID
            self.positions = self.add_weight(
                shape=(1, tokens, _WIDTH),
                initializer=keras.initializers.RandomNormal(stddev=1.0),
                name="positions",
            )
            self.block.build((None, tokens, _WIDTH))

    def call(self, frames: Any, training: bool | None = None) -> Any:
        """Maps (B, T, G, G, D) to (B, F)."""
        x = self.projection(self.norm(frames))
        if self.block is not None:
            x = ops.reshape(x, (-1, self.frames * GRID * GRID, _WIDTH))
            x = self.block(x + ops.cast(self.positions, x.dtype), training=training)
            return ops.mean(x, axis=1)
        x = ops.reshape(x, (-1, self.frames, _OF_FRAME))
        half = self.frames // 2
        if self.kind == "single":
            return x[:, half]
        if self.kind == "difference":
            return ops.mean(x[:, -half:], axis=1) - ops.mean(x[:, :half], axis=1)
        mean = ops.mean(x, axis=1)
        if self.convolution is None:
            return mean
        motion, count = self.motion_norm(x - mean[:, None]), self.frames - WINDOW + 1
        windows = ops.concatenate([motion[:, i : i + count] for i in range(WINDOW)], axis=-1)
        motion = ops.mean(ops.gelu(self.convolution(windows)), axis=1)
        return ops.concatenate([motion, mean], axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape (B, F)."""
        sizes = {"convolution": _WIDTH + _OF_FRAME, "attention": _WIDTH}
        return (input_shape[0], sizes.get(self.kind, _OF_FRAME))


def _dense(name: str, options: dict[str, Any]) -> Dense:
    return Dense(_WIDTH, kernel_initializer="lecun_normal", name=name, **options)


def frame_encoder(
    make_backbone: Callable[..., Backbone],
    config: dict,
    dtype: Any,
    pixels: PixelNormalization,
    frames: int,
) -> Backbone:
    """Applies the backbone of a family of images to each frame of clips.

    Args:
        make_backbone: Builds the backbone, as `families.Family.backbone`.
        config: A complete config of the family.
        dtype: Keras dtype policy.
        pixels: The normalization of pixels.
        frames: T.

    Returns:
        The backbone, whose hidden states (B, T, G, G, D) end the chain "frames".
    """
    clips = FramePixels.from_config(pixels.get_config() | {"frames": frames})
    backbone = make_backbone(config, dtype, clips)
    hidden, places, special = backbone.hidden, None, 0
    if len(hidden.shape) == 3:
        special = len(backbone.embeddings.special_names)
        places = _places(hidden.shape[1] - special, backbone.embeddings.grid_of(clips))
    grid = FrameGrid(frames, places, special, dtype=dtype, name="grid")(hidden)
    return replace(backbone, hidden=EndOfChain(name=FRAMES)(grid), first_token=None)


def _places(tokens: int, grid: tuple[int, int]) -> tuple[int, int]:
    """The rows and columns of tokens, which groups of blocks may have merged by two and two."""
    while grid[0] * grid[1] > tokens:
        grid = (-(-grid[0] // 2), -(-grid[1] // 2))
    return grid
