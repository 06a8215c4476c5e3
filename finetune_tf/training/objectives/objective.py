"""The base class of objectives, and what they see of a training step."""

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import ops

from finetune_tf import kernels
from finetune_tf.base.arguments import shown
from finetune_tf.errors import ModelError
from finetune_tf.graph.taps import Taps
from finetune_tf.tasks import IGNORED, Kind
from finetune_tf.training.similarity_loss import PairSimilarity


@dataclass(eq=False)
class Step:
    """A running training step, as its objectives see it.

    On several devices, each device runs a step on its part of the rows; `mean` and `gathered` join
    what the devices computed.

    Attributes:
        model: The model that is trained.
        inputs: The inputs of the batch, before they are repeated.
        taps: What is read and changed while the model runs.
        copies: How often each row of the batch is repeated: row i of n rows is row i + n as well.
        reads_outputs: Whether an objective reads the outputs.
        seed: The generator of random numbers.
        targets: The targets of all rows, those of other devices included, for the loss.
        outputs: The outputs of all rows of this device, for the loss.
        weights: A weight for each term of the loss, other devices included, or None.
        notes: What an objective remembers from one hook to the next, by its own keys.
    """

    model: Any
    inputs: Any
    taps: Taps
    copies: int = 1
    reads_outputs: bool = False
    seed: keras.random.SeedGenerator | None = None
    targets: Any = None
    outputs: Any = None
    weights: Any = None
    notes: dict[Any, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """The kind of the outputs."""
        return self.model.kind

    def input(self, name: str) -> Any:
        """Returns an input of the batch by its name, or None if the batch does not have it."""
        return self.inputs.get(name) if hasattr(self.inputs, "keys") else None

    def repeated(self, values: Any) -> Any:
        """Repeats what belongs to the rows of the batch, (rows, …), as the batch is repeated."""
        return (
            values
            if values is None or self.copies == 1
            else ops.concatenate([values] * self.copies)
        )

    def gathered(self, values: Any) -> Any:
        """Joins what belongs to the rows of each device, (rows, …), in the order of `targets`."""
        return kernels.gathered([values])[0]

    def mean(self, values: Any, of_all_devices: bool = False) -> Any:
        """Averages values as the loss averages its terms: Σ weight · value / n.

        Args:
            values: One for each row (rows,), or one for each term of the loss. Those of ignored
                targets do not count. The two rows of a pair of texts count by half each.
            of_all_devices: Whether the rows are those of all devices.
        """
        values = ops.cast(values, "float32")
        values = values if of_all_devices else self.gathered(values)
        if isinstance(self.model.loss, PairSimilarity):
            values = ops.mean(ops.reshape(values, (-1, 2)), axis=1)
        rank, weights = len(values.shape), self.weights
        if weights is not None:
            if len(weights.shape) > rank:  # weights of tokens, for a value of the row
                weights = ops.mean(weights, axis=tuple(range(rank, len(weights.shape))))
            ones = (1,) * (rank - len(weights.shape))
            values = values * ops.reshape(weights, (*ops.shape(weights), *ones))
        if self.kind != "classes" or rank != len(self.outputs.shape) - 1:
            return ops.mean(values)
        counted = ops.cast(self.counted, "float32")
        return ops.divide_no_nan(ops.sum(values * counted), ops.sum(counted))

    @property
    def counted(self) -> Any:
        """Whether the target of each class decision counts, (rows, …) bool."""
        rank = len(self.outputs.shape) - 1
        targets = self.targets
        if len(targets.shape) > rank and targets.shape[-1] != 1:  # shares of the classes
            return ops.ones_like(targets[..., 0], dtype="bool")
        if len(targets.shape) > rank:
            targets = ops.squeeze(targets, axis=-1)
        return ops.not_equal(ops.cast(targets, "int32"), IGNORED)


class Objective:
    """Adds to what a training step minimizes, or perturbs the model while it trains.

    An objective has hooks on the batch, on tensors inside the model, and on the loss. They are
    called when a step is traced, so they consist of operations on tensors. Evaluations and
    predictions know nothing of objectives: the loss of an evaluation is the plain loss.

    A subclass is registered with `keras.saving.register_keras_serializable` and has `get_config`,
    because objectives are saved in `.keras` files.

    Attributes:
        copies: How often the batch is repeated, so that the loss can compare several passes.
        draws: Whether random numbers are drawn.
        reads_outputs: Whether the outputs are read. The training step of a language model computes
            no logits otherwise.
        share: The factor of the plain loss in the sum.
        allows_mixtures: Whether rows may be mixtures of several examples.
        allows_packing: Whether rows may consist of several texts with one output each.
        compares_rows: Whether the rows of a batch are compared with each other.
        may_repeat: Whether a model may have several objectives of the class.
        joins_devices: Whether, on several devices, each of them computes the term of the whole
            batch: from weights alone, from `Step.mean`, or from rows that `Step.gathered` joins.
    """

    copies: int = 1
    draws: bool = False
    reads_outputs: bool = False
    share: float = 1.0
    allows_mixtures: bool = True
    allows_packing: bool = False
    compares_rows: bool = False
    may_repeat: bool = False
    joins_devices: bool = False

    def check(self, model: Any) -> None:
        """Raises a ModelError if the objective does not fit a model; called by `compile`."""

    def prepare(self, model: Any) -> None:
        """Called before a step is traced, outside of any graph."""

    def before(self, step: Step) -> None:
        """The hook on the batch and on tensors: adds taps, before the model runs."""

    def rows(self, step: Step, targets: Any, outputs: Any, weights: Any) -> tuple[Any, Any, Any]:
        """The hook on the rows of the plain loss: returns its targets, outputs and weights."""
        return targets, outputs, weights

    def term(self, step: Step) -> Any:
        """The hook on the loss: returns a number that is added to it, or None."""
        return None

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, as JSON values."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Returns what a resumed fit has to share, as JSON values: the arguments by default."""
        return self.get_config()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Objective":
        """Creates the objective from the result of `get_config`."""
        return cls(**config)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


def as_objectives(given: Any) -> tuple[Objective, ...]:
    """Returns the objectives that an argument `objectives` states: one, several, or None.

    Raises:
        ModelError: If one of them is no objective.
    """
    if given is None or isinstance(given, Objective):
        return () if given is None else (given,)
    for objective in given if isinstance(given, Iterable) else (given,):
        if not isinstance(objective, Objective):
            raise ModelError(
                "objectives= takes a list of objectives such as ft.objectives.RDrop(), found "
                f"{shown(objective)}."
            )
    return tuple(given)


def refuse(objective: Objective, model: Any, reason: str) -> ModelError:
    """Returns the error of an objective that does not fit a model.

    Args:
        objective: The objective.
        model: The model.
        reason: Why, and what to do instead; a sentence that follows the task of the model.
    """
    return ModelError(
        f"{type(objective).__name__} does not fit a model for {model.task.name}: {reason}"
    )


# Each replica of a distributed step runs in a thread of its own, so this is no attribute.
_STEP: ContextVar[Step | None] = ContextVar("finetune_tf_objective_step", default=None)


@contextlib.contextmanager
def running(step: Step) -> Iterator[None]:
    """Inside the block, a step with objectives runs."""
    token = _STEP.set(step)
    try:
        yield
    finally:
        _STEP.reset(token)


def running_step(model: Any) -> Step | None:
    """Returns the running step with objectives of a model, or None."""
    step = _STEP.get()
    return step if step is not None and step.model is model else None
