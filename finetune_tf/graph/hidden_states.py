"""Models that also return hidden states and attention weights.

The hidden states of a chain are the input of its first block and the output of each block. The cuts
of the model (`finetune_tf.graph.pieces`) and the roles of its stages define them, so the model may
consist of any layers.
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

# How often each model name was used: a user's model may contain two models of the same name.
_NAME_COUNTS: Counter[str] = Counter()


@keras.saving.register_keras_serializable("finetune_tf")
class AttentionWeights(keras.layers.Layer):
    """Returns the attention weights of a block, (batch, heads, length, length).

    Args:
        block: An `EncoderBlock`, whose weights are shared.
    """

    def __init__(self, block: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(block, dict):
            block = keras.saving.deserialize_keras_object(block)
        self.block = block

    def call(self, hidden: Any, attention_mask: Any = None, positions: Any = None) -> Any:
        """Returns the attention weights; the arguments are those of the block."""
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
    """Builds a Functional model on the layers of a finetune_tf model that also returns its states.

    Args:
        model: A model from `load`.
        hidden_states: Whether to return the output of the embeddings and of each block.
        attentions: Whether to return the attention weights of each block.
        pooler: A layer of the model to apply to the last hidden state of the first token.
        name: Name of the returned model; by default the name of `model`. A number is appended to a
            name that was used before.

    Returns:
        A model with the same inputs and weights, built once for each selection of outputs. Its
        output is a dict with "output" (the output of `model`), "last_hidden_state" (batch, length,
        features) and, if requested, "pooler_output" (batch, features), "hidden_states" (a list with
        one tensor more than there are blocks) and "attentions" (a list with a tensor (batch, heads,
        length, length) per block).

    Example:
        >>> from finetune_tf.graph.hidden_states import with_states
        >>> outputs = with_states(model).output
        >>> len(outputs["hidden_states"]), outputs["last_hidden_state"].ndim
        (3, 3)
    """
    models = traces_of(model)
    key = ("states", hidden_states, attentions, pooler and id(pooler), name)
    if key not in models:
        outputs = {"output": model.outputs[0], **state_outputs(model, hidden_states, attentions)}
        last = outputs["last_hidden_state"]
        if pooler is not None:
            outputs["pooler_output"] = pooler(last[:, 0])
        if hidden_states:
            # The output of a normalisation above the blocks replaces that of the last block.
            outputs["hidden_states"][-1] = last
        models[key] = keras.Model(
            inputs_struct(model), outputs, name=unused_name(name or model.name)
        )
    return models[key]


def unused_name(name: str) -> str:
    """Returns a name for a model, with a number if the name was used before."""
    number, _NAME_COUNTS[name] = _NAME_COUNTS[name], _NAME_COUNTS[name] + 1
    return f"{name}_{number}" if number else name


def state_outputs(
    model: keras.Model, hidden_states: bool = True, attentions: bool = False
) -> dict[str, Any]:
    """Returns the symbolic states of a finetune_tf model that has one chain.

    Args:
        model: As for `with_states`.
        hidden_states: As for `with_states`.
        attentions: As for `with_states`.

    Returns:
        A dict with "last_hidden_state", which is the output of the last block, or of a
        normalisation above it; and, if requested, "hidden_states", the input of the first block and
        the output of each block, and "attentions".
    """
    blocks = [n for n in ordered_nodes(model) if isinstance(n.operation, EncoderBlock)]
    states = None
    if hidden_states or not blocks:
        (states,) = _states_by_chain(model).values()
    last_of_blocks, last = _last_hidden_states(model, blocks, states)
    outputs: dict[str, Any] = {"last_hidden_state": last}
    if hidden_states:
        outputs["hidden_states"] = [*states[:-1], last_of_blocks]
    if attentions:
        outputs["attentions"] = []
        for i, node in enumerate(blocks):
            weights = AttentionWeights(node.operation, name=f"attention_weights_{i}")
            hidden, options = block_inputs(node)
            outputs["attentions"].append(weights(hidden, **options))
    return outputs


def block_inputs(node: Any) -> tuple[Any, dict[str, Any]]:
    """Returns the hidden states of all tokens that a block was called on, and its other arguments.

    The last block may have been called with the first token as its query and all tokens as context.

    Args:
        node: A call of an `EncoderBlock`, a node of the graph.
    """
    options = dict(node.arguments.kwargs)
    context = options.pop("context", None)
    return node.arguments.args[0] if context is None else context, options


def states_of_chains(model: keras.Model) -> keras.Model:
    """Builds a Functional model on the layers of any Functional model that returns hidden states.

    Args:
        model: The model, which may have several chains, such as encoder and decoder or two towers.

    Returns:
        A model with the same inputs and weights. Its output is a dict with a list for each chain
        that has blocks: the input of the first block, then the output of each block. The keys are
        the names of the chains; for a model that is a single chain, the name of the model.

    Raises:
        ModelError: If the model has no graph, or no stages that are blocks.
    """
    require_model(model)
    graph = graph_of(model)
    if graph is None:
        raise ModelError(
            f"The model {model.name!r} is not a Functional model, so the tensors between its "
            "layers are not known. Build it with keras.Model(inputs, outputs)."
        )
    states = _states_by_chain(model)
    if not states:
        raise ModelError(
            f"The model {model.name!r} has no stages that are blocks; its stages are: "
            f"{', '.join(f'{s.name} ({s.role})' for s in stages(model))}."
        )
    outputs = {chain or model.name: tensors for chain, tensors in states.items()}
    return keras.Model(inputs_struct(graph), outputs, name=f"{model.name}_states")


def _states_by_chain(model: keras.Model, roles: dict[int, str] | None = None) -> dict[str, list]:
    """Returns the input of the first block and the output of each block, by chain."""
    if roles is None:
        roles = {id(layer): stage.role for stage in stages(model) for layer in stage.layers}
    states: dict[str, list] = {}
    last_tensor: dict[str, Any] = {}
    for piece in pieces(graph_of(model)):
        chain, layers = piece.chain, piece.layers
        # A block that occurs twice in a chain is one stage, but has a hidden state for each call.
        if any(roles.get(id(layer)) == "block" for layer in layers):
            states.setdefault(chain, [last_tensor[chain]] if chain in last_tensor else []).append(
                piece.main
            )
        elif len(layers) == 1 and graph_of(layers[0]) is not None:
            states |= _states_of_inner_model(piece, roles)
        last_tensor[chain] = piece.main
    return states


def _states_of_inner_model(piece: Piece, roles: dict[int, str]) -> dict[str, list]:
    """Returns the hidden states of an inner model, computed from its inputs in the outer model."""
    (node,) = (node for node in piece.nodes if node.operation is piece.layers[0])
    inner = graph_of(node.operation)
    states = _states_by_chain(inner, roles)
    if not states:
        return {}
    inner_outputs = keras.Model(inputs_struct(inner), states)(
        *node.arguments.args, **node.arguments.kwargs
    )
    return {
        "/".join(filter(None, (piece.chain, chain))): list(inner_outputs[chain]) for chain in states
    }


def _last_hidden_states(
    model: keras.Model, blocks: list[Any], states: list[Any] | None
) -> tuple[Any, Any]:
    """Returns the output of the last block for all tokens, and that of a normalisation above it.

    Both are the same tensor if there is no normalisation.

    Args:
        model: The model.
        blocks: The calls of blocks; empty if the stages are groups of layers.
        states: As of `_states_by_chain`; read if `blocks` is empty.
    """
    # In a tower, the name has a prefix.
    nodes = ordered_nodes(model)
    final_norms = [node for node in nodes if node.operation.name.endswith("final_norm")]
    if not blocks:
        last = states[-1]
        # A normalisation of the pooled vector has the same name.
        above = [node for node in final_norms if node.input_tensors[0] is last]
        return last, above[0].outputs[0] if above else last
    block = blocks[-1]
    hidden, options = block_inputs(block)
    if hidden is block.arguments.args[0]:
        return block.outputs[0], (final_norms or blocks)[-1].outputs[0]
    # The head reads only the first token, so the last block's output for all tokens is not yet in
    # the graph.
    last = block.operation(hidden, **options)
    return last, final_norms[-1].operation(last) if final_norms else last
