"""Learning rates that follow the fit: warm-up, linear decay, and a peak chosen by what trains."""

from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from finetune_tf import kernels
from finetune_tf.base.arguments import check
from finetune_tf.base.keras_internals import rate_of, step_counter
from finetune_tf.messages import say, warn
from finetune_tf.training.pretrained import learns_pretrained

PRETRAINED_RATE = 5e-5  # Devlin et al. 2019 search 2e-5 to 5e-5 for fine-tuning BERT
HEAD_RATE = 2e-3  # about the usual rate of Adam for fresh weights; one epoch has to do
_FOREVER = 1e18  # steps of a fit whose length nobody knows


@keras.saving.register_keras_serializable("finetune_tf")
class WarmupLinearDecay:
    r"""Rises to a peak and falls again, both linearly, within one fit.

    $$\eta_t = \eta \cdot \min\left(1, \frac{t + 1}{w}, \frac{T - t}{T - w}\right)$$

    with $t$ the step from 0, $T$ the steps of the fit and $w$ = `warmup_ratio` · $T$; no step has
    the rate 0, so none is wasted. The number of steps is learnt when a fit starts (`bind`), so
    nobody has to compute it; a second fit starts a new rise. Where the number of steps is
    unknown, the rate is constant.

    It is a callable and not one of Keras's schedules, because an optimizer that has one of those
    refuses `optimizer.learning_rate = rate`. Here that, and callbacks that do it such as
    `keras.callbacks.ReduceLROnPlateau`, hold the rate from then on.

    Args:
        peak: The highest rate, or "auto": `pretrained_rate` while a variable that a checkpoint
            filled learns, `head_rate` while only the head and other new variables do.
        warmup_ratio: Share of the steps that the rise takes.
        pretrained_rate: See `peak`.
        head_rate: See `peak`.
        held: A rate that was set by hand and takes the place of the plan; None for none.

    Attributes:
        rate: The peak in force.
    """

    def __init__(
        self,
        peak: float | Literal["auto"] = "auto",
        warmup_ratio: float = 0.1,
        pretrained_rate: float = PRETRAINED_RATE,
        head_rate: float = HEAD_RATE,
        held: float | None = None,
    ) -> None:
        check(
            warmup_ratio=warmup_ratio,
            pretrained_rate=pretrained_rate,
            head_rate=head_rate,
            held=held,
        )
        check(peak=peak)
        self.peak = peak
        self.warmup_ratio = warmup_ratio
        self.pretrained_rate = pretrained_rate
        self.head_rate = head_rate
        self._bound = False
        self._saved_state: Mapping[str, Any] | None = None  # of a fit that a save interrupted
        self._counter: Any = None  # of the optimizer's steps
        self._model: Any = None
        self.rate = float(pretrained_rate if peak == "auto" else peak)
        # Variables, so that a traced train step of TensorFlow follows when they change.
        self._rate = _number(self.rate, "rate")
        self._first_step = _number(0, "first_step")
        self._warmup = _number(0, "warmup")
        self._steps = _number(_FOREVER, "steps")
        self.held: float | None = None
        if held is not None:
            self._hold(held)

    @property
    def is_automatic(self) -> bool:
        """Whether the peak follows what learns in the model."""
        return self.peak == "auto" and self.held is None

    @property
    def in_force(self) -> float:
        """The peak as it is now, whoever set it."""
        return _value(self._rate)

    def resolve(self, model: keras.Model) -> None:
        """Chooses an "auto" peak by what learns in the model now."""
        if self.is_automatic:
            self.rate = self.pretrained_rate if learns_pretrained(model) else self.head_rate
            self._rate.assign(self.rate)

    def follow(self, optimizer: Any) -> None:
        """Counts the steps of this optimizer, after a reload in the fit that was interrupted."""
        self._counter = step_counter(optimizer)
        if self._saved_state is not None:
            self.load_state_dict(self._saved_state)

    def bind(self, model: keras.Model, steps: int | None, first_step: int) -> None:
        """Fits the schedule to the fit that is about to start.

        Args:
            model: Decides an "auto" peak.
            steps: Of the whole fit, or None if nobody knows.
            first_step: The optimizer's iteration at which the fit begins.
        """
        self._start(model)
        if self.held is not None:
            return
        if steps is None:
            say(f"The length of the data is unknown, so the rate stays at {self.rate:g}.")
        self._first_step.assign(first_step)
        self._warmup.assign(self.warmup_ratio * steps if steps else 0)
        self._steps.assign(steps or _FOREVER)

    def assign(self, rate: Any) -> None:
        """Holds a rate from now on; Keras's optimizers call it for `learning_rate = rate`.

        Args:
            rate: A number from 0 on.

        Raises:
            ArgumentError: If it is none.
        """
        rate = float(keras.ops.convert_to_numpy(rate))
        check(**{"AdamW.learning_rate": rate})
        if self.held is None and self._ends_something:
            say(
                f"The rate was set to {rate:g} and stays there: warm-up and decay of the preset "
                f"end here. To keep them, give the preset learning_rate={rate:g} instead."
            )
        self._hold(rate)

    def hold_peak(self, model: keras.Model, reason: str) -> None:
        """Holds the peak for a fit in which a callback sets the rate."""
        self.resolve(model)
        if self.held is None and self._ends_something:
            say(
                f"{reason} sets the rate, so it starts at {self.rate:g}, without warm-up and decay."
            )
            self._hold(self.rate)

    _ends_something = True  # AutoConstant has neither warm-up nor decay

    def _hold(self, rate: float) -> None:
        self.held = self.rate = float(rate)
        self._bound = True
        self._rate.assign(self.rate)
        self._warmup.assign(0)
        self._steps.assign(_FOREVER)
        if self._model is not None and keras.backend.backend() != "tensorflow":
            self._model.make_train_function(force=True)  # where numbers are constants of a trace

    def _start(self, model: keras.Model) -> None:
        self.resolve(model)
        self._bound, self._model, self._saved_state = True, model, None
        if getattr(model, "optimizer", None) is not None:
            self.follow(model.optimizer)

    def __call__(self, step: Any = None) -> Any:
        """The rate at a step, float32.

        Args:
            step: Of the optimizer, from 0; by default the one that it is at.
        """
        if not self._bound and kernels.is_tracing():
            warn(
                f"The schedule was not told how long the fit is and stays at {self.rate:g}. "
                "Pass callbacks=[ft.callbacks.BindSchedule()] to fit, or give the preset "
                "schedule='constant'.",
            )
        if step is None:
            step = 0 if self._counter is None else self._counter
        step = ops.cast(step, "float32") - self._first_step
        rising = (step + 1.0) / ops.maximum(self._warmup, 1.0)
        falling = (self._steps - step) / ops.maximum(self._steps - self._warmup, 1.0)
        return self._rate * ops.clip(ops.minimum(rising, falling), 0.0, 1.0)

    def __str__(self) -> str:
        if self.held is not None:
            return f"{self.rate:g}, set by hand"
        return f"{self.rate:g}, warm-up and linear decay"

    def state_dict(self) -> dict[str, Any]:
        """Returns what the schedule knows of the fit that it is bound to, as JSON can hold it.

        None of it is among the optimizer's variables.
        """
        variables = {name: _value(variable) for name, variable in self._variables().items()}
        return {"bound": self._bound, "held": self.held, "peak_rate": self.rate, **variables}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues the fit that `state_dict` was taken from, at the optimizer's own step."""
        self._saved_state = None
        self._bound, self.held = state["bound"], state["held"]
        self.rate = state["peak_rate"]
        for name, variable in self._variables().items():
            variable.assign(state[name])

    def _variables(self) -> dict[str, keras.Variable]:
        names = ("rate", "first_step", "warmup", "steps")
        return {name: getattr(self, f"_{name}") for name in names}

    def get_config(self) -> dict:
        """Keras config; in the middle of a fit also its state."""
        return {
            "peak": self.peak,
            "warmup_ratio": self.warmup_ratio,
            "pretrained_rate": self.pretrained_rate,
            "head_rate": self.head_rate,
            **({} if self.held is None else {"held": self.held}),
            **({"state": self.state_dict()} if self._is_in_fit() else {}),
        }

    def _is_in_fit(self) -> bool:
        """Whether the fit has a known length and is not over."""
        steps = _value(self._steps)
        if not self._bound or self._counter is None or steps == np.float32(_FOREVER):
            return False
        return _value(self._counter) - _value(self._first_step) < steps

    @classmethod
    def from_config(cls, config: dict) -> "WarmupLinearDecay":
        """Revives the schedule; `follow` restores its state, which needs the optimizer's step."""
        config = dict(config)
        state = config.pop("state", None)
        schedule = cls(**config)
        schedule._saved_state = state
        return schedule


@keras.saving.register_keras_serializable("finetune_tf")
class AutoConstant(WarmupLinearDecay):
    """The same rate at every step: the schedule "constant" with the rate "auto".

    With TensorFlow it is a variable for whoever asks the optimizer, as a rate that is a number is:
    `optimizer.learning_rate.assign(rate)` holds that rate.
    """

    _ends_something = False

    @property
    def is_automatic(self) -> bool:
        """Whether the rate follows what learns in the model; not once somebody has set it."""
        return super().is_automatic and self.in_force == float(np.float32(self.rate))

    def bind(self, model: keras.Model, steps: int | None, first_step: int) -> None:
        """Only chooses the rate."""
        self._start(model)

    def __call__(self, step: Any = None) -> Any:
        """The rate, float32."""
        if not self._bound or keras.backend.backend() != "tensorflow":
            return super().__call__(step)
        return self._rate

    def __str__(self) -> str:
        return f"{self.in_force:g}, constant"


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
        check(**{"Warmup.peak": peak}, steps=steps, power=power)
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


def is_schedule(rate: object) -> bool:
    """Whether a rate is a schedule, one of ours or of Keras's."""
    return isinstance(rate, WarmupLinearDecay | keras.optimizers.schedules.LearningRateSchedule)


def _number(value: float, name: str) -> keras.Variable:
    return keras.Variable(float(value), dtype="float32", trainable=False, name=name)


def _value(variable: keras.Variable) -> float:
    # A variable of several devices is no number before it is read.
    return float(ops.convert_to_numpy(ops.multiply(variable, 1.0)))


def schedule_of(optimizer: Any) -> WarmupLinearDecay | None:
    """The schedule inside an optimizer, if it is one of ours."""
    schedule = rate_of(optimizer)
    return schedule if isinstance(schedule, WarmupLinearDecay) else None
