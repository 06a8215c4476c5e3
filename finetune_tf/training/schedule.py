"""The learning-rate schedule: warm-up, a shape, and a peak that depends on what is trainable."""

from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from finetune_tf import kernels
from finetune_tf.base.arguments import check
from finetune_tf.base.keras_internals import carry, inner_optimizer, step_counter, sync_state
from finetune_tf.errors import ModelError
from finetune_tf.messages import say, warn
from finetune_tf.training.pretrained import learns_pretrained, rate_of_adapters
from finetune_tf.training.rates import all_have_factors
from finetune_tf.training.shapes import (
    NEED_STEPS,
    WARMUP,
    Shape,
    check_shape,
    check_warmup,
    factor_of,
)

PRETRAINED_RATE = 5e-5  # Devlin et al. 2019 search 2e-5 to 5e-5 for fine-tuning BERT
HEAD_RATE = 2e-3  # near Adam's default of 1e-3 for new weights, higher since epochs are few
_FOREVER = 1e18  # number of steps if the length of the fit is unknown


@keras.saving.register_keras_serializable("finetune_tf")
class Schedule:
    r"""A learning rate that rises to a peak and then follows a shape over the rest of the fit.

    With $t$ the step counted from 0, $T$ the number of steps of the fit, $w$ the number of warm-up
    steps, $r = (t + 1) / w$ and $x = (T - t) / (T - w)$, both between 0 and 1, the rate is $\eta$
    times

    | shape | factor | default warm-up |
    |---|---|---|
    | "linear" | $r x$ (Devlin et al. 2019) | a tenth |
    | "cosine" | $r (1 - \cos \pi x) / 2$ (Loshchilov & Hutter 2017) | a tenth |
    | "polynomial" | $r x^p$ | a tenth |
    | "one-cycle" | $(1 + 12 (1 - \cos \pi r)) (1 - \cos \pi x) / 50$ (Smith & Topin 2019) | 0.3 |
    | "constant" | $r$ | none |

    These are the schedules of PyTorch and transformers, except that the warm-up is one step ahead:
    the rate is never 0, so no step is wasted. The number of steps is set when a fit starts
    (`bind`), so users do not have to compute it; each fit starts a new warm-up. One cycle changes
    the learning rate only, not the momentum.

    The class is a callable and not a Keras LearningRateSchedule, because an optimizer with such a
    schedule does not allow `optimizer.learning_rate = rate`. With this class, the assignment, and
    callbacks that use it such as `keras.callbacks.ReduceLROnPlateau`, fix the rate from then on.

    With gradient accumulation, an update has the rate that it has with larger batches.

    Args:
        peak: The highest learning rate, or "auto": `pretrained_rate` while a pretrained variable is
            trainable, else ten times as much while an adapter is (60 times for IA3), and
            `head_rate` while only the head and other new variables are. If each trainable variable
            has a factor of its own (`rates`), it is `pretrained_rate`, because the factors refer to
            that.
        shape: A name of the table.
        warmup_ratio: Fraction of the steps used for the warm-up; by default that of the table.
        warmup_steps: Number of optimizer steps of the warm-up, instead of `warmup_ratio`.
        power: The exponent $p$.
        end: The fraction of the peak at which the decay ends.
        pretrained_rate: See `peak`.
        head_rate: See `peak`.
        held: A fixed rate that was set by the user and replaces the schedule, or None.

    Attributes:
        rate: The current peak.

    Raises:
        ArgumentError: If a number is out of range, or both `warmup_ratio` and `warmup_steps` are
            given.
        ModelError: If there is no such shape.

    Example:
        >>> from finetune_tf.training import Schedule
        >>> schedule = Schedule(1e-4, "cosine", warmup_steps=2, end=0.1)
        >>> model.compile(**ft.presets.cross_entropy(learning_rate=schedule))
        >>> schedule.bind(model, steps=10, first_step=0)
        >>> [float(f"{float(schedule(step)):.1e}") for step in (0, 1, 2, 6, 9)]
        [5e-05, 0.0001, 0.0001, 5.5e-05, 1.3e-05]
    """

    def __init__(
        self,
        peak: float | Literal["auto"] = "auto",
        shape: Shape = "linear",
        warmup_ratio: float | None = None,
        warmup_steps: float | None = None,
        power: float = 1.0,
        end: float = 0.0,
        pretrained_rate: float = PRETRAINED_RATE,
        head_rate: float = HEAD_RATE,
        held: float | None = None,
    ) -> None:
        check_warmup(warmup_ratio, warmup_steps)
        check_shape(shape)
        check(
            power=power,
            end=end,
            pretrained_rate=pretrained_rate,
            head_rate=head_rate,
            held=held,
        )
        check(peak=peak)
        self.peak = peak
        self.shape = shape
        if warmup_ratio is None and warmup_steps is None:
            warmup_ratio = WARMUP[shape]
        self.warmup_ratio = warmup_ratio
        self.warmup_steps = warmup_steps
        self.power, self.end = power, end
        self.pretrained_rate = pretrained_rate
        self.head_rate = head_rate
        self._bound = False
        self._saved_state: Mapping[str, Any] | None = None  # of a fit that a save interrupted
        self._counter: Any = None  # the step counter of the optimizer
        self._batches = 1  # of one update, which the counter counts each
        self._model: Any = None
        self.rate = float(pretrained_rate if peak == "auto" else peak)
        # Variables, so that changes take effect in a traced training step.
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
        self._sync()
        return _value(self._rate)

    def resolve(self, model: keras.Model, optimizer: Any = None) -> None:
        """Sets an "auto" peak according to the trainable variables of the model.

        Args:
            model: The model.
            optimizer: The optimizer with this schedule; by default that of the model.
        """
        if self.is_automatic:
            optimizer = optimizer or getattr(model, "optimizer", None)
            have_factors = all_have_factors(optimizer, model.trainable_variables)
            if have_factors or learns_pretrained(model):
                self.rate = self.pretrained_rate
            elif adapters := rate_of_adapters(model):
                self.rate = adapters * self.pretrained_rate / PRETRAINED_RATE
            else:
                self.rate = self.head_rate
            self._rate.assign(self.rate)

    def join(self, optimizer: Any) -> None:
        """Lets a traced step of this optimizer read the values of the schedule, whenever they
        change.
        """
        carry(optimizer, self._variables().values())

    def follow(self, optimizer: Any) -> None:
        """Uses the step counter of this optimizer from now on.

        After a reload, the schedule also returns to its place in the interrupted fit.
        """
        self.join(optimizer)
        self._counter = step_counter(optimizer)
        self._batches = batches_of_update(optimizer)
        if self._saved_state is not None:
            self.load_state_dict(self._saved_state)

    def bind(self, model: keras.Model, steps: int | None, first_step: int) -> None:
        """Binds the schedule to a fit that is about to start.

        Args:
            model: The fitted model, whose trainable variables determine an "auto" peak.
            steps: The number of steps of the whole fit, or None if it is unknown.
            first_step: The step of the optimizer at which the fit begins.

        Raises:
            ModelError: If the shape depends on the number of steps, which is unknown.
        """
        self._start(model)
        if self.held is not None:
            return
        if steps is None and self.shape in NEED_STEPS:
            raise ModelError(
                f"The schedule {self.shape!r} depends on the number of steps, but the length of "
                "the data is unknown. Pass steps_per_epoch=… to fit, or use schedule='constant'."
            )
        # The steps of a fit, and of this schedule, are batches.
        batches = batches_of_update(getattr(model, "optimizer", None))
        if self.warmup_steps is None:
            warmup = self.warmup_ratio * steps if steps else 0
        else:
            warmup = self.warmup_steps * batches
        if steps is None:
            after = " after the warm-up" if warmup else ""
            say(f"The length of the data is unknown, so the rate stays at {self.rate:g}{after}.")
        elif warmup > steps:
            say(
                f"The warm-up takes {self.warmup_steps:g} steps, but the fit only "
                f"{steps // batches}, so the rate does not reach its peak of {self.rate:g}."
            )
        self._first_step.assign(first_step)
        self._warmup.assign(warmup)
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
        self._sync()
        self._rate.assign(self.rate)
        self._warmup.assign(0)
        self._steps.assign(_FOREVER)

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
            if self.shape in NEED_STEPS:
                raise ModelError(
                    f"The schedule {self.shape!r} does not know the length of the fit. Pass "
                    "callbacks=[ft.callbacks.BindSchedule()] to fit, or use schedule='constant'."
                )
            warn(
                "The schedule does not know the length of the fit, so the rate stays at "
                f"{self.rate:g}. Pass callbacks=[ft.callbacks.BindSchedule()] to fit, or give the "
                "preset schedule='constant'.",
            )
        self._sync()
        if step is None:
            step = 0 if self._counter is None else self._counter
        step = ops.cast(step, "float32") - self._first_step
        rising = ops.clip((step + 1.0) / ops.maximum(self._warmup, 1.0), 0.0, 1.0)
        if self._batches > 1:
            # An update comes with its last batch, but the decay is that before its first one.
            step = step - ops.mod(step, float(self._batches))
        shortest = float(self._batches)
        left = (self._steps - step) / ops.maximum(self._steps - self._warmup, shortest)
        left = ops.clip(left, 0.0, 1.0)
        return self._rate * factor_of(self.shape, rising, left, self.power, self.end)

    def __str__(self) -> str:
        if self.held is not None:
            return f"{self.rate:g}, set by hand"
        if self.shape == "one-cycle":
            return f"{self.rate:g}, one cycle"
        after = "a constant rate" if self.shape == "constant" else f"{self.shape} decay"
        return f"{self.rate:g}, warm-up and {after}"

    def state_dict(self) -> dict[str, Any]:
        """Returns what the schedule knows of the fit that it is bound to, as JSON can hold it.

        None of it is among the variables of the optimizer in a file.
        """
        self._sync()
        variables = {name: _value(variable) for name, variable in self._variables().items()}
        return {"bound": self._bound, "held": self.held, "peak_rate": self.rate, **variables}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues the fit that `state_dict` was taken from, at the optimizer's own step."""
        self._saved_state = None
        self._bound, self.held = state["bound"], state["held"]
        self.rate = state["peak_rate"]
        for name, variable in self._variables().items():
            variable.assign(state[name])

    def _sync(self) -> None:
        """Brings back the variables from the state of a fit that runs on JAX."""
        if self._model is not None:
            sync_state(self._model)

    def _variables(self) -> dict[str, keras.Variable]:
        names = ("rate", "first_step", "warmup", "steps")
        return {name: getattr(self, f"_{name}") for name in names}

    def get_config(self) -> dict:
        """Returns the Keras config; in the middle of a fit it includes the state of the fit."""
        return {
            "peak": self.peak,
            **self._shape_config(),
            "pretrained_rate": self.pretrained_rate,
            "head_rate": self.head_rate,
            **({} if self.held is None else {"held": self.held}),
            **({"state": self.state_dict()} if self._is_in_fit() else {}),
        }

    def _shape_config(self) -> dict[str, Any]:
        config = {"shape": self.shape, "power": self.power, "end": self.end}
        return config | self._warmup_config()

    def _warmup_config(self) -> dict[str, Any]:
        if self.warmup_steps is None:
            return {"warmup_ratio": self.warmup_ratio}
        return {"warmup_steps": self.warmup_steps}

    def _is_in_fit(self) -> bool:
        """Whether the fit has a known length and is not over."""
        self._sync()
        steps = _value(self._steps)
        if not self._bound or self._counter is None or steps == np.float32(_FOREVER):
            return False
        return _value(self._counter) - _value(self._first_step) < steps

    @classmethod
    def from_config(cls, config: dict) -> "Schedule":
        """Creates the schedule; `follow` restores its state, which needs the optimizer's step."""
        config = dict(config)
        state = config.pop("state", None)
        schedule = cls(**config)
        schedule._saved_state = state
        return schedule


def batches_of_update(optimizer: Any) -> int:
    """Returns how many batches an optimizer takes for one update of the weights."""
    return getattr(inner_optimizer(optimizer), "gradient_accumulation_steps", None) or 1


def _number(value: float, name: str) -> keras.Variable:
    return keras.Variable(float(value), dtype="float32", trainable=False, name=name)


def _value(variable: keras.Variable) -> float:
    # A variable of several devices is no number before it is read.
    return float(ops.convert_to_numpy(ops.multiply(variable, 1.0)))
