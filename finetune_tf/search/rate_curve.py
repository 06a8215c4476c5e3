"""The result of `find_rate`: losses by rate, and the rate that they suggest."""

from typing import TYPE_CHECKING

import numpy as np

from finetune_tf.evaluation.document import Document, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 3.0  # standard deviation of the smoothing, in points
_PART = 0.6  # of the fall of the logarithm of the loss, at which the rate is suggested
_CLEAR = 4.0  # standard errors that a fall has to exceed
_DEVIATION = 1.4826  # standard deviation of a normal distribution, over its median deviation


class RateCurve(Document):
    """The losses of `find_rate` by learning rate; `print` shows the suggestion with its reason.

    The losses are smoothed over neighbouring rates, because each of them is the loss of one batch.
    The suggestion is the first rate at which the smoothed loss has made three fifths of its way
    from its start to its lowest value, on a logarithmic scale. It is therefore a rate at which a
    few steps already teach much, and lies below the rates at which the loss rises again. The
    logarithm matters where the loss falls to a small part of its start, as that of scores often
    does: most of such a fall is the mean of the scores, which is learned first. Losses that are
    not all positive are compared as they are.

    Attributes:
        rates: The learning rates (n,), ascending.
        losses: The loss of the step with each rate, before that step (n,).
        smoothed: The smoothed losses (n,).
        suggestion: The suggested rate; None if the loss falls by no more than chance explains.
            Presets refuse None.
        end: Why the fit ended, such as "the loss diverged at 0.1".

    Example:
        >>> curve = ft.find_rate(model, train.batches(model, 2, shuffle=True), points=20)
        >>> bool((curve.rates[1:] > curve.rates[:-1]).all())
        True
    """

    def __init__(self, rates: np.ndarray, losses: np.ndarray, end: str) -> None:
        self.rates, self.losses, self.end = rates, losses, end
        self.smoothed = smooth(losses)
        self._first = max(len(losses) // 10, 3)  # losses whose mean is the start
        self._start = float(np.mean(losses[: self._first]))
        self._lowest = float(self.smoothed.min())
        self.suggestion = self._suggest()

    def _suggest(self) -> float | None:
        fall = self._start - self._lowest
        if not fall > _CLEAR * self._standard_error():
            return None
        if self._lowest > 0:
            level = self._start * (self._lowest / self._start) ** _PART
        else:
            level = self._start - _PART * fall
        place = int(np.argmax(self.smoothed <= level))
        return float(f"{self.rates[place]:.2g}")

    def _standard_error(self) -> float:
        """The standard error of the fall, from the losses before the lowest one.

        The median does not count the single high losses at the rates just before it, which a mean
        square would take for the noise of all.
        """
        before = slice(0, int(self.smoothed.argmin()) + 1)
        noise = _DEVIATION * np.median(np.abs(self.losses[before] - self.smoothed[before]))
        smoothed = 1 / (2 * np.sqrt(np.pi) * _WIDTH)  # the variance of a Gaussian mean
        return float(noise * np.sqrt(smoothed + 1 / self._first))

    @property
    def reason(self) -> str:
        """Why this rate is suggested, or why none is."""
        rate = self.rates[self.smoothed.argmin()]
        fall = f"from {self._start:.3g} to {self._lowest:.3g}, which it reaches at {rate:.2g}"
        if self.suggestion is None:
            return (
                f"the smoothed loss falls {fall}, by no more than chance explains; {self.end}. "
                "Try other bounds, more points or larger batches"
            )
        return f"the smoothed loss has made three fifths of its fall {fall}; {self.end}"

    def blocks(self) -> list[str | Table]:
        """Returns the line of the suggestion."""
        rate = "no suggestion" if self.suggestion is None else f"{self.suggestion:.2g}"
        return [f"{rate}: {self.reason}."]

    def to_dict(self) -> dict:
        """Returns the curve as values that JSON can represent."""
        return {
            "suggestion": self.suggestion,
            "reason": self.reason,
            "rates": self.rates.tolist(),
            "losses": self.losses.tolist(),
            "end": self.end,
        }

    def _draw(self) -> "Figure":
        from finetune_tf.search.figures import rate_figure

        return rate_figure(self)

    def __repr__(self) -> str:
        return f"<RateCurve of {len(self.rates)} rates: {self}>"


def smooth(losses: np.ndarray) -> np.ndarray:
    """Returns a weighted mean over the neighbours of each loss (n,)."""
    places = np.arange(len(losses))
    weights = np.exp(-0.5 * ((places[:, None] - places) / _WIDTH) ** 2)
    return weights @ losses / weights.sum(axis=1)
