"""Hidden states and attention weights: what happens between the stages of a model.

Hidden states are what the last stage below the blocks puts out and what each block does, in each
chain of a model by itself. They follow from where the model is cut (`finetune_tf.graph.pieces`) and
from the roles of its stages, whatever its layers are.
"""

from collections import Counter
from typing import Any

import keras

from finetune_tf.architectures import EncoderBlock
from finetune_tf.base.keras_internals import graph_of, inputs_struct
from finetune_tf.errors import ModelError
from finetune_tf.graph.pieces import Piece, ordered_nodes, pieces
from finetune_tf.graph.stages import require_model, stages
from finetune_tf.graph.traces import traces_of

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
    made = traces_of(model)
    wanted = ("states", hidden_states, attentions, pooler is not None)
    if wanted not in made:
        blocks = [n for n in ordered_nodes(model) if isinstance(n.operation, EncoderBlock)]
        last = _last_hidden_state(model, blocks)
        outputs = {"output": model.outputs[0], "last_hidden_state": last}
        if pooler is not None:
            outputs["pooler_output"] = pooler(last[:, 0])
        if hidden_states:
            # What a normalisation above the blocks gives counts as the output of the last one.
            (states,) = _states(model).values()
            outputs["hidden_states"] = [*states[:-1], last]
        if attentions:
            outputs["attentions"] = []
            for i, node in enumerate(blocks):
                weights = AttentionWeights(node.operation, name=f"attention_weights_{i}")
                hidden, known = _arguments(node)
                outputs["attentions"].append(weights(hidden, **known))
        name = name or model.name
        number, _NAMES[name] = _NAMES[name], _NAMES[name] + 1
        name = f"{name}_{number}" if number else name
        made[wanted] = keras.Model(inputs_struct(model), outputs, name=name)
    return made[wanted]


def _arguments(node: Any) -> tuple[Any, dict[str, Any]]:
    """What a block was called on, all tokens of it, and what it was told about masks and positions.

    The last block may have been asked for the first token alone, as a query of all the others.
    """
    known = dict(node.arguments.kwargs)
    context = known.pop("context", None)
    return node.arguments.args[0] if context is None else context, known


def states_of_chains(model: keras.Model) -> keras.Model:
    """A plain Functional model on the layers of any Functional model that gives its hidden states.

    Args:
        model: For example one with an encoder and a decoder, or with two towers.

    Returns:
        Of the same inputs and weights; its outputs are a dict with a list for each chain that has
        blocks: what goes into the first block, then what each block puts out. A model that is one
        chain as a whole has it under its own name.

    Raises:
        ModelError: If the model has no graph, or no blocks that a cut separates.
    """
    require_model(model)
    graph = graph_of(model)
    if graph is None:
        raise ModelError(
            f"The model {model.name!r} is no Functional model, so nothing is known about what "
            "passes between its layers."
        )
    states = _states(model)
    if not states:
        raise ModelError(
            f"The model {model.name!r} has no stages that are blocks; its stages are: "
            f"{', '.join(f'{s.name} ({s.role})' for s in stages(model))}."
        )
    outputs = {chain or model.name: tensors for chain, tensors in states.items()}
    return keras.Model(inputs_struct(graph), outputs, name=f"{model.name}_states")


def _states(model: keras.Model, roles: dict[int, str] | None = None) -> dict[str, list]:
    """The tensors below and above each block, by chain."""
    if roles is None:
        roles = {id(layer): stage.role for stage in stages(model) for layer in stage.layers}
    states: dict[str, list] = {}
    below: dict[str, Any] = {}
    for piece in pieces(graph_of(model)):
        chain, layers = piece.chain, piece.layers
        # A block that stands in the chain twice is one stage, but has a state at each place.
        if any(roles.get(id(layer)) == "block" for layer in layers):
            states.setdefault(chain, [below[chain]] if chain in below else []).append(piece.main)
        elif len(layers) == 1 and graph_of(layers[0]) is not None:
            states |= _states_inside(piece, roles)
        below[chain] = piece.main
    return states


def _states_inside(piece: Piece, roles: dict[int, str]) -> dict[str, list]:
    """The states of a model that is a piece of another one, computed of what that gives it."""
    (node,) = (node for node in piece.nodes if node.operation is piece.layers[0])
    inner = graph_of(node.operation)
    states = _states(inner, roles)
    if not states:
        return {}
    called = keras.Model(inputs_struct(inner), states)(
        *node.arguments.args, **node.arguments.kwargs
    )
    return {"/".join(filter(None, (piece.chain, chain))): list(called[chain]) for chain in states}


def _last_hidden_state(model: keras.Model, blocks: list) -> Any:
    above = [node for node in ordered_nodes(model) if node.operation.name == "final_norm"]
    last = blocks[-1]
    hidden, known = _arguments(last)
    if hidden is last.arguments.args[0]:
        return (above or blocks)[-1].outputs[0]
    # The head reads the first token alone, so the other ones are not in the model's graph.
    hidden = last.operation(hidden, **known)
    return above[-1].operation(hidden) if above else hidden
