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
            "merged": adapter.is_merged,
        }
        for layer, adapter in adapted_layers(model)
    ]


def restore_adapters(model: keras.Model, records: Sequence[Mapping[str, Any]]) -> None:
    """Creates the adapters of `describe_adapters` in a new model of the same layers.

    Their weights have their initial values. Nothing is frozen or trained anew.
    """
    layers = {path_of(layer): layer for layer in adaptable_layers(model)}
    for record in records:
        layer = layers[record["layer"]]
        adapter = attach(layer, record["name"], record["kind"], dict(record["settings"]))
        adapter.is_merged = record["merged"]
        if record["active"]:
            set_active(layer, [*active_adapters(layer), record["name"]])
