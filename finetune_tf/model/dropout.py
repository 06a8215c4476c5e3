"""`set_dropout`: changes the dropout rates of a model that is loaded already."""

from collections.abc import Iterator
from typing import Any, Literal

import keras

from finetune_tf.base.arguments import check, shown
from finetune_tf.base.keras_internals import give_seed_generator, sync_state
from finetune_tf.base.spelling import names_checked
from finetune_tf.checkpoints.layouts import Modules
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.families import FAMILIES, Family
from finetune_tf.graph.traces import forget_traces
from finetune_tf.messages import say
from finetune_tf.model.feature_models import FeatureModel
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.model.loading import build_model
from finetune_tf.training.freezing import strategy_scope
from finetune_tf.weights.deferred import shapes_only

DropoutKind = Literal["all", "hidden", "attention", "head"]
KINDS = ("all", "hidden", "attention", "head")
_DEPTH = "drop_path"  # stochastic depth drops complete blocks, with rates of its own


@names_checked
def set_dropout(model: FineTuneModel, dropout: float, kind: DropoutKind = "all") -> None:
    """Changes the dropout rates of a loaded model.

    The model then has the rates of one that was loaded with this config. The config changes too, so
    saved models keep the rates. It takes effect at any time, even during a fit. In predictions
    nothing is dropped at any rate.

    Rates of stochastic depth (`drop_path_rate`) stay as they are. In families without them,
    `ft.load(dropout=0.2)` and `ft.set_dropout(model, 0.2)` are equal.

    Args:
        model: A model from `load`, or the upper part of one from `cache_features`.
        dropout: The new rate, at least 0 and below 1.
        kind: Which rates: "hidden" in embeddings and blocks, "attention" of the attention weights,
            "head" before the output layer and in the pooler, or "all" of them.

    Raises:
        ArgumentError: If the rate is out of range, the kind is unknown, or the family has no rate
            of this kind.
        ModelError: If the model is not from `load`.

    Example:
        >>> ft.set_dropout(model, 0.3)
        >>> model.config.hidden_dropout_prob, model.get_layer("block_0").dropout.rate
        (0.3, 0.3)
        >>> ft.set_dropout(model, 0.0, kind="attention")
        >>> model.config.attention_probs_dropout_prob
        0.0
    """
    check(**{"set_dropout.dropout": dropout})
    if kind not in KINDS:
        raise ArgumentError(f"kind must be one of {', '.join(KINDS)}, found {shown(kind)}.")
    if not isinstance(model, FineTuneModel):
        raise ModelError(
            "set_dropout changes the config and the layers of a model from ft.load, found "
            f"{shown(model)}. In another Keras model, set the rate of each Dropout layer."
        )
    whole = model.whole if isinstance(model, FeatureModel) else model
    config = _changed_config(whole.config, float(dropout), kind)
    with shapes_only():
        wanted = _same_model(whole, config)
    sync_state(model)  # before seed generators are added to the state of a running JAX fit
    with strategy_scope(whole):
        changed = sum(
            _copy_rates(layer, whole.get_layer(layer.name)) for layer in _layers(wanted, whole)
        )
    whole.config.update(config)
    for traced in forget_traces(whole):
        traced.make_train_function()  # immediately, because a fit may be running
    what = "" if kind == "all" else f" of the kind {kind!r}"
    say(f"{changed} dropout rates{what} changed to {dropout:g}.")


def _changed_config(config: dict, dropout: float, kind: str) -> dict[str, Any]:
    """Returns the keys of a config that change, with their new values."""
    family = FAMILIES[config["model_type"]]
    changed = dict.fromkeys(_keys(family, kind), dropout)
    for name, family_of in family.towers.items():
        keys = _keys(family_of(config[name]), kind)
        if keys:
            changed[name] = config[name] | dict.fromkeys(keys, dropout)
    if not changed:
        families = [family, *(of(config[name]) for name, of in family.towers.items())]
        known = [key for each in families for key in _keys(each, "all")]
        raise ArgumentError(
            f"The family {family.model_type} has no dropout rate"
            + ("" if kind == "all" else f" of the kind {kind!r}")
            + (f"; it has {', '.join(known)}." if known else ".")
        )
    return changed


def _keys(family: Family, kind: str) -> list[str]:
    keys = [key for key in family.dropout_keys if _DEPTH not in key]
    return [key for key in keys if kind in ("all", _kind_of(key))]


def _kind_of(key: str) -> str:
    """Returns the kind of a rate from its name in Hugging Face configs."""
    if "attention" in key or key.startswith("attn"):
        return "attention"
    return "head" if key.startswith(("classifier", "cls", "pooler")) else "hidden"


def _same_model(model: FineTuneModel, config: dict) -> keras.Model:
    """Builds a model without weights for a changed config of another model."""
    config = {**model.config, **config}
    family, task, processor = FAMILIES[config["model_type"]], model.task, None
    if task.preprocessor != "tokenizer":
        processor = model.image_processor
    head = family.head(task.name, config)
    pooling, modules = model.info.pooling, Modules()
    return build_model(
        keras.Model, family, task, head, config, pooling, "float32", processor, modules
    )


def _layers(wanted: keras.Model, model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields the layers of a model that the other one has as well."""
    names = {layer.name for layer in model.layers}
    return (layer for layer in wanted.layers if layer.name in names)


def _copy_rates(wanted: Any, layer: Any) -> int:
    """Copies the dropout rates of a layer, and of the layers inside, to one of the same structure.

    Attributes that only one of the two has, such as adapters, are left alone.

    Returns:
        How many rates have changed.
    """
    if isinstance(wanted, keras.layers.Dropout):
        return 0 if wanted.name == _DEPTH else _set_rate(layer, wanted.rate)
    rates = {k: v for k, v in getattr(wanted, "_config", {}).items() if "dropout" in k}
    getattr(layer, "_config", {}).update(rates)  # which `.keras` files store
    changed = 0
    for name, part in vars(wanted).items():
        own = getattr(layer, name, None)
        if name.startswith("_") or own is None:
            continue
        if isinstance(part, keras.layers.Layer):
            changed += _copy_rates(part, own)
        elif isinstance(part, list | tuple):
            pairs = zip(part, own, strict=False)
            changed += sum(_copy_rates(a, b) for a, b in pairs if isinstance(a, keras.layers.Layer))
    return changed


def _set_rate(dropout: keras.layers.Dropout, rate: float) -> int:
    if dropout.rate == rate:
        return 0
    if rate and getattr(dropout, "seed_generator", None) is None:
        give_seed_generator(dropout)  # Keras makes none for the rate 0
    dropout.rate = rate
    return 1
