"""Hidden states and attention weights: what happens between the stages of a model."""

import weakref
from collections import Counter
from typing import Any

import keras

from finetune_tf.architectures import EncoderBlock
from finetune_tf.stages import ordered_nodes

# By model and what is wanted. Kept outside of the model, which would save them as parts of it.
_GRAPHS: "weakref.WeakKeyDictionary[keras.Model, dict]" = weakref.WeakKeyDictionary()
_NAMES: Counter[str] = Counter()  # given away: a user's model may hold two of a kind


@keras.saving.register_keras_serializable("finetune_tf")
class AttentionWeights(keras.layers.Layer):
    """What the attention of a block gives its tokens: (batch, heads, length, length).

    Args:
        block: An `EncoderBlock`, whose weights are shared.
    """

    def __init__(self, block: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(block, dict):
            block = keras.saving.deserialize_keras_object(block)
        self.block = block

    def call(self, hidden: Any, attention_mask: Any = None, positions: Any = None) -> Any:
        """The arguments of the block."""
        return self.block.attention_weights(
            hidden, attention_mask=attention_mask, positions=positions
        )

    def get_config(self) -> dict:
        """Keras config."""
        block = keras.saving.serialize_keras_object(self.block)
        return {**super().get_config(), "block": block}


def with_states(
    model: keras.Model,
    hidden_states: bool = True,
    attentions: bool = False,
    pooler: keras.layers.Layer | None = None,
    name: str | None = None,
) -> keras.Model:
    """A plain Functional model on the layers of a model of ours that also gives its states.

    Args:
        model: From `load`.
        hidden_states: Whether to give what the embeddings and each block put out.
        attentions: Whether to give the attention weights of each block.
        pooler: A layer of the model to apply to the last hidden state of the first token.
        name: Of the plain model; by default as of the model. Another one of that name gets a
            number behind it.

    Returns:
        Of the same inputs and weights, made once; its outputs are a dict with "output" (as of the
        model), "last_hidden_state" (batch, length, features), and, where wanted, "pooler_output"
        (batch, features), "hidden_states" (one more than there are blocks) and "attentions"
        (batch, heads, length, length), the last two as lists.
    """
    made = _GRAPHS.setdefault(model, {})
    wanted = (hidden_states, attentions, pooler is not None)
    if wanted not in made:
        blocks = [n for n in ordered_nodes(model) if isinstance(n.operation, EncoderBlock)]
        last = _last_hidden_state(model, blocks)
        outputs = {"output": model.outputs[0], "last_hidden_state": last}
        if pooler is not None:
            outputs["pooler_output"] = pooler(last[:, 0])
        if hidden_states:
            # What a normalisation above the blocks gives counts as the output of the last one.
            below = [_arguments(node)[0] for node in blocks]
            outputs["hidden_states"] = [*below, last]
        if attentions:
            outputs["attentions"] = []
            for i, node in enumerate(blocks):
                weights = AttentionWeights(node.operation, name=f"attention_weights_{i}")
                hidden, known = _arguments(node)
                outputs["attentions"].append(weights(hidden, **known))
        name = name or model.name
        number, _NAMES[name] = _NAMES[name], _NAMES[name] + 1
        name = f"{name}_{number}" if number else name
        made[wanted] = keras.Model(model._inputs_struct, outputs, name=name)
    return made[wanted]


def _arguments(node: Any) -> tuple[Any, dict[str, Any]]:
    """What a block was called on, all tokens of it, and what it was told about masks and positions.

    The last block may have been asked for the first token alone, as a query of all the others.
    """
    known = dict(node.arguments.kwargs)
    context = known.pop("context", None)
    return node.arguments.args[0] if context is None else context, known


def _last_hidden_state(model: keras.Model, blocks: list) -> Any:
    above = [node for node in ordered_nodes(model) if node.operation.name == "final_norm"]
    last = blocks[-1]
    hidden, known = _arguments(last)
    if hidden is last.arguments.args[0]:
        return (above or blocks)[-1].outputs[0]
    # The head reads the first token alone, so the other ones are not in the model's graph.
    hidden = last.operation(hidden, **known)
    return above[-1].operation(hidden) if above else hidden
