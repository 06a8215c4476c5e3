"""`load`: a checkpoint and a task make a Keras model."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import keras

from finetune_tf.architectures import Pooling
from finetune_tf.checkpoints import Checkpoint, open_checkpoint
from finetune_tf.checkpoints.weights import LoadReport, fill
from finetune_tf.errors import CheckpointError
from finetune_tf.labels import Labels
from finetune_tf.messages import say
from finetune_tf.model import FineTuneModel, ModelInfo
from finetune_tf.saving import opens_in
from finetune_tf.tasks import TextClassification, get_task

POOLINGS = ("auto", "pooler", "cls", "mean")


def load(
    checkpoint: str | Path,
    task: str = "text-classification",
    *,
    labels: Labels | Iterable[str] | int | None = None,
    problem_type: str | None = None,
    pooling: Literal["auto", "pooler", "cls", "mean"] = "auto",
    dropout: float | None = None,
    dtype: Any = None,
    revision: str | None = None,
    new_head: bool = False,
    model_class: type[FineTuneModel] = FineTuneModel,
) -> FineTuneModel:
    """Loads a Hugging Face checkpoint as a Keras model for a task.

    Says in one line what was filled, what is new and what was left unused. A trained head is
    loaded when the labels fit it.

    Args:
        checkpoint: A folder, or a Hub id such as "bert-base-uncased".
        task: Name of a Hugging Face pipeline; see `finetune_tf.tasks.TASKS`.
        labels: Names of the outputs in order (`train.labels` of your data), or how many. By
            default those of the checkpoint. One label means a number (regression).
        problem_type: "single_label_classification", "multi_label_classification" or
            "regression"; by default what the labels or the checkpoint say.
        pooling: How a text becomes one vector. "pooler" is the family's own, "cls" the first
            token, "mean" the average over tokens; "auto" is what the checkpoint was trained
            with.
        dropout: Replaces every dropout rate of the config.
        dtype: A Keras dtype policy ("float32", "mixed_bfloat16"); by default the global one.
            Logits are float32 always.
        revision: Branch, tag or commit on the Hub.
        new_head: Replaces a trained head instead of loading it.
        model_class: A subclass of FineTuneModel to make.

    Returns:
        The model, not compiled.

    Raises:
        CheckpointError: If the checkpoint cannot be had, is damaged or unsupported, or has a
            trained head for other labels.
    """
    task_ = get_task(task)
    source = open_checkpoint(checkpoint, task, revision, new_head)
    pooling = _choose_pooling(pooling, source)
    trained = bool(source.head) and _fits(source, task_, pooling)
    labels = _choose_labels(labels, problem_type, source, trained)
    config = _adapted(source, labels, dropout)

    model = _chain(model_class, source, task_, config, labels, pooling, dtype)
    # Without rows for the head, a trained one that is not wanted is reported as unused.
    table = source.family.weights(config) + (source.family.heads[task] if trained else [])
    tensors = source.tensors | source.head
    report = fill(model.weights, table, tensors, source.family.tensor_prefix)
    model.info = ModelInfo(
        checkpoint=str(checkpoint),
        tokenizer=str(source.folder),
        task=task,
        labels=labels,
        pooling=pooling,
        config=config,
        head_layers=_head_layers(model, report, source),
    )
    _refuse_holes(model, report, source)
    say(_summary(model, report))
    return model


def _chain(
    model_class: type[FineTuneModel],
    source: Checkpoint,
    task: TextClassification,
    config: dict,
    labels: Labels,
    pooling: str,
    dtype: Any,
) -> FineTuneModel:
    """Backbone, pooling and head as one Functional model."""
    backbone = source.family.backbone(config, dtype)
    if pooling == "pooler":
        features = source.family.pooler(config, dtype)(backbone.hidden)
    else:
        layer = Pooling(pooling, dtype=dtype, name="pooling")
        features = layer(backbone.hidden, backbone.attention_mask)
    logits = task.head(features, config, labels)
    return model_class(inputs=backbone.inputs, outputs=logits, name=source.family.model_type)


def _choose_pooling(asked: str, source: Checkpoint) -> str:
    if asked not in POOLINGS:
        raise CheckpointError(f"A pooling is one of {', '.join(POOLINGS)}, found {asked!r}.")
    chosen = (source.pooling or "pooler") if asked == "auto" else asked
    if chosen not in POOLINGS:
        raise CheckpointError(
            f"{source.folder} was trained with the pooling {chosen!r}, which is not supported; "
            "choose one: load(…, pooling='mean'), 'cls' or 'pooler'."
        )
    return chosen


def _fits(source: Checkpoint, task: TextClassification, pooling: str) -> bool:
    """A trained head means the task and the pooling it was trained for."""
    # Heads for tokens or multiple choice have the same tensor names as one for texts.
    classes = source.config.get("architectures") or []
    others = [name for name in classes if "For" in name and not name.endswith(task.class_suffix)]
    return not others and pooling == (source.pooling or "pooler")


def _choose_labels(
    asked: Labels | Iterable[str] | int | None,
    problem_type: str | None,
    source: Checkpoint,
    trained: bool,
) -> Labels:
    stored = _stored_labels(source, problem_type, trained)
    if asked is None:
        return stored
    if not isinstance(asked, Labels):
        if trained and problem_type is None:
            problem_type = source.config.get("problem_type")
        asked = Labels(Labels.of(asked), problem_type)
    if not trained:
        return asked
    generic = Labels.of(len(stored))
    if len(asked) == len(stored):
        # The rows of a trained head keep their order; only names that say nothing give way.
        if stored == generic or len(stored) == 1:
            return asked
        if asked == generic or set(asked) == set(stored):
            return Labels(stored, asked.problem_type)
    raise CheckpointError(
        f"{source.folder} has a head trained for the labels {list(stored)}, but {list(asked)} "
        "were asked for. Leave labels out to keep that head, or replace it with "
        "load(…, new_head=True)."
    )


def _stored_labels(source: Checkpoint, problem_type: str | None, trained: bool) -> Labels:
    """What the config says; a trained head decides over a config that says nothing."""
    names = source.config.get("id2label") or {}
    problem_type = problem_type or source.config.get("problem_type")
    stored = [names[key] for key in sorted(names, key=int)]
    count = source.head["classifier.weight"].shape[0] if trained else 2
    if not stored or (trained and len(stored) != count):
        stored = Labels.of(count)
    return Labels(stored, problem_type)


def _adapted(source: Checkpoint, labels: Labels, dropout: float | None) -> dict:
    """The config with the user's wishes, as it will be saved."""
    config = source.config | {
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
        "problem_type": labels.problem_type,
    }
    if dropout is not None:
        if not 0 <= dropout < 1:
            raise CheckpointError(f"A dropout rate is from 0 to below 1, found {dropout!r}.")
        config |= dict.fromkeys(source.family.dropout_keys, dropout)
    return config


def _head_layers(model: keras.Model, report: LoadReport, source: Checkpoint) -> tuple[str, ...]:
    """The classifier, and a pooler that the checkpoint did not fill or did not train."""
    head = {"classifier"}
    if source.pooling not in (None, "pooler") or any(p.startswith("pooler/") for p in report.new):
        head.add("pooler")
    return tuple(layer.name for layer in model.layers if layer.name in head)


def _refuse_holes(model: FineTuneModel, report: LoadReport, source: Checkpoint) -> None:
    holes = [path for path in report.new if path.split("/")[0] not in model.info.head_layers]
    if holes:
        raise CheckpointError(
            f"{source.folder} lacks {len(holes)} tensors that its config asks for, the one for "
            f"{holes[0]} among them; found but unused: {list(report.unused[:3]) or 'nothing'}. "
            "Training would start from noise there: get the whole checkpoint, or check "
            "config.json."
        )


def _summary(model: FineTuneModel, report: LoadReport) -> str:
    pooling = model.info.pooling
    how = "the family's own pooler" if pooling == "pooler" else f"{pooling} pooling"
    return f"Loaded {model.info.checkpoint}: {report}; {how}; saves for {opens_in(model)}."
