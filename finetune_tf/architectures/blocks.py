"""The Transformer block: attention and feed-forward, each with a residual and a normalisation.

Shape legend: B batch, H heads, Q query positions, K key positions, D features.
"""

from typing import Any

import keras
from keras import ops
from keras.saving import deserialize_keras_object, serialize_keras_object

from finetune_tf import kernels
from finetune_tf.architectures.layers import PACKAGE, ConfigLayer, LayerNorm, RMSNorm
from finetune_tf.errors import ModelError


@keras.saving.register_keras_serializable(PACKAGE)
class EncoderBlock(ConfigLayer):
    """A Transformer block: attention and feed-forward, each with a residual and a normalisation.

    The two sublayers are arguments, so that a family with another attention uses the same block.

    Args:
        attention: An `Attention`, named "attention".
        feed_forward: A layer from (B, Q, D) to (B, Q, D), named "feed_forward".
        dropout: Dropout rate of the output of the feed-forward sublayer.
        attention_output_dropout: Dropout rate of the output of the attention; by default `dropout`.
        layer_norm_eps: Epsilon of both normalisations.
        norm_first: Whether the input of each sublayer is normalised (pre-LN, Xiong et al. 2020)
            instead of the sum of its output and the residual (post-LN, Vaswani et al. 2017).
        norm_bias: Whether the normalisations have an offset.
        has_attention_norm: Whether the attention has a normalisation. The first block of ModernBERT
            has none, since its embeddings end with one.
        rms_norm: Whether the normalisations are `RMSNorm` instead of `LayerNorm`.
        layer_scale: Initial value of a factor for each feature of the output of both sublayers
            (Touvron et al. 2021); None for no such factors. Only in pre-LN.
        drop_path: Rate at which the output of a sublayer is dropped for a complete row, which is
            stochastic depth (Huang et al. 2016); only in pre-LN.
        gradient_checkpointing: Whether training stores only the input and output of the block and
            rematerializes the rest in the backward pass, which saves memory and takes more time
            (Chen et al. 2016).
    """

    role = "block"
    parts = ("attention", "feed_forward")  # names of the sublayers that are arguments

    def __init__(
        self,
        attention: keras.layers.Layer,
        feed_forward: keras.layers.Layer,
        dropout: float = 0.1,
        attention_output_dropout: float | None = None,
        layer_norm_eps: float = 1e-12,
        norm_first: bool = False,
        norm_bias: bool = True,
        has_attention_norm: bool = True,
        rms_norm: bool = False,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        gradient_checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        # A mixed policy would cast positions, such as float32 rotary tables, to its compute dtype.
        super().__init__(**kwargs, autocast=False)
        if attention_output_dropout is None:
            attention_output_dropout = dropout
        self.record_arguments(locals())
        self.gradient_checkpointing = gradient_checkpointing
        policy = self.dtype_policy
        self.attention = attention
        self.feed_forward = feed_forward
        self.attention_norm = self._make_norm("attention_norm")
        self.feed_forward_norm = self._make_norm("feed_forward_norm")
        self.attention_output_dropout = keras.layers.Dropout(
            attention_output_dropout, dtype=policy, name="attention_output_dropout"
        )
        self.dropout = keras.layers.Dropout(dropout, dtype=policy, name="dropout")
        self.drop_path = None
        if drop_path:
            self.drop_path = keras.layers.Dropout(
                drop_path, noise_shape=(None, 1, 1), dtype=policy, name="drop_path"
            )
        self.attention_scale = self.feed_forward_scale = None

    def _make_norm(self, name: str) -> LayerNorm:
        epsilon, policy = self._config["layer_norm_eps"], self.dtype_policy
        if self._config["rms_norm"]:
            return RMSNorm(epsilon, dtype=policy, name=name)
        return LayerNorm(epsilon, self._config["norm_bias"], dtype=policy, name=name)

    def build(
        self,
        x_shape: tuple,
        context_shape: tuple | None = None,
        attention_mask_shape: tuple | None = None,
        positions_shape: tuple | None = None,
    ) -> None:
        """Builds both sublayers."""
        self.attention.build(x_shape, context_shape, attention_mask_shape, positions_shape)
        self.feed_forward.build(x_shape)
        if self._config["has_attention_norm"]:
            self.attention_norm.build(x_shape)
        self.feed_forward_norm.build(x_shape)
        if (scale := self._config["layer_scale"]) is not None:
            start = keras.initializers.Constant(scale)
            self.attention_scale, self.feed_forward_scale = (
                self.add_weight(shape=(x_shape[-1],), initializer=start, name=name)
                for name in ("attention_scale", "feed_forward_scale")
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
        """Computes the block for the tokens of a query.

        Args:
            x: (B, Q, D), the query. `block(h[:, :1], context=h)` equals `block(h)[:, :1]` without
                the work for the other tokens.
            context: (B, K, D), the tokens that the attention attends to; by default `x` itself.
            attention_mask: As for `Attention.call`.
            positions: The output of the family's layer in `positions`.
            start: Index of the first token of `x` in the context.
            cache: As for `Attention.call`.
            training: Whether dropout is active.

        Returns:
            (B, Q, D); with a cache, this and the updated cache.
        """
        inputs = (x, context, attention_mask, positions, start)
        if cache is not None:
            return self.transform(*inputs, training=training, cache=cache)
        return self._transform_or_remat(*inputs, training=training)

    def _transform_or_remat(self, *inputs: Any, training: bool | None) -> Any:
        """Calls `transform`, with gradient checkpointing if it is enabled and needed."""
        if self.gradient_checkpointing and training:
            return kernels.remat(self, "transform", *inputs, training=training)
        return self.transform(*inputs, training=training)

    def transform(
        self,
        x: Any,
        context: Any,
        attention_mask: Any,
        positions: Any,
        start: Any,
        training: bool | None,
        cache: tuple | None = None,
    ) -> Any:
        """Computes the block without gradient checkpointing; the arguments are those of `call`."""
        x, cache = self._apply_attention(
            x, context, attention_mask, positions, start, training, cache
        )
        x = self._apply_feed_forward(x, training)
        return x if cache is None else (x, cache)

    def _apply_attention(
        self,
        x: Any,
        context: Any,
        attention_mask: Any,
        positions: Any,
        start: Any,
        training: bool | None,
        cache: tuple | None = None,
    ) -> tuple:
        """Returns the sum with the attention output, and the updated cache."""
        x = ops.cast(x, self.compute_dtype)
        attended = self.attention(
            self._attention_input(x),
            self._attention_input(context),
            attention_mask,
            positions,
            start=start,
            cache=cache,
            training=training,
        )
        if cache is not None:
            attended, cache = attended
        attended = self._scaled(attended, self.attention_scale, training)
        dropout = self.attention_output_dropout
        return self._add_residual(x, attended, self.attention_norm, dropout, training), cache

    def _scaled(self, output: Any, scale: Any, training: bool | None) -> Any:
        """The output of a sublayer after the factors and the stochastic depth of the block."""
        if scale is not None:
            output = output * ops.cast(scale, output.dtype)
        return output if self.drop_path is None else self.drop_path(output, training=training)

    def _apply_feed_forward(self, x: Any, training: bool | None) -> Any:
        norm = self.feed_forward_norm
        before = norm(x) if self._config["norm_first"] else x
        transformed = self.feed_forward(before, training=training)
        transformed = self._scaled(transformed, self.feed_forward_scale, training)
        return self._add_residual(x, transformed, norm, self.dropout, training)

    def _add_residual(
        self,
        x: Any,
        output: Any,
        norm: LayerNorm,
        dropout: keras.layers.Dropout,
        training: bool | None,
    ) -> Any:
        """Adds the output of a sublayer to its residual `x`; a post-LN block normalises the sum."""
        if self._config["norm_first"]:
            return x + dropout(output, training=training)
        return norm.of_sum(output, x, dropout, training)

    def attention_weights(
        self, x: Any, context: Any = None, attention_mask: Any = None, positions: Any = None
    ) -> Any:
        """Returns the attention weights (B, H, Q, K); the arguments are those of `call`."""
        x, context = self._attention_input(x), self._attention_input(context)
        return self.attention.weights_of(x, context, attention_mask, positions)

    def _attention_input(self, x: Any) -> Any:
        """Returns the input of the attention for a query or a context: normalised in pre-LN."""
        normed = self._config["norm_first"] and self._config["has_attention_norm"]
        return self.attention_norm(x) if normed and x is not None else x

    def compute_output_spec(self, x: Any, *others: Any, **options: Any) -> keras.KerasTensor:
        """Returns the spec of the output, (B, Q, D), the shape of the query."""
        return keras.KerasTensor(x.shape, self.compute_dtype)

    def get_config(self) -> dict:
        """Keras config, with the parts that were handed in."""
        parts = {name: serialize_keras_object(getattr(self, name)) for name in self.parts}
        for part in parts.values():
            # With a build config, deserialization would build the sublayer on its own, and its
            # variables would be named "attention/…" instead of "block_0/attention/…".
            part.pop("build_config", None)
        own = {"gradient_checkpointing": self.gradient_checkpointing}
        return {**super().get_config(), **self._config, **own, **parts}

    @classmethod
    def from_config(cls, config: dict) -> "EncoderBlock":
        """Restores the sublayers, then the block.

        Raises:
            ModelError: If the config was written by an early version with another block.
        """
        if "rms_norm" not in config:
            raise ModelError(
                "The file was saved by an older version of finetune_tf, whose blocks computed "
                "masks and positions themselves, and this version cannot open it. Open it with "
                "the version that saved it, call model.save_pretrained(folder) there, and load "
                "that folder here with ft.load(folder)."
            )
        parts = {name: deserialize_keras_object(config[name]) for name in cls.parts}
        return cls(**{**config, **parts})
