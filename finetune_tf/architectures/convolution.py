"""The first block of DeBERTa v2, with a convolution in parallel to it.

Shape legend: B batch, L length, D features.
"""

from typing import Any

import keras
from keras import ops

from finetune_tf import kernels
from finetune_tf.architectures.blocks import EncoderBlock
from finetune_tf.architectures.layers import PACKAGE, LayerNorm, query_rows
from finetune_tf.architectures.masks import open_mask, seen_tokens


@keras.saving.register_keras_serializable(PACKAGE)
class ConvolutionBlock(EncoderBlock):
    """A block whose output is added to a convolution of its input (DeBERTa v2, He et al. 2021).

    Args:
        *parts: Attention and feed-forward, as for `EncoderBlock`.
        kernel_size: Number of tokens in a window of the convolution, an odd number.
        groups: Number of groups of features that are convolved separately.
        convolution_activation: A Hugging Face activation name.
        convolution_initializer_range: Standard deviation of a new kernel.
        **block: Keyword arguments of `EncoderBlock`.
    """

    def __init__(
        self,
        *parts: keras.layers.Layer,
        kernel_size: int = 3,
        groups: int = 1,
        convolution_activation: str = "tanh",
        convolution_initializer_range: float = 0.02,
        **block: Any,
    ) -> None:
        super().__init__(*parts, **block)
        self.record_arguments(locals(), "parts", "block")
        policy = self.dtype_policy
        self._activate = kernels.activation(convolution_activation)
        self.convolution_norm = LayerNorm(
            self._config["layer_norm_eps"], dtype=policy, name="convolution_norm"
        )
        self.convolution_dropout = keras.layers.Dropout(
            self._config["dropout"], dtype=policy, name="convolution_dropout"
        )

    def build(
        self,
        x_shape: tuple,
        context_shape: tuple | None = None,
        attention_mask_shape: tuple | None = None,
        positions_shape: tuple | None = None,
    ) -> None:
        """Builds the block, the convolution and its normalisation."""
        super().build(x_shape, context_shape, attention_mask_shape, positions_shape)
        stddev = self._config["convolution_initializer_range"]
        self.convolution = keras.layers.Conv1D(
            x_shape[-1],
            self._config["kernel_size"],
            padding="same",
            groups=self._config["groups"],
            kernel_initializer=keras.initializers.RandomNormal(stddev=stddev),
            dtype=self.dtype_policy,
            name="convolution",
        )
        self.convolution.build(x_shape)
        self.convolution_norm.build(x_shape)

    def transform(
        self,
        x: Any,
        context: Any,
        attention_mask: Any,
        positions: Any,
        start: Any,
        training: bool | None,
    ) -> Any:
        """Maps (B, Q, D) to (B, Q, D), with zeros for padding; see `EncoderBlock.call`."""
        output = super().transform(x, context, attention_mask, positions, start, training)
        visible = seen_tokens(open_mask() if attention_mask is None else attention_mask)
        mask = ops.expand_dims(ops.cast(visible, output.dtype), 2)
        convolved = self.convolution(x if context is None else context) * mask  # (B, K, D)
        if context is not None:  # the convolution needs the neighbours of the query tokens
            convolved, mask = (
                query_rows(part, 1, start, ops.shape(x)[1]) for part in (convolved, mask)
            )
        convolved = self.convolution_dropout(convolved, training=training)
        return self.convolution_norm(output + self._activate(convolved)) * mask
