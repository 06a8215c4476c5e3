"""The learning-rate schedules by name, and which schedule an optimizer has."""

from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from finetune_tf.base.arguments import check
from finetune_tf.base.keras_internals import rate_of
from finetune_tf.training.schedule import HEAD_RATE, PRETRAINED_RATE, Schedule


@keras.saving.register_keras_serializable("finetune_tf")
class WarmupLinearDecay(Schedule):
    """Linear warm-up to a peak followed by linear decay, as for BERT (Devlin et al. 2019).

    It is the schedule of presets by default, and `Schedule` with the shape "linear". If the number
    of steps is unknown, the rate is constant.

    Args:
        peak: As for `Schedule`.
        warmup_ratio: As for `Schedule`, by default a tenth.
        pretrained_rate: As for `Schedule`.
        head_rate: As for `Schedule`.
        held: As for `Schedule`.
        warmup_steps: As for `Schedule`.

    Example:
        >>> from finetune_tf.training import WarmupLinearDecay
        >>> schedule = WarmupLinearDecay(1e-4, warmup_ratio=0.2)
        >>> schedule.bind(model, steps=10, first_step=0)
        >>> [float(f"{float(schedule(step)):.1e}") for step in (0, 1, 2, 6, 9)]
        [5e-05, 0.0001, 0.0001, 5e-05, 1.2e-05]
    """

    def __init__(
        self,
        peak: float | Literal["auto"] = "auto",
        warmup_ratio: float | None = None,
        pretrained_rate: float = PRETRAINED_RATE,
        head_rate: float = HEAD_RATE,
        held: float | None = None,
        warmup_steps: float | None = None,
    ) -> None:
        super().__init__(
            peak,
            "linear",
            warmup_ratio,
            warmup_steps,
            pretrained_rate=pretrained_rate,
            head_rate=head_rate,
            held=held,
        )

    def _shape_config(self) -> dict[str, Any]:
        return self._warmup_config()


@keras.saving.register_keras_serializable("finetune_tf")
class AutoConstant(WarmupLinearDecay):
    """A constant rate that is chosen automatically: schedule="constant", learning_rate="auto".

    `optimizer.learning_rate` is a variable, as for a fixed rate, so
    `optimizer.learning_rate.assign(rate)` works.
    """

    _ends_something = False

    @property
    def is_automatic(self) -> bool:
        """Whether the rate depends on the trainable variables; False once the user has set it."""
        return super().is_automatic and self.in_force == float(np.float32(self.rate))

    def bind(self, model: keras.Model, steps: int | None, first_step: int) -> None:
        """Sets the rate; a constant rate does not depend on the number of steps."""
        self._start(model)

    def get_config(self) -> dict:
        """Returns the Keras config, with a rate that was assigned to the variable."""
        was_assigned = self._bound and self.in_force != float(np.float32(self.rate))
        return super().get_config() | ({"held": self.in_force} if was_assigned else {})

    def __call__(self, step: Any = None) -> Any:
        """Returns the rate, in float32."""
        if not self._bound:
            return super().__call__(step)
        self._sync()
        return self._rate

    def __str__(self) -> str:
        return f"{self.in_force:g}, constant"


@keras.saving.register_keras_serializable("finetune_tf")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Warm-up to a peak, followed by another schedule, which starts at its own step 0.

    Args:
        peak: The rate at the end of the warm-up.
        after: The schedule after the warm-up, such as Keras's `PolynomialDecay`.
        steps: The number of warm-up steps.
        power: Exponent of the warm-up: step t has the rate `peak` · (t / `steps`) ^ `power`; 1 is
            linear.
    """

    def __init__(self, peak: float, after: Any, steps: int, power: float = 1.0) -> None:
        check(**{"Warmup.peak": peak}, steps=steps, power=power)
        self.peak, self.after, self.steps, self.power = peak, after, steps, power

    def __call__(self, step: Any) -> Any:
        """Returns the learning rate at a step of the optimizer, in float32."""
        step = ops.cast(step, "float32")
        rising = self.peak * ops.power(step / max(self.steps, 1), self.power)
        return ops.where(step < self.steps, rising, self.after(step - self.steps))

    def get_config(self) -> dict:
        """Returns the Keras config."""
        after = keras.optimizers.schedules.serialize(self.after)
        return {"peak": self.peak, "after": after, "steps": self.steps, "power": self.power}

    @classmethod
    def from_config(cls, config: dict) -> "Warmup":
        """Creates the schedule, and the one after the warm-up, from a config."""
        after = keras.optimizers.schedules.deserialize(config["after"])
        return cls(**{**config, "after": after})


def is_schedule(rate: object) -> bool:
    """Returns whether a rate is a schedule of this library or of Keras."""
    return isinstance(rate, Schedule | keras.optimizers.schedules.LearningRateSchedule)


def schedule_of(optimizer: Any) -> Schedule | None:
    """Returns the schedule of an optimizer if it belongs to this library, else None."""
    schedule = rate_of(optimizer)
    return schedule if isinstance(schedule, Schedule) else None
