"""Grad-CAM (Selvaraju et al. 2017): where the features of a stage speak for a class."""

from typing import Any

import numpy as np

from finetune_tf.architectures.towers import IMAGE
from finetune_tf.base.arguments import shown
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.explanations.subject import Subject
from finetune_tf.graph.stages import Stage
from finetune_tf.graph.taps import output_of_stage


def grad_cam(subject: Subject, stage: str | None = None) -> np.ndarray:
    """Weights the channels of a stage by their mean gradient, and keeps what is positive.

    Args:
        subject: A row with a picture.
        stage: The name of the stage; by default the last one whose outputs are maps.

    Returns:
        (rows, columns) of the maps, all >= 0.

    Raises:
        ModelError: If the model reads texts, or no stage has maps as its output.
        ArgumentError: If the stage is none of those.
    """
    tensor = _map_of(subject.cut.model, stage)
    (maps,) = subject.cut.read(subject.inputs, [tensor])  # (1, rows, columns, channels)
    _, (gradients,) = subject.cut.gradients(subject.inputs, [maps], subject.aim.index, [tensor])
    weights = gradients[0].mean(axis=(0, 1), dtype="float64")
    return np.maximum((maps[0] * weights).sum(axis=-1), 0.0)


def _map_of(model: Any, name: str | None) -> Any:
    maps = {stage.name: output_of_stage(model, stage) for stage in _stages_with_maps(model)}
    if not maps:
        reads = "texts" if IMAGE not in model.task.columns else "pictures as patches"
        raise ModelError(
            f"Grad-CAM needs a convolutional network, whose stages compute maps (rows, columns, "
            f"channels) of a picture; {model.name} reads {reads}. Use "
            "method='integrated-gradients'."
        )
    if name is None:
        return list(maps.values())[-1]
    if name not in maps:
        raise ArgumentError(
            f"stage= is a stage whose output is a map: {', '.join(maps)}; found {shown(name)}."
        )
    return maps[name]


def _stages_with_maps(model: Any) -> list[Stage]:
    return [
        stage
        for stage in model.stages
        if stage.role in ("embeddings", "block") and len(output_of_stage(model, stage).shape) == 4
    ]
