"""Small SVG charts without ids and scripts, colored by the style sheet of the page.

Several charts in one page cannot clash, because nothing in them is referred to by an id. Each has a
title that screen readers announce. The width of 420 units keeps the letters legible on a phone.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from finetune_tf.pages.elements import Html, escaped, join, shortened, tag

WIDTH, HEIGHT = 420, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 42
_TICKS = 5
_LONGEST_LABEL = 14


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _svg(title: str, parts: Sequence[Html], height: float = HEIGHT, class_: str = "chart") -> Html:
    return tag(
        "svg",
        tag("title", title),
        *parts,
        viewBox=f"0 0 {WIDTH} {_number(height)}",
        role="img",
        aria_label=title,
        class_=class_,
    )


def _shape(name: str, content: str | None = None, **attributes: object) -> Html:
    given = {
        key: _number(value) if isinstance(value, float | np.floating) else value
        for key, value in attributes.items()
    }
    return tag(name, None if content is None else content, **given)


def nice_ticks(low: float, high: float, most: int = _TICKS) -> list[float]:
    """Round numbers that cover an interval, at most about `most` of them.

    Example:
        >>> from finetune_tf.pages.charts import nice_ticks
        >>> nice_ticks(0.12, 0.91)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= 0.999 * raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


class _Axes:
    """The place of values within the frame of a chart, and the frame itself."""

    def __init__(self, x: Sequence[float], y: Sequence[float], height: float = HEIGHT) -> None:
        self.x_ticks, self.y_ticks, self.height = list(x), list(y), height

    def x(self, value: float) -> float:
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return _LEFT + (value - low) / ((high - low) or 1) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return (
            self.height
            - _BOTTOM
            - (value - low) / ((high - low) or 1) * (self.height - _BOTTOM - _TOP)
        )

    def frame(self, x_title: str, y_title: str = "") -> list[Html]:
        bottom, middle = self.height - _BOTTOM, (self.height - _BOTTOM + _TOP) / 2
        parts = []
        for tick in self.y_ticks:
            y = self.y(tick)
            parts.append(_shape("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
            parts.append(_shape("text", f"{tick:g}", x=_LEFT - 6, y=y + 4, class_="end"))
        for tick in self.x_ticks:
            x = self.x(tick)
            parts.append(_shape("text", f"{tick:g}", x=x, y=bottom + 16, class_="middle"))
        center = (_LEFT + WIDTH - _RIGHT) / 2
        parts.append(_shape("text", x_title, x=center, y=bottom + 34, class_="middle"))
        if y_title:
            turned = f"rotate(-90 12 {_number(middle)})"
            parts.append(_shape("text", y_title, x=12, y=middle, transform=turned, class_="middle"))
        return parts


def line_chart(
    title: str,
    series: Mapping[str, Sequence[float]],
    x_title: str,
) -> Html:
    """Values over 1, 2, 3, … as lines with dots, with a legend under the chart.

    Args:
        title: What the chart shows.
        series: Values by name, at most four series. Values that are not finite are left out.
        x_title: The title of the horizontal axis.
    """
    finite = [v for values in series.values() for v in values if math.isfinite(v)]
    longest = max(map(len, series.values()), default=1)
    step = max(1, math.ceil((longest - 1) / 8))
    x_ticks = [*range(1, longest + 1, step)] if longest > 1 else [0, 1, 2]
    if x_ticks[-1] < longest:
        x_ticks[-1:] = [longest] if longest - x_ticks[-1] < step / 2 else [x_ticks[-1], longest]
    axes = _Axes(x_ticks, nice_ticks(min(finite, default=0), max(finite, default=1)))
    parts = axes.frame(x_title)
    for i, (key, values) in enumerate(series.items()):
        points = [(axes.x(n), axes.y(v)) for n, v in enumerate(values, 1) if math.isfinite(v)]
        path = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
        parts.append(_shape("polyline", points=path, class_=f"line series-{i}"))
        if len(points) <= 60:
            parts += [
                _shape(
                    "circle",
                    tag("title", f"{key} {n}: {value:.4g}"),
                    cx=axes.x(n),
                    cy=axes.y(value),
                    r=3,
                    class_=f"dot series-{i}",
                )
                for n, value in enumerate(values, 1)
                if math.isfinite(value)
            ]
    return tag("figure", tag("figcaption", title), _svg(title, parts), _legend(series))


def _legend(series: Mapping[str, object]) -> Html:
    return tag(
        "div",
        *(
            tag("span", tag("i", class_=f"key series-{i}"), key, class_="entry")
            for i, key in enumerate(series)
        ),
        class_="legend",
    )


def scatter(
    title: str, x: np.ndarray, y: np.ndarray, x_title: str, y_title: str, diagonal: bool = False
) -> Html:
    """Points (x, y), where one of two axes or both are numbers of the data.

    Args:
        title: What the chart shows.
        x: Horizontal values (n,).
        y: Vertical values (n,).
        x_title: The title of the horizontal axis.
        y_title: The title of the vertical axis.
        diagonal: Whether both axes have one scale, and a line shows where they are equal.
    """
    x_ends, y_ends = (min(x), max(x)), (min(y), max(y))
    if diagonal:
        x_ends = y_ends = (min(x_ends[0], y_ends[0]), max(x_ends[1], y_ends[1]))
    axes = _Axes(nice_ticks(*x_ends), nice_ticks(*y_ends), height=360)
    parts = axes.frame(x_title, y_title)
    if diagonal:
        parts.append(_diagonal(axes, *x_ends))
    parts += [
        _shape("circle", cx=float(axes.x(a)), cy=float(axes.y(b)), r=2.5, class_="point")
        for a, b in zip(x, y, strict=True)
    ]
    return tag("figure", _svg(title, parts, 360), tag("figcaption", title))


def _diagonal(axes: _Axes, low: float, high: float) -> Html:
    ends = {"x1": axes.x(low), "x2": axes.x(high), "y1": axes.y(low), "y2": axes.y(high)}
    return _shape("line", **{k: float(v) for k, v in ends.items()}, class_="reference")


def reliability_chart(
    title: str,
    confidence: Sequence[float],
    accuracy: Sequence[float],
    counts: Sequence[int],
    x_title: str,
    y_title: str,
) -> Html:
    """The share of correct predictions against their mean confidence, one dot for each bin.

    Args:
        title: What the chart shows.
        confidence: The mean confidence of each bin.
        accuracy: The share of correct predictions of each bin.
        counts: The number of predictions of each bin, which sets the size of its dot. Empty bins
            are left out.
        x_title: The title of the horizontal axis.
        y_title: The title of the vertical axis.
    """
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    axes = _Axes(ticks, ticks, height=360)
    parts = [*axes.frame(x_title, y_title), _diagonal(axes, 0.0, 1.0)]
    bins = [b for b in zip(confidence, accuracy, counts, strict=True) if b[2]]
    path = " ".join(f"{_number(axes.x(c))},{_number(axes.y(a))}" for c, a, _ in bins)
    parts.append(_shape("polyline", points=path, class_="line series-0"))
    most = max((n for *_, n in bins), default=1)
    parts += [
        _shape(
            "circle",
            tag("title", f"{share:.3f} / {mean:.3f} (n = {n:,})"),
            cx=float(axes.x(mean)),
            cy=float(axes.y(share)),
            r=3 + 5 * math.sqrt(n / most),
            class_="dot series-0",
        )
        for mean, share, n in bins
    ]
    return tag("figure", _svg(title, parts, 360), tag("figcaption", title))


def heat_map(
    title: str, counts: np.ndarray, names: Sequence[str], x_title: str, y_title: str
) -> Html:
    """A matrix of counts as cells, whose color is the share of the row; empty cells are not drawn.

    Numbers are written into the cells of up to 10 rows, and names beside up to 30.

    Args:
        title: What the chart shows.
        counts: (n, n) counts, true classes in rows.
        names: The names of the classes.
        x_title: What columns are.
        y_title: What rows are.
    """
    size, is_named, is_numbered = len(counts), len(counts) <= 30, len(counts) <= 10
    longest = max(len(shortened(label, _LONGEST_LABEL)) for label in names)
    left = 14 + 7.5 * longest if is_named else 8
    edge = (WIDTH - left - 8) / size
    top, bottom = 26, 20 + 7 * longest if is_named else 8
    height = top + edge * size + bottom
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts = [_shape("rect", x=left, y=top, width=edge * size, height=edge * size, class_="field")]
    for row, column in np.argwhere(counts):
        x, y = float(left + column * edge), float(top + row * edge)
        share, count = shares[row, column], counts[row, column]
        # Single errors between many classes stay visible.
        opacity, side = (max(0.12, share), edge - 0.5) if is_named else (max(0.5, share), edge)
        parts.append(
            _shape(
                "rect",
                tag("title", f"{names[row]} → {names[column]}: {count:,}"),
                x=x,
                y=y,
                width=max(side, 2.5),
                height=max(side, 2.5),
                class_="cell right" if row == column else "cell wrong",
                style=f"fill-opacity:{opacity:.2f}",
            )
        )
        if is_numbered:
            tone = "middle over" if share > 0.55 else "middle"
            middle = {"x": x + edge / 2, "y": y + edge / 2 + 4}
            parts.append(_shape("text", f"{count:,}", **middle, class_=tone))
    if is_named:
        small = "small" if size > 12 else ""
        for i, label in enumerate(names):
            place, label = (i + 0.5) * edge, shortened(label, _LONGEST_LABEL)
            parts.append(
                _shape("text", label, x=left - 5, y=top + place + 4, class_=f"end {small}")
            )
            x, y = left + place + 4, top + edge * size + 8
            turned = f"rotate(-60 {_number(x)} {_number(y)})"
            parts.append(_shape("text", label, x=x, y=y, transform=turned, class_=f"end {small}"))
    parts.append(_shape("text", f"{y_title} ↓   {x_title} →", x=4, y=16))
    return tag("figure", _svg(title, parts, height, "chart matrix"), tag("figcaption", title))


def interval_bar(
    value: float,
    low: float | None,
    high: float | None,
    ends: tuple[float, float],
    reference: float | None = None,
    title: str = "",
) -> Html:
    """A dot with its interval on a line, for a cell of a table.

    Args:
        value: The value.
        low: The lower end of its interval; None without an interval.
        high: The upper end.
        ends: The values at the two ends of the line, the same ones for all rows of a table.
        reference: A value that is marked by a line, such as that of all rows.
        title: What it shows, for screen readers.
    """
    width, first, last = 160, *ends

    def x(number: float) -> float:
        share = (number - first) / ((last - first) or 1)
        return float(4 + min(max(share, 0.0), 1.0) * (width - 8))

    parts = [_shape("line", x1=4, x2=width - 4, y1=8, y2=8, class_="grid")]
    if reference is not None:
        at = x(reference)
        parts.append(_shape("line", x1=at, x2=at, y1=1, y2=15, class_="reference"))
    if low is not None:
        parts.append(_shape("line", x1=x(low), x2=x(high), y1=8, y2=8, class_="interval"))
    parts.append(_shape("circle", cx=x(value), cy=8, r=4, class_="dot series-0"))
    return tag("svg", *parts, viewBox=f"0 0 {width} 16", class_="bar", role="img", aria_label=title)


def bar(share: float, title: str = "") -> Html:
    """A bar of a length from 0 to 1, for a cell of a table."""
    width = 100 * min(max(share, 0.0), 1.0)
    parts = [
        _shape("rect", x=0, y=3, width=100, height=8, class_="field"),
        _shape("rect", x=0, y=3, width=float(width), height=8, class_="filled"),
    ]
    return tag("svg", *parts, viewBox="0 0 100 14", class_="bar", role="img", aria_label=title)


def tiles(values: Sequence[tuple[str, object, object]]) -> Html:
    """Large numbers side by side: (title, value, note) of each."""
    return tag(
        "div",
        join(
            tag(
                "div",
                tag("div", escaped(title), class_="tile-title"),
                tag("div", value, class_="tile-value"),
                tag("div", note, class_="tile-note"),
                class_="tile",
            )
            for title, value, note in values
        ),
        class_="tiles",
    )
