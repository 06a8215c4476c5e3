"""Learning rates that follow the fit: warm-up, linear decay, and a peak chosen by what trains."""

from typing import Any, Literal

import keras
from keras import ops

from finetune_tf.errors import ModelError
from finetune_tf.messages import say, warn
from finetune_tf.stages import stages

PRETRAINED_RATE = 5e-5  # Devlin et al. 2019 search 2e-5 to 5e-5 for fine-tuning BERT
HEAD_RATE = 2e-3  # about the usual rate of Adam for fresh weights; one epoch has to do
_FOREVER = 1e18  # steps of a fit whose length nobody knows


@keras.saving.register_keras_serializable("finetune_tf")
class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    r"""Rises to a peak and falls again, both linearly, within one fit.

    $$\eta_t = \eta \cdot \min\left(1, \frac{t + 1}{w}, \frac{T - t}{T - w}\right)$$

    with $t$ the step from 0, $T$ the steps of the fit and $w$ = `warmup_ratio` · $T$; no step has
    the rate 0, so none is wasted. The number of steps is learnt when a fit starts (`bind`), so
    nobody has to compute it; a second fit starts a new rise. Where the number of steps is
    unknown, the rate is constant.

    Args:
        peak: The highest rate, or "auto": `pretrained_rate` while a stage that a checkpoint
            trained learns, `head_rate` while only the head does.
        warmup_ratio: Share of the steps that the rise takes.
        pretrained_rate: See `peak`.
        head_rate: See `peak`.

    Attributes:
        rate: The peak in force.
    """

    def __init__(
        self,
        peak: float | Literal["auto"] = "auto",
        warmup_ratio: float = 0.1,
        pretrained_rate: float = PRETRAINED_RATE,
        head_rate: float = HEAD_RATE,
    ) -> None:
        check_rate_value(peak)
        if not 0 <= warmup_ratio < 1:
            raise ModelError(f"warmup_ratio is a share from 0 to below 1, found {warmup_ratio!r}.")
        self.peak = peak
        self.warmup_ratio = warmup_ratio
        self.pretrained_rate = pretrained_rate
        self.head_rate = head_rate
        self._bound = False
        self.rate = float(pretrained_rate if peak == "auto" else peak)
        # Variables, so that a traced train step of TensorFlow follows when they change.
        self._rate = _number(self.rate, "rate")
        self._first_step = _number(0, "first_step")
        self._warmup = _number(0, "warmup")
        self._steps = _number(_FOREVER, "steps")

    def resolve(self, model: keras.Model) -> None:
        """Chooses an "auto" peak by what learns in the model now."""
        if self.peak == "auto":
            self.rate = self.pretrained_rate if learns_pretrained(model) else self.head_rate
            self._rate.assign(self.rate)

    def bind(self, model: keras.Model, steps: int | None, first_step: int) -> None:
        """Fits the schedule to the fit that is about to start.

        Args:
            model: Decides an "auto" peak.
            steps: Of the whole fit, or None if nobody knows.
            first_step: The optimizer's iteration at which the fit begins.
        """
        self.resolve(model)
        self._bound = True
        if steps is None:
            say(f"The length of the data is unknown, so the rate stays at {self.rate:g}.")
        self._first_step.assign(first_step)
        self._warmup.assign(self.warmup_ratio * steps if steps else 0)
        self._steps.assign(steps or _FOREVER)

    def __call__(self, step: Any) -> Any:
        """The rate at a step of the optimizer, float32."""
        if not self._bound:
            warn(
                f"The schedule was not told how long the fit is and stays at {self.rate:g}. "
                "Pass callbacks=[ft.callbacks.BindSchedule()] to fit, or give the preset "
                "schedule='constant'.",
            )
        step = ops.cast(step, "float32") - self._first_step
        rising = (step + 1.0) / ops.maximum(self._warmup, 1.0)
        falling = (self._steps - step) / ops.maximum(self._steps - self._warmup, 1.0)
        return self._rate * ops.clip(ops.minimum(rising, falling), 0.0, 1.0)

    def __str__(self) -> str:
        return f"{self.rate:g}, warm-up and linear decay"

    def get_config(self) -> dict:
        """Keras config; what `bind` learnt belongs to one fit and is not part of it."""
        return {
            "peak": self.peak,
            "warmup_ratio": self.warmup_ratio,
            "pretrained_rate": self.pretrained_rate,
            "head_rate": self.head_rate,
        }


@keras.saving.register_keras_serializable("finetune_tf")
class AutoConstant(WarmupLinearDecay):
    """The same rate at every step: the schedule "constant" with the rate "auto"."""

    def bind(self, model: keras.Model, steps: int | None, first_step: int) -> None:
        """Only chooses the rate."""
        self.resolve(model)
        self._bound = True

    def __str__(self) -> str:
        return f"{self.rate:g}, constant"


@keras.saving.register_keras_serializable("finetune_tf")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Rises to a peak in some steps, then follows another schedule from its first step on.

    Args:
        peak: The rate that the rise ends at.
        after: The other schedule, such as Keras's `PolynomialDecay`.
        steps: Of the rise.
        power: 1 for a straight rise; step t has `peak` · (t / `steps`) ^ `power`.
    """

    def __init__(self, peak: float, after: Any, steps: int, power: float = 1.0) -> None:
        self.peak, self.after, self.steps, self.power = peak, after, steps, power

    def __call__(self, step: Any) -> Any:
        """The rate at a step of the optimizer, float32."""
        step = ops.cast(step, "float32")
        rising = self.peak * ops.power(step / max(self.steps, 1), self.power)
        return ops.where(step < self.steps, rising, self.after(step - self.steps))

    def get_config(self) -> dict:
        """Keras config."""
        after = keras.optimizers.schedules.serialize(self.after)
        return {"peak": self.peak, "after": after, "steps": self.steps, "power": self.power}

    @classmethod
    def from_config(cls, config: dict) -> "Warmup":
        """Revives the other schedule, too."""
        after = keras.optimizers.schedules.deserialize(config["after"])
        return cls(**{**config, "after": after})


def check_rate_value(rate: object) -> None:
    """Raises unless a rate is a number above 0 or "auto".

    Raises:
        ModelError: If it is something else.
    """
    if rate != "auto" and not (isinstance(rate, int | float) and rate > 0):
        raise ModelError(f"A learning rate is above 0 or 'auto', found {rate!r}.")


def _number(value: float, name: str) -> keras.Variable:
    return keras.Variable(float(value), dtype="float32", trainable=False, name=name)


def learns_pretrained(model: keras.Model) -> bool:
    """Whether a variable below the head learns."""
    return any(
        variable.trainable
        for stage in stages(model)
        if stage.role != "head"
        for variable in stage.variables
    )


def schedule_of(optimizer: Any) -> WarmupLinearDecay | None:
    """The schedule inside an optimizer, if it is one of ours."""
    schedule = getattr(getattr(optimizer, "inner_optimizer", optimizer), "_learning_rate", None)
    return schedule if isinstance(schedule, WarmupLinearDecay) else None
