"""Temperature scaling: one number that makes the probabilities of a classifier honest."""

from typing import Any

import keras
import numpy as np

from finetune_tf.adapters.attaching import adapters_of
from finetune_tf.architectures import ClassificationHead
from finetune_tf.base.arguments import check
from finetune_tf.base.keras_internals import sync_state
from finetune_tf.base.spelling import names_checked
from finetune_tf.calibration.decided import decisions_of, folds_of, require_rows, subset
from finetune_tf.calibration.results import (
    Calibration,
    Measured,
    format_temperature,
    reliability_bins,
)
from finetune_tf.calibration.scores import (
    HIGHEST,
    LOWEST,
    best_temperature,
    calibration_error,
    confidences,
    difference,
    error_statistics,
    loss_statistics,
    negative_log_likelihood,
)
from finetune_tf.data import Examples
from finetune_tf.errors import DataError, ModelError
from finetune_tf.messages import say
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.tasks.decisions import (
    CALIBRATION,
    LEAST,
    THRESHOLDS,
    Decisions,
    thresholds_of,
)
from finetune_tf.training.untrained import untrained_message

_FEWEST_OF_LABEL = 10


@names_checked
def measure(
    model: FineTuneModel, examples: Examples, *, batch_size: int = 64, seed: int = 0
) -> Measured:
    """Measures how far the probabilities of a model can be trusted.

    Args:
        model: A model from `load` that chooses among labels, for texts, words or images.
        examples: Examples with labels that the model was not trained on.
        batch_size: Rows in a batch.
        seed: The seed of the intervals.

    Returns:
        Negative log-likelihood, expected calibration error and reliability diagram; print it or
        `plot()` it.

    Raises:
        DataTypeError: If `examples` are not `Examples`.
        DataError: If they have no labels.
        ModelError: If the model does not choose among labels, as a regression does not.

    Example:
        >>> measured = ft.calibration.measure(model, test)
        >>> 0 <= measured.ece.low <= measured.ece.value <= 1
        True
    """
    check(batch_size=batch_size, seed=seed)
    decisions = decisions_of(model, examples, batch_size)
    return Measured(
        data=examples.name,
        size=len(confidences(decisions).values),
        nll=negative_log_likelihood(decisions, seed),
        ece=calibration_error(decisions, seed),
        rows=reliability_bins(decisions),
    )


@names_checked
def calibrate(
    model: FineTuneModel,
    validation: Examples,
    *,
    per_label: bool = False,
    batch_size: int = 64,
    seed: int = 0,
) -> Calibration:
    """Divides the logits of a classifier by the temperature that validation examples determine.

    Fine-tuned models are often more certain than they are right. Dividing their logits by one
    number, the temperature, corrects most of this (Guo et al., On Calibration of Modern Neural
    Networks, ICML 2017). The predicted labels stay the same. The division is applied to the kernel
    and the bias of the output layer, so PyTorch and exported models have the same probabilities;
    the config only records it, under "calibration".

    The effect is judged on rows that did not determine the temperature, in five folds. If the
    negative log-likelihood is not lower there, the model is not changed. Calibrate after training
    and before evaluating on the test set; further training invalidates the record, and says so.

    Args:
        model: A trained model from `load`, for texts, words or images, with one label or several
            labels.
        validation: At least 100 examples with labels that the model was not trained on. If early
            stopping or a search chose the model on the same examples, it fits them a little better
            than others, and the temperature will be slightly too low.
        per_label: For several labels: a temperature for each of them instead of one for all.
        batch_size: Rows in a batch.
        seed: The seed of the folds and of the intervals.

    Returns:
        The result with NLL and ECE before and after; print it or `plot()` it.

    Raises:
        DataTypeError: If `validation` is not `Examples`.
        DataError: If there are fewer than 100 rows, no labels, or only one class.
        ModelError: If the model does not choose among labels, its head is untrained or tied to the
            embeddings, or has an adapter.

    Example:
        >>> _ = model.fit(train.batches(model, 4), epochs=2, verbose=0)
        >>> many = ft.data.from_arrays(train.columns["text"] * 30, train.columns["label"] * 30)
        >>> result = ft.calibrate(model, many)
        >>> result.is_applied == ("calibration" in model.config)
        True
    """
    check(batch_size=batch_size, seed=seed)
    dense = _output_layer(model)
    decisions = decisions_of(model, validation, batch_size)
    require_rows(decisions, validation, "A temperature")
    if per_label:
        _require_balanced(model, decisions, validation)
    temperature = _fitted(decisions, per_label)
    after = _held_out(decisions, per_label, seed)
    nll_difference = difference(loss_statistics(after), loss_statistics(decisions), "loss", seed)
    reason = _reason_against(temperature, nll_difference.value)
    named = _named(model, temperature)
    total = _multiplied(model, named)
    result = Calibration(
        data=validation.name,
        size=len(validation),
        temperature=named,
        is_applied=not reason,
        reason=reason,
        nll_before=negative_log_likelihood(decisions, seed),
        nll_after=negative_log_likelihood(after, seed),
        nll_difference=nll_difference,
        ece_before=calibration_error(decisions, seed),
        ece_after=calibration_error(after, seed),
        ece_difference=difference(
            error_statistics(after), error_statistics(decisions), "error", seed
        ),
        rows=reliability_bins(decisions),
        rows_after=reliability_bins(after),
        total=_multiplied(model, 1.0) if reason else total,
    )
    if reason:
        say(f"calibrate did not change the model: {reason}")
        return result
    _divide(model, dense, temperature)
    model.config[CALIBRATION] = {
        "method": "temperature scaling, folded into the output layer",
        "temperature": total,
        "examples": len(validation),
    }
    say(
        f"Calibrated on {len(validation):,} rows of {validation.name}: the output layer was "
        f"divided by the temperature {format_temperature(named)}; NLL on held-out rows "
        f"{result.nll_before.value:.3f} before, {result.nll_after.value:.3f} after."
    )
    return result


def _output_layer(model: Any) -> keras.layers.Layer | None:
    """Returns the Dense layer that computes the logits of a model from `load`.

    Raises:
        ModelError: If there is none that can be changed alone.
    """
    if not isinstance(model, FineTuneModel):
        raise ModelError(f"calibrate needs a model from ft.load, found {type(model).__name__}.")
    task = model.task
    if not task.has_decisions:
        return None  # `decisions_of` explains it
    head = next((layer for layer in model.layers if layer.name == task.output_layers[-1]), None)
    if not isinstance(head, ClassificationHead):
        raise ModelError(
            "calibrate divides the weights of an output layer, but the logits of this model for "
            f"{task.name} are computed from those of other layers. Measure it with "
            "ft.calibration.measure(model, examples)."
        )
    if message := untrained_message(model):
        raise ModelError(f"{message} Train it before calibrating it.")
    if found := adapters_of(head.dense):
        names = ", ".join(repr(each.adapter_name) for each in found)
        raise ModelError(
            f"The output layer has an adapter ({names}), whose part of the logits the temperature "
            "would not reach. Write it into the kernel first: ft.adapters.merge(model), and then "
            f"ft.adapters.remove(model, {found[0].adapter_name!r})."
        )
    if not keras.backend.is_float_dtype(head.dense.kernel.dtype):
        raise ModelError(
            f"The output layer has a kernel of {head.dense.kernel.dtype}, which cannot be divided "
            "by a temperature. Calibrate the model before quantizing it."
        )
    return head.dense


def _require_balanced(model: Any, decisions: Decisions, validation: Examples) -> None:
    if not decisions.is_several:
        raise ModelError(
            "per_label=True is for models of several labels; here the labels share one "
            "distribution, and temperatures of their own would change the predictions."
        )
    positive = decisions.targets.sum(axis=0)
    rarer = np.minimum(positive, len(decisions.targets) - positive)
    rare = [name for name, count in zip(model.labels, rarer, strict=True) if count < 10]
    if rare:
        raise DataError(
            f"A temperature for each label needs at least {_FEWEST_OF_LABEL} examples with the "
            f"label and as many without it, which {', '.join(rare[:10])} in {validation.name} "
            "lacks. Leave per_label out, or add validation examples."
        )


def _fitted(decisions: Decisions, per_label: bool) -> float | np.ndarray:
    if not per_label:
        return best_temperature(decisions)
    columns = range(decisions.logits.shape[1])
    return np.array([best_temperature(_column(decisions, i)) for i in columns])


def _column(decisions: Decisions, i: int) -> Decisions:
    return decisions._replace(
        logits=decisions.logits[:, i : i + 1], targets=decisions.targets[:, i : i + 1]
    )


def _held_out(decisions: Decisions, per_label: bool, seed: int) -> Decisions:
    """Returns the decisions with logits divided by temperatures that other rows determined."""
    logits = decisions.logits.copy()
    for fold in folds_of(decisions, seed):
        logits[fold] /= _fitted(subset(decisions, ~fold), per_label)
    return decisions._replace(logits=logits)


def _reason_against(temperature: float | np.ndarray, change: float) -> str:
    """Returns why a temperature must not be applied; "" if it may be."""
    if np.min(temperature) < 1.01 * LOWEST or np.max(temperature) > 0.99 * HIGHEST:
        return (
            "the loss has no minimum between the temperatures "
            f"{LOWEST} and {HIGHEST:g}. Either all validation examples are predicted correctly, "
            "or the predictions are no better than chance. Use other or more validation examples."
        )
    if change >= 0:
        return (
            f"on held-out rows the NLL is {change:.4f} higher with the temperature than without. "
            "The model is calibrated already, as far as these rows can tell."
        )
    return ""


def _named(model: Any, temperature: float | np.ndarray) -> float | dict[str, float]:
    if np.ndim(temperature) == 0:
        return float(temperature)
    return {name: float(value) for name, value in zip(model.labels, temperature, strict=True)}


def _multiplied(model: Any, named: float | dict[str, float]) -> float | dict[str, float]:
    """Returns the temperature together with those of earlier calibrations."""
    before = model.config.get(CALIBRATION, {}).get("temperature", 1.0)
    if not isinstance(before, dict) and not isinstance(named, dict):
        return before * named
    first, second = (
        each if isinstance(each, dict) else dict.fromkeys(model.labels, each)
        for each in (before, named)
    )
    return {name: first[name] * second[name] for name in model.labels}


def _divide(model: Any, dense: keras.layers.Layer, temperature: float | np.ndarray) -> None:
    # The same decisions as before, at other probabilities.
    thresholds = thresholds_of(model.labels, model.config)
    by_label = np.broadcast_to(temperature, len(model.labels))
    converted = {
        name: _tempered(value, by_label[model.labels.index(name)])
        for name, value in thresholds.items()
    }
    sync_state(model)
    for variable in (dense.kernel, dense.bias):
        if variable is not None:
            values = np.float64(keras.ops.convert_to_numpy(variable))
            variable.assign((values / temperature).astype("float32"))
    if converted:
        model.config[THRESHOLDS] = converted


def _tempered(probability: float, temperature: float) -> float:
    """Returns the probability to which a temperature changes one, above 0 and below 1."""
    log_odds = (np.log(probability) - np.log1p(-probability)) / temperature
    return float(np.clip(np.exp(-np.logaddexp(0.0, -log_odds)), LEAST, 1 - LEAST))
