"""The encoder-decoder of the original Transformer (Vaswani et al. 2017), as two chains of stages.

Shape legend: B batch, L source length, T target length, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from finetune_tf.architectures.blocks import EncoderBlock
from finetune_tf.architectures.chains import EndOfChain
from finetune_tf.architectures.embeddings import Embeddings, PositionEmbeddings
from finetune_tf.architectures.encoder import Backbone
from finetune_tf.architectures.masks import AttentionMask
from finetune_tf.architectures.positions import RelativePositionBias


@dataclass(frozen=True)
class Side:
    """The layers of the encoder or of the decoder.

    Attributes:
        embeddings: The token embeddings; both sides may have the same layer.
        blocks: The blocks; those of a decoder are `CrossAttentionBlock`s.
        mask: The mask of the blocks; that of a decoder is causal.
        start: Adds positions to the token embeddings; None if nothing is added.
        positions: A bias of the attention scores that all blocks share; None for no bias.
        end: Layers after the last block, such as a normalisation.
    """

    embeddings: Embeddings
    blocks: Sequence[EncoderBlock]
    mask: AttentionMask
    start: PositionEmbeddings | None = None
    positions: RelativePositionBias | None = None
    end: Sequence[keras.layers.Layer] = ()

    def __call__(self, ids: Any, mask: Any, positions: Any, **memory: Any) -> Any:
        """Maps token ids (B, L) to hidden states (B, L, D).

        Args:
            ids: The token ids.
            mask: The output of the mask layer.
            positions: The output of the layer `positions`, or None.
            **memory: What the blocks of a decoder read of the encoder.
        """
        hidden = self.embeddings(ids)
        if self.start is not None:
            hidden = self.start(hidden)
        for block in self.blocks:
            hidden = block(hidden, attention_mask=mask, positions=positions, **memory)
        for layer in self.end:
            hidden = layer(hidden)
        return hidden


def text_inputs() -> dict[str, Any]:
    """Returns symbolic inputs for a source (B, L) and a target (B, T): ids and mask of each."""
    names = ("input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask")
    return {name: keras.Input((None,), dtype="int32", name=name) for name in names}


def encoder_decoder(encoder: Side, decoder: Side) -> Backbone:
    """Calls an encoder and a decoder that attends to its output on symbolic inputs.

    Args:
        encoder: Reads the source: `input_ids` (B, L) and `attention_mask` (B, L).
        decoder: Predicts the target: `decoder_input_ids` (B, T), the tokens before each one that is
            to be predicted, and `decoder_attention_mask` (B, T).

    Returns:
        The backbone, whose hidden states (B, T, D) and embeddings are those of the decoder.
    """
    inputs = text_inputs()
    ids, attention_mask, decoder_ids, decoder_mask = inputs.values()

    def bias(side: Side, mask: Any) -> Any:
        return None if side.positions is None else side.positions(mask)

    memory_mask = encoder.mask(attention_mask)
    hidden = encoder(ids, memory_mask, bias(encoder, attention_mask))
    memory = EndOfChain(name="encoder")(hidden)
    hidden = decoder(
        decoder_ids,
        decoder.mask(decoder_mask),
        bias(decoder, decoder_mask),
        memory=memory,
        memory_mask=memory_mask,
    )
    hidden = EndOfChain(name="decoder")(hidden)
    return Backbone(inputs, hidden, None, decoder.embeddings)
