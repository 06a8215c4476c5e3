"""Roles of the parts of a model: declared by layers of finetune_tf, guessed for all other layers.

A layer declares its role by an attribute `role`. A model of finetune_tf specifies which of its
layers are the head, because this depends on the checkpoint. Other roles are guessed from the types
of layers, their names, and their places in the chain.
"""

from typing import Any, Literal, get_args

import keras

from finetune_tf.base.keras_internals import all_layers, sublayers

Role = Literal["embeddings", "block", "norm", "pooler", "head"]
#: The name of the chain that a stage belongs to, and the layers of the stage.
Part = tuple[str, list[keras.layers.Layer]]

_EMBEDDING_NAMES = ("embed", "position", "patch", "classtoken", "clstoken")


def roles_of(model: keras.Model, parts: list[Part]) -> list[Role]:
    """Returns the role of each part of a model.

    Args:
        model: The model. Its attributes `info.head_layers` and `backbone` are used if it has them.
        parts: Its weighted layers, from the inputs to the outputs.
    """
    heads = _declared_head_layers(model)
    roles = [_declared_role(layers, heads) for _, layers in parts]
    chains: dict[str, list[int]] = {}
    for i, (chain, _) in enumerate(parts):
        chains.setdefault(chain, []).append(i)
    if _head_layer_names(model) is None:
        _guess_heads(model, parts, roles, chains)
    for places in chains.values():
        _guess_embeddings(parts, roles, places)
        _guess_norms_and_poolers(parts, roles, places)
    return [role or "block" for role in roles]


def _head_layer_names(model: keras.layers.Layer) -> tuple[str, ...] | None:
    """Returns the names of the head layers of a finetune_tf model; None for any other layer."""
    return getattr(getattr(model, "info", None), "head_layers", None)


def _declared_head_layers(model: keras.Model) -> set[int]:
    """Returns the ids of the layers that a finetune_tf model, outer or inner, declares as head."""
    return {
        id(layer)
        for part in all_layers(model)
        for layer in sublayers(part)
        if layer.name in (_head_layer_names(part) or ())
    }


def _declared_role(layers: list[keras.layers.Layer], heads: set[int]) -> Role | None:
    if any(id(layer) in heads for layer in layers):
        return "head"
    declared = (getattr(layer, "role", None) for layer in layers)
    return next((role for role in declared if role in get_args(Role)), None)


def _guess_heads(
    model: keras.Model, parts: list[Part], roles: list[Any], chains: dict[str, list[int]]
) -> None:
    """Marks as head what is outside of the backbone, or else the last part if it is all Dense."""
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, keras.Model):
        inside = {id(layer) for layer in all_layers(backbone)}
        outside = [inside.isdisjoint(map(id, layers)) for _, layers in parts]
    else:
        # There are no layers above the chains of two towers, so each chain has its own last part.
        candidates = [chains[""]] if "" in chains else chains.values()
        last_parts = {places[-1] for places in candidates} if len(parts) > 1 else ()
        outside = [
            i in last_parts and all(map(_is_dense, layers)) and _guess_upper_role(layers) == "block"
            for i, (_, layers) in enumerate(parts)
        ]
    for i, is_outside in enumerate(outside):
        if is_outside and roles[i] is None:
            roles[i] = "head"


def _guess_embeddings(parts: list[Part], roles: list[Any], places: list[int]) -> None:
    """Marks token or patch embeddings, and the projections and norms that follow directly."""
    first = places[0]
    if roles[first] is None and any(_is_stem(layer) for layer in parts[first][1]):
        roles[first] = "embeddings"
    if roles[first] != "embeddings":
        return
    for i in places[1:-1]:
        if roles[i] is not None or not all(map(_is_part_of_embeddings, parts[i][1])):
            break
        roles[i] = "embeddings"


def _guess_norms_and_poolers(parts: list[Part], roles: list[Any], places: list[int]) -> None:
    """Marks normalisations and poolers above the last block."""
    for i in reversed(places):
        if roles[i] is None:
            roles[i] = _guess_upper_role(parts[i][1])
        if roles[i] in ("block", "embeddings"):
            break


def _guess_upper_role(layers: list[keras.layers.Layer]) -> Role:
    """Guesses the role of layers that may be between the last block and the head."""
    if all(_is_dense(layer) and "pool" in layer.name for layer in layers):
        return "pooler"
    # Batch normalisation belongs to the convolution before it.
    is_norm = all(
        is_normalization(layer) and "Batch" not in type(layer).__name__ for layer in layers
    )
    return "norm" if is_norm else "block"


def is_normalization(layer: keras.layers.Layer) -> bool:
    """Whether a layer is a normalisation of any kind, judged by the name of its class."""
    return any(name in type(layer).__name__ for name in ("LayerNorm", "RMSNorm", "Normalization"))


def _is_stem(layer: keras.layers.Layer) -> bool:
    """Whether a layer embeds tokens, or splits images into patches that do not overlap."""
    return any(
        isinstance(part, keras.layers.Embedding)
        or max(getattr(part, "kernel_size", (1,))) > 1
        and tuple(part.kernel_size) == tuple(part.strides)
        for part in all_layers(layer)
    )


def _is_dense(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.Dense | keras.layers.EinsumDense)


def _is_part_of_embeddings(layer: keras.layers.Layer) -> bool:
    if is_normalization(layer):
        return True
    name = layer.name if _is_dense(layer) else f"{layer.name} {type(layer).__name__}"
    name = name.replace("_", "").lower()
    return any(word in name for word in _EMBEDDING_NAMES)
