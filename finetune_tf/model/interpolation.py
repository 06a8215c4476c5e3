"""Interpolation between the weights of a model before and after fine-tuning.

References:
    Wortsman et al., Robust Fine-Tuning of Zero-Shot Models (WiSE-FT), CVPR 2022, arXiv:2109.01903.
"""

import copy
import json
import math
from itertools import zip_longest
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.adapters.attaching import active_names, adapted_layers
from finetune_tf.base.arguments import check, shown
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ModelError
from finetune_tf.families import FAMILIES
from finetune_tf.messages import say
from finetune_tf.model.carried_tokenizers import TOKENIZERS
from finetune_tf.model.feature_models import FeatureModel
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.tasks.decisions import forget_decisions
from finetune_tf.training.fit_errors import refuse_ruined
from finetune_tf.training.untrained import untrained_layers
from finetune_tf.weights.deferred import initialize, require_memory, shapes_only

# Fine-tuning changes pretrained weights by a few percent, so the cosine of the weights before and
# after it is close to 1. That of two models that were pretrained separately is close to 0.
_LOWEST_COSINE = 0.5
_ADVICE = "Load the model from before fine-tuning, and fine-tune that one."


@names_checked
def interpolate(before: FineTuneModel, after: FineTuneModel, share: float) -> FineTuneModel:
    """Returns a model whose weights lie between those before and after fine-tuning (WiSE-FT).

    Fine-tuning on one kind of data often makes a model worse on other data. A mixture of its
    weights with those before fine-tuning frequently keeps most of what was learned and loses less
    of what was known (Wortsman et al. 2022). It costs nothing at inference.
    `interpolation_curve` measures which share is best.

    The weights are `(1 - share) * before + share * after`, computed in float32. A weight that both
    models share, such as that of a frozen stage, stays exactly as it is. The moving statistics of
    batch normalization are interpolated like all others; states of random numbers are those of
    `after`.

    This is only meaningful if `after` was fine-tuned from `before`, including its head. `before`
    therefore needs a trained head: train it while all other stages are frozen, save the model, and
    continue with all stages. Models without a new head, such as those for zero-shot image
    classification, can be fine-tuned at once.

    Args:
        before: A model from `load`, from before the fine-tuning. It is not changed.
        after: The same model after the fine-tuning. It is not changed.
        share: The share of `after`, from 0 (the outputs of `before`) to 1 (those of `after`).

    Returns:
        A new model with the class, labels, config, tokenizer and frozen variables of `after`, not
        compiled.

    Raises:
        ArgumentError: If `share` is not a number from 0 to 1.
        ModelError: If an argument is not a model from `load`; if both are one model; if task,
            architecture, labels or their order, or dtype policy differ; if a head was never
            trained, unless `share` is 1; or if a weight is NaN or infinite.

    Example:
        >>> _ = model.fit(train.batches(model, 4), verbose=0)
        >>> before = ft.load(model.save_pretrained("before"))
        >>> _ = model.fit(train.batches(model, 4), verbose=0)
        >>> between = ft.interpolate(before, model, 0.5)
        >>> ft.predict(between, "a good film").label in model.labels
        True
    """
    check(share=share)
    require_interpolable(before, after, has_mixtures=share < 1)
    model = copy_of(after)
    if share < 1:
        set_mixture(model, before, after, share)
        model.info.record = _record(before, after, share)
        forget_decisions(model.config)  # they were chosen for the weights of `after`
    return model


def require_interpolable(before: Any, after: Any, has_mixtures: bool = True) -> None:
    """Checks that the weights of two models can be interpolated.

    Prints a message if they have so little in common that neither can be fine-tuned from the other.

    Args:
        before: The argument `before` of `interpolate`.
        after: The argument `after` of `interpolate`.
        has_mixtures: Whether any weights of `before` will be used.

    Raises:
        ModelError: As for `interpolate`.
    """
    for name, model in (("before", before), ("after", after)):
        _require_loaded(name, model)
    if {id(v) for v in before.weights} & {id(v) for v in after.weights}:
        raise ModelError(
            "before and after are one model: a fit changes a model in place. Save it before the "
            "fit with model.save_pretrained('before'), and load it with before = ft.load('before')."
        )
    _require_same_variables(before, after)
    _require_same_labels(before, after)
    _require_same_settings(before, after)
    if not has_mixtures:
        return
    for name, model in (("before", before), ("after", after)):
        if layers := untrained_layers(model):
            raise ModelError(
                f"The head of {name} ({', '.join(layers)}) was never trained. Its weights are "
                "random, and so would be a part of the result. Train the head first while all "
                "other stages are frozen (ft.train_only(model, ft.select.head())), save the model "
                "as the one before fine-tuning, and fine-tune from there. Only share=1, the model "
                "after fine-tuning, does not need the head of before."
            )
        refuse_ruined(model, f"Interpolating with {name}", "is not possible")
    cosine = _cosine(before, after)
    if cosine < _LOWEST_COSINE:
        say(
            f"The weights of before and after have a cosine similarity of only {cosine:.2f}, so "
            "after was most likely not fine-tuned from before. A mixture of unrelated weights is "
            "no useful model."
        )


def copy_of(model: FineTuneModel) -> FineTuneModel:
    """Returns a copy that shares nothing with the model: weights, metadata and tokenizers.

    Raises:
        CheckpointError: If there is too little memory.
    """
    with shapes_only() as created:
        new = type(model).from_config(copy.deepcopy(model.get_config()))
    require_memory(created, "the interpolated model")
    for variable, source in zip(new.variables, model.variables, strict=True):
        initialize(variable, _copied_values(source))
    # The tokenizers of the user, and those whose files may be gone by now.
    for name in TOKENIZERS:
        if (value := getattr(model, name, None)) is not None:
            setattr(new, name, copy.deepcopy(value))
    return new


def set_mixture(
    model: FineTuneModel, before: FineTuneModel, after: FineTuneModel, share: float
) -> None:
    """Replaces the weights of a model by a mixture of those of two others.

    Args:
        model: A copy of `after`.
        before: As for `interpolate`.
        after: As for `interpolate`.
        share: As for `interpolate`.
    """
    for variable, first, last in zip(model.weights, before.weights, after.weights, strict=True):
        if not keras.backend.is_float_dtype(variable.dtype):
            continue
        variable.assign(_mixed(first, last, share) if share < 1 else _copied_values(last))


def _copied_values(variable: keras.Variable) -> np.ndarray:
    """Returns an array of its own: JAX deletes what a model got from another when it runs."""
    return np.array(ops.convert_to_numpy(variable))


def _mixed(first: keras.Variable, last: keras.Variable, share: float) -> Any:
    """Returns (1 - share) * first + share * last, which is `first` where both are equal."""
    dtype = "float64" if first.dtype == "float64" else "float32"
    first, last = (ops.cast(variable.value, dtype) for variable in (first, last))
    return first + ops.cast(share, dtype) * (last - first)


def _require_loaded(name: str, model: Any) -> None:
    if isinstance(model, FeatureModel):
        raise ModelError(
            f"{name} is the upper part of a model, from ft.cache_features. Pass the whole model, "
            "which it trains: learner.whole."
        )
    if not isinstance(model, FineTuneModel):
        raise ModelError(f"{name} must be a model from ft.load, found {shown(model)}.")
    _ = model.task  # raises the error that explains what a clone lacks


def _require_same_variables(before: FineTuneModel, after: FineTuneModel) -> None:
    if type(before.task) is not type(after.task):
        raise ModelError(
            f"before is a model for {before.task.name}, and after for {after.task.name}. {_ADVICE}"
        )
    for first, last in zip_longest(before.weights, after.weights):
        found = [
            "no further variable" if v is None else f"{v.path} {tuple(v.shape)}"
            for v in (first, last)
        ]
        if found[0] != found[1]:
            raise ModelError(
                "before and after have different variables. The first difference: before has "
                f"{found[0]}, after has {found[1]}. Both need the same architecture and the same "
                f"labels. {_ADVICE}"
            )


def _require_same_labels(before: FineTuneModel, after: FineTuneModel) -> None:
    first, last = before.labels, after.labels
    if first == last and getattr(first, "problem_type", "") == getattr(last, "problem_type", ""):
        return
    is_order = first != last and sorted(first) == sorted(last)
    how = "the same labels in another order" if is_order else "different labels"
    raise ModelError(
        f"before and after have {how}: {shown(first, 300)} and {shown(last, 300)}. An output would "
        f"be a mixture of two labels. {_ADVICE} A checkpoint keeps the order of its labels."
    )


def _require_same_settings(before: FineTuneModel, after: FineTuneModel) -> None:
    """Checks what else determines the outputs of given weights."""
    first, last = _settings(before), _settings(after)
    for key in first:
        if first[key] != last.get(key):
            raise ModelError(
                f"before and after compute different functions of their weights: {key} is "
                f"{first[key]} in before, and {last.get(key)} in after. {_ADVICE}"
            )
    weighted = ([layer for layer in model.layers if layer.weights] for model in (before, after))
    for ours, theirs in zip(*weighted, strict=True):
        policies = [layer.dtype_policy.name for layer in (ours, theirs)]
        if policies[0] != policies[1]:
            raise ModelError(
                f"before computes in {policies[0]}, and after in {policies[1]} (the layer "
                f"{ours.name}). Load both with the same dtype=, such as "
                f"ft.load('before', dtype={policies[1]!r})."
            )


def _settings(model: FineTuneModel) -> dict[str, str]:
    """Returns the pooling and all config keys with an effect, except for dropout rates."""
    family = FAMILIES[model.config["model_type"]]
    config = {**family.defaults, **model.config}
    settings = {"model_type": family.model_type, "pooling": model.info.pooling}
    settings |= {key: config.get(key) for key in family.rules if key not in family.dropout_keys}
    settings |= model.task.config_keys()  # such as the prompts of zero-shot classification
    if found := adapted_layers(model):
        settings["settings of adapters"] = {a.adapter_name: a.settings for _, a in found}
        settings["active adapters"] = active_names(model)
    if model.info.image_processor:
        settings["normalization of images"] = model.image_processor.normalization
    # As text, because tuples of a config are lists after it was saved.
    return {key: json.dumps(value, default=str) for key, value in settings.items()}


def _cosine(before: FineTuneModel, after: FineTuneModel) -> float:
    """Returns the cosine similarity of the matrices of two models, all of them as one vector."""
    dot = first_square = last_square = 0.0
    for first, last in zip(before.weights, after.weights, strict=True):
        # Gains of normalizations are close to 1 in any model.
        if len(first.shape) > 1 and keras.backend.is_float_dtype(first.dtype):
            first, last = ops.cast(first.value, "float32"), ops.cast(last.value, "float32")
            dot += float(ops.sum(first * last))
            first_square += float(ops.sum(first * first))
            last_square += float(ops.sum(last * last))
    norms = math.sqrt(first_square * last_square)
    return dot / norms if norms else 1.0


def _record(before: FineTuneModel, after: FineTuneModel, share: float) -> dict:
    """Returns the history of a mixture for its model card; no result of `after` is its own."""
    if share == 0:
        return copy.deepcopy(before.info.record)
    record = copy.deepcopy(after.info.record)
    record.pop("result", None)
    record["weights"] = (
        f"{1 - share:.3g} times those before and {share:.3g} times those after fine-tuning "
        "(WiSE-FT, Wortsman et al. 2022)"
    )
    return record
