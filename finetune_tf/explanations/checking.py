"""`check`: how far explanations of a model can be trusted, measured on examples."""

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from finetune_tf.architectures.towers import IMAGE, TEXT
from finetune_tf.base.arguments import check as check_numbers
from finetune_tf.base.arguments import shown
from finetune_tf.base.keras_fits import random_state, set_random_state
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples
from finetune_tf.errors import ArgumentError, DataError, DataTypeError, ModelError
from finetune_tf.evaluation.bootstrap import Difference
from finetune_tf.evaluation.intervals import RESAMPLES, bootstrap
from finetune_tf.evaluation.predict import examples_of, outputs
from finetune_tf.explanations.check_result import ExplanationCheck
from finetune_tf.explanations.cut import Cut
from finetune_tf.explanations.methods import Method, Scores
from finetune_tf.explanations.randomizing import randomized_stages
from finetune_tf.explanations.requirements import (
    STEPS,
    check_baseline,
    check_option,
    check_places,
    method_of,
    require_explainable,
)
from finetune_tf.explanations.subject import Baseline, Subject, place_of, resized, subject_of
from finetune_tf.messages import quiet

_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)


@names_checked
def check(
    model: keras.Model,
    examples: Examples,
    method: str = "integrated-gradients",
    *,
    shares: Sequence[float] = _SHARES,
    orders: int = 5,
    randomized: int = 10,
    steps: int = STEPS,
    baseline: Baseline = "padding",
    patch: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
) -> ExplanationCheck:
    """Measures whether explanations of a model are better than chance, on examples.

    Words (or patches) are replaced by the baseline in the order of their scores, and the
    probability of the prediction should fall faster than in random order; inserted into the
    baseline in that order, it should rise faster (Samek et al. 2017; Petsiuk et al. 2018).
    Explanations should also change when the weights of the model are randomized, from the top
    stage down (Adebayo et al. 2018); the values of each variable are permuted for that, and
    restored.

    Args:
        model: As for `explain`.
        examples: The examples; a few hundred texts give clear intervals. Labels are not read.
        method: A method of `explain` that gives scores.
        shares: The shares of the words that are replaced or inserted.
        orders: Random orders for each example.
        randomized: The first examples for which the weights are randomized; 0 for none.
        steps: As for `explain`.
        baseline: As for `explain`; also what replaces words in the measurement.
        patch: As for `explain`.
        seed: Seed of the random orders, of the permutations, and of the bootstrap.
        batch_size: As for `explain`.

    Returns:
        The result; print it.

    Raises:
        ArgumentError: If an argument is out of range, or has no effect on this method or model.
        ModelError: As for `explain`, or if the model is a regression, which has no probability.
        DataTypeError: If `examples` are something else.

    Example:
        >>> result = ft.explanations.check(model, test, shares=(0.5,), randomized=0)
        >>> result.count == len(test), result.deletion.shape
        (True, (1,))
    """
    check_numbers(
        **{"explain.steps": steps}, patch=patch, orders=orders, randomized=randomized, seed=seed
    )
    check_numbers(batch_size=batch_size)
    if not len(shares):
        raise ArgumentError("shares= needs at least one share of the words, such as shares=(0.5,).")
    for share in shares:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise ArgumentError(f"shares= are numbers above 0 and below 1, found {shown(share)}.")
    chosen = method_of(method)
    if chosen.score is None:
        raise ModelError(f"{chosen.title} give no scores of words, so there is nothing to check.")
    check_option(method, chosen, "steps", steps)  # the others are those of the measurement as well
    check_baseline(baseline)
    require_explainable(model)
    if not isinstance(examples, Examples):
        raise DataTypeError(
            f"examples= must be Examples, found {shown(examples)}. Make them of texts with "
            "ft.data.from_arrays(texts)."
        )
    state = random_state()
    try:
        options = {"steps": steps, "baseline": baseline, "stage": None}
        with quiet():
            trial = _Trial(model, examples, chosen, options, patch, batch_size)
        return trial.measured(tuple(shares), orders, randomized, seed)
    finally:
        set_random_state(state)


class _Trial:
    """The examples of a check, encoded and with what the model predicts for them."""

    def __init__(
        self,
        model: Any,
        examples: Examples,
        method: Method,
        options: dict[str, Any],
        patch: int | None,
        batch_size: int,
    ) -> None:
        self.model, self.method, self.options = model, method, options
        self.given, _ = examples_of(model.task, examples, None, {})
        rows, self.encoded = outputs(model, self.given, batch_size)
        self.aims = model.task.explained(rows, self.encoded, self.given, [None] * len(self.given))
        if self.aims[0].is_number:
            raise ModelError(
                "A regression predicts no probability that could fall, so its explanations cannot "
                "be checked by deletion and insertion."
            )
        self.prepared = (options["baseline"], patch, batch_size)
        self.cut = Cut(model)
        check_places(self.cut.tensors, patch, options["baseline"])

    def subject(self, number: int) -> Subject:
        """The row that is explained for an example."""
        aim = self.aims[number]
        return subject_of(self.cut, self.encoded, self.given, aim, *self.prepared)

    def scores(self, subject: Subject) -> tuple[np.ndarray, Scores]:
        """The scores (units,) of all words and patches, and all that the method gives."""
        found = self.method.score(subject, **self.options)
        return _of_units(subject, found), found

    def measured(
        self, shares: tuple[float, ...], orders: int, randomized: int, seed: int
    ) -> ExplanationCheck:
        """Measures deletion, insertion and randomized stages."""
        random = np.random.default_rng(seed)
        curves, errors, explained = [], [], {}
        for number in range(len(self.aims)):
            subject = self.subject(number)
            if sum(subject.counts) < 2:
                continue
            scores, found = self.scores(subject)
            explained[number] = scores
            curves.append(_curves(subject, scores, shares, orders, random))
            if found.completeness_error is not None:
                errors.append(found.completeness_error)
        if not curves:
            raise DataError(
                f"{self.given.name} has no example with two words or more, so there is no order to "
                "check."
            )
        kept = np.stack(curves)  # (examples, 4 curves, shares)
        deletion, random_deletion, insertion, random_insertion = kept.mean(axis=0)
        unit = "patches" if TEXT not in self.cut.tensors else "words"
        chosen = dict(list(explained.items())[:randomized])
        return ExplanationCheck(
            title=self.method.title,
            name=self.given.name,
            count=len(kept),
            skipped=len(self.aims) - len(kept),
            unit=unit
            if IMAGE not in self.cut.tensors or unit == "patches"
            else "words and patches",
            shares=shares,
            deletion=deletion,
            random_deletion=random_deletion,
            insertion=insertion,
            random_insertion=random_insertion,
            deletion_difference=mean_with_interval("deletion", (kept[:, 1] - kept[:, 0]), seed),
            insertion_difference=mean_with_interval("insertion", (kept[:, 2] - kept[:, 3]), seed),
            completeness_error=float(np.median(errors)) if errors else None,
            randomized=self._randomized(chosen, random),
            randomized_count=len(chosen),
        )

    def _randomized(
        self, explained: dict[int, np.ndarray], random: np.random.Generator
    ) -> dict[str, float]:
        from scipy.stats import rankdata

        found: dict[str, float] = {}
        if not explained:
            return found
        with contextlib.closing(randomized_stages(self.model, random)) as stages:
            for name in stages:
                correlations = []
                for number, scores in explained.items():
                    others, _ = self.scores(self.subject(number))
                    ranks = np.stack([rankdata(scores), rankdata(others)])
                    varies = ranks.std(axis=1).all()
                    correlations.append(np.corrcoef(ranks)[0, 1] if varies else 0.0)
                found[name] = float(np.mean(correlations))
        return found


def mean_with_interval(metric: str, values: np.ndarray, seed: int) -> Difference:
    """The mean of values (examples, …) with a 95 % bootstrap interval over the examples.

    Args:
        metric: What the values are.
        values: Their mean over the other axes is taken first.
        seed: Seed of the resampling.
    """
    of_examples = values.reshape(len(values), -1).mean(axis=1)
    found = bootstrap(of_examples[:, None], lambda means: means[:, 0], seed)
    return Difference(metric, found.value, found.low, found.high, RESAMPLES)


def _curves(
    subject: Subject,
    scores: np.ndarray,
    shares: tuple[float, ...],
    orders: int,
    random: np.random.Generator,
) -> np.ndarray:
    """(4, shares): deletion and its random order, insertion and its random order."""
    count = len(scores)
    sequences = [np.argsort(-scores, kind="stable")]
    sequences += [random.permutation(count) for _ in range(orders)]
    masks = []
    for share in shares:
        first = min(max(round(share * count), 1), count)
        for order in sequences:
            chosen = np.zeros(count, bool)
            chosen[order[:first]] = True
            masks += [chosen, ~chosen]
    masks.append(np.zeros(count, bool))
    found = subject.scores_without(np.stack(masks)).astype("float64")
    *left, before = np.exp(-np.logaddexp(0.0, -found))  # probabilities
    kept = np.reshape(left, (len(shares), len(sequences), 2)) / before
    own, others = kept[:, 0], kept[:, 1:].mean(axis=1)  # (shares, 2)
    return np.stack([own[:, 0], others[:, 0], own[:, 1], others[:, 1]])


def _of_units(subject: Subject, found: Scores) -> np.ndarray:
    parts = {TEXT: found.words}
    if found.patches is not None:
        place = place_of(subject, IMAGE)
        parts[IMAGE] = found.patches
        if found.patches.shape != subject.grid:  # a map of a convolutional network
            pixels = resized(found.patches, subject.units[place].shape)
            sums = np.bincount(subject.units[place].ravel(), pixels.ravel())
            parts[IMAGE] = sums / np.bincount(subject.units[place].ravel())
    return np.concatenate([np.ravel(parts[name]) for name in subject.names])
