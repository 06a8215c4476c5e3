"""The complete few-shot recipe in one call: `fit`."""

from pathlib import Path
from typing import Any, Literal

import keras

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.checkpoints import open_checkpoint
from finetune_tf.data import Examples
from finetune_tf.fewshot.body import PairLoss, tune_body
from finetune_tf.fewshot.examples import require_known, require_labels, require_pairs, rows_by_label
from finetune_tf.fewshot.heads import HeadKind, check_kind, fit_head
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.model.loading import load
from finetune_tf.recipe.recipe import say_shared
from finetune_tf.training.freezing import train_only
from finetune_tf.training.selector import Selector


@names_checked
def fit(
    checkpoint: str | Path,
    train: Examples,
    validation: Examples | None = None,
    *,
    head: HeadKind = "logistic",
    loss: PairLoss = "auto",
    policy: Selector | None = None,
    steps: int | Literal["auto"] = "auto",
    batch_size: int = 32,
    learning_rate: float | Literal["auto"] = "auto",
    pooling: Literal["auto", "pooler", "cls", "mean"] = "auto",
    max_length: int | None = None,
    dtype: Any = None,
    seed: int = 0,
) -> FineTuneModel:
    """Makes a classifier of texts from a sentence encoder and a few examples of each class.

    First the encoder learns from pairs: vectors of texts of one class become similar, those of
    other classes do not (`tune_body`). Then the head is computed from the vectors of the examples
    (`fit_head`). This is the method of Tunstall et al., Efficient Few-Shot Learning Without Prompts
    (SetFit, 2022), with all pairs of a batch in one pass.

    Args:
        checkpoint: A folder or a Hub id, best of a sentence encoder.
        train: The examples, with one label or several labels for each text; at least two of each
            class, and about 8 to 64. With more, compare it with fine-tuning: `learning_curve`.
        validation: Examples that end the training of the encoder early and choose the
            regularization of the head; see `tune_body` and `fit_head`. Without them, the training
            has a fixed length and the head is cross-validated.
        head: As `kind` of `fit_head`.
        loss: As for `tune_body`.
        policy: The variables below the head that are trained, such as `ft.select.blocks(-3)`; by
            default all. Frozen lower blocks are computed once for each text.
        steps: As for `tune_body`.
        batch_size: As for `tune_body`.
        learning_rate: As for `tune_body`.
        pooling: As for `ft.load`; "auto" is that of a sentence encoder, or "mean" for a checkpoint
            that does not name one.
        max_length: As for `ft.load`: the number of tokens to which texts are truncated, here and in
            everything that the model reads later, also after saving; by default what it accepts.
        dtype: As for `ft.load`.
        seed: Seed of batches, dropout and folds.

    Returns:
        The model, which predicts, evaluates and saves like any other model from `load`.

    Raises:
        ArgumentError: As for `tune_body` and `fit_head`.
        CheckpointError: As for `ft.load`.
        DataError: If labels are missing or unknown, or a class has fewer than two examples.
        DataTypeError: If `train` is not `Examples`.

    Example:
        >>> model = ft.fewshot.fit(checkpoint, train, steps=3)
        >>> ft.predict(model, "a good film").label in model.labels
        True
    """
    check(
        **{"fit.steps": steps, "fit.batch_size": batch_size},
        learning_rate=learning_rate,
        max_length=max_length,
        seed=seed,
    )
    check_kind(head)
    require_labels(train=train, validation=validation)
    require_pairs(rows_by_label(train, train.labels), train, train.labels)
    if validation is not None:
        require_known(validation, train.labels, "validation")
        say_shared(train, validation)
    keras.utils.set_random_seed(seed)  # of dropout, whose generators a load creates
    model = load_encoder(checkpoint, train, pooling, dtype, max_length)
    if policy is not None:
        train_only(model, policy)
    tune_body(
        model,
        train,
        validation,
        loss=loss,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
    fit_head(model, train, validation, kind=head, seed=seed)
    model.info.record["data"] = f"{train.name} ({len(train):,} texts)"
    return model


def load_encoder(
    checkpoint: str | Path,
    train: Examples,
    pooling: str = "auto",
    dtype: Any = None,
    max_length: int | None = None,
) -> FineTuneModel:
    """Loads an encoder with a new head for the labels of examples; see `fit`."""
    if pooling == "auto":
        pooling = open_checkpoint(checkpoint).modules.pooling or "mean"
    return load(
        checkpoint,
        labels=train.labels,
        pooling=pooling,
        dtype=dtype,
        new_head=True,
        max_length=max_length,
    )
