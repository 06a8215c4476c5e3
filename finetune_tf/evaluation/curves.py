"""Learning curves: loss and metrics by epoch."""

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

from finetune_tf.base.arguments import shown
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import DataError, DataTypeError
from finetune_tf.evaluation.document import require_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@names_checked
def plot_history(history: "Mapping[str, Sequence[float]] | Any") -> "Figure":
    """Plots loss and metrics over the epochs, with training and validation in one plot.

    Args:
        history: The `History` that `model.fit` returns, its `.history`, or the `history` of a
            `FinetuneResult`: a dict of metric names to one value per epoch, NaN for none.

    Returns:
        A matplotlib figure with one plot per metric.

    Raises:
        DataError: If metrics have different numbers of values, so that their epochs are unknown.
        DataTypeError: If `history` has another form.
        MissingExtraError: If matplotlib is not installed.

    Example:
        >>> figure = ft.plot_history({"loss": [0.7, 0.4], "val_loss": [0.6, 0.5]})
        >>> [axes.get_title() for axes in figure.axes]
        ['loss']
    """
    require_matplotlib()
    from matplotlib.ticker import MaxNLocator

    from finetune_tf.evaluation.figures import NotebookFigure

    values = values_of_history(history)
    names = sorted(
        {name.removeprefix("val_") for name in values}, key=lambda name: (name != "loss", name)
    )
    figure = NotebookFigure(figsize=(4.2 * len(names), 3.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for key, label, style in ((name, "training", "-"), (f"val_{name}", "validation", "--")):
            if key in values:
                epochs = range(1, len(values[key]) + 1)
                axes.plot(epochs, values[key], style, marker="o", markersize=4, label=label)
        axes.set_title(name)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
        axes.legend(frameon=False)
    return figure


def values_of_history(
    history: "Mapping[str, Sequence[float]] | Any", what: str = "plot_history"
) -> Mapping[str, Sequence[float]]:
    """Returns the values of a history by metric, one for each epoch from the first one on.

    Args:
        history: As for `plot_history`.
        what: What expects them, for the message.

    Raises:
        DataError: As for `plot_history`.
        DataTypeError: If `history` has another form.
    """
    values = getattr(history, "history", history)
    if not isinstance(values, Mapping) or not values or not all(map(_is_curve, values.values())):
        raise DataTypeError(
            f"{what} expects what model.fit returns, or a dict with a list of numbers for each "
            f"metric; found {shown(history)}."
        )
    counts = {name: len(list(each)) for name, each in values.items()}
    epochs = max(counts.values())
    if fewer := [name for name in counts if counts[name] < epochs]:
        raise DataError(
            f"{what} needs a value for each epoch: {fewer[0]} has {counts[fewer[0]]}, others "
            f"have {epochs}, as with validation_freq. Put math.nan for the epochs without a value, "
            f"for example history.history[{fewer[0]!r}] = [math.nan, 0.5, …]."
        )
    first = next(iter(getattr(history, "epoch", ())), 0)  # initial_epoch
    return {name: [math.nan] * first + list(each) for name, each in values.items()}


def add_epochs(history: dict[str, list[float]], added: Mapping[str, Sequence[float]]) -> None:
    """Appends epochs to a history, with NaN where they have no value of a metric, or no metric.

    Args:
        history: Values by metric, as many for each.
        added: The values of the epochs that follow.

    Example:
        >>> from finetune_tf.evaluation.curves import add_epochs
        >>> history = {"loss": [0.7]}
        >>> add_epochs(history, {"loss": [0.4], "val_loss": [0.5]})
        >>> history
        {'loss': [0.7, 0.4], 'val_loss': [nan, 0.5]}
    """
    before, new = (max(map(len, each.values()), default=0) for each in (history, added))
    for name in {**history, **added}:
        values = [float(value) for value in added.get(name, ())]
        history.setdefault(name, [math.nan] * before)
        history[name] += values + [math.nan] * (new - len(values))


def _is_curve(values: object) -> bool:
    return isinstance(values, Iterable) and all(isinstance(value, Real) for value in values)
