"""The methods that score words and patches: each is a function of a `Subject`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_tf.architectures.towers import IMAGE, TEXT
from finetune_tf.errors import ModelError
from finetune_tf.explanations.grad_cam import grad_cam
from finetune_tf.explanations.rollout import attention_rollout
from finetune_tf.explanations.subject import Subject


@dataclass(frozen=True, eq=False)
class Scores:
    """What a method gives for a row.

    Attributes:
        words: The score of each word (words,); empty for a picture.
        patches: The score of each patch or cell of a picture (rows, columns); None for a text.
        special: The scores of special tokens, and of other positions outside of words and patches;
            None for methods that give them none.
        baseline_score: The explained number of the baseline; None if the method has no baseline.
        completeness_error: By how much the sum of all scores misses the difference between the
            explained numbers of the row and of the baseline, as a share of that difference; None
            for methods whose scores do not add up to it.
    """

    words: np.ndarray
    patches: np.ndarray | None = None
    special: list[float] | None = None
    baseline_score: float | None = None
    completeness_error: float | None = None


def integrated_gradients(subject: Subject, steps: int = 50, **_: Any) -> Scores:
    """Integrated gradients (Sundararajan et al. 2017), by the midpoint rule.

    The gradient is averaged along the straight line from the baseline to the row, and multiplied
    with their difference.
    """
    shares = (np.arange(steps, dtype="float64") + 0.5) / steps

    def values_at(points: np.ndarray) -> list[np.ndarray]:
        return [
            base + shares[points].reshape(-1, *[1] * value.ndim) * (value - base)
            for value, base in zip(subject.values, subject.baseline, strict=True)
        ]

    gradients = subject.mean_gradients(steps, values_at)
    positions = [
        ((value - base) * gradient).sum(axis=-1)
        for value, base, gradient in zip(subject.values, subject.baseline, gradients, strict=True)
    ]
    ends = [
        np.stack([value, base])
        for value, base in zip(subject.values, subject.baseline, strict=True)
    ]
    score, baseline_score = map(float, subject.scores(ends))
    by_unit, special, total = subject.by_unit(positions)
    difference = score - baseline_score
    error = abs(total - difference) / max(abs(difference), np.finfo("float32").tiny)
    return _of_places(subject, by_unit, special, baseline_score, error)


def gradient_times_input(subject: Subject, **_: Any) -> Scores:
    """The gradient at the row itself, multiplied with the values there (Shrikumar et al. 2016)."""
    gradients = subject.mean_gradients(1, lambda _: [value[None] for value in subject.values])
    positions = [
        (value * gradient).sum(axis=-1)
        for value, gradient in zip(subject.values, gradients, strict=True)
    ]
    by_unit, special, _total = subject.by_unit(positions)
    return _of_places(subject, by_unit, special)


def occlusion(subject: Subject, **_: Any) -> Scores:
    """By how much the explained number falls without a word or a patch (Zeiler and Fergus 2014)."""
    total = sum(subject.counts)
    without = subject.scores_without(np.eye(total, dtype=bool))
    falls = subject.score() - without.astype("float64")
    borders = np.cumsum(subject.counts)[:-1]
    return _of_places(subject, np.split(falls, borders), None)


def _of_places(
    subject: Subject,
    by_unit: list[np.ndarray],
    special: list[float] | None,
    baseline_score: float | None = None,
    error: float | None = None,
) -> Scores:
    scores = dict(zip(subject.names, by_unit, strict=True))
    patches = scores[IMAGE].reshape(subject.grid) if IMAGE in scores else None
    words = scores.get(TEXT, np.zeros(0))
    return Scores(words, patches, special, baseline_score, error)


def _by_rollout(subject: Subject, **_: Any) -> Scores:
    of_tokens, grid = attention_rollout(subject)
    if TEXT in subject.names:
        by_unit, special, _ = subject.by_unit([of_tokens])
        return _of_places(subject, by_unit, special)
    if grid is None:
        raise ModelError(
            "The patches of this model cannot be told from its other tokens, so attention rollout "
            "cannot be drawn on the picture. Use method='integrated-gradients'."
        )
    count = grid[0] * grid[1]
    special, patches = of_tokens[:-count], of_tokens[-count:]
    return Scores(np.zeros(0), patches.reshape(grid), special.tolist())


def _by_grad_cam(subject: Subject, stage: str | None = None, **_: Any) -> Scores:
    return Scores(np.zeros(0), grad_cam(subject, stage))


@dataclass(frozen=True)
class Method:
    """A method of `explain`.

    Attributes:
        title: Its name in sentences.
        score: Its function, from a `Subject` and the options of `explain` to `Scores`.
        has_baseline: Whether it replaces words and patches by a baseline.
        options: The options of `explain` that only this and other listed methods have.
        is_signed: Whether scores below 0 speak against the target.
        note: What its scores mean, in a sentence.
    """

    title: str
    score: Callable[..., Scores] | None
    has_baseline: bool = False
    options: tuple[str, ...] = ()
    is_signed: bool = True
    note: str = ""


#: The methods by their names.
METHODS: dict[str, Method] = {
    "integrated-gradients": Method(
        "Integrated gradients",
        integrated_gradients,
        has_baseline=True,
        options=("steps", "baseline", "patch"),
        note="The scores add up to what sets the text or picture apart from the baseline.",
    ),
    "gradient-x-input": Method(
        "Gradient × input",
        gradient_times_input,
        options=("patch",),
        note="The scores are the effect of small changes, and do not add up to anything.",
    ),
    "occlusion": Method(
        "Occlusion",
        occlusion,
        has_baseline=True,
        options=("baseline", "patch"),
        note="A score is by how much the explained number falls without the word or patch.",
    ),
    "attention-rollout": Method(
        "Attention rollout",
        _by_rollout,
        is_signed=False,
        note="The scores say where attention comes from. They know no target, and no sign.",
    ),
    "grad-cam": Method(
        "Grad-CAM",
        _by_grad_cam,
        options=("stage",),
        is_signed=False,
        note="The scores say where features speak for the target.",
    ),
    "nearest": Method(
        "Nearest training examples",
        None,
        options=("examples", "neighbors"),
        note="The examples whose vectors below the head have the largest cosine.",
    ),
}
