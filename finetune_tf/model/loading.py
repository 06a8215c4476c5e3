"""`load`: creates a Keras model from a checkpoint and a task."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import keras

from finetune_tf.architectures import PixelNormalization
from finetune_tf.architectures.frames import Temporal
from finetune_tf.base.arguments import check, shown
from finetune_tf.base.labels import Labels
from finetune_tf.base.spelling import names_checked
from finetune_tf.checkpoints import Checkpoint, open_checkpoint
from finetune_tf.checkpoints.layouts import Modules
from finetune_tf.checkpoints.own_tokenizer import (
    check_tokenizer,
    require_tokenizer,
    with_tokens_of,
)
from finetune_tf.errors import ArgumentError, CheckpointError, ModelError
from finetune_tf.families import Family, Head
from finetune_tf.generation.generation_config import older_settings
from finetune_tf.images import ImageProcessor
from finetune_tf.messages import say
from finetune_tf.model import saving
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.model.labels_of_load import checked_prompts, choose_labels
from finetune_tf.model.model_info import ModelInfo
from finetune_tf.tasks import TASKS, Task, get_task
from finetune_tf.tasks.decisions import forget_decisions
from finetune_tf.tasks.task_inference import TaskChoice, choose_task, is_class_of_other_task
from finetune_tf.tasks.text_vectors import require_complete_rows
from finetune_tf.training.devices import compute_float32_in_full, device_line, policy_of
from finetune_tf.training.untrained import initial_weights
from finetune_tf.weights.deferred import require_memory, shapes_only
from finetune_tf.weights.matching import LoadReport, fill, match
from finetune_tf.weights.table import Weight
from finetune_tf.weights.tensors import FLOATS

# The key of a config for the tokens of a row, where a task does not use as many as fit.
_WINDOW_LENGTH = "window_length"


@names_checked
def load(
    checkpoint: str | Path | Mapping[str, Any],
    task: str | None = None,
    *,
    labels: Labels | Iterable[str] | Mapping[Any, str] | int | None = None,
    problem_type: str | None = None,
    pooling: Literal["auto", "pooler", "cls", "mean"] = "auto",
    dropout: float | None = None,
    dtype: Any = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
    new_head: bool = False,
    gradient_checkpointing: bool = False,
    tokenizer: Any = None,
    max_length: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    prompts: str | Iterable[str] | None = None,
    frames: int | None = None,
    temporal: Temporal | None = None,
    model_class: type[FineTuneModel] = FineTuneModel,
) -> FineTuneModel:
    """Loads a Hugging Face checkpoint as a Keras model for a task.

    Prints which variables were filled from the checkpoint, which ones are new, and which tensors
    were not used. A trained head is loaded if it fits the labels.

    Args:
        checkpoint: A folder; a Hub id such as "bert-base-uncased"; a file with weights, which
            requires `config` if there is no config.json next to it; or the content of a
            config.json, for a model with random weights, which also needs a `tokenizer`.
        task: Name of a Hugging Face pipeline; see `finetune_tf.tasks.TASKS`. By default, the task
            that the checkpoint was trained for, which is printed with the reason. For a pretrained
            checkpoint, the default is text classification with a new head.
        labels: The names of the outputs in order (such as `train.labels`), a dict from index to
            name as `id2label` of a config, or the number of labels; by default those of the
            checkpoint. A single label means regression.
        problem_type: "single_label_classification", "multi_label_classification" or "regression";
            by default as defined by the labels or the checkpoint.
        pooling: For tasks on whole texts, how a text becomes one vector: "pooler" is that of the
            model family, "cls" the first token, "mean" the average over the tokens, and "auto"
            that of the checkpoint.
        dropout: Replaces all dropout rates of the config, also that of stochastic depth
            (`drop_path_rate`), which `set_dropout` leaves as it is.
        dtype: A Keras dtype policy ("float32", "mixed_bfloat16"), or "auto": mixed_bfloat16 on
            hardware with native support for it, otherwise float32. By default, the global policy.
            Logits are always float32. Loading a float32 model disables TensorFloat-32 in this
            process, because PyTorch does not use it either.
        revision: Branch, tag or commit on the Hub.
        cache_dir: Folder for downloads; by default that of huggingface_hub.
        config: Keys that replace those of config.json.
        new_head: Whether to replace a trained head instead of loading it.
        gradient_checkpointing: Whether to rematerialize the activations inside of blocks in the
            backward pass (Chen et al. 2016): a step takes about a third longer, with far less
            memory.
        tokenizer: A fast tokenizer of transformers that replaces that of the checkpoint. For a
            model from a config, it sets `vocab_size` and the ids of special tokens, unless the
            config has them. It is saved with the model.
        max_length: The number of tokens to which texts are truncated, special tokens included: in
            batches, `evaluate`, `predict`, and by the tokenizer that is saved. By default that of
            the checkpoint. Question answering divides contexts into windows of this length, by
            default of 384 tokens; config.json records it as `window_length`.
        image_size: For image models, the size to which images are prepared instead of that of the
            checkpoint: a number of pixels, or (height, width). Learned positions are interpolated.
        prompts: For zero-shot classification, the text that describes a label, with "{}" in the
            place of the label, or several, whose vectors are averaged; by default that of the
            checkpoint or "This is a photo of {}.".
        frames: For video classification, the number of frames that the model reads of a clip; by
            default that of the checkpoint, or 9 for a checkpoint that was trained on images.
        temporal: For video classification with a checkpoint of images, how the features of frames
            are combined; see `architectures.frames.TemporalHead`. By default "convolution".
        model_class: The class of the model, a subclass of FineTuneModel.

    Returns:
        The model, not compiled.

    Raises:
        ArgumentError: If a number is out of range, or the family has no rate for `dropout`.
        CheckpointError: If the checkpoint cannot be found or downloaded, is damaged or
            unsupported, has a trained head for other labels, does not specify its task, or has
            fewer tokens than `tokenizer`.
        DataTypeError: If `tokenizer` is no fast tokenizer.
        ModelError: If the task or the dtype policy is unknown, or the model does not accept
            `max_length`.

    Example:
        >>> model = ft.load(checkpoint, labels=["negative", "positive"])
        >>> [stage.name for stage in model.stages]
        ['embeddings', 'block_0', 'block_1', 'pooler', 'classifier']
    """
    check(dropout=dropout, max_length=max_length, image_size=image_size, frames=frames)
    if prompts is not None:
        config = {**(config or {}), "prompts": checked_prompts(prompts, task)}
    if task is not None:
        get_task(task)  # raises an error for an unknown task before the download
    policy = policy_of(dtype)
    if dtype == "auto":
        say(device_line(policy.name))
        dtype = policy.name
    if policy.compute_dtype == "float32":
        compute_float32_in_full()
    if tokenizer is not None:
        require_tokenizer(tokenizer)
        if isinstance(checkpoint, Mapping):
            checkpoint = with_tokens_of(tokenizer, checkpoint)
    clips = {"num_frames": frames, "temporal": temporal}
    clips = {key: value for key, value in clips.items() if value is not None}
    if clips:
        config = {**(config or {}), **clips}
    source = open_checkpoint(checkpoint, revision, cache_dir, config)
    if tokenizer is not None:
        check_tokenizer(tokenizer, source.config)
    choice = choose_task(task, source, is_labelled=labels is not None or problem_type is not None)
    task_, task = choice.task, choice.task.name
    if clips:
        _check_clips(clips, task_, source)
    head = source.family.head(task, source.config)
    pooling = _choose_pooling(pooling, task_, source)
    # The tensors of a trained head are those that saving such a model would write.
    rows = task_.layout(pooling).rows(head)
    trained = not new_head and _is_trained(rows, task_, source, pooling)
    labels = choose_labels(labels, problem_type, task_, source, rows if trained else None)
    task_ = get_task(task, labels, source.config)
    complete = _final_config(source, task_, dropout)
    if not trained:
        forget_decisions(complete)  # they are for the head that is replaced
    processor = _choose_processor(source, task_, image_size)
    head = source.family.head(task, complete)

    with shapes_only() as variables:
        model = build_model(
            model_class,
            source.family,
            task_,
            head,
            complete,
            pooling,
            dtype,
            processor,
            source.modules,
        )
    for layer in model.layers:
        if hasattr(layer, "gradient_checkpointing"):
            layer.gradient_checkpointing = gradient_checkpointing
    # Without table rows for the output layer, an unwanted trained head is reported as unused.
    wanted = [row for row in rows if trained or not row.belongs_to(task_.output_layers)]
    table = source.family.weights(complete) + wanted
    matched = match(model.weights, table, source.tensors)
    report = matched.report
    if source.tensors:
        _require_complete(report, source, task_)
    require_memory(variables, str(source.folder))
    fill(variables, matched)
    head_layers = _head_layers(model, report, source, task_)
    model.info = ModelInfo(
        checkpoint=str(source.folder if isinstance(checkpoint, Mapping) else checkpoint),
        tokenizer=str(source.folder),
        task=task,
        labels=labels,
        pooling=pooling,
        config=complete,
        head_layers=head_layers,
        initial_weights=initial_weights(model, report.untrained, head_layers),
        file_dtype=matched.dtype,
        max_length=task_.max_length(source.modules),
        pretrained=report.trained,
        generation=source.generation or _generation_of_config(complete, task_),
        image_processor={} if processor is None else processor.to_config(),
    )
    model._tokenizer_files = source.tokenizer_files
    if tokenizer is not None:
        model.tokenizer = tokenizer
    if max_length is None and task_.usual_length is not None:
        max_length = complete.get(_WINDOW_LENGTH)
    if max_length is not None:
        _truncate(model, max_length)
    say(_summary(model, report, choice))
    return model


def _truncate(model: FineTuneModel, max_length: int) -> None:
    """Sets the number of tokens to which a model truncates texts."""
    check(max_length=max_length)  # that of a config has not been checked
    limit = model._max_positions
    if model.max_length is None:
        raise ModelError("max_length= is for texts, but the model reads images.")
    if limit is not None and max_length > limit:
        raise ModelError(
            f"max_length={max_length} does not fit: the model takes 1 to {limit} tokens."
        )
    require_complete_rows(model, max_length)
    model.info.max_length = max_length
    if model.task.usual_length is not None:  # the length of the tokenizer does not say it
        model.config[_WINDOW_LENGTH] = max_length
    if model.max_length < max_length:  # the tokenizer truncates to less
        model.tokenizer.model_max_length = max_length


def _check_clips(clips: dict[str, Any], task: Task, source: Checkpoint) -> None:
    """Checks that the arguments about clips have a meaning for the model."""
    if not task.reads_clips:
        reading = next(name for name, each in TASKS.items() if each.reads_clips)
        raise CheckpointError(
            "frames= and temporal= are for models of videos, but the task is "
            f"{task.name}: load(checkpoint, {reading!r}, …)."
        )
    if "temporal" in clips and "temporal" not in source.family.own_keys:
        raise CheckpointError(
            "temporal= combines the frames of a model of images, but "
            f"{source.family.model_type} models read complete clips: leave it out."
        )


def _choose_processor(
    source: Checkpoint, task: Task, image_size: int | tuple[int, int] | None
) -> ImageProcessor | None:
    """Returns what prepares images, for the size that was asked for."""
    processor = None if task.preprocessor == "tokenizer" else source.image_processor
    if image_size is None:
        return processor
    if processor is None:
        raise CheckpointError(
            f"image_size= is for image models, but {source.family.model_type} models read texts."
        )
    return processor.resized(image_size)


def _generation_of_config(config: dict, task: Task) -> dict[str, Any]:
    """Returns the settings of generation that a config has in place of generation_config.json.

    They are saved in that file, since transformers 5 does not find them in config.json: without the
    token that the decoder starts with, it cannot generate.
    """
    settings = older_settings(config) if task.generates_text else {}
    return {key: value for key, value in settings.items() if value is not None}


def build_model(
    model_class: type[keras.Model],
    family: Family,
    task: Task,
    head: Head,
    config: dict,
    pooling: str | None,
    dtype: Any,
    processor: ImageProcessor | None,
    modules: Modules,
) -> keras.Model:
    """Builds a Functional model of the backbone and the head."""
    inputs = {}
    if processor is not None:
        inputs["pixels"] = PixelNormalization(**processor.normalization, dtype=dtype, name="pixels")
    backbone = (head.backbone or family.backbone)(config, dtype, **inputs)
    outputs = task.outputs(backbone, head, config, pooling, dtype, modules)
    return model_class(inputs=backbone.inputs, outputs=outputs, name=family.model_type)


def _choose_pooling(asked: str, task: Task, source: Checkpoint) -> str | None:
    known = ("auto", *task.poolings)
    if asked not in known:
        raise CheckpointError(
            f"The pooling for {task.name} must be one of {', '.join(known)}, found {asked!r}."
        )
    if not task.poolings:
        return None
    if source.family.towers:  # a tower has a pooling of its own
        if asked not in ("auto", "pooler"):
            raise CheckpointError(
                f"{source.family.model_type} models have one pooling, that of their towers, found "
                f"pooling={asked!r}."
            )
        return "pooler"
    trained_with = source.modules.pooling
    chosen = trained_with or task.poolings[0] if asked == "auto" else asked
    if chosen not in task.poolings:
        raise CheckpointError(
            f"{source.folder} was trained with the pooling {chosen!r}, which is not supported. "
            f"Choose another one: load(…, pooling=…) with one of {', '.join(task.poolings)}."
        )
    return chosen


def _is_trained(rows: list[Weight], task: Task, source: Checkpoint, pooling: str | None) -> bool:
    """Returns whether the checkpoint has an output layer for this task and pooling."""
    output = [row for row in rows if row.belongs_to(task.output_layers)]
    if not any(row.is_in(source.tensors) for row in output):
        return False
    if not task.has_labels:
        return True
    in_dense = any(row.is_in(source.modules.dense) for row in output)
    if in_dense and source.modules.activation != "Identity":
        raise CheckpointError(
            f"{source.folder} has a Dense module that ends in the activation "
            f"{source.modules.activation!r}; a head that returns logits needs Identity. Replace "
            "the head with load(…, new_head=True)."
        )
    has_same_pooling = not task.poolings or pooling == (source.modules.pooling or "pooler")
    return has_same_pooling and not is_class_of_other_task(source, task)


def _final_config(source: Checkpoint, task: Task, dropout: float | None) -> dict:
    """Returns the config with the changes of the task and the user, as it will be saved."""
    config = source.family.for_task(task.name, source.config) | task.config_keys()
    if dropout is None:
        return config
    towers = {key: family_of(config[key]) for key, family_of in source.family.towers.items()}
    if dropout and not any(each.dropout_keys for each in (source.family, *towers.values())):
        raise ArgumentError(
            f"dropout={dropout:g} would have no effect: the family {source.family.model_type} has "
            "no dropout rate. Leave it out."
        )
    config |= dict.fromkeys(source.family.dropout_keys, dropout)
    for key, family in towers.items():
        config[key] = config[key] | dict.fromkeys(family.dropout_keys, dropout)
    return config


def _head_layers(
    model: keras.Model, report: LoadReport, source: Checkpoint, task: Task
) -> tuple[str, ...]:
    """Returns the output layers, and a pooler or transform that is new or untrained."""
    head = set(task.output_layers)
    for name in ("pooler", "transform"):
        if any(path.startswith(f"{name}/") for path in report.untrained):
            head.add(name)
    if source.modules.pooling not in (None, "pooler"):
        head.add("pooler")
    return tuple(layer.name for layer in model.layers if layer.name in head)


def _require_complete(report: LoadReport, source: Checkpoint, task: Task) -> None:
    """Raises an error for missing tensors; only a complete head may be new."""
    optional = {*task.output_layers, "pooler", "transform"}
    filled = {path.split("/")[0] for path in report.filled}
    trained = not filled.isdisjoint(task.output_layers)
    if trained:
        filled |= optional
    layers = {path: path.split("/")[0] for path in report.new}
    missing = [path for path, layer in layers.items() if layer in filled or layer not in optional]
    if not missing:
        return
    found, note = list(report.unused), ""
    if quantized := [name for name in found if source.tensors[name].dtype not in FLOATS]:
        found = quantized
        note = f" with dtype {source.tensors[found[0]].dtype}, as in quantized checkpoints"
    replaceable = trained and optional.issuperset(layers[path] for path in missing)
    replace = ", or replace the head with load(…, new_head=True)" if replaceable else ""
    raise CheckpointError(
        f"{source.folder} lacks {len(missing)} tensors that its config requires, for example the "
        f"one for {missing[0]}; found but unused: {shown(found[:3], 300) if found else 'nothing'}"
        f"{note}. These variables would be random: get the complete checkpoint, or check "
        f"config.json{replace}."
    )


def _summary(model: FineTuneModel, report: LoadReport, choice: TaskChoice) -> str:
    pooling = model.info.pooling
    how = "the family's own pooler" if pooling == "pooler" else f"{pooling} pooling"
    if temporal := model.config.get("temporal"):
        how = f"{model.config['num_frames']} frames of a clip, combined by {temporal!r}"
    saves = f"saves for {saving.opens_in(model)}{saving.in_dtype(model.info.file_dtype)}"
    parts = [str(report), *([how] if pooling else []), saves]
    parts += [str(choice)] if str(choice) else []
    return f"Loaded {model.info.checkpoint}: {'; '.join(parts)}."
