"""Rows that consist of several texts: how a model of texts keeps them apart.

A packed row comes with `position_ids`, which count from 0 in each text, and, if the model has one
output for each text, with `text_starts`, the places where texts begin. The layers of the model's
own graph are called with them: position embeddings and rotary tables take the positions, masks hide
all other texts of a row, poolings pool each text alone, and a distribution over the tokens of a row
becomes one over those of each text. Distances inside of a text are the same as without packing, so
layers of relative positions stay as they are. Without `position_ids`, the graph is unchanged.

Shape legend: N rows, L tokens, S places for texts in a row, D features, C outputs.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from finetune_tf.architectures import (
    AttentionMask,
    ClassificationHead,
    DisentangledAttention,
    Embeddings,
    EncoderBlock,
    EndOfChain,
    FirstToken,
    L2Normalize,
    LanguageModelHead,
    LastToken,
    LayerNorm,
    MultiHeadAttention,
    Pooling,
    RelativePositionBias,
    RelativePositions,
    RotaryPositions,
    Transform,
    VocabularyBias,
)
from finetune_tf.base.keras_internals import run_graph
from finetune_tf.errors import ModelError
from finetune_tf.tasks.feature import POSITIONS, STARTS

# Layers that compute each token, or each pooled text, by itself, or that are handled below. Any
# other layer, such as a convolution, could mix the texts of a row in silence.
_KNOWN = (
    keras.layers.InputLayer,
    keras.layers.Dense,
    keras.layers.Dropout,
    keras.layers.Identity,
    AttentionMask,
    ClassificationHead,
    Embeddings,
    EndOfChain,
    FirstToken,
    L2Normalize,
    LanguageModelHead,
    LastToken,
    LayerNorm,
    Pooling,
    RelativePositionBias,
    RelativePositions,
    RotaryPositions,
    Transform,
    VocabularyBias,
)
_OTHER_INPUTS = ("decoder_input_ids", "pixel_values")
_NO_TOKEN = -1e9  # the logit of a place beyond the end of a text, whose probability is 0


def why_not_packed(model: keras.Model) -> str | None:
    """Says why the rows of a model cannot consist of several texts; None if they can.

    Args:
        model: A model from `load`, or the upper part of one.
    """
    for tensor in model.inputs:
        if tensor.name in _OTHER_INPUTS:
            return f"the model has the input {tensor.name}"
    for layer in model.layers:
        if type(layer) is EncoderBlock:
            if type(layer.attention) not in (MultiHeadAttention, DisentangledAttention):
                return f"the attention of {layer.name} is a {type(layer.attention).__name__}"
        elif not isinstance(layer, _KNOWN):
            return f"the layer {layer.name!r}, a {type(layer).__name__}, may mix neighbouring texts"
    return None


@dataclass(frozen=True, eq=False)
class _Packed:
    """Where the texts of packed rows are.

    Attributes:
        positions: (N, L), the position of each token in its text.
        mask: (N, L), 1 for tokens and 0 for padding; None if it is not known.
        starts: (N, S), where each text begins, -1 for an empty place; None if the outputs are those
            of tokens.
    """

    positions: Any
    mask: Any
    starts: Any

    @functools.cached_property
    def segments(self) -> Any:
        """(N, L), the number of the text of each token in its row, from 1."""
        return ops.cumsum(ops.cast(ops.equal(self.positions, 0), "int32"), axis=1)

    def tokens_of_texts(self, dtype: str) -> Any:
        """(N, S, L), 1 where a token belongs to a text and 0 elsewhere."""
        numbers = ops.arange(1, ops.shape(self.starts)[1] + 1)
        belongs = ops.equal(numbers[None, :, None], self.segments[:, None, :])
        # Padding has the position 0, so that each token of it counts as one more text.
        belongs = ops.logical_and(belongs, ops.greater_equal(self.starts, 0)[:, :, None])
        if self.mask is not None:
            belongs = ops.logical_and(belongs, ops.cast(self.mask, "bool")[:, None, :])
        return ops.cast(belongs, dtype)

    def tokens_alone(
        self, head: ClassificationHead, features: Any, training: bool | None = None
    ) -> Any:
        """Maps features (N, L, D) to logits of the tokens of each text, (N * S, C, L).

        They begin at the first token of the text, as in a row of its own.
        """
        logits = head(features, training=training)  # (N, C, L)
        outputs, length, places = logits.shape[1], ops.shape(logits)[2], ops.shape(self.starts)[1]
        tokens = ops.arange(length)
        lengths = ops.sum(self.tokens_of_texts("int32"), axis=2)
        is_own = ops.less(tokens, lengths[:, :, None])  # (N, S, L)
        index = ops.where(is_own, self.starts[:, :, None] + tokens, 0)
        index = ops.reshape(index, (-1, 1, places * length))
        found = ops.take_along_axis(logits, index, axis=2)  # (N, C, S * L)
        found = ops.reshape(found, (-1, outputs, places, length))
        found = ops.where(is_own[:, None], found, _NO_TOKEN)
        return ops.reshape(ops.transpose(found, (0, 2, 1, 3)), (-1, outputs, length))

    def first_tokens(self, hidden: Any) -> Any:
        """Selects the first token of each text: (N, L, D) to (N, S, D); zeros for empty places."""
        chosen = ops.one_hot(self.starts, ops.shape(hidden)[1], dtype=hidden.dtype)
        return ops.matmul(chosen, hidden)

    def pooled(self, pooling: Pooling, hidden: Any, attention_mask: Any = None) -> Any:
        """Pools each text: the first tokens (N, S, D), or all tokens (N, L, D), to (N * S, D)."""
        if pooling.mode == "mean":
            # Long sums lose precision in bfloat16, as in `Pooling`.
            belongs = self.tokens_of_texts("float32")
            total = ops.matmul(belongs, ops.cast(hidden, "float32"))
            count = ops.sum(belongs, axis=2)[:, :, None]
            hidden = ops.cast(total / ops.maximum(count, 1e-9), hidden.dtype)
        # The vector of an empty place is not 0, at which the gradient of a norm is NaN.
        is_text = ops.greater_equal(self.starts, 0)[:, :, None]
        hidden = ops.where(is_text, hidden, ops.ones_like(hidden))
        return ops.reshape(hidden, (-1, hidden.shape[-1]))

    def last_tokens(self, pooling: LastToken, hidden: Any, ids: Any, attention_mask: Any) -> Any:
        """Selects the last token of each text: (N, L, D) to (N * S, D)."""
        belongs = self.tokens_of_texts("int32")
        if pooling.padding_idx is not None:
            real = ops.cast(ops.not_equal(ids, pooling.padding_idx), "int32")
            belongs = belongs * real[:, None, :]
        length = ops.shape(ids)[1]
        first = ops.maximum(self.starts, 0)[:, :, None]  # if a text has no other token
        places = ops.where(belongs > 0, ops.arange(length)[None, None], first)
        chosen = ops.one_hot(ops.max(places, axis=2), length, dtype=hidden.dtype)
        return ops.reshape(ops.matmul(chosen, hidden), (-1, hidden.shape[-1]))


def run_packed(graph: keras.Model, inputs: Mapping[str, Any], training: bool | None) -> Any:
    """Computes the outputs of a model for packed rows.

    Args:
        graph: A model of texts, or a part of it.
        inputs: Its inputs by name, `position_ids` (N, L), and `text_starts` (N, S) if outputs are
            those of texts.
        training: As for every Keras model.

    Returns:
        Its outputs, (N, L, …) for tokens or (N * S, …) for texts; those of a text do not depend on
        the other texts of its row.
    """
    values = [inputs[tensor.name] for tensor in graph.inputs]
    return run_graph(graph, values, packed_calls(inputs, training))


def packed_calls(inputs: Mapping[str, Any], training: bool | None) -> Callable[[Any], Callable]:
    """Returns a function from an operation of a graph to its call on packed rows.

    Args:
        inputs: As for `run_packed`.
        training: As for every Keras model.
    """
    packed = _Packed(inputs[POSITIONS], inputs.get("attention_mask"), inputs.get(STARTS))

    def embed(embeddings: Embeddings, x: Any, decode: bool = False, **more: Any) -> Any:
        options = {} if decode else {"position_ids": packed.positions}
        return embeddings(x, decode=decode, **options, **more)

    def run_block(block: EncoderBlock, x: Any, context: Any = None, **more: Any) -> Any:
        if context is None:
            return block(x, **more)
        return block(x, context=context, start=packed.starts, **more)  # the first tokens

    def placed(operation: Any) -> Callable:
        """Returns an operation of the graph that knows where texts begin."""
        options = {"training": training} if _has_training(operation) else {}
        per_label = isinstance(operation, ClassificationHead) and operation.per_label
        is_of_texts = per_label or isinstance(operation, FirstToken | Pooling | LastToken)
        if is_of_texts and packed.starts is None:
            raise ModelError(
                f"The model has one output for each text, so packed rows need {STARTS}, the places "
                "where texts begin. Use batches(model, packing=True), which makes them."
            )
        if isinstance(operation, Embeddings):
            return functools.partial(embed, operation, **options)
        if isinstance(operation, AttentionMask):
            return functools.partial(operation, segment_ids=packed.segments)
        if isinstance(operation, RotaryPositions):
            return functools.partial(operation, position_ids=packed.positions)
        if isinstance(operation, EncoderBlock):
            return functools.partial(run_block, operation, **options)
        if isinstance(operation, FirstToken):
            return packed.first_tokens
        if isinstance(operation, Pooling):
            return functools.partial(packed.pooled, operation)
        if isinstance(operation, LastToken):
            return functools.partial(packed.last_tokens, operation)
        if per_label:
            return functools.partial(packed.tokens_alone, operation, **options)
        return functools.partial(operation, **options)

    return placed


def plain_call(operation: Any, training: bool | None) -> Callable:
    """Returns an operation of a graph that knows whether it is training."""
    return (
        functools.partial(operation, training=training) if _has_training(operation) else operation
    )


def _has_training(operation: Any) -> bool:
    return "training" in inspect.signature(operation.call).parameters
