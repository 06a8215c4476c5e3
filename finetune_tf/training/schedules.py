"""Learning-rate schedules: warm-up, linear decay and a peak that depends on what is trainable."""

from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from finetune_tf import kernels
from finetune_tf.base.arguments import check
from finetune_tf.base.keras_internals import rate_of, step_counter
from finetune_tf.messages import say, warn
from finetune_tf.training.pretrained import learns_pretrained, rate_of_adapters

PRETRAINED_RATE = 5e-5  # Devlin et al. 2019 search 2e-5 to 5e-5 for fine-tuning BERT
HEAD_RATE = 2e-3  # near Adam's default of 1e-3 for new weights, higher since epochs are few
_FOREVER = 1e18  # number of steps if the length of the fit is unknown


@keras.saving.register_keras_serializable("finetune_tf")
class WarmupLinearDecay:
    r"""Linear warm-up to a peak followed by linear decay, as for BERT (Devlin et al. 2019).

    $$\eta_t = \eta \cdot \min\left(1, \frac{t + 1}{w}, \frac{T - t}{T - w}\right)$$

    with $t$ the step counted from 0, $T$ the number of steps of the fit and $w$ = `warmup_ratio` ·
    $T$. The rate is never 0, so no step is wasted. The number of steps is set when a fit starts
    (`bind`), so users do not have to compute it; each fit starts a new warm-up. If the number of
    steps is unknown, the rate is constant.

    The class is a callable and not a Keras LearningRateSchedule, because an optimizer with such a
    schedule does not allow `optimizer.learning_rate = rate`. With this class, the assignment, and
    callbacks that use it such as `keras.callbacks.ReduceLROnPlateau`, fix the rate from then on.

    Args:
        peak: The highest learning rate, or "auto": `pretrained_rate` while a pretrained variable is
            trainable, else 5e-4 while an adapter is (3e-3 for IA3), and `head_rate` while only the
            head and other new variables are.
        warmup_ratio: Fraction of the steps used for the warm-up.
        pretrained_rate: See `peak`.
        head_rate: See `peak`.
        held: A fixed rate that was set by the user and replaces the schedule, or None.

    Attributes:
        rate: The current peak.

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
        self._counter: Any = None  # the step counter of the optimizer
        self._model: Any = None
        self.rate = float(pretrained_rate if peak == "auto" else peak)
        # Variables, so that changes take effect in a traced training step of TensorFlow.
        self._rate = _number(self.rate, "rate")
        self._first_step = _number(0, "first_step")
        self._warmup = _number(0, "warmup")
        self._steps = _number(_FOREVER, "steps")
        self.held: float | None = None
        if held is not None:
            self._hold(held)

    @property
    def is_automatic(self) -> bool:
        """Whether the peak depends on the trainable variables of the model."""
        return self.peak == "auto" and self.held is None

    @property
    def in_force(self) -> float:
        """The current peak, including a rate that the user has set."""
        return _value(self._rate)

    def resolve(self, model: keras.Model) -> None:
        """Sets an "auto" peak according to the trainable variables of the model."""
        if not self.is_automatic:
            return
        if learns_pretrained(model):
            self.rate = self.pretrained_rate
        else:
            self.rate = rate_of_adapters(model) or self.head_rate
        self._rate.assign(self.rate)

    def follow(self, optimizer: Any) -> None:
        """Uses the step counter of this optimizer from now on.

        After a reload, the schedule also returns to its place in the interrupted fit.
        """
        self._counter = step_counter(optimizer)
        if self._saved_state is not None:
            self.load_state_dict(self._saved_state)

    def bind(self, model: keras.Model, steps: int | None, first_step: int) -> None:
        """Binds the schedule to a fit that is about to start.

        Args:
            model: The fitted model, whose trainable variables determine an "auto" peak.
            steps: The number of steps of the whole fit, or None if it is unknown.
            first_step: The step of the optimizer at which the fit begins.
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
        """Fixes the rate from now on; Keras optimizers call it for `learning_rate = rate`.

        Args:
            rate: The learning rate, at least 0.

        Raises:
            ArgumentError: If the rate is negative or not a finite number.
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
        """Fixes the rate at the peak for a fit in which a callback sets the rate."""
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
            # On other backends, the values are constants of the traced step.
            self._model.make_train_function(force=True)

    def _start(self, model: keras.Model) -> None:
        self.resolve(model)
        self._bound, self._model, self._saved_state = True, model, None
        if getattr(model, "optimizer", None) is not None:
            self.follow(model.optimizer)

    def __call__(self, step: Any = None) -> Any:
        """Returns the learning rate at a step, in float32.

        Args:
            step: The step of the optimizer, counted from 0; by default the current one.
        """
        if not self._bound and kernels.is_tracing():
            warn(
                "The schedule does not know the length of the fit, so the rate stays at "
                f"{self.rate:g}. Pass callbacks=[ft.callbacks.BindSchedule()] to fit, or give the "
                "preset schedule='constant'.",
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
        """Returns the Keras config; in the middle of a fit it includes the state of the fit."""
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
        """Creates the schedule; `follow` restores its state, which needs the optimizer's step."""
        config = dict(config)
        state = config.pop("state", None)
        schedule = cls(**config)
        schedule._saved_state = state
        return schedule


@keras.saving.register_keras_serializable("finetune_tf")
class AutoConstant(WarmupLinearDecay):
    """A constant rate that is chosen automatically: schedule="constant", learning_rate="auto".

    With TensorFlow, `optimizer.learning_rate` is a variable, as for a fixed rate, so
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
        if not self._bound or keras.backend.backend() != "tensorflow":
            return super().__call__(step)
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
    return isinstance(rate, WarmupLinearDecay | keras.optimizers.schedules.LearningRateSchedule)


def _number(value: float, name: str) -> keras.Variable:
    return keras.Variable(float(value), dtype="float32", trainable=False, name=name)


def _value(variable: keras.Variable) -> float:
    # A variable of several devices is no number before it is read.
    return float(ops.convert_to_numpy(ops.multiply(variable, 1.0)))


def schedule_of(optimizer: Any) -> WarmupLinearDecay | None:
    """Returns the schedule of an optimizer if it belongs to this library, else None."""
    schedule = rate_of(optimizer)
    return schedule if isinstance(schedule, WarmupLinearDecay) else None
