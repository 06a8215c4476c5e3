"""Learning curves: what a fit did, epoch by epoch."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

from finetune_tf.base.arguments import shown
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import DataTypeError
from finetune_tf.evaluation.document import require_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@names_checked
def plot_history(history: "Mapping[str, Sequence[float]] | Any") -> "Figure":
    """Draws loss and metrics over the epochs, training and validation together.

    Args:
        history: What `model.fit` returns, or its `.history`, or that of `finetune`.

    Returns:
        A matplotlib figure, with one picture a metric.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.ticker import MaxNLocator

    from finetune_tf.evaluation.figures import NotebookFigure

    values = getattr(history, "history", history)
    if not isinstance(values, Mapping) or not values or not all(map(_is_curve, values.values())):
        raise DataTypeError(
            "plot_history takes what model.fit returns, or a dict with a list of numbers for each "
            f"metric; found {shown(history)}."
        )
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


def _is_curve(values: object) -> bool:
    return isinstance(values, Iterable) and all(isinstance(value, Real) for value in values)
