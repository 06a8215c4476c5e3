"""`fuse`: joins any encoder of images and any encoder of texts to one model."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import keras

from finetune_tf.adapters.attaching import names_of
from finetune_tf.architectures import PixelNormalization
from finetune_tf.base.arguments import check, shown
from finetune_tf.base.labels import Labels
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.families import FAMILIES
from finetune_tf.families.towers import FUSIONS, TOWER_TASKS
from finetune_tf.messages import say
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.model.model_info import ModelInfo
from finetune_tf.tasks import get_task, joint_task
from finetune_tf.training import select, train_only
from finetune_tf.training.untrained import initial_weights

_FAMILY = "vision-text-dual-encoder"
_KINDS = {"image": "images", "text": "texts"}


@names_checked
def fuse(
    image_model: FineTuneModel,
    text_model: FineTuneModel,
    labels: Labels | Iterable[str] | Mapping[Any, str] | int | None = None,
    *,
    how: Literal["concatenation", "gate", "cross_attention"] = "concatenation",
    size: int = 256,
    problem_type: str | None = None,
    model_class: type[FineTuneModel] = FineTuneModel,
) -> FineTuneModel:
    """Joins the encoders of two models to one model that reads images with texts.

    With labels, the model classifies an image with a text (late fusion), and `how` says how both
    are joined. Without labels, it is for retrieval: both are projected to vectors of the same size,
    which a contrastive loss brings together for images and texts that match.

    Both encoders are frozen, so that `ft.cache_features` computes their outputs once. Any stage can
    be made trainable, such as the last block of texts: `ft.train_only(model, ft.select.head() |
    ft.select.blocks(-1, chain="text"))`. The weights are copied, and the two models remain as they
    are.

    Args:
        image_model: A model of images from `load`, of any task.
        text_model: A model of texts from `load`, of any task for which texts are encoded.
        labels: The names of the classes, as for `load`; None for retrieval.
        how: "concatenation" of both vectors below a Dense layer; "gate" (Arevalo et al. 2017),
            which decides for each feature how much of either is used; or "cross_attention", in
            which the tokens of the text attend to the regions of the image (Lu et al. 2019).
        size: Number of features of the layers above the encoders.
        problem_type: As for `load`.
        model_class: As for `load`.

    Returns:
        A model for "image-text-classification" or "image-text-retrieval", not compiled.

    Raises:
        ArgumentError: If `how` is unknown, or `size` is below 1.
        ModelError: If a model is not from `load`, or does not read images or texts.

    Example:
        >>> images = ft.load(image_checkpoint, "image-feature-extraction")
        >>> texts = ft.load(checkpoint, "feature-extraction")
        >>> model = ft.fuse(images, texts, labels=["yes", "no"])
        >>> [stage.name for stage in model.stages if stage.role == "head"]
        ['fusion', 'classifier']
    """
    check(size=size)
    if how not in FUSIONS:
        raise ArgumentError(f"how= is one of {', '.join(FUSIONS)}, found {shown(how)}.")
    models = {"image": image_model, "text": text_model}
    for name, model in models.items():
        _require_tower(model, name)
    name = joint_task(has_labels=labels is not None)
    if labels is not None and not isinstance(labels, Labels):
        labels = Labels(Labels.of(labels), problem_type)
    family = FAMILIES[_FAMILY]
    config = family.complete(
        {
            "model_type": _FAMILY,
            "vision_config": dict(image_model.config),
            "text_config": dict(text_model.config),
            "text_pooling": _pooling_of(text_model),
            "projection_dim": size,
            "fusion": None if labels is None else how,
            "fusion_size": size,
        }
    )
    config = {"model_type": _FAMILY, **config}
    task = get_task(name, labels, config)
    config |= task.config_keys()
    head = family.head(name, config)
    processor = image_model.image_processor
    dtype = image_model.stages[0].layers[0].dtype_policy
    pixels = PixelNormalization(**processor.normalization, dtype=dtype, name="pixels")
    backbone = family.backbone(config, dtype, pixels=pixels)
    outputs = task.outputs(backbone, head, config, None, dtype, None)
    model = model_class(inputs=backbone.inputs, outputs=outputs, name=_FAMILY)
    copied = _copy_weights(models, model)
    new = [variable.path for variable in model.weights if variable.path not in copied]
    head_layers = tuple(layer.name for layer in model.layers if layer.name in task.output_layers)
    model.info = ModelInfo(
        checkpoint=f"{image_model.info.checkpoint} and {text_model.info.checkpoint}",
        tokenizer=text_model.info.tokenizer,
        task=name,
        labels=labels,
        pooling=None,
        config=config,
        head_layers=head_layers,
        initial_weights=initial_weights(model, new, head_layers),
        file_dtype=image_model.info.file_dtype,
        max_length=text_model.max_length,
        pretrained=_pretrained(models, copied),
        image_processor=processor.to_config(),
    )
    model.tokenizer = text_model.tokenizer
    say(
        f"Joined {image_model.info.checkpoint} and {text_model.info.checkpoint} for {name}: "
        f"{len(copied)} variables copied, new: {', '.join(head_layers)}."
    )
    train_only(model, select.head())
    return model


def _require_tower(model: Any, name: str) -> None:
    """Checks that a model from `load` reads images, or texts, and nothing else."""
    if not isinstance(model, FineTuneModel):
        raise ModelError(
            f"fuse joins two models from ft.load, one of images and one of texts; found "
            f"{shown(model)} for the one of {_KINDS[name]}."
        )
    if names_of(model):
        raise ModelError(
            f"The {name}_model has adapters, which fuse would lose. Write them into its kernels "
            "first: ft.adapters.merge(model), and ft.adapters.remove(model, name)."
        )
    family = FAMILIES[model.config["model_type"]]
    task = TOWER_TASKS[name]
    if family.towers:
        raise ModelError(
            f"fuse needs an encoder of {_KINDS[name]} that is a model of its own, such as ViT or "
            f"BERT, found a {family.model_type} model, which has two encoders. Use both of them "
            f'with ft.load(checkpoint, "{joint_task(has_labels=True)}", labels=…).'
        )
    reads = {"image": model.reads_images, "text": model.reads_texts}
    others = [other for other, is_read in reads.items() if is_read and other != name]
    if not reads[name] or others or task not in family.heads(model.config):
        raise ModelError(
            f"fuse needs an encoder of {_KINDS[name]} as its {name}_model, found a model of "
            f"{family.model_type} for {model.task.name}. Load one for {task}."
        )


def _pooling_of(model: FineTuneModel) -> str:
    """The pooling of the texts: that of the model, or the average of the tokens."""
    head = FAMILIES[model.config["model_type"]].head(TOWER_TASKS["text"], model.config)
    pooling = model.info.pooling or "mean"
    return "mean" if pooling == "pooler" and head.transform is None else pooling


def _pretrained(models: Mapping[str, FineTuneModel], copied: list[str]) -> tuple[str, ...]:
    """The paths of the copied variables that were loaded from a checkpoint, and not made anew."""
    loaded = set()
    for name, each in models.items():
        paths = each.info.pretrained
        if paths is None:  # not recorded
            paths = [variable.path for variable in each.weights]
        loaded |= {f"{name}_{path}" for path in paths}
    return tuple(path for path in copied if path in loaded)


def _copy_weights(models: Mapping[str, FineTuneModel], model: keras.Model) -> list[str]:
    """Copies the weights of two models to the towers of another one, and returns their paths."""
    values = {
        f"{name}_{variable.path}": variable
        for name, each in models.items()
        for variable in each.weights
    }
    copied = []
    for variable in model.weights:
        value = values.get(variable.path)
        if value is not None and "seed_generator" not in variable.path:
            variable.assign(value)
            copied.append(variable.path)
    return copied
