"""Checks of the teacher of a distillation, and which of its stages belong to those of a student."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import keras

from finetune_tf.architectures import PIXELS
from finetune_tf.base.keras_internals import graph_of, inputs_struct
from finetune_tf.errors import FinetuneError, ModelError
from finetune_tf.graph.pieces import input_followed_by
from finetune_tf.graph.stages import Stage, stages
from finetune_tf.graph.taps import output_of_stage
from finetune_tf.messages import say
from finetune_tf.tasks.feature import MASKS
from finetune_tf.training.objectives.objective import Objective, refuse

_KINDS = ("classes", "several", "number", "vectors")
_AXES = {"input_ids": "tokens", "decoder_input_ids": "target_tokens"}
_AXES |= {mask: axis for axis, mask in MASKS.items()}


@dataclass(frozen=True, eq=False)
class HiddenPair:
    """Two hidden states that are compared.

    Attributes:
        student: The symbolic output of a stage of the student.
        teacher: The symbolic output of a stage of the teacher.
        axis: The axis of tokens along which both run; None if there is none.
    """

    student: keras.KerasTensor
    teacher: keras.KerasTensor
    axis: str | None


def check_teacher(objective: Objective, student: Any, teacher: Any) -> None:
    """Checks that a teacher computes the outputs of a student from the same inputs.

    Raises:
        ModelError: If it does not.
    """
    if teacher is student:
        raise ModelError("The teacher is the student itself. Load the teacher as another model.")
    kind = student.task.output_kind
    if kind not in _KINDS:
        raise refuse(objective, student, "its outputs are compared within a batch only.")
    if hasattr(student, "whole"):
        raise refuse(
            objective,
            student,
            "batches of cached features do not contain what the teacher reads. Train the whole "
            "model.",
        )
    if type(teacher.task) is not type(student.task) or teacher.task.output_kind != kind:
        raise ModelError(
            f"The teacher is for {teacher.task.name} ({teacher.task.output_kind}), but the student "
            f"is for {student.task.name} ({kind})."
        )
    if teacher.labels != student.labels:
        raise ModelError(
            "Teacher and student need the same labels in the same order, found "
            f"{_names(teacher.labels)} and {_names(student.labels)}."
        )
    sizes = [model.outputs[0].shape[-1] for model in (teacher, student)]
    if sizes[0] != sizes[1]:
        raise ModelError(
            f"Teacher and student have outputs of different sizes, {sizes[0]} and {sizes[1]}."
        )
    _check_inputs(student, teacher)


def _check_inputs(student: Any, teacher: Any) -> None:
    own, others = inputs_struct(student), inputs_struct(teacher)
    for name in ("input_ids", "decoder_input_ids", PIXELS):
        if name in others and name not in own:
            raise ModelError(f"The teacher reads {name}, but batches of the student have none.")
    if PIXELS in others and others[PIXELS].shape != own[PIXELS].shape:
        raise ModelError(
            f"The teacher reads images of the shape {others[PIXELS].shape[1:]}, the student of "
            f"{own[PIXELS].shape[1:]}: load one of both with image_size=."
        )
    if missing := [name for name in others if name not in own and "mask" not in name]:
        say(
            f"Distillation: the teacher also reads {', '.join(missing)}, which batches of the "
            "student do not contain, so all are 0."
        )
    if "input_ids" in own and "input_ids" in others:
        _check_vocabulary(student, teacher)


def _check_vocabulary(student: Any, teacher: Any) -> None:
    try:
        own, other = (model.tokenizer.get_vocab() for model in (student, teacher))
    except (AttributeError, FinetuneError):  # a model without a tokenizer
        return
    if own != other:
        raise ModelError(
            "Teacher and student have different vocabularies, so the token ids of the student mean "
            f"other texts to the teacher ({len(own):,} and {len(other):,} tokens). Use a teacher "
            "with the tokenizer of the student."
        )


def hidden_pairs(
    student: Any, teacher: Any, hidden: Mapping[str, str] | Literal["last", "all"] | None
) -> list[HiddenPair]:
    """Returns the hidden states that are compared.

    Args:
        student: The student.
        teacher: The teacher.
        hidden: As for `Distillation`.

    Raises:
        ModelError: If there is no such stage, or two hidden states differ in size.
    """
    if hidden is None:
        return []
    pairs = []
    for own, other in _stage_pairs(stages(student), stages(teacher), hidden):
        tensors = output_of_stage(student, own), output_of_stage(teacher, other)
        sizes = [tensor.shape[-1] for tensor in tensors]
        if sizes[0] != sizes[1] or len(tensors[0].shape) != len(tensors[1].shape):
            raise ModelError(
                f"The hidden states of {own.name} of the student have the shape "
                f"{tensors[0].shape}, those of {other.name} of the teacher {tensors[1].shape}. "
                "Compare stages of the same size, or only the outputs: hidden=None."
            )
        source = input_followed_by(graph_of(student), tensors[0])
        pairs.append(HiddenPair(*tensors, _AXES.get(source)))
    return pairs


def _stage_pairs(
    own: list[Stage], others: list[Stage], hidden: Mapping[str, str] | Literal["last", "all"]
) -> list[tuple[Stage, Stage]]:
    if isinstance(hidden, Mapping):
        return [
            (_named(own, name, "student"), _named(others, other, "teacher"))
            for name, other in hidden.items()
        ]
    own, others = ([s for s in found if s.role == "block"] for found in (own, others))
    if not own or not others:
        raise ModelError("There are no blocks whose hidden states could be compared: hidden=None.")
    if hidden == "last":
        return [(own[-1], others[-1])]
    if len({stage.chain for stage in own}) > 1:
        raise ModelError("The student has several chains of blocks. Name the stages in a dict.")
    step = len(others) / len(own)
    places = [max(round((i + 1) * step) - 1, 0) for i in range(len(own))]
    return [(stage, others[place]) for stage, place in zip(own, places, strict=True)]


def _named(found: list[Stage], name: str, owner: str) -> Stage:
    for stage in found:
        if stage.name == name:
            return stage
    names = ", ".join(stage.name for stage in found)
    raise ModelError(f"The {owner} has no stage {name!r}; its stages are {names}.")


def _names(labels: Any) -> str:
    return "no labels" if labels is None else ", ".join(map(str, labels))
