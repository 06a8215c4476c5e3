"""Curves of loss and metrics that a notebook redraws while a model trains."""

from collections.abc import Mapping
from typing import Any

import keras

from finetune_tf.evaluation.curves import add_epochs, plot_history
from finetune_tf.evaluation.document import require_matplotlib
from finetune_tf.messages import say


class LiveCurves(keras.callbacks.Callback):
    """Redraws the curves of loss and metrics in a notebook after each epoch.

    The figure is that of `plot_history`. Outside of a notebook nothing is drawn, and a line says
    so.

    Raises:
        MissingExtraError: If matplotlib is not installed.

    Example:
        >>> curves = ft.callbacks.LiveCurves()
        >>> history = model.fit(train.batches(model, 4), callbacks=[curves], verbose=0)
        >>> [len(values) for values in curves.history.values()]
        [1, 1]
    """

    def __init__(self) -> None:
        require_matplotlib()
        super().__init__()
        self.history: dict[str, list[float]] = {}
        self._display: Any = None
        self._is_resumed = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begins new curves, unless the fit is resumed."""
        if not self._is_resumed:
            self.history = {}
        self._display, self._is_resumed = None, False
        if not in_notebook():
            say("LiveCurves draws in notebooks only. Use ft.plot_history(history) after the fit.")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Redraws the figure."""
        add_epochs(self.history, {name: [value] for name, value in (logs or {}).items()})
        if not in_notebook():
            return
        from IPython.display import display

        figure = plot_history(self.history)
        if self._display is None:
            self._display = display(figure, display_id=True)
        else:
            self._display.update(figure)

    def state_dict(self) -> dict[str, Any]:
        """Returns the curves."""
        return {"history": {name: list(values) for name, values in self.history.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues the curves of an interrupted fit."""
        self.history = {name: list(values) for name, values in state["history"].items()}
        self._is_resumed = True


def in_notebook() -> bool:
    """Returns whether the code runs in the kernel of a notebook."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return hasattr(get_ipython(), "kernel")
