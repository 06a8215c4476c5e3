"""Counts and times of a server, in the text format of Prometheus (version 0.0.4)."""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Histogram:
    r"""How many observed values are at most each of a few bounds, with their number and sum.

    Args:
        bounds: The bounds, ascending.

    Example:
        >>> from finetune_tf.serving.metrics import Histogram
        >>> rows = Histogram((1, 4))
        >>> for value in (1, 3, 9):
        ...     rows.observe(value)
        >>> print(*rows.lines("rows"), sep="\n")
        rows_bucket{le="1"} 1
        rows_bucket{le="4"} 2
        rows_bucket{le="+Inf"} 3
        rows_sum 13
        rows_count 3
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self._counts, self._sum = tuple(bounds), [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Adds a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> list[str]:
        """Returns the lines of the text format."""
        lines, total = [], 0
        for bound, count in zip([*self._bounds, "+Inf"], self._counts, strict=True):
            total += count
            shown = bound if isinstance(bound, str) else f"{bound:g}"
            lines.append(f'{name}_bucket{{le="{shown}"}} {total}')
        return [*lines, f"{name}_sum {self._sum:.10g}", f"{name}_count {total}"]


class Metrics:
    """What a server counts. All methods may be called in any thread.

    Attributes:
        accepted: Requests whose answer has begun or is still to come.
        answered: Requests whose answer is complete.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds, self._batch_rows = Histogram(_SECONDS), Histogram(_ROWS)
        self._batch_seconds = Histogram(_SECONDS)
        self._rows = self.accepted = self.answered = 0

    def accept(self) -> None:
        """Counts a request that arrived."""
        with self._lock:
            self.accepted += 1

    def answer(self, path: str, status: int) -> None:
        """Counts a request that was answered.

        Args:
            path: The route, or "other".
            status: The status of the answer.
        """
        with self._lock:
            self.answered += 1
            self._requests[path, status] += 1

    def predicted(self, rows: int, seconds: float) -> None:
        """Counts the predictions of a request and the time from its arrival to its answer."""
        with self._lock:
            self._rows += rows
            self._seconds.observe(seconds)

    def batch(self, rows: int, seconds: float) -> None:
        """Counts a batch and the time that the model took for it."""
        with self._lock:
            self._batch_rows.observe(rows)
            self._batch_seconds.observe(seconds)

    def text(self, waiting: int) -> str:
        """Returns all metrics in the text format.

        Args:
            waiting: The rows that wait at present.
        """
        with self._lock:
            requests = [
                f'finetune_tf_requests_total{{path="{path}",status="{status}"}} {count}'
                for (path, status), count in sorted(self._requests.items())
            ]
            parts = [
                ("requests_total", "counter", "Answered requests by route and status.", requests),
                (
                    "requests_in_progress",
                    "gauge",
                    "Requests that are not answered yet, including the one that asks.",
                    [f"finetune_tf_requests_in_progress {self.accepted - self.answered}"],
                ),
                (
                    "predictions_total",
                    "counter",
                    "Predictions that were returned.",
                    [f"finetune_tf_predictions_total {self._rows}"],
                ),
                (
                    "request_seconds",
                    "histogram",
                    "Seconds from the arrival of a request for predictions to its answer.",
                    self._seconds.lines("finetune_tf_request_seconds"),
                ),
                (
                    "batch_rows",
                    "histogram",
                    "Rows in a batch.",
                    self._batch_rows.lines("finetune_tf_batch_rows"),
                ),
                (
                    "batch_seconds",
                    "histogram",
                    "Seconds that the model took for a batch.",
                    self._batch_seconds.lines("finetune_tf_batch_seconds"),
                ),
                (
                    "queue_rows",
                    "gauge",
                    "Rows that wait for a batch.",
                    [f"finetune_tf_queue_rows {waiting}"],
                ),
            ]
        lines = []
        for name, kind, help_text, samples in parts:
            lines += [f"# HELP finetune_tf_{name} {help_text}", f"# TYPE finetune_tf_{name} {kind}"]
            lines += samples
        return "\n".join(lines) + "\n"
