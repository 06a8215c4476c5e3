"""Linear heads on the vectors of an encoder, computed without a fit of the model: `fit_head`."""

from typing import Any, Literal

import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples
from finetune_tf.errors import ArgumentError
from finetune_tf.fewshot.encoder import output_layer, vectors_of
from finetune_tf.fewshot.examples import (
    require_classifier,
    require_known,
    require_labels,
    rows_by_label,
)
from finetune_tf.fewshot.linear import Linear, logistic, prototypes
from finetune_tf.messages import say
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.tasks.decisions import forget_after_training

HeadKind = Literal["logistic", "prototypes"]


@names_checked
def fit_head(
    model: FineTuneModel,
    train: Examples,
    validation: Examples | None = None,
    *,
    kind: HeadKind = "logistic",
    C: float | Literal["auto"] = "auto",
    batch_size: int = 64,
    max_length: int | None = None,
    seed: int = 0,
) -> FineTuneModel:
    """Computes the output layer of a classifier from the vectors of a few examples.

    The encoder runs once over the texts and is not changed. Both heads are linear, so the result is
    an ordinary model:

    - "logistic": logistic regression (multinomial; with several labels for a text, one for each
      label). The strength of its regularization is the counterpart of early stopping: it is chosen
      on `validation`, or else by cross-validation on at most 2,000 texts;
    - "prototypes": the class with the nearest mean vector (Snell et al., Prototypical Networks for
      Few-shot Learning, 2017). One example of each class suffices. With several labels for a text,
      a label is predicted if the mean of its texts is nearer than that of all others.

    Args:
        model: A classifier of texts from `load`, whose output layer is changed.
        train: Examples of the labels of the model.
        validation: Examples that choose `C`; not used by prototypes.
        kind: The head.
        C: The inverse strength of regularization of logistic regression, for vectors that are
            scaled to a mean squared length of 1; larger values fit the examples more closely.
            Prototypes have none.
        batch_size: Texts in a batch.
        max_length: Tokens of a text here; by default what the model accepts. Predictions read as
            many as it accepts: load it with `max_length=` if they should read fewer.
        seed: Seed of the cross-validation.

    Returns:
        The model.

    Raises:
        ArgumentError: If `C` is not positive or given for prototypes, or `kind` is unknown.
        DataError: If labels are missing or unknown, or a class has no example.
        ModelError: If the model is not a classifier of texts with a linear head, or the head has an
            adapter.

    Example:
        >>> model = ft.fewshot.fit_head(model, train, kind="prototypes")
        >>> ft.predict(model, "a good film").label in model.labels
        True
    """
    check(
        **{"fit_head.C": C},
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
    )
    check_kind(kind)
    if kind == "prototypes" and C != "auto":
        raise ArgumentError(
            f"C={C!r} is the regularization of logistic regression; prototypes have none. Leave it "
            'out, or choose kind="logistic".'
        )
    require_classifier(model)
    require_labels(train=train, validation=validation)
    rows_by_label(train, model.labels)
    output_layer(model)  # raises errors before the encoder runs
    held_out = None
    if validation is not None:
        require_known(validation, model.labels, "validation")
        vectors = _vectors(model, validation, batch_size, max_length)
        held_out = (vectors, model.task.targets(validation))
    vectors = _vectors(model, train, batch_size, max_length)
    write_head(model, head_of(model, vectors, model.task.targets(train), kind, C, held_out, seed))
    return model


def check_kind(kind: str) -> None:
    """Raises an ArgumentError if there is no such head."""
    if kind not in ("logistic", "prototypes"):
        raise ArgumentError(f"The head must be 'logistic' or 'prototypes', found {kind!r}.")


def head_of(
    model: FineTuneModel,
    vectors: np.ndarray,
    targets: np.ndarray,
    kind: HeadKind = "logistic",
    C: float | Literal["auto"] = "auto",
    held_out: tuple[np.ndarray, np.ndarray] | None = None,
    seed: int = 0,
) -> Linear:
    """Computes a head from vectors; see `fit_head`.

    Args:
        model: The classifier.
        vectors: What its head reads (n, features).
        targets: Class indices (n,), or 0 and 1 (n, labels) for several labels.
        kind: As for `fit_head`.
        C: As for `fit_head`.
        held_out: Vectors and targets of validation examples.
        seed: As for `fit_head`.
    """
    classes = len(model.labels)
    if kind == "prototypes":
        return prototypes(vectors, targets, classes)
    head, chosen = logistic(vectors, targets, classes, C, held_out, seed)
    if C == "auto":
        where = "by the validation examples" if held_out else "by cross-validation"
        say(f"Logistic head: C = {chosen:g}, chosen {where}.")
    return head


def write_head(model: FineTuneModel, head: Linear) -> None:
    """Makes a linear function the output layer of a model."""
    layer = output_layer(model)
    layer.kernel.assign(head.kernel)
    layer.bias.assign(head.bias)
    forget_after_training(model.info)


def _vectors(model: Any, examples: Examples, batch_size: int, max_length: int | None) -> np.ndarray:
    encoded = examples.encoded(model, max_length, targets=False)
    return vectors_of(model, encoded, batch_size, examples.name, passes=1)
