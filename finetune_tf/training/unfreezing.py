"""Unfreezing in the middle of a fit."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np

from finetune_tf.base.arguments import check, shown
from finetune_tf.base.keras_internals import inner_optimizer, sync_state
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.messages import say
from finetune_tf.training.depths import selector_of, stages_by_depth
from finetune_tf.training.freezing import follow_flags, selected_ids, set_flags
from finetune_tf.training.optimizers import AdamW
from finetune_tf.training.rates import all_have_factors
from finetune_tf.training.schedules import schedule_of
from finetune_tf.training.selector import Selector

#: What names of results contain of which lower or higher ones are better.
_MODES = {
    "min": ("loss", "error", "mae", "mse", "perplexity"),
    "max": ("acc", "f1", "auc"),
}
Plan = Mapping[int, Selector] | Sequence[Selector] | Selector


class Unfreeze(keras.callbacks.Callback):
    """Unfreezes more of a model while it is trained, in one fit.

    Without a plan, the fit begins with the head, and each epoch adds one block from the top; the
    embeddings come last (gradual unfreezing, Howard & Ruder 2018). A mapping says what is trained
    from which epoch on. A list of selectors says what is trained in each step; the next step comes
    after `every` epochs or, with `monitor`, when that result has stopped to improve.

    The schedule, the history and the state of the optimizer go on; the training step is traced
    again only when something has changed. With our AdamW, a variable that is unfrozen has its own
    first step, as in PyTorch's `add_param_group`. (Adam of Keras has one step for all variables, so
    the first updates of a variable that is unfrozen late are up to five times its learning rate.)
    A plan may also freeze again: the state of the optimizer for frozen variables is dropped, and a
    variable that is unfrozen a second time starts anew.

    A learning rate "auto" falls from 2e-3 to 5e-5 when the first pretrained variables are
    unfrozen, also for the head, unless the head has a factor of its own:
    `rates={ft.select.head(): 40.0}` keeps it at 2e-3.

    Args:
        plan: Nothing for gradual unfreezing; `{epoch: selector}` with epochs counted from 0; or a
            list of selectors. `[ft.select.head(), ft.select.everything()]` trains the head for one
            epoch and then everything.
        every: The number of epochs of a step.
        monitor: The name of a result such as "val_loss"; the next step comes when it has not
            improved for `patience` epochs, instead of after a fixed number of epochs.
        patience: See `monitor`.
        min_delta: The smallest change that counts as an improvement.
        mode: "min" or "max", whether lower or higher results are better; by default "max" for names
            that contain "acc", "f1" or "auc", and "min" for those that contain "loss", "error",
            "mae", "mse" or "perplexity". For all others it has to be given.

    Raises:
        ArgumentError: If a number is out of range, arguments contradict each other, or the name
            `monitor` does not say which results are better.
        ModelError: If the plan has no selectors; when the fit starts, if a selector matches
            nothing, or if the model is trained on cached features and the plan unfreezes stages
            below the cut; after an epoch, if there is no result of the name `monitor`.

    Example:
        >>> rates = {ft.select.head(): 40.0}
        >>> model.compile(**ft.presets.cross_entropy(rates=rates))
        >>> callbacks = [ft.callbacks.Unfreeze()]
        >>> history = model.fit(train.batches(model), epochs=4, callbacks=callbacks, verbose=0)
        >>> all(variable.trainable for variable in model.weights)
        True
    """

    @names_checked
    def __init__(
        self,
        plan: Plan | None = None,
        *,
        every: int = 1,
        monitor: str | None = None,
        patience: int = 1,
        min_delta: float = 0.0,
        mode: Literal["min", "max"] | None = None,
    ) -> None:
        check(every=every, min_delta=min_delta, **{"Unfreeze.patience": patience})
        super().__init__()
        self._epochs, self._selectors = _checked_plan(plan)
        if monitor is not None and (every != 1 or self._epochs is not None):
            given = "every" if every != 1 else "a plan with epochs"
            raise ArgumentError(
                f"monitor={monitor!r} and {given} are both given, but only one of them can decide "
                "when the next step comes. Leave one of them out."
            )
        if self._epochs is not None and every != 1:
            raise ArgumentError(
                "every= is for a list of selectors and for gradual unfreezing; the plan has epochs "
                "already. Leave it out."
            )
        if mode not in (None, "min", "max"):
            raise ArgumentError(f"mode must be 'min' or 'max', found {shown(mode)}.")
        self.every, self.monitor, self.patience, self.min_delta = (
            every,
            monitor,
            patience,
            min_delta,
        )
        self._sign = -1.0 if (mode or _mode_of(monitor)) == "max" else 1.0
        self._reset()

    def _reset(self) -> None:
        self._step, self._waited, self._best = 0, 0, np.inf

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Finds the variables of each step; an error in the plan is raised here."""
        self._reset()
        whole = self._whole
        selectors = self._selectors or gradual(whole)
        self._trained = [selected_ids(whole, selector) for selector in selectors]
        self._names = [str(selector) for selector in selectors]
        if whole is not self.model:
            self._check_cut()
        self._hint_at_rate()
        self._hint_at_steps()
        self._hint_at_length()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the `trainable` flags for the epoch."""
        if self._epochs is not None:
            due = [i for i, first in enumerate(self._epochs) if first <= epoch]
            if not due:
                return
            self._step = due[-1]
        elif self.monitor is None:
            self._step = min(epoch // self.every, len(self._trained) - 1)
        wanted, whole = self._trained[self._step], self._whole
        variables = learnable_variables(whole)
        if wanted == {id(v) for v in variables if v.trainable}:
            return
        say(f"Epoch {epoch + 1} trains {self._names[self._step]}.")
        if not hasattr(self.model, "info"):  # no callback of the model follows the flags
            sync_state(self.model)
        set_flags(whole, {id(variable) for variable in variables} - wanted)
        if not hasattr(self.model, "info"):
            follow_flags(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Decides whether the monitored result has stopped to improve."""
        if self.monitor is None:
            return
        if self.monitor not in (logs or {}):
            found = ", ".join(logs or {}) or "nothing"
            raise ModelError(
                f"Unfreeze monitors {self.monitor!r}, but the results of an epoch are: {found}. "
                "Pass validation_data to fit, or monitor one of these results."
            )
        value = self._sign * float(logs[self.monitor])
        if value < self._best - self.min_delta:
            self._best, self._waited = value, 0
            return
        self._waited += 1
        if self._waited >= self.patience and self._step < len(self._trained) - 1:
            self._step, self._waited = self._step + 1, 0

    def settings(self) -> dict[str, Any]:
        """Returns the plan and what decides when its steps come, which a resumed fit has to share.

        In a fit, the plan names the stages of gradual unfreezing.
        """
        names = ("every", "monitor", "patience", "min_delta")
        plan = {"plan": self._names, "epochs": self._epochs, "sign": self._sign}
        return plan | {name: getattr(self, name) for name in names}

    def state_dict(self) -> dict[str, Any]:
        """Returns the step and what is known of the monitored result, as JSON can hold it."""
        best = None if np.isinf(self._best) else self._best
        return {"step": self._step, "waited": self._waited, "best": best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues at the step at which `state_dict` was called."""
        self._step, self._waited = int(state["step"]), int(state["waited"])
        self._best = np.inf if state["best"] is None else float(state["best"])

    @property
    def _whole(self) -> keras.Model:
        """The model that selectors refer to, of which a model on cached features is a part."""
        return getattr(self.model, "whole", self.model)

    def _check_cut(self) -> None:
        """Refuses to unfreeze what is below the cut of a model on cached features."""
        above = {id(variable) for variable in learnable_variables(self.model)}
        for name, trained in zip(self._names, self._trained, strict=True):
            if trained - above:
                raise ModelError(
                    f"Unfreeze would train {name}, of which stages are below the cut, where "
                    "features are computed once. Fit the whole model, cut it below all stages of "
                    "the plan, or fit in phases, each with features of its own: compile with the "
                    "optimizer of the phase before, and pass "
                    "callbacks=[ft.callbacks.BindSchedule(epochs=…)] to each fit."
                )

    def _hint_at_rate(self) -> None:
        schedule, optimizer = schedule_of(self.model.optimizer), self.model.optimizer
        if schedule is None or not schedule.is_automatic or len(self._trained) < 2:
            return
        first = [v for v in learnable_variables(self._whole) if id(v) in self._trained[0]]
        if not all_have_factors(optimizer, first):
            factor = schedule.head_rate / schedule.pretrained_rate
            say(
                f"The learning rate 'auto' is {schedule.head_rate:g} while only new variables are "
                f"trained, and {schedule.pretrained_rate:g} for all variables afterwards. To keep "
                f"that of the head, give the preset rates={{ft.select.head(): {factor:g}}}."
            )

    def _hint_at_length(self) -> None:
        """Says which stages of the plan a short fit never trains."""
        epochs = (self.params or {}).get("epochs")
        if epochs is None or self.monitor is not None:
            return
        steps = len(self._trained)
        begins = self._epochs or [step * self.every for step in range(steps)]
        left = [name for name, begin in zip(self._names, begins, strict=True) if begin >= epochs]
        if left:
            say(
                f"Unfreeze: the fit has {epochs} epochs, but the plan of {steps} steps needs "
                f"{begins[-1] + 1}, so it ends before {left[0]}. Train for more epochs, or give "
                "fewer steps: ft.callbacks.Unfreeze([ft.select.head(), ft.select.everything()])."
            )

    def _hint_at_steps(self) -> None:
        optimizer = inner_optimizer(self.model.optimizer)
        name = type(optimizer).__name__
        if (
            name.startswith(("Adam", "Nadam"))
            and not isinstance(optimizer, AdamW)
            and len(self._trained) > 1
        ):
            say(
                f"{name} of Keras counts the same steps for all variables, so the first updates of "
                "a stage that is unfrozen late may be several times too large. Use the optimizer "
                "'adamw' of a preset, in which such a stage starts at step 1."
            )


def gradual(model: keras.Model) -> list[Selector]:
    """Returns what each step of gradual unfreezing trains: the head, then one more block each.

    Args:
        model: A built Keras model.

    Example:
        >>> from finetune_tf.training.unfreezing import gradual
        >>> gradual(model)[:2]
        [classifier, classifier | pooler | block_1]
    """
    groups = [group for group in stages_by_depth(model) if group]
    return [selector_of(model, sum(groups[: i + 1], [])) for i in range(len(groups))]


def _mode_of(monitor: str | None) -> str:
    """Returns whether lower ("min") or higher ("max") results of a name are better."""
    if monitor is None:
        return "min"
    found = [mode for mode, names in _MODES.items() if any(name in monitor for name in names)]
    if len(found) != 1:
        raise ArgumentError(
            f"monitor={monitor!r} does not say whether lower or higher results are better. Give "
            "mode='min' or mode='max'."
        )
    return found[0]


def _checked_plan(plan: Any) -> tuple[list[int] | None, list[Selector] | None]:
    """Returns the first epochs of the steps, unless another rule decides, and their selectors."""
    if plan is None:
        return None, None
    if isinstance(plan, Selector):
        plan = {0: plan}
    has_epochs = isinstance(plan, Mapping)
    steps = list(plan.values() if has_epochs else plan) if np.iterable(plan) else []
    if not steps or not all(isinstance(step, Selector) for step in steps):
        raise ModelError(
            "The plan of Unfreeze must be a list of selectors, or a dict of selectors by epoch, "
            f"such as {{0: ft.select.head(), 2: ft.select.everything()}}; found {shown(plan)}."
        )
    if not has_epochs:
        return None, steps
    for epoch in plan:
        check(**{"Unfreeze.epoch": epoch})
    epochs = sorted(plan)
    return epochs, [plan[epoch] for epoch in epochs]
