"""Joins requests that arrive at the same time to batches, in one thread that computes them."""

import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

# The weight of the last batch in the average time of a row.
_NEWEST = 0.2


class QueueFull(Exception):
    """There is no room for another request.

    Attributes:
        retry_after: The whole seconds after which there most likely is.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"The queue is full; try again in {retry_after} seconds.")
        self.retry_after = retry_after


class Stopped(Exception):
    """The batcher accepts nothing any more."""


@dataclass(eq=False)
class _Job:
    rows: Any
    size: int
    length: int
    kind: Hashable
    future: Future = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


class Batcher:
    """Computes submitted requests in batches of similar length.

    Requests are computed inside of a `with` block, whose end waits for all of them.

    A batch begins when it is full, or when its oldest request has waited for `max_wait` seconds; if
    the thread was busy until then, it begins at once. It has the oldest request, and of the others
    those whose length is closest to it. A request with more rows than a batch has a batch alone.
    If a batch fails, each of its requests is computed alone, so that an error reaches only the
    request that causes it.

    Args:
        compute: Takes a list of what was submitted, and returns a result for each.
        max_batch: Rows of a batch.
        max_wait: Seconds that a request waits for others.
        max_waiting: Rows that may wait; no request can have more.
        on_batch: Is called with the rows and the seconds of each batch.

    Example:
        >>> from finetune_tf.serving.batcher import Batcher
        >>> with Batcher(lambda texts: [text.upper() for text in texts], max_wait=0.01) as batcher:
        ...     futures = [batcher.submit(text, length=len(text)) for text in ("a", "bc")]
        ...     [future.result() for future in futures]
        ['A', 'BC']
    """

    def __init__(
        self,
        compute: Callable[[list[Any]], Sequence[Any]],
        max_batch: int = 32,
        max_wait: float = 0.005,
        max_waiting: int = 256,
        on_batch: Callable[[int, float], None] = lambda rows, seconds: None,
    ) -> None:
        self._compute, self._on_batch = compute, on_batch
        self._max_batch, self._max_wait, self.max_waiting = max_batch, max_wait, max_waiting
        self._waiting: list[_Job] = []  # the oldest first
        self._changed = threading.Condition()
        self._is_closed = False
        self._seconds_per_row = 0.0
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)

    def submit(self, rows: Any, size: int = 1, length: int = 0, kind: Hashable = None) -> Future:
        """Puts a request into the queue.

        Args:
            rows: What `compute` gets.
            size: Its number of rows.
            length: The length of its longest row.
            kind: Only requests of equal kinds are in one batch.

        Returns:
            The future of its result.

        Raises:
            QueueFull: If there is no room.
            Stopped: If the batcher was closed.
        """
        with self._changed:
            if self._is_closed:
                raise Stopped
            self.check_room(size)
            job = _Job(rows, size, length, kind)
            self._waiting.append(job)
            self._changed.notify_all()
        return job.future

    def check_room(self, size: int) -> None:
        """Checks that there is room for a request, before anything is done for it.

        Raises:
            QueueFull: If there is none.
        """
        waiting = self.waiting
        if waiting + size > self.max_waiting:
            raise QueueFull(max(1, math.ceil(waiting * self._seconds_per_row)))

    @property
    def waiting(self) -> int:
        """The rows that wait."""
        return sum(job.size for job in list(self._waiting))

    @property
    def is_running(self) -> bool:
        """Whether requests are accepted and computed."""
        return self._thread.is_alive() and not self._is_closed

    def discard(self) -> None:
        """Cancels all requests that wait."""
        with self._changed:
            for job in self._waiting:
                job.future.cancel()
            self._waiting = []

    def __enter__(self) -> "Batcher":
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        """Accepts nothing more, and waits until everything that was accepted is computed."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next_batch():
            self._run(batch)

    def _next_batch(self) -> list[_Job]:
        """Waits for a batch and takes it out of the queue; an empty one is the end."""
        with self._changed:
            while not self._is_ready():
                if self._is_closed and not self._waiting:
                    return []
                self._changed.wait(self._seconds_left())
            batch = self._chosen()
            self._waiting = [job for job in self._waiting if job not in batch]
            return batch

    def _is_ready(self) -> bool:
        """Whether a batch begins."""
        if not self._waiting:  # nothing has come, or everything was discarded
            return False
        return self._is_closed or self.waiting >= self._max_batch or not self._seconds_left()

    def _seconds_left(self) -> float | None:
        """How long the oldest request still waits for others; None if there is none."""
        if not self._waiting:
            return None
        return max(self._waiting[0].arrived + self._max_wait - time.monotonic(), 0.0)

    def _chosen(self) -> list[_Job]:
        oldest = self._waiting[0]
        batch, rows = [], 0
        alike = [job for job in self._waiting if job.kind == oldest.kind]
        # The sort is stable, so the oldest request stays the first one.
        for job in sorted(alike, key=lambda job: abs(job.length - oldest.length)):
            if not batch or rows + job.size <= self._max_batch:
                batch.append(job)
                rows += job.size
        return batch

    def _run(self, batch: list[_Job]) -> None:
        batch = [job for job in batch if job.future.set_running_or_notify_cancel()]
        if not batch:
            return
        start, rows = time.monotonic(), sum(job.size for job in batch)
        try:
            results = self._compute([job.rows for job in batch])
            finished = list(zip(batch, results, strict=True))
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for job in batch:
                self._run_alone(job)
        else:
            for job, result in finished:
                job.future.set_result(result)
        seconds = time.monotonic() - start
        before = self._seconds_per_row or seconds / rows
        self._seconds_per_row = (1 - _NEWEST) * before + _NEWEST * seconds / rows
        self._on_batch(rows, seconds)

    def _run_alone(self, job: _Job) -> None:
        try:
            (result,) = self._compute([job.rows])
        except Exception as error:
            job.future.set_exception(error)
        else:
            job.future.set_result(result)
