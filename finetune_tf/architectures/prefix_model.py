"""A prefix language model: one encoder that reads a source and writes a target after it.

The tokens of the source attend to each other, and those of the target to the source and to the
target tokens before them, so that the weights of an encoder become those of a model from text to
text (UniLM, Dong et al. 2019, arXiv:1905.03197).

Shape legend: B batch, S source tokens, T target tokens, D features.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from finetune_tf.architectures.blocks import EncoderBlock
from finetune_tf.architectures.embeddings import Embeddings
from finetune_tf.architectures.encoder import Backbone
from finetune_tf.architectures.encoder_decoder import text_inputs
from finetune_tf.architectures.layers import PACKAGE, ConfigLayer
from finetune_tf.architectures.masks import AttentionMask


@keras.saving.register_keras_serializable(PACKAGE)
class JoinTexts(ConfigLayer):
    """Joins each source and its target to one sequence.

    Positions count the tokens that are not padding, so that the target continues after the last
    token of its source, however far the batch pads the source.

    Args:
        target_type: The token type of target tokens; that of source tokens is 0.
    """

    joins_inputs = True  # no single input has the length of the outputs

    def __init__(self, target_type: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.record_arguments(locals())

    @property
    def target_type(self) -> int:
        """The token type of target tokens."""
        return self._config["target_type"]

    def call(
        self, ids: Any, attention_mask: Any, decoder_ids: Any, decoder_attention_mask: Any
    ) -> tuple[Any, Any, Any, Any, Any]:
        """Joins the texts.

        Args:
            ids: (B, S), the tokens of the sources.
            attention_mask: (B, S), 1 for tokens and 0 for padding.
            decoder_ids: (B, T), the tokens of the targets that are read.
            decoder_attention_mask: (B, T).

        Returns:
            For the joined sequences (B, S + T): token ids, attention mask, positions and token
            types, all int32; and S for each row, (B,).
        """
        joined = ops.concatenate([ids, decoder_ids], axis=1)
        mask = ops.concatenate([attention_mask, decoder_attention_mask], axis=1)
        mask = ops.cast(mask, "int32")
        positions = ops.maximum(ops.cumsum(mask, axis=1) - 1, 0)
        is_target = [ops.zeros_like(ids), ops.ones_like(decoder_ids)]
        types = ops.concatenate(is_target, axis=1) * self.target_type
        lengths = ops.zeros_like(joined[:, 0]) + ops.shape(ids)[1]
        return joined, mask, positions, types, lengths

    def compute_output_spec(
        self, ids: Any, attention_mask: Any, decoder_ids: Any, decoder_attention_mask: Any
    ) -> tuple[keras.KerasTensor, ...]:
        """Returns the specs of the outputs: four of (B, S + T) and one of (B,), int32."""
        batch, sizes = ids.shape[0], (ids.shape[1], decoder_ids.shape[1])
        length = None if None in sizes else sum(sizes)
        joined = (keras.KerasTensor((batch, length), "int32") for _ in range(4))
        return (*joined, keras.KerasTensor((batch,), "int32"))


@keras.saving.register_keras_serializable(PACKAGE)
class TargetStates(keras.layers.Layer):
    """Selects the hidden states of the target from those of the joined sequence."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)

    def call(self, decoder_ids: Any, hidden: Any) -> Any:
        """Maps the target tokens (B, T) and hidden states (B, S + T, D) to (B, T, D)."""
        source = ops.shape(hidden)[1] - ops.shape(decoder_ids)[1]
        return hidden[:, source:]

    def compute_output_spec(self, decoder_ids: Any, hidden: Any) -> keras.KerasTensor:
        """Returns the spec of the output, (B, T, D)."""
        return keras.KerasTensor((*decoder_ids.shape, hidden.shape[-1]), hidden.dtype)


def prefix_model(embeddings: Embeddings, blocks: Sequence[EncoderBlock]) -> Backbone:
    """Calls the embeddings and blocks of an encoder on sources joined with their targets.

    Args:
        embeddings: As for `encoder`. If it has at least two token types, targets have the type 1.
        blocks: As for `encoder`.

    Returns:
        The backbone, with the inputs of an encoder-decoder and the hidden states (B, T, D) of the
        target tokens.

    Example:
        >>> from finetune_tf.architectures import Embeddings, bert_block, prefix_model
        >>> sizes = {"hidden_size": 8, "num_heads": 2, "intermediate_size": 16}
        >>> options = {"activation": "gelu", "attention_dropout": 0.1, "initializer_range": 0.02}
        >>> block = bert_block(**sizes, **options, dtype=None, name="block_0")
        >>> backbone = prefix_model(Embeddings(100, 8, 32, name="embeddings"), [block])
        >>> model = keras.Model(backbone.inputs, backbone.hidden)
        >>> texts = {"input_ids": np.array([[5, 6, 7]]), "decoder_input_ids": np.array([[8, 9]])}
        >>> masks = {"attention_mask": np.ones((1, 3)), "decoder_attention_mask": np.ones((1, 2))}
        >>> model({**texts, **masks}).shape
        TensorShape([1, 2, 8])
    """
    inputs = text_inputs()
    types = 0 if embeddings.token_type is None else embeddings.token_type.input_dim
    join = JoinTexts(target_type=int(types > 1), name="join_texts")
    ids, mask, positions, types_of_tokens, lengths = join(*inputs.values())
    given = {"position_ids": positions}
    if embeddings.token_type is not None:
        given["token_type_ids"] = types_of_tokens
    if embeddings.mask_padding:
        given["attention_mask"] = mask
    hidden = embeddings(ids, **given)
    visible = AttentionMask(causal=True, name="mask")(mask, prefix_lengths=lengths)
    for block in blocks:
        hidden = block(hidden, attention_mask=visible)
    hidden = TargetStates(name="target_states")(inputs["decoder_input_ids"], hidden)
    return Backbone(inputs, hidden, None, embeddings)
