"""`find_rate`: a learning-rate range test (Smith 2017), which leaves no trace."""

import math
from typing import Any

import keras
import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.base.keras_internals import (
    inner_optimizer,
    keep_exclusions,
    sync_state,
    wrapped_optimizers,
)
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ArgumentError, DataTypeError, ModelError
from finetune_tf.graph.stages import require_model
from finetune_tf.messages import say
from finetune_tf.search.rate_curve import RateCurve
from finetune_tf.search.untouched import untouched
from finetune_tf.training.fit_errors import check_data
from finetune_tf.training.freezing import strategy_scope
from finetune_tf.training.gradients import give_whole_gradients

# The fit ends once the loss has risen above its start by this many times as much as it had fallen,
# or by this share of its start, if that is more.
_RISE, _SHARE = 2.0, 0.5
_MEMORY = 0.8  # of the running mean of the loss that is compared with its start
_FIRST = 5  # losses whose mean is the start


@names_checked
def find_rate(
    model: keras.Model,
    batches: Any,
    *,
    lowest: float = 1e-7,
    highest: float = 1.0,
    points: int = 100,
) -> RateCurve:
    """Finds a learning rate: one short fit in which the rate grows until the loss diverges.

    The rate grows by the same factor at each step of the optimizer (Smith, Cyclical Learning Rates
    for Training Neural Networks, WACV 2017). The rates at which the loss falls are those at which
    the model learns. The suggestion is printed with its reason; `RateCurve` describes the rule.

    Afterwards everything is as it was before: weights, optimizer, schedule, random states, and the
    order of the batches. A fit that follows is bit for bit the fit without this call. The model
    may be compiled or not; one that is not compiled is compiled as in `fit`, and is not compiled
    afterwards. Optimizers without a rate of their own (`MultiOptimizer`) are refused.

    Args:
        model: The model with the parts frozen that will be frozen in the fit; a whole model, the
            upper part of one on cached features, or any other compiled Keras model.
        batches: The batches of the fit: `train.batches(model, 32, shuffle=True)`, or another
            `tf.data.Dataset` of inputs and targets. If there are fewer batches than steps, they are
            used several times. The order of a dataset that was not made by `batches` cannot be
            restored: if it is shuffled, the following epochs have other orders.
        lowest: The rate of the first step.
        highest: The rate of the last step, which is seldom reached.
        points: The number of steps of the optimizer. With gradient accumulation, a step takes
            several batches.

    Returns:
        The rates, the losses and the suggestion; `plot()` draws them.

    Raises:
        ArgumentError: If a number is out of range, or `lowest` is not below `highest`.
        DataTypeError: If `batches` is not a dataset.
        ModelError: If the model is no built Keras model or not compiled, has several optimizers, or
            its loss is NaN or infinite at the first step.

    Example:
        >>> curve = ft.find_rate(model, train.batches(model, 2, shuffle=True), points=30)
        >>> len(curve.rates) == len(curve.losses) <= 30
        True
    """
    check(lowest=lowest, highest=highest, points=points)
    if lowest >= highest:
        raise ArgumentError(
            f"lowest must be below highest, found lowest={lowest:g} and highest={highest:g}."
        )
    require_model(model)
    check_data("find_rate", batches)
    if not hasattr(batches, "element_spec") or not hasattr(batches, "cardinality"):
        raise DataTypeError(
            "find_rate expects a dataset, train.batches(model, 32, shuffle=True) or another "
            f"tf.data.Dataset, found {type(batches).__name__}."
        )
    with untouched(model, batches):
        curve = _range_test(model, batches, np.geomspace(lowest, highest, points))
    say(f"find_rate: {curve}")
    return curve


def _range_test(model: keras.Model, batches: Any, rates: np.ndarray) -> RateCurve:
    if getattr(model, "optimizer", None) is None:
        if not hasattr(model, "info"):
            raise ModelError(
                f"The model {model.name!r} is not compiled: call compile first, with the loss and "
                "the optimizer of the fit."
            )
        model.compile()
    with strategy_scope(model):
        model.optimizer = _with_rate(model.optimizer, float(rates[0]))
    model.train_function = None  # it was traced with the other optimizer
    model.steps_per_execution = 1  # callbacks see, and set the rate for, each step
    accumulated = inner_optimizer(model.optimizer).gradient_accumulation_steps or 1
    count = int(batches.cardinality())
    steps = len(rates) * accumulated
    if 0 < count < steps:
        say(
            f"find_rate takes {steps} batches, but there are {count}, so they are used up to "
            f"{math.ceil(steps / count)} times."
        )
    if not hasattr(batches, "cursor"):
        say(
            "find_rate cannot restore the order of this dataset, because it has no cursor: if it "
            "is shuffled, the epochs of the next fit have other orders than without find_rate."
        )
    driver = _Driver(rates, accumulated)
    callbacks = keras.callbacks.CallbackList(
        [driver], add_history=True, model=model, epochs=1, steps=None, verbose=0
    )
    # An infinite dataset (-1) needs the number of steps; in any other case, the driver ends the fit
    # in one of many epochs.
    length = {"steps_per_epoch": steps} if count == -1 else {"epochs": steps}
    # A ready CallbackList gets none of the callbacks of other fits, such as the one that binds a
    # schedule, and the one that makes an error of a loss that is NaN.
    model.fit(batches, callbacks=callbacks, shuffle=False, verbose=0, **length)
    if not driver.losses:
        raise ModelError(
            f"The loss is {driver.bad} at the first step of find_rate, where the rate has had no "
            "effect yet. Check that labels, sample weights and the weights of the model are finite "
            "numbers."
        )
    return RateCurve(rates[: len(driver.losses)], np.array(driver.losses), driver.reason)


def _with_rate(optimizer: Any, rate: float) -> Any:
    """Returns a new optimizer with the same settings, but with a rate that can be assigned."""
    wrapped = wrapped_optimizers(optimizer)
    if wrapped and not hasattr(optimizer, "inner_optimizer"):
        raise ModelError(
            f"find_rate needs an optimizer with one learning rate, but {type(optimizer).__name__} "
            f"combines {len(wrapped)} optimizers. Search the rate of each one alone, with the "
            "variables of the others frozen."
        )
    config = optimizer.get_config()
    own = config["inner_optimizer"]["config"] if wrapped else config
    own["learning_rate"] = rate
    renewed = type(optimizer).from_config(config)
    keep_exclusions(renewed, optimizer)
    if "apply" in vars(optimizer):
        give_whole_gradients(renewed)
    return renewed


class _Driver(keras.callbacks.Callback):
    """Sets the rate of each step and records its loss, until the loss diverges.

    Args:
        rates: The rate of each step of the optimizer.
        accumulated: The number of batches that make one step.
    """

    def __init__(self, rates: np.ndarray, accumulated: int) -> None:
        super().__init__()
        self._rates, self._accumulated = rates, accumulated
        self._batch, self._running, self._lowest = 0, None, math.inf
        self.losses: list[float] = []
        self.bad: float | None = None
        self.reason = "all rates were tried"

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the rate and starts a new mean of the loss, unless a step is under way."""
        if self._batch % self._accumulated == 0:
            sync_state(self.model)
            inner_optimizer(self.model.optimizer).learning_rate = self._rates[len(self.losses)]
            self.model.reset_metrics()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Records the mean loss of the batches of a step, and stops the fit if it diverges."""
        self._batch += 1
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            self.bad = loss
            self._stop(f"the loss became {loss}", len(self.losses))
        elif self._batch % self._accumulated == 0:
            self.losses.append(loss)
            if self._diverges(loss):
                self._stop("the loss diverged", len(self.losses) - 1)
            elif len(self.losses) == len(self._rates):
                self.model.stop_training = True

    def _stop(self, reason: str, number: int) -> None:
        """Stops the fit at the step with this number, which had the loss."""
        self.reason = f"{reason} at {self._rates[number]:.2g}"
        self.model.stop_training = True

    def _diverges(self, loss: float) -> bool:
        start = float(np.mean(self.losses[:_FIRST]))
        before = start if self._running is None else self._running
        self._running = _MEMORY * before + (1 - _MEMORY) * loss
        self._lowest = min(self._lowest, self._running)
        rise = max(_RISE * (start - self._lowest), _SHARE * abs(start))
        return len(self.losses) > _FIRST and self._running > start + rise
