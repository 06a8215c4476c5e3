"""What the parts of a model are for: declared by layers of ours, guessed of all others.

A layer declares its role by an attribute `role`. Which layers are the head of a model of ours is
said by the model, because it depends on the checkpoint. The rest is guessed from what layers are
and from where they stand in their chain.
"""

from typing import Any, Literal, get_args

import keras

from finetune_tf.base.keras_internals import all_layers, sublayers

Role = Literal["embeddings", "block", "norm", "pooler", "head"]
#: The layers of a stage, and the name of the chain that it is a part of.
Part = tuple[str, list[keras.layers.Layer]]

_BELOW_THE_BLOCKS = ("embed", "position", "patch", "classtoken", "clstoken")


def roles_of(model: keras.Model, parts: list[Part]) -> list[Role]:
    """The role of each part of a model.

    Args:
        model: The model, which may know its head (`info.head_layers`) or its `backbone`.
        parts: Its weighted layers, from the inputs to the outputs.
    """
    heads = _known_heads(model)
    roles = [_declared_role(layers, heads) for _, layers in parts]
    chains: dict[str, list[int]] = {}
    for i, (chain, _) in enumerate(parts):
        chains.setdefault(chain, []).append(i)
    if _head_layers(model) is None:
        _guess_heads(model, parts, roles, chains)
    for places in chains.values():
        _guess_embeddings(parts, roles, places)
        _guess_top(parts, roles, places)
    return [role or "block" for role in roles]


def _head_layers(model: keras.layers.Layer) -> tuple[str, ...] | None:
    """The names of layers that a model of ours calls its head; None of any other layer."""
    return getattr(getattr(model, "info", None), "head_layers", None)


def _known_heads(model: keras.Model) -> set[int]:
    """The layers that the model, or a model of ours inside of it, calls its head."""
    return {
        id(layer)
        for part in all_layers(model)
        for layer in sublayers(part)
        if layer.name in (_head_layers(part) or ())
    }


def _declared_role(layers: list[keras.layers.Layer], heads: set[int]) -> Role | None:
    if any(id(layer) in heads for layer in layers):
        return "head"
    declared = (getattr(layer, "role", None) for layer in layers)
    return next((role for role in declared if role in get_args(Role)), None)


def _guess_heads(
    model: keras.Model, parts: list[Part], roles: list[Any], chains: dict[str, list[int]]
) -> None:
    """What lies outside of the backbone; or the last part of the model if it is all Dense."""
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, keras.Model):
        inside = {id(layer) for layer in all_layers(backbone)}
        outside = [inside.isdisjoint(map(id, layers)) for _, layers in parts]
    else:
        # Nothing stands above the chains of two towers, so each has its own last part.
        tops = [chains[""]] if "" in chains else chains.values()
        last = {places[-1] for places in tops} if len(parts) > 1 else ()
        outside = [
            i in last and all(map(_is_dense, layers)) and _role_on_top(layers) == "block"
            for i, (_, layers) in enumerate(parts)
        ]
    for i, is_outside in enumerate(outside):
        if is_outside and roles[i] is None:
            roles[i] = "head"


def _guess_embeddings(parts: list[Part], roles: list[Any], places: list[int]) -> None:
    """What looks up tokens or cuts pictures into patches, with what follows it directly."""
    first = places[0]
    if roles[first] is None and any(_is_stem(layer) for layer in parts[first][1]):
        roles[first] = "embeddings"
    if roles[first] != "embeddings":
        return
    for i in places[1:-1]:
        if roles[i] is not None or not all(map(_is_of_embeddings, parts[i][1])):
            break
        roles[i] = "embeddings"


def _guess_top(parts: list[Part], roles: list[Any], places: list[int]) -> None:
    """Normalisations and poolers above the last block."""
    for i in reversed(places):
        if roles[i] is None:
            roles[i] = _role_on_top(parts[i][1])
        if roles[i] in ("block", "embeddings"):
            break


def _role_on_top(layers: list[keras.layers.Layer]) -> Role:
    """Of what may stand between the last block and the head."""
    if all(_is_dense(layer) and "pool" in layer.name for layer in layers):
        return "pooler"
    # A normalisation over batches belongs to the convolution before it.
    rows = all(is_normalization(layer) and "Batch" not in type(layer).__name__ for layer in layers)
    return "norm" if rows else "block"


def is_normalization(layer: keras.layers.Layer) -> bool:
    """Whether a layer is a normalisation of any kind, by the name of its class."""
    return any(name in type(layer).__name__ for name in ("LayerNorm", "RMSNorm", "Normalization"))


def _is_stem(layer: keras.layers.Layer) -> bool:
    """Whether a layer looks up tokens, or cuts pictures into patches that do not overlap."""
    return any(
        isinstance(part, keras.layers.Embedding)
        or max(getattr(part, "kernel_size", (1,))) > 1
        and tuple(part.kernel_size) == tuple(part.strides)
        for part in all_layers(layer)
    )


def _is_dense(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.Dense | keras.layers.EinsumDense)


def _is_of_embeddings(layer: keras.layers.Layer) -> bool:
    if is_normalization(layer):
        return True
    name = layer.name if _is_dense(layer) else f"{layer.name} {type(layer).__name__}"
    name = name.replace("_", "").lower()
    return any(word in name for word in _BELOW_THE_BLOCKS)
