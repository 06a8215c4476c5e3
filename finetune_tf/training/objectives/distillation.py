"""Distillation: a student learns what a teacher computes (Hinton et al. 2015)."""

from collections.abc import Mapping
from typing import Any, Literal

import keras
from keras import ops

from finetune_tf.base.arguments import check
from finetune_tf.base.keras_internals import inputs_struct
from finetune_tf.errors import ModelError
from finetune_tf.graph.digests import digest_of_weights
from finetune_tf.graph.stages import require_task
from finetune_tf.graph.taps import Taps, tapping
from finetune_tf.messages import warn
from finetune_tf.tasks.feature import MASKS, POSITIONS
from finetune_tf.training.objectives.divergences import divergence
from finetune_tf.training.objectives.objective import Objective, Step
from finetune_tf.training.objectives.teachers import check_teacher, hidden_pairs
from finetune_tf.training.untrained import untrained_layers


@keras.saving.register_keras_serializable("finetune_tf")
class Distillation(Objective):
    """Trains a student on what a teacher computes for the same batches.

    Training minimizes (1 − alpha) · plain loss + alpha · T² · KL(teacher ‖ student), where logits
    are divided by the temperature T ("Distilling the Knowledge in a Neural Network", Hinton et al.
    2015), plus `hidden_weight` times the mean squared difference of hidden states. For regressions
    and embeddings, the mean squared difference of the outputs takes the place of the divergence.

    The teacher computes without dropout in each step and does not change. It has the labels, the
    vocabulary and the kind of inputs of the student. It is not part of `.keras` files: training of
    a model that was loaded from one has to be compiled again.

    Hidden states are compared in the sizes that they have, because a projection between two sizes
    would belong to neither checkpoint. `ft.keep_blocks` makes students of the size of the teacher.

    Args:
        teacher: A model from `ft.load` that was fine-tuned.
        temperature: T; at higher temperatures, differences between improbable classes count more.
        alpha: The share of the teacher's outputs, from 0 to 1.
        hidden: Which hidden states are compared: None; "last" for the outputs of the last blocks;
            "all" for that of each block of the student with the block of the teacher in the same
            relative place; or a dict from names of stages of the student to those of the teacher.
        hidden_weight: The factor of the hidden states.

    Example:
        >>> teacher = ft.load(checkpoint, labels=train.labels)
        >>> teacher.compile()
        >>> history = teacher.fit(train.batches(teacher, 5), verbose=0)
        >>> student = ft.keep_blocks(teacher, [1])
        >>> student.compile(objectives=[ft.objectives.Distillation(teacher, hidden="last")])
        >>> history = student.fit(train.batches(student, 5), verbose=0)
    """

    allows_mixtures = False
    may_repeat = True
    joins_devices = True

    def __init__(
        self,
        teacher: keras.Model,
        temperature: float = 2.0,
        alpha: float = 0.5,
        hidden: Mapping[str, str] | Literal["last", "all"] | None = None,
        hidden_weight: float = 1.0,
    ) -> None:
        check(
            **{
                "Distillation.temperature": temperature,
                "Distillation.alpha": alpha,
                "Distillation.hidden_weight": hidden_weight,
            }
        )
        if not (hidden in (None, "last", "all") or isinstance(hidden, Mapping)):
            raise ModelError(
                "hidden= is None, 'last', 'all', or a dict from names of stages of the student to "
                f"those of the teacher, found {hidden!r}."
            )
        self.teacher = None if teacher is None else require_task(teacher)
        self.temperature = float(temperature)
        self.alpha = float(alpha)
        self.hidden = dict(hidden) if isinstance(hidden, Mapping) else hidden
        self.hidden_weight = float(hidden_weight)
        self.share = 1.0 - self.alpha
        self.reads_outputs = self.alpha > 0

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Distillation":
        """Creates the objective for a model from a `.keras` file, without its teacher."""
        return cls(None, **config)

    def check(self, model: Any) -> None:
        """Checks that student and teacher compute the same outputs from the same inputs."""
        if self.teacher is None:
            return
        check_teacher(self, model, self.teacher)
        hidden_pairs(model, self.teacher, self.hidden)
        if layers := untrained_layers(self.teacher):
            warn(
                f"The head of the teacher ({', '.join(layers)}) is not trained, so a student "
                "learns nothing from it. Fine-tune the teacher first."
            )

    def prepare(self, model: Any) -> None:
        """Raises a ModelError if the teacher is missing."""
        if self.teacher is None:
            raise ModelError(
                "Distillation has no teacher: it is not part of .keras files. Compile again with "
                "Distillation(teacher, …); compile(model.optimizer, …) keeps the state of the "
                "optimizer."
            )

    def before(self, step: Step) -> None:
        """Runs the teacher, and reads the hidden states of the student."""
        taps, key = Taps(self.teacher), (self, "student")
        pairs = hidden_pairs(step.model, self.teacher, self.hidden)
        for i, pair in enumerate(pairs):
            taps.read(str(i), pair.teacher)
            step.taps.read(f"{id(self)} {i}", pair.student)
        inputs = step.inputs
        if hasattr(inputs, "keys"):
            known = {*inputs_struct(self.teacher), POSITIONS}
            inputs = {name: value for name, value in inputs.items() if name in known}
        with tapping(taps):
            outputs = self.teacher.call(inputs, training=False)
        states = [ops.stop_gradient(taps.values[str(i)]) for i in range(len(pairs))]
        step.notes[self] = ops.stop_gradient(outputs), states
        step.notes[key] = pairs

    def term(self, step: Step) -> Any:
        """Returns the differences between student and teacher."""
        outputs, states = step.notes[self]
        total = 0.0
        if self.alpha:
            outputs = step.repeated(outputs)
            has_logits = step.kind not in ("number", "vectors")
            temperature = self.temperature if has_logits else 1.0
            values = divergence(outputs, step.outputs, step.kind, temperature)
            total = self.alpha * temperature**2 * step.mean(values)
        pairs = step.notes[(self, "student")]
        for i, (pair, state) in enumerate(zip(pairs, states, strict=True)):
            own = step.taps.values[f"{id(self)} {i}"]
            mask = step.input(MASKS.get(pair.axis, ""))
            values = _squared_difference(own, step.repeated(state), step.repeated(mask))
            total += self.hidden_weight / len(pairs) * step.mean(values)
        return total

    def settings(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, with a hash of the weights of the teacher."""
        weights = None if self.teacher is None else digest_of_weights(self.teacher)
        return {**self.get_config(), "teacher": weights}

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, without the teacher."""
        return {
            "temperature": self.temperature,
            "alpha": self.alpha,
            "hidden": self.hidden,
            "hidden_weight": self.hidden_weight,
        }


def _squared_difference(own: Any, other: Any, mask: Any) -> Any:
    """Returns the mean squared difference of hidden states for each row, without padding.

    Args:
        own: (rows, …, D), of the student; (rows, 1, D) where a last block computes one token only.
        other: The same of the teacher.
        mask: (rows, tokens), or None.
    """
    if (
        len(own.shape) == 3
        and own.shape[1] != other.shape[1]
        and 1 in (own.shape[1], other.shape[1])
    ):
        own, other = own[:, :1], other[:, :1]
    own, other = ops.cast(own, "float32"), ops.cast(other, "float32")
    squares = ops.mean(ops.square(own - other), axis=-1)  # (rows, …)
    if mask is None or len(squares.shape) != 2 or squares.shape[1] == 1:
        return ops.mean(squares, axis=tuple(range(1, len(squares.shape))))
    mask = ops.cast(mask, "float32")
    return ops.sum(squares * mask, axis=1) / ops.maximum(ops.sum(mask, axis=1), 1.0)
