"""The adapters of a model as a JSON-serializable record, which `.keras` files contain."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from finetune_tf.adapters.attaching import (
    active_adapters,
    adaptable_layers,
    adapted_layers,
    attach,
    path_of,
    set_active,
)


def describe_adapters(model: keras.Model) -> list[dict[str, Any]]:
    """Returns what is needed to create the adapters of a model again, without their weights."""
    return [
        {
            "layer": path_of(layer),
            "name": adapter.adapter_name,
            "kind": adapter.kind,
            "settings": adapter.settings,
            "active": adapter.adapter_name in active_adapters(layer),
            "place": _place(layer, adapter.adapter_name),
            "merged": adapter.is_merged,
        }
        for layer, adapter in adapted_layers(model)
    ]


def _place(layer: keras.layers.Layer, name: str) -> int:
    """The place of an adapter among the active ones of its layer; 0 if it is not active."""
    active = active_adapters(layer)
    return active.index(name) if name in active else 0


def restore_adapters(model: keras.Model, records: Sequence[Mapping[str, Any]]) -> None:
    """Creates the adapters of `describe_adapters` in a new model of the same layers.

    Their weights have their initial values. Nothing is frozen or trained anew.
    """
    layers = {path_of(layer): layer for layer in adaptable_layers(model)}
    active: dict[str, list[tuple[int, str]]] = {}
    for record in records:
        layer = layers[record["layer"]]
        adapter = attach(layer, record["name"], record["kind"], dict(record["settings"]))
        adapter.is_merged = record["merged"]
        if record["active"]:
            place = record.get("place", 0)  # of earlier versions: in the order of their addition
            active.setdefault(record["layer"], []).append((place, record["name"]))
    for path, found in active.items():
        ordered = sorted(found, key=lambda pair: pair[0])
        set_active(layers[path], [name for _, name in ordered])
