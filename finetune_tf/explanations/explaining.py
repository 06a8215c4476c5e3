"""`explain`: why a model gives an output, by scores of the words or patches that it read."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from finetune_tf.architectures.towers import IMAGE
from finetune_tf.base.arguments import check
from finetune_tf.base.keras_fits import random_state, set_random_state
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples
from finetune_tf.errors import ArgumentError, DataError
from finetune_tf.evaluation.predict import columns_of_predict, examples_of, outputs
from finetune_tf.explanations.cut import Cut
from finetune_tf.explanations.explanation import Explanation, Explanations, WordScore
from finetune_tf.explanations.methods import METHODS, Method, Scores
from finetune_tf.explanations.nearest import neighbors_of
from finetune_tf.explanations.requirements import (
    STEPS,
    check_options,
    check_places,
    method_of,
    require_explainable,
)
from finetune_tf.explanations.subject import Baseline, Subject, subject_of
from finetune_tf.messages import say
from finetune_tf.tasks.explained import Aim

LARGE_ERROR = 0.05  # a completeness error that is said aloud


@names_checked(also=columns_of_predict)
def explain(
    model: keras.Model,
    texts: Any = None,
    text_pair: Any = None,
    *,
    method: str = "integrated-gradients",
    target: Any = None,
    steps: int = STEPS,
    baseline: Baseline = "padding",
    patch: int | None = None,
    stage: str | None = None,
    examples: Examples | None = None,
    neighbors: int = 5,
    batch_size: int = 32,
    **columns: Any,
) -> Explanation | Explanations:
    """Explains an output of a model by the words of a text, or by the patches of a picture.

    The number that is explained is the log-odds of the target, log p - log(1 - p), for a regression
    the number itself. A score is the part of it that a word, with all of its tokens, is given; a
    score below 0 speaks against the target. The methods:

    - "integrated-gradients" (Sundararajan et al. 2017): gradients along the line from a baseline to
      the text or picture. The scores add up to the difference between both, except for the
      completeness error, which is reported;
    - "gradient-x-input": the gradient at the text itself. Fast, and noisy;
    - "occlusion" (Zeiler and Fergus 2014): the fall of the number without the word or patch;
    - "attention-rollout" (Abnar and Zuidema 2020): where attention comes from. It knows no target;
    - "grad-cam" (Selvaraju et al. 2017): where the last maps of a convolutional network speak for
      the target;
    - "nearest": the training examples whose vectors below the head are most similar.

    Texts are cut at the output of the embeddings, pictures at their normalized pixels. The model
    does not change, and computes without dropout and in its own precision.

    Args:
        model: A model from `load` for classification of texts, words, images, or images with texts,
            or for question answering.
        texts: What to explain, as for `predict`; or `Examples`.
        text_pair: The second text of each, as for `predict`.
        method: The name of the method.
        target: What to explain instead of the prediction: a label; for labels of words a word, a
            label, or (word, label), where the word may be its number; for answers "start", "end",
            or the text of another answer. A list has one target for each input.
        steps: Points on the line, for integrated gradients.
        baseline: What replaces words, for integrated gradients and occlusion: the embeddings of
            "padding" or of the "mask" token, with special tokens as they are; or "zeros", also for
            special tokens. A patch is replaced by the mean color of the checkpoint's images.
        patch: Pixels along the side of a patch; by default those of the model's own patches, or a
            fourteenth of the picture.
        stage: The stage for Grad-CAM; by default the last one that computes maps.
        examples: The training examples for "nearest".
        neighbors: How many of them to find.
        batch_size: Rows that the model computes at a time.
        **columns: The other columns that the task reads, as for `predict`, such as `question=` and
            `context=`, or `image=`.

    Returns:
        An `Explanation` for a single input; print it, or show it in a notebook. For several inputs
        a list of them.

    Raises:
        ModelError: If there is no such method, or the model cannot be explained, or not by it.
        ArgumentError: If an argument is out of range, not one of the method, or the target is no
            output of the model.
        DataError: If a text is empty, or the inputs do not fit the task.

    Example:
        >>> explanation = ft.explain(model, "a very good film", target="good")
        >>> explanation.target, len(explanation.words), explanation.completeness_error < 0.01
        ('good', 4, True)
    """
    check(**{"explain.steps": steps}, patch=patch, neighbors=neighbors, batch_size=batch_size)
    options = {
        "steps": steps,
        "baseline": baseline,
        "patch": patch,
        "stage": stage,
        "examples": examples,
        "neighbors": neighbors,
    }
    chosen = method_of(method)
    check_options(method, chosen, options)
    require_explainable(model)
    given, is_single = _given(model, texts, text_pair, columns)
    if given is None:
        return Explanations()
    targets = _targets(target, len(given), is_single)
    state = random_state()
    try:
        found = Explanations(_explained(model, given, targets, method, options, batch_size))
    finally:
        set_random_state(state)
    _report(found, steps)
    return found[0] if is_single else found


def _given(model: Any, texts: Any, text_pair: Any, columns: dict) -> tuple[Examples | None, bool]:
    try:
        return examples_of(model.task, texts, text_pair, columns)
    except DataError as error:
        if "predict" not in str(error):
            raise
        raise type(error)(f"explain takes the same inputs as predict. {error}") from None


def _targets(target: Any, count: int, is_single: bool) -> list:
    if not isinstance(target, list) or is_single:
        return [target] * count
    if len(target) != count:
        raise ArgumentError(
            f"A list of targets has one for each input: expected {count}, found {len(target)}."
        )
    return target


def _explained(
    model: Any,
    given: Examples,
    targets: list,
    name: str,
    options: dict[str, Any],
    batch_size: int,
) -> Iterable[Explanation]:
    method = METHODS[name]
    rows, encoded = outputs(model, given, batch_size)
    aims = model.task.explained(rows, encoded, given, targets)
    if method.score is None:
        known = options["examples"].encoded(model, targets=False)
        found = neighbors_of(model, encoded, options["examples"], known, options["neighbors"])
        for i, aim in enumerate(aims):
            yield _without_scores(model, given, i, aim, name, found[aim.row])
        return
    cut = Cut(model)
    check_places(cut.tensors, options["patch"], options["baseline"])
    for i, aim in enumerate(aims):
        subject = subject_of(
            cut, encoded, given, aim, options["baseline"], options["patch"], batch_size
        )
        scores = method.score(subject, **options)
        yield _explanation(subject, given, i, name, scores, options["baseline"])


def _explanation(
    subject: Subject, given: Examples, number: int, name: str, scores: Scores, baseline: str
) -> Explanation:
    method, aim = METHODS[name], subject.aim
    score = subject.score()
    special = None if scores.special is None else float(np.abs(scores.special).sum())
    absolute = float(np.abs(scores.words).sum()) + (special or 0.0)
    if scores.patches is not None:
        absolute += float(np.abs(scores.patches).sum())
    words = tuple(
        WordScore(word.text, float(value), word.column, word.start, word.end)
        for word, value in zip(subject.words, scores.words, strict=False)
    )
    pixels = None
    if scores.patches is not None:
        pixels = np.asarray(subject.inputs["pixel_values"][0])
    replaced = [baseline] * bool(subject.words) + ["mean color"] * (IMAGE in subject.names)
    return Explanation(
        method=name,
        title=method.title,
        target=aim.target,
        prediction=aim.prediction,
        probability=aim.probability,
        target_probability=None if aim.is_number else float(1 / (1 + np.exp(-score))),
        score=score,
        texts=_texts(subject.cut.model, given, number),
        words=words,
        patches=scores.patches,
        patch_size=None if name == "grad-cam" else subject.patch_size,
        pixels=pixels,
        special=None if special is None else float(np.sum(scores.special)),
        special_share=None if special is None else special / (absolute or 1.0),
        baseline=" and ".join(replaced) if method.has_baseline else None,
        baseline_score=scores.baseline_score,
        completeness_error=scores.completeness_error,
        is_signed=method.is_signed,
        precision=_precision(subject.cut.model),
        notes=_notes(subject, method),
    )


def _without_scores(
    model: Any, given: Examples, number: int, aim: Aim, name: str, neighbors: tuple
) -> Explanation:
    return Explanation(
        method=name,
        title=METHODS[name].title,
        target=aim.target,
        prediction=aim.prediction,
        probability=aim.probability,
        target_probability=aim.probability if aim.target == aim.prediction else None,
        score=float("nan"),
        texts=_texts(model, given, number),
        neighbors=neighbors,
        precision=_precision(model),
        notes=(METHODS[name].note,),
    )


def _notes(subject: Subject, method: Method) -> tuple[str, ...]:
    notes = [method.note]
    if subject.is_coarse:
        notes.append(
            f"The model computes in {_precision(subject.cut.model)}, with three significant digits."
        )
    return tuple(notes)


def _precision(model: Any) -> str:
    return model.stages[0].layers[0].dtype_policy.name


def _texts(model: Any, given: Examples, number: int) -> dict[str, str]:
    """The texts of an example by column, lists of words joined."""
    task, texts = model.task, {}
    for name in (*task.columns, "text"):
        if name in given.columns and name != task.target_column:
            value = given.columns[name][number]
            if isinstance(value, str) or (isinstance(value, list | tuple) and value):
                texts[name] = value if isinstance(value, str) else " ".join(value)
    if "image" in texts:
        del texts["image"]
    return texts


def _report(found: Explanations, steps: int) -> None:
    """Prints the completeness errors, and what to do about large ones."""
    errors = [each.completeness_error for each in found if each.completeness_error is not None]
    if not errors:
        return
    largest = max(errors)
    of_all = f", at most {largest:.2%}" if len(errors) > 1 else ""
    advice = ""
    if largest > LARGE_ERROR:
        is_coarse = any("16" in each.precision for each in found)
        advice = (
            " Load the model in float32 for a smaller one."
            if is_coarse
            else f" More steps make it smaller: steps={4 * steps}."
        )
    say(f"Completeness error of integrated gradients: {np.median(errors):.2%}{of_all}.{advice}")
