"""A block: attention and feed-forward, each with a residual and a normalisation.

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
    """Attention and feed-forward, each with a residual and a normalisation.

    Both parts are handed in, so that a family with another attention needs no other block.

    Args:
        attention: An `Attention`, named "attention".
        feed_forward: Takes hidden; named "feed_forward".
        dropout: Rate on the output of the feed-forward part.
        attention_output_dropout: Rate on the output of the attention; by default `dropout`.
        layer_norm_eps: Epsilon of both normalisations.
        norm_first: Whether a part sees the normalised input and the residual stays as it is
            (Xiong et al. 2020), instead of normalising the sum.
        norm_bias: Whether normalisations have an offset.
        has_attention_norm: Whether the attention has a normalisation; the first block of
            ModernBERT has none, since the embeddings end in one.
        rms_norm: Whether normalisations only divide by the root mean square (`RMSNorm`).
        gradient_checkpointing: Whether training keeps only input and output of the block and
            computes the rest again for the gradient: less memory for more time.
    """

    role = "block"
    parts = ("attention", "feed_forward")  # what is handed in

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
        gradient_checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        # A mixed policy would cast positions, such as rotary tables in float32, to its type.
        super().__init__(**kwargs, autocast=False)
        if attention_output_dropout is None:
            attention_output_dropout = dropout
        self.record_arguments(locals())
        self.gradient_checkpointing = gradient_checkpointing
        policy = self.dtype_policy
        self.attention = attention
        self.feed_forward = feed_forward
        self.attention_norm = self._norm("attention_norm")
        self.feed_forward_norm = self._norm("feed_forward_norm")
        self.attention_output_dropout = keras.layers.Dropout(
            attention_output_dropout, dtype=policy, name="attention_output_dropout"
        )
        self.dropout = keras.layers.Dropout(dropout, dtype=policy, name="dropout")

    def _norm(self, name: str) -> LayerNorm:
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
        """Builds both parts."""
        self.attention.build(x_shape, context_shape, attention_mask_shape, positions_shape)
        self.feed_forward.build(x_shape)
        if self._config["has_attention_norm"]:
            self.attention_norm.build(x_shape)
        self.feed_forward_norm.build(x_shape)

    def call(
        self,
        x: Any,
        context: Any = None,
        attention_mask: Any = None,
        positions: Any = None,
        start: Any = 0,
        training: bool | None = None,
    ) -> Any:
        """Passes tokens through both parts.

        Args:
            x: (B, Q, D). Nothing is computed for tokens that are not among them, apart from what
                is seen of the context: `block(h[:, :1], context=h)` is `block(h)[:, :1]`.
            context: (B, K, D), what the attention sees; by default `x` itself.
            attention_mask: As of `Attention.call`, as are positions and start.
            positions: What the family's layer in `positions` gives.
            start: Where in the context `x` begins.
            training: Whether dropout is active.

        Returns:
            (B, Q, D).
        """
        return self._transformed(x, context, attention_mask, positions, start, training=training)

    def _transformed(self, *inputs: Any, training: bool | None) -> Any:
        """`transform`, of which training keeps the inside or not."""
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
    ) -> Any:
        """What the block computes; arguments as of `call`."""
        x = self._add_attention(x, context, attention_mask, positions, start, training)
        return self._add_feed_forward(x, training)

    def _add_attention(
        self,
        x: Any,
        context: Any,
        attention_mask: Any,
        positions: Any,
        start: Any,
        training: bool | None,
    ) -> Any:
        x = ops.cast(x, self.compute_dtype)
        attended = self.attention(
            self._before_attention(x),
            self._before_attention(context),
            attention_mask,
            positions,
            start=start,
            training=training,
        )
        dropout = self.attention_output_dropout
        return self._add(x, attended, self.attention_norm, dropout, training)

    def _add_feed_forward(self, x: Any, training: bool | None) -> Any:
        norm = self.feed_forward_norm
        before = norm(x) if self._config["norm_first"] else x
        transformed = self.feed_forward(before, training=training)
        return self._add(x, transformed, norm, self.dropout, training)

    def _add(
        self,
        x: Any,
        output: Any,
        norm: LayerNorm,
        dropout: keras.layers.Dropout,
        training: bool | None,
    ) -> Any:
        """Adds what a part gives to what went into it; normalises the sum, if not the input."""
        if self._config["norm_first"]:
            return x + dropout(output, training=training)
        return norm.of_sum(output, x, dropout, training)

    def attention_weights(
        self, x: Any, context: Any = None, attention_mask: Any = None, positions: Any = None
    ) -> Any:
        """How much each token takes from the context: (B, H, Q, K); arguments as of `call`."""
        x, context = self._before_attention(x), self._before_attention(context)
        return self.attention.weights_of(x, context, attention_mask, positions)

    def _before_attention(self, x: Any) -> Any:
        """What the attention sees, of the query as of the context."""
        normed = self._config["norm_first"] and self._config["has_attention_norm"]
        return self.attention_norm(x) if normed and x is not None else x

    def compute_output_spec(self, x: Any, *others: Any, **options: Any) -> keras.KerasTensor:
        """(B, Q, D), as the query."""
        return keras.KerasTensor(x.shape, self.compute_dtype)

    def get_config(self) -> dict:
        """Keras config, with the parts that were handed in."""
        parts = {name: serialize_keras_object(getattr(self, name)) for name in self.parts}
        for part in parts.values():
            # Revived with it, a part would be built by itself, and its variables would be
            # called "attention/…" instead of "block_0/attention/…".
            part.pop("build_config", None)
        own = {"gradient_checkpointing": self.gradient_checkpointing}
        return {**super().get_config(), **self._config, **own, **parts}

    @classmethod
    def from_config(cls, config: dict) -> "EncoderBlock":
        """Revives the parts, then the block.

        Raises:
            ModelError: If a version wrote the config in which blocks were called otherwise.
        """
        if "rms_norm" not in config:
            raise ModelError(
                "The file was saved by a version of finetune_tf in which blocks made masks and "
                "positions themselves, and cannot be opened by this one. Open it with the version "
                "that saved it, call model.save_pretrained(folder) there, and load that folder "
                "with ft.load(folder)."
            )
        parts = {name: deserialize_keras_object(config[name]) for name in cls.parts}
        return cls(**{**config, **parts})
