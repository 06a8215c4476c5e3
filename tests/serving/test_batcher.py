"""The batcher: what is joined, in which order, and what a full queue or an error does."""

import threading
import time

import pytest
from helpers_serving import wait_until

from finetune_tf.serving.batcher import Batcher, QueueFull, Stopped


class Model:
    """Computes nothing until it is released, and records its batches."""

    def __init__(self):
        self.batches, self.may_run = [], threading.Event()

    def __call__(self, batch):
        self.batches.append(batch)
        assert self.may_run.wait(30)
        if "broken" in batch:
            raise ValueError("a broken row")
        return [row.upper() for row in batch]


@pytest.fixture
def model():
    made = Model()
    yield made
    made.may_run.set()


def blocked(model, batcher):
    """Keeps the thread busy, so that what is submitted next waits."""
    future = batcher.submit("first")
    wait_until(lambda: model.batches)
    return future


def test_requests_that_wait_are_joined(model):
    with Batcher(model, max_batch=3, max_wait=0) as batcher:
        first = blocked(model, batcher)
        others = [batcher.submit(row) for row in "abcd"]
        assert batcher.waiting == 4
        model.may_run.set()
        assert [future.result(30) for future in [first, *others]] == ["FIRST", *"ABCD"]
    assert model.batches == [["first"], ["a", "b", "c"], ["d"]]


def test_a_batch_has_the_oldest_request_and_those_of_the_closest_length(model):
    with Batcher(model, max_batch=2, max_wait=0) as batcher:
        blocked(model, batcher)
        for row, length in (("a", 10), ("b", 90), ("c", 50), ("d", 12), ("e", 85)):
            batcher.submit(row, length=length)
        model.may_run.set()
    assert model.batches[1:] == [["a", "d"], ["b", "e"], ["c"]]


def test_a_batch_has_one_kind(model):
    with Batcher(model, max_wait=0) as batcher:
        blocked(model, batcher)
        for row, kind in (("a", "text"), ("b", "image"), ("c", "text")):
            batcher.submit(row, kind=kind)
        model.may_run.set()
    assert model.batches[1:] == [["a", "c"], ["b"]]


def test_rows_count_and_not_requests(model):
    with Batcher(model, max_batch=4, max_wait=0) as batcher:
        blocked(model, batcher)
        for row, size in (("a", 3), ("b", 2), ("c", 1), ("d", 9)):
            batcher.submit(row, size=size)
        model.may_run.set()
    assert model.batches[1:] == [["a", "c"], ["b"], ["d"]]


def test_a_request_waits_for_others_but_not_for_long(model):
    model.may_run.set()
    with Batcher(model, max_batch=8, max_wait=0.2) as batcher:
        start = time.monotonic()
        first = batcher.submit("a")
        second = batcher.submit("b")
        first.result(30), second.result(30)
        assert time.monotonic() - start >= 0.2
    assert model.batches == [["a", "b"]]


def test_a_full_batch_does_not_wait(model):
    model.may_run.set()
    with Batcher(model, max_batch=2, max_wait=30) as batcher:
        futures = [batcher.submit(row) for row in "ab"]
        assert [future.result(10) for future in futures] == ["A", "B"]


def test_a_full_queue_refuses(model):
    with Batcher(model, max_batch=1, max_wait=0, max_waiting=3) as batcher:
        first = blocked(model, batcher)
        large = batcher.submit("large", size=3)
        with pytest.raises(QueueFull) as full:
            batcher.submit("b")
        assert full.value.retry_after >= 1
        with pytest.raises(QueueFull):
            batcher.check_room(1)
        model.may_run.set()
        first.result(30), large.result(30)
        batcher.check_room(3)
        assert batcher.submit("b").result(30) == "B"


def test_an_error_reaches_only_the_request_that_causes_it(model):
    with Batcher(model, max_wait=0) as batcher:
        blocked(model, batcher)
        good, broken, other = (batcher.submit(row) for row in ("a", "broken", "c"))
        model.may_run.set()
        assert (good.result(30), other.result(30)) == ("A", "C")
        with pytest.raises(ValueError, match="a broken row"):
            broken.result(30)
        assert batcher.is_running and batcher.submit("d").result(30) == "D"


def test_the_end_computes_what_was_accepted(model):
    with Batcher(model, max_batch=1, max_wait=0) as batcher:
        blocked(model, batcher)
        futures = [batcher.submit(row) for row in "abc"]
        threading.Timer(0.05, model.may_run.set).start()
    assert all(future.done() for future in futures)
    assert not batcher.is_running
    with pytest.raises(Stopped):
        batcher.submit("d")


def test_the_end_need_not_wait(model):
    with Batcher(model, max_wait=0) as batcher:
        first = blocked(model, batcher)
        futures = [batcher.submit(row) for row in "abc"]
        batcher.discard()
        model.may_run.set()
    assert first.result(30) == "FIRST" and all(future.cancelled() for future in futures)


def test_what_waits_for_others_can_be_discarded_too(model):
    model.may_run.set()
    with Batcher(model, max_wait=0.2) as batcher:
        discarded = batcher.submit("a")
        time.sleep(0.1)  # until the thread waits for others
        batcher.discard()
        time.sleep(0.3)
        assert discarded.cancelled() and batcher.is_running
        assert batcher.submit("b").result(30) == "B"


def test_a_cancelled_request_is_not_computed(model):
    with Batcher(model, max_wait=0) as batcher:
        blocked(model, batcher)
        cancelled, other = batcher.submit("a"), batcher.submit("b")
        assert cancelled.cancel()
        model.may_run.set()
        assert other.result(30) == "B"
    assert model.batches[1:] == [["b"]]


def test_batches_are_reported(model):
    model.may_run.set()
    seen = []
    with Batcher(model, max_batch=2, max_wait=30, on_batch=lambda *each: seen.append(each)) as made:
        for row in "ab":
            made.submit(row)
    ((rows, seconds),) = seen
    assert rows == 2 and 0 <= seconds < 30
