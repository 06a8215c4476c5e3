"""The bidirectional encoder of BERT and its kin, as a chain of stages.

Shape legend: B batch, L length, D features.
"""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from finetune_tf.architectures.layers import PACKAGE, FeedForward, LayerNorm, SelfAttention


@keras.saving.register_keras_serializable(PACKAGE)
class Embeddings(keras.layers.Layer):
    """Word, position and token-type embeddings, summed, normalised, dropped out.

    Args:
        vocab_size: Rows of the word table.
        hidden_size: D.
        max_positions: Rows of the position table, the longest input.
        type_vocab_size: Rows of the token-type table.
        dropout: Rate after the normalisation.
        layer_norm_eps: Epsilon of the normalisation.
        initializer_range: Standard deviation of new tables.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        max_positions: int,
        type_vocab_size: int = 2,
        dropout: float = 0.1,
        layer_norm_eps: float = 1e-12,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._config = {
            "vocab_size": vocab_size,
            "hidden_size": hidden_size,
            "max_positions": max_positions,
            "type_vocab_size": type_vocab_size,
            "dropout": dropout,
            "layer_norm_eps": layer_norm_eps,
            "initializer_range": initializer_range,
        }

        def table(rows: int, name: str) -> keras.layers.Embedding:
            return keras.layers.Embedding(
                rows,
                hidden_size,
                embeddings_initializer=keras.initializers.RandomNormal(stddev=initializer_range),
                dtype=self.dtype_policy,
                name=name,
            )

        self.word = table(vocab_size, "word")
        self.position = table(max_positions, "position")
        self.token_type = table(type_vocab_size, "token_type")
        self.norm = LayerNorm(layer_norm_eps, dtype=self.dtype_policy, name="norm")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_ids_shape: tuple, token_type_ids_shape: tuple | None = None) -> None:
        """Builds the three tables and the normalisation."""
        for table in (self.word, self.position, self.token_type):
            table.build(input_ids_shape)
        self.norm.build((*input_ids_shape, self._config["hidden_size"]))

    def call(self, input_ids: Any, token_type_ids: Any, training: bool | None = None) -> Any:
        """(B, L) ids to (B, L, D)."""
        positions = ops.arange(ops.shape(input_ids)[1])
        hidden = self.word(input_ids) + self.token_type(token_type_ids) + self.position(positions)
        return self.dropout(self.norm(hidden), training=training)

    def compute_output_shape(
        self, input_ids_shape: tuple, token_type_ids_shape: tuple | None = None
    ) -> tuple:
        """(B, L, D)."""
        return (*input_ids_shape, self._config["hidden_size"])

    def get_config(self) -> dict:
        """Keras config."""
        return {**super().get_config(), **self._config}


@keras.saving.register_keras_serializable(PACKAGE)
class EncoderBlock(keras.layers.Layer):
    """Self-attention and feed-forward, each with a residual and a normalisation after it.

    Args:
        hidden_size: D.
        num_heads: Attention heads.
        intermediate_size: Width of the feed-forward part.
        activation: A Hugging Face activation name.
        dropout: Rate on the output of both parts.
        attention_dropout: Rate on the attention weights.
        layer_norm_eps: Epsilon of both normalisations.
        initializer_range: Standard deviation of new kernels.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        intermediate_size: int,
        activation: str = "gelu",
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        layer_norm_eps: float = 1e-12,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._config = {
            "hidden_size": hidden_size,
            "num_heads": num_heads,
            "intermediate_size": intermediate_size,
            "activation": activation,
            "dropout": dropout,
            "attention_dropout": attention_dropout,
            "layer_norm_eps": layer_norm_eps,
            "initializer_range": initializer_range,
        }
        policy = self.dtype_policy
        self.attention = SelfAttention(
            hidden_size,
            num_heads,
            attention_dropout,
            initializer_range,
            dtype=policy,
            name="attention",
        )
        self.attention_norm = LayerNorm(layer_norm_eps, dtype=policy, name="attention_norm")
        self.feed_forward = FeedForward(
            intermediate_size,
            hidden_size,
            activation,
            initializer_range,
            dtype=policy,
            name="feed_forward",
        )
        self.feed_forward_norm = LayerNorm(layer_norm_eps, dtype=policy, name="feed_forward_norm")
        self.dropout = keras.layers.Dropout(dropout, dtype=policy, name="dropout")

    def build(self, hidden_shape: tuple, attention_mask_shape: tuple | None = None) -> None:
        """Builds both parts."""
        self.attention.build(hidden_shape, attention_mask_shape)
        for layer in (self.attention_norm, self.feed_forward, self.feed_forward_norm):
            layer.build(hidden_shape)

    def call(self, hidden: Any, attention_mask: Any, training: bool | None = None) -> Any:
        """(B, L, D) to (B, L, D); `attention_mask` is (B, L), 1 for real tokens."""
        attended = self.attention(hidden, attention_mask, training=training)
        hidden = self.attention_norm(hidden + self.dropout(attended, training=training))
        transformed = self.feed_forward(hidden)
        return self.feed_forward_norm(hidden + self.dropout(transformed, training=training))

    def compute_output_shape(
        self, hidden_shape: tuple, attention_mask_shape: tuple | None = None
    ) -> tuple:
        """(B, L, D), as the input."""
        return hidden_shape

    def get_config(self) -> dict:
        """Keras config."""
        return {**super().get_config(), **self._config}


@dataclass(frozen=True)
class Backbone:
    """A chain of stages that still waits for its head.

    Attributes:
        inputs: Symbolic model inputs by name.
        hidden: (B, L, D), what the last block gives.
        attention_mask: (B, L), for poolings that need it.
    """

    inputs: dict[str, Any]
    hidden: Any
    attention_mask: Any


def encoder(
    *,
    vocab_size: int,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    intermediate_size: int,
    max_positions: int,
    type_vocab_size: int,
    activation: str,
    dropout: float,
    attention_dropout: float,
    layer_norm_eps: float,
    initializer_range: float,
    dtype: Any = None,
) -> Backbone:
    """Chains embeddings and blocks over symbolic inputs.

    Args:
        vocab_size: Rows of the word table.
        hidden_size: D.
        num_layers: Number of blocks.
        num_heads: Attention heads a block.
        intermediate_size: Width of the feed-forward part.
        max_positions: Longest input.
        type_vocab_size: Rows of the token-type table.
        activation: A Hugging Face activation name.
        dropout: Rate after embeddings, attention and feed-forward.
        attention_dropout: Rate on the attention weights.
        layer_norm_eps: Epsilon of every normalisation.
        initializer_range: Standard deviation of new weights.
        dtype: Keras dtype policy of every stage; by default the global one.
    """
    shared = {
        "dropout": dropout,
        "layer_norm_eps": layer_norm_eps,
        "initializer_range": initializer_range,
        "dtype": dtype,
    }
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("input_ids", "token_type_ids", "attention_mask")
    }
    hidden = Embeddings(
        vocab_size, hidden_size, max_positions, type_vocab_size, **shared, name="embeddings"
    )(inputs["input_ids"], inputs["token_type_ids"])
    for i in range(num_layers):
        hidden = EncoderBlock(
            hidden_size,
            num_heads,
            intermediate_size,
            activation,
            attention_dropout=attention_dropout,
            **shared,
            name=f"block_{i}",
        )(hidden, inputs["attention_mask"])
    return Backbone(inputs, hidden, inputs["attention_mask"])
