"""Embeddings of token ids, whose table is also the tied decoder of masked language models.

Shape legend: B batch, L length, E embedding features, D features, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, Literal

import keras
from keras import KerasTensor, ops

from finetune_tf import kernels
from finetune_tf.architectures.layers import PACKAGE, ConfigLayer, LayerNorm, Table, dense
from finetune_tf.architectures.positions import sinusoidal_table


@keras.saving.register_keras_serializable(PACKAGE)
class Embeddings(ConfigLayer):
    """The sum of token, position and token-type embeddings, with normalisation and dropout.

    Called with `decode=True`, the layer maps vectors (B, L, E) to a score for each token of the
    vocabulary by the transposed token embedding table. The decoder thus stays tied to the table,
    however the model is saved, frozen or trained.

    Args:
        vocab_size: V, rows of the token embedding table.
        hidden_size: D.
        max_positions: Rows of the position table; 0 for no position embeddings.
        type_vocab_size: Rows of the token-type table; 0 for no token-type embeddings.
        dropout: Dropout rate after the normalisation.
        layer_norm_eps: Epsilon of the normalisation.
        initializer_range: Standard deviation of new tables.
        padding_idx: Token id whose row gets no gradient, as in `torch.nn.Embedding`; None if all
            rows do.
        skip_padding: Whether positions count only tokens that are not padding, starting from
            `padding_idx` + 1 (RoBERTa), instead of all tokens from 0.
        embedding_size: E; by default D.
        project: Place of a Dense layer from E to D: "after" the normalisation (ELECTRA, ALBERT),
            "before" it (DeBERTa, without bias), or None for no such layer.
        norm_bias: Whether the normalisation has an offset.
        mask_padding: Whether vectors of masked tokens are set to 0 before the dropout (DeBERTa).
        has_norm: Whether there is a normalisation. Decoders such as GPT-2 have none here.
        scale: What the token embeddings are multiplied with. The decoder is not scaled.
    """

    role = "embeddings"

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        max_positions: int,
        type_vocab_size: int = 2,
        dropout: float = 0.1,
        layer_norm_eps: float = 1e-12,
        initializer_range: float = 0.02,
        padding_idx: int | None = None,
        skip_padding: bool = False,
        embedding_size: int | None = None,
        project: Literal["after", "before"] | None = None,
        norm_bias: bool = True,
        mask_padding: bool = False,
        has_norm: bool = True,
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        embedding_size = embedding_size or hidden_size
        self.record_arguments(locals())
        policy = self.dtype_policy
        self.mask_padding = mask_padding

        def table(rows: int, name: str) -> Table | None:
            if not rows:
                return None
            return Table(
                rows,
                embedding_size,
                embeddings_initializer=keras.initializers.RandomNormal(stddev=initializer_range),
                dtype=policy,
                name=name,
            )

        self.word = table(vocab_size, "word")
        self.position = table(max_positions, "position")
        self.token_type = table(type_vocab_size, "token_type")
        self.norm = None
        if has_norm:
            self.norm = LayerNorm(layer_norm_eps, norm_bias, dtype=policy, name="norm")
        self.dropout = keras.layers.Dropout(dropout, dtype=policy, name="dropout")
        self.projection = None
        if project:
            self.projection = dense(
                hidden_size,
                initializer_range,
                use_bias=project == "after",
                dtype=policy,
                name="projection",
            )

    @property
    def vocab_size(self) -> int:
        """The number of token ids."""
        return self._config["vocab_size"]

    def build(
        self,
        inputs_shape: tuple,
        token_type_ids_shape: tuple | None = None,
        attention_mask_shape: tuple | None = None,
    ) -> None:
        """Builds the tables, the projection and the normalisation."""
        for table in (self.word, self.position, self.token_type):
            if table is not None:
                table.build(inputs_shape)
        embedded = (*inputs_shape, self._config["embedding_size"])
        projected = (*inputs_shape, self._config["hidden_size"])
        if self.projection is not None:
            self.projection.build(embedded)
        if self.norm is not None:
            self.norm.build(projected if self._config["project"] == "before" else embedded)

    def call(
        self,
        inputs: Any,
        token_type_ids: Any = None,
        attention_mask: Any = None,
        decode: bool = False,
        position_ids: Any = None,
        training: bool | None = None,
        perturb: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Embeds token ids, or decodes vectors to scores of tokens.

        Args:
            inputs: Token ids (B, L), or vectors (B, L, E) to decode.
            token_type_ids: (B, L), needed if there is a token-type table.
            attention_mask: (B, L), needed with `mask_padding`.
            decode: Whether to decode instead of to embed.
            position_ids: (B, L), the position of each token in its text, from 0 on; by default its
                place in the row or, with `skip_padding`, among the tokens that are not padding.
            training: Whether dropout is active.
            perturb: A function of the rows of the token embedding table (B, L, E), such as one that
                adds noise.

        Returns:
            (B, L, D), or decoded scores (B, L, V) in float32.
        """
        if decode:
            table = ops.cast(self.word.embeddings, inputs.dtype)
            return ops.cast(ops.matmul(inputs, ops.transpose(table)), "float32")
        hidden = self._embed_tokens(inputs, position_ids, perturb)
        if self.token_type is not None:
            hidden = hidden + self.token_type(token_type_ids)
        if self._config["project"] == "before":
            hidden = self.projection(hidden)
        if self.norm is not None:
            hidden = self.norm(hidden)
        if self.mask_padding:
            hidden = hidden * ops.expand_dims(ops.cast(attention_mask, hidden.dtype), 2)
        hidden = self.dropout(hidden, training=training)
        return self.projection(hidden) if self._config["project"] == "after" else hidden

    def _embed_tokens(self, ids: Any, position_ids: Any = None, perturb: Any = None) -> Any:
        """Sums token and position embeddings; the row of the padding token gets no gradient."""
        padding, skips = self._config["padding_idx"], self._config["skip_padding"]
        hidden, is_token = self.word(ids), None
        if perturb is not None:
            hidden = perturb(hidden)
        if self._config["scale"] != 1.0:
            hidden = hidden * ops.cast(self._config["scale"], hidden.dtype)
        if padding is not None:
            is_token = ops.not_equal(ids, padding)  # (B, L)
            if not skips:
                hidden = _stop_gradient_outside(is_token, hidden)
        if self.position is None:
            return hidden
        if not skips:
            if position_ids is None:
                position_ids = ops.arange(ops.shape(ids)[1])
            return hidden + self.position(position_ids)
        if position_ids is not None:
            hidden = _stop_gradient_outside(is_token, hidden)
            return hidden + self.position(position_ids + padding + 1)
        mask = ops.cast(is_token, "int32")
        positions = ops.cumsum(mask, axis=1) * mask + padding
        return _stop_gradient_outside(is_token, hidden + self.position(positions))

    def compute_output_spec(
        self,
        inputs: Any,
        token_type_ids: Any = None,
        attention_mask: Any = None,
        decode: bool = False,
        position_ids: Any = None,
        training: bool | None = None,
    ) -> KerasTensor:
        """Returns the spec of the output, (B, L, D), or (B, L, V) with `decode`."""
        if decode:
            return KerasTensor((*inputs.shape[:-1], self._config["vocab_size"]), "float32")
        return KerasTensor((*inputs.shape, self._config["hidden_size"]), self.compute_dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class PositionEmbeddings(ConfigLayer):
    """Adds position embeddings to token embeddings, with normalisation and dropout.

    The two sides of an encoder-decoder share their token embeddings and have one of these layers
    each, with tables of their own.

    Args:
        hidden_size: D.
        max_positions: Number of positions.
        offset: Rows of the table before the one of position 0.
        sinusoidal: Whether the table is that of `sinusoidal_table` and is not trained.
        has_norm: Whether there is a normalisation.
        dropout: Dropout rate.
        layer_norm_eps: Epsilon of the normalisation.
        initializer_range: Standard deviation of a new table.
    """

    role = "embeddings"

    def __init__(
        self,
        hidden_size: int,
        max_positions: int,
        offset: int = 0,
        sinusoidal: bool = False,
        has_norm: bool = True,
        dropout: float = 0.1,
        layer_norm_eps: float = 1e-5,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.record_arguments(locals())
        self.norm = None
        if has_norm:
            self.norm = LayerNorm(layer_norm_eps, dtype=self.dtype_policy, name="norm")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape: tuple) -> None:
        """Creates the table (offset + max_positions, D), and builds the normalisation."""
        own = self._config
        initializer = keras.initializers.RandomNormal(stddev=own["initializer_range"])
        if own["sinusoidal"]:
            initializer = _sinusoidal
        self.table = self.add_weight(
            (own["offset"] + own["max_positions"], own["hidden_size"]),
            initializer,
            trainable=not own["sinusoidal"],
            # Only the rows that are read are cast to the compute dtype.
            autocast=False,
            name="table",
        )
        if self.norm is not None:
            self.norm.build(input_shape)

    def call(self, hidden: Any, position_ids: Any = None, training: bool | None = None) -> Any:
        """Maps token embeddings (B, L, D) to (B, L, D).

        Args:
            hidden: The token embeddings.
            position_ids: (B, L), the position of each token; by default 0, 1, 2 …
            training: Whether dropout is active.
        """
        if position_ids is None:
            position_ids = ops.arange(ops.shape(hidden)[1])
        rows = kernels.embedding_lookup(self.table, position_ids + self._config["offset"])
        hidden = hidden + ops.cast(rows, hidden.dtype)
        if self.norm is not None:
            hidden = self.norm(hidden)
        return self.dropout(hidden, training=training)

    def compute_output_shape(self, hidden_shape: tuple, **_: Any) -> tuple:
        """Returns the shape (B, L, D), the shape of the input."""
        return hidden_shape


def _sinusoidal(shape: tuple[int, int], dtype: Any = None) -> Any:
    return ops.convert_to_tensor(sinusoidal_table(*shape), dtype or "float32")


def _stop_gradient_outside(mask: Any, x: Any) -> Any:
    """Returns `x` (B, L, E) unchanged and stops its gradient where the mask (B, L) is false."""
    return ops.where(ops.expand_dims(mask, 2), x, ops.stop_gradient(x))
