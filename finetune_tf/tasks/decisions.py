"""The decisions of a classifier: the logits of each with its target, and what decides.

A classification of texts makes one decision for each row, one of words several. Calibration reads
nothing else of a task. Thresholds are a part of the config of a model, since predictions and
evaluations of this library follow them; what a calibration did is recorded there as well.
"""

import contextlib
from collections.abc import Iterator, Mapping, MutableMapping
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from finetune_tf.base.labels import Labels
from finetune_tf.errors import ModelError
from finetune_tf.messages import say

#: A label of a multi-label problem is predicted if its probability is at least this.
THRESHOLD = 0.5
#: The lowest threshold; the highest one is as far below 1.
LEAST = 1e-12
#: Keys of a config: what `calibrate` did, and a threshold for each of some labels.
CALIBRATION, THRESHOLDS = DECISION_KEYS = ("calibration", "label_thresholds")


class Decisions(NamedTuple):
    """The decisions of a model on examples with targets.

    Attributes:
        logits: (n, labels) in float64.
        targets: The number of the right label (n,); or, for several labels, 0 and 1 (n, labels).
        rows: The index of the example of each decision (n,), ascending.
        is_several: Whether each label is a decision of its own.
    """

    logits: np.ndarray
    targets: np.ndarray
    rows: np.ndarray
    is_several: bool


def thresholds_of(labels: Labels, config: Mapping[str, Any]) -> dict[str, float]:
    """Returns the thresholds of labels in the config of a model; empty if there are none.

    Raises:
        ModelError: If they do not belong to the labels, or are no probabilities, or if the most
            probable label is predicted, as of three labels, so that they would have no effect.

    Example:
        >>> from finetune_tf.tasks.decisions import thresholds_of
        >>> thresholds_of(ft.Labels(["bad", "good"]), {"label_thresholds": {"good": 0.3}})
        {'good': 0.3}
    """
    found = config.get(THRESHOLDS) or {}
    valid = isinstance(found, Mapping) and all(
        name in labels and isinstance(value, Real) and 0 < value < 1
        for name, value in found.items()
    )
    is_several = labels.problem_type == "multi_label_classification"
    is_choice = labels.problem_type == "single_label_classification" and len(labels) == 2
    if found and valid and not (is_several or (is_choice and len(found) == 1)):
        raise ModelError(
            f"The config key {THRESHOLDS!r} is for models of several labels, and for one of the "
            f"labels of a choice between two; found {str(found)[:200]} for a "
            f"{labels.problem_type.replace('_', ' ')} with {len(labels)} labels. Choose it again "
            "with ft.calibration.choose_thresholds(model, validation), or remove the key."
        )
    if not valid:
        raise ModelError(
            f"The config key {THRESHOLDS!r} must name labels of the model, each with a number "
            f"between 0 and 1, found {str(found)[:200]}. Choose them again with "
            "ft.calibration.choose_thresholds(model, validation), or remove the key."
        )
    return {name: float(value) for name, value in found.items()}


def decide(
    scores: np.ndarray, labels: Labels, thresholds: Mapping[str, float] | None = None
) -> np.ndarray:
    """Converts scores to predictions.

    Args:
        scores: (n, num_labels) probabilities, or (n,) numbers for a regression.
        labels: The labels in column order.
        thresholds: The probability from which on a label is predicted: for several labels in place
            of 0.5; for a choice between two labels that of one of them.

    Returns:
        Class indices (n,), or 0 and 1 (n, num_labels) for multi-label, or the numbers (n,).
    """
    thresholds = thresholds or {}
    if labels.problem_type == "single_label_classification":
        if len(labels) == 2 and len(thresholds) == 1:
            ((name, threshold),) = thresholds.items()
            chosen = labels.index(name)
            return np.where(scores[:, chosen] >= threshold, chosen, 1 - chosen)
        return scores.argmax(axis=1)
    if labels.problem_type == "multi_label_classification":
        return (scores >= [thresholds.get(name, THRESHOLD) for name in labels]).astype(int)
    return scores


def forget_decisions(config: MutableMapping[str, Any]) -> list[str]:
    """Removes calibration and thresholds from a config, since they are for other weights.

    Returns:
        What was removed, in words.
    """
    names = {CALIBRATION: "calibration", THRESHOLDS: "thresholds"}
    return [names[key] for key in names if config.pop(key, None) is not None]


def forget_result(info: Any) -> None:
    """Removes the result of an evaluation from the record of a model, whose card would show it.

    Args:
        info: The `ModelInfo` of the model, whose predictions have changed.
    """
    info.record.pop("result", None)


def forget_after_training(info: Any, event: str = "was trained") -> None:
    """Removes what was chosen for, or measured with, other outputs of a model than it has now.

    These are calibration and thresholds, about which it prints a message, and the result of an
    evaluation. Everything that trains a model, computes its head, or gives it other adapters calls
    this.

    Args:
        info: The `ModelInfo` of the model.
        event: What has happened to the model.
    """
    _forget(info, f"The model {event} after its")


@contextlib.contextmanager
def forgetting_after_loading(model: Any) -> Iterator[None]:
    """Does what `forget_after_training` does if the block gives a model other weights."""
    info = getattr(model, "info", None)  # a clone of the graph, and other models, have none
    has_any = info is not None and (
        {CALIBRATION, THRESHOLDS} & info.config.keys() or "result" in info.record
    )
    before = model.get_weights() if has_any else []
    yield
    after = model.get_weights() if before else []
    if not all(map(np.array_equal, before, after)):
        _forget(info, "The loaded weights are not those of the model's")


def _forget(info: Any, why: str) -> None:
    forget_result(info)
    if forgotten := forget_decisions(info.config):
        say(
            f"{why} {' and '.join(forgotten)}, which no longer apply "
            "and are no longer recorded. Repeat ft.calibrate or ft.calibration."
            "choose_thresholds on validation examples."
        )
