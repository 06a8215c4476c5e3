"""A server in this process: its answers, refusals, limits and metrics, over real connections."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from helpers_models import ENGLISH
from helpers_serving import ask, assert_close, can_connect, metric, serving, trained, wait_until

import finetune_tf as ft
from finetune_tf.serving.limits import Limits

TEXTS = ["a good film", "the actor was bad", "a very long and dull story", "fine", "not good"]
LIMITS = Limits(max_body_bytes=4_000, max_texts=6, max_characters=200, body_seconds=1.0)


@pytest.fixture(scope="module")
def model(tiny_bert):
    with ft.messages.quiet():
        return trained(ft.load(tiny_bert, labels=["bad", "good"]))


@pytest.fixture(scope="module")
def url(model):
    with serving(model, LIMITS, max_batch=4) as (url, _):
        yield url


def as_json(predictions):
    """Predictions as answers have them."""
    return [vars(prediction) for prediction in predictions]


def refused(url, body, status=400, **options):
    """The message with which a request is refused; its form is the same for all of them."""
    found, headers, content = ask(url, body=body, **options)
    assert (found, headers["Content-Type"]) == (status, "application/json"), content
    assert list(content) == ["error"]
    return content["error"]


def test_one_text_and_several(url, model):
    expected = as_json(ft.predict(model, TEXTS))
    status, _, answer = ask(url, body={"text": TEXTS})
    assert status == 200
    assert_close(answer, {"predictions": expected})
    status, _, answer = ask(url, body={"text": TEXTS[1]})
    assert status == 200
    assert_close(answer, {"prediction": expected[1]})
    assert ask(url, body={"text": TEXTS[:1]})[2].keys() == {"predictions"}


def test_pairs(url, model):
    pairs = TEXTS[:3], TEXTS[2:]
    expected = as_json(ft.predict(model, *pairs))
    _, _, answer = ask(url, body={"text": pairs[0], "text_pair": pairs[1]})
    assert_close(answer, {"predictions": expected})


def test_concurrent_requests_get_their_own_answers(url, model):
    words = ENGLISH[:16]
    texts = [" ".join(words[i % 16 : i % 16 + 1 + i % 7] or words[:2]) for i in range(96)]
    expected = as_json(ft.predict(model, texts))
    before = metric(url, "batch_rows_count"), metric(url, "batch_rows_sum")
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda text: ask(url, body={"text": text}), texts))
    assert [status for status, _, _ in answers] == [200] * 96
    assert_close([answer["prediction"] for _, _, answer in answers], expected)
    assert metric(url, "batch_rows_sum") - before[1] == 96
    assert metric(url, "batch_rows_count") - before[0] < 96  # some were joined


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The body must be JSON"),
        (b"{", "The body must be JSON"),
        (b'{"text": "a"} x', "The body must be JSON"),
        (b'\xff{"text": "a"}', "The body must be JSON in UTF-8; the byte 0 is not UTF-8."),
        (b'{"text": "a\x00b"}', "The body must be JSON"),
        ('{"text": "a"}'.encode("utf-16"), "The body must be JSON in UTF-8"),
        (b"[" * 3_000, "The JSON of the body has too many levels."),
        (b'{"text": NaN}', "NaN is not a number of JSON"),
        (b'{"text": ' + b"9" * 3_900 + b"}", '"text" must be a text or a list of them'),
        (b'{"text": "a", "text": "b"}', "the key 'text' occurs twice"),
        (["a"], "The body must be a JSON object, found a list."),
        ("a", "The body must be a JSON object, found a text."),
        ({}, 'needs "text", or "text" and "text_pair"; found none of them.'),
        ({"text_pair": "a"}, 'needs "text", or "text" and "text_pair"; found "text_pair".'),
        ({"texts": "a"}, "has no key 'texts'. Did you mean \"text\"?"),
        ({"text": "a", "label": "good"}, "has no key 'label'."),
        ({"text": "a", "\ud83d": 1}, "has no key '\\ud83d'."),
        ({"text": None}, '"text" must be a text or a list of them, found null.'),
        ({"text": 3}, '"text" must be a text or a list of them, found a number.'),
        ({"text": {"a": "b"}}, '"text" must be a text or a list of them, found an object.'),
        ({"text": ["a", True]}, "text[1] must be a text, found true or false: True."),
        ({"text": ["a", ["b"]]}, "text[1] must be a text, found a list: ['b']."),
        ({"text": []}, "text: the list is empty; give at least one value."),
        ({"text": "a", "text_pair": ["b"]}, "text and text_pair belong together"),
        ({"text": ["a", "b"], "text_pair": ["c"]}, "the same length: text has 2, text_pair has 1."),
        ({"text": " \n"}, "text is empty."),
        ({"text": ["a", ""]}, "text[1] is empty."),
        ({"text": "a\0b"}, "text has a NUL character at position 1."),
        ({"text": ["good \ud83d"]}, "text[0] has half a surrogate pair at position 5"),
        ({"text": "a", "truncate": "yes"}, '"truncate" must be true or false, found a text.'),
    ],
)
def test_what_is_no_request(url, body, message):
    assert message in refused(url, body)


def test_too_much_of_something(url):
    message = refused(url, {"text": ["a"] * 7}, 413)
    assert message.startswith("A request may have 6 texts, found 7.")
    message = refused(url, {"text": ["a", "a" * 201]}, 413)
    assert message.startswith("A text may have 200 characters, found 201 in text[1].")
    message = refused(url, {"text": ["a", "good " * 40]}, 413)
    assert message.startswith("A text may have 32 tokens, special ones included; 1 of 2 in the")


def test_a_text_may_lose_its_end_if_the_request_says_so(url, model):
    text = "good " * 40
    with ft.messages.quiet():
        (expected,) = as_json(ft.predict(model, [text]))
    _, _, answer = ask(url, body={"text": text, "truncate": True})
    assert_close(answer, {"prediction": expected})


def test_bodies_that_are_too_large(url):
    large = json.dumps({"text": ["good film"] * 1_000}).encode()
    assert len(large) > 3 * LIMITS.max_body_bytes
    message = refused(url, large, 413)
    assert message.startswith(f"The body may have 4,000 bytes, found {len(large):,}.")
    # Without Content-Length, the size is known when it arrives.
    pieces = (large[i : i + 1_000] for i in range(0, len(large), 1_000))
    message = refused(url, pieces, 413)
    assert message.startswith("The body may have 4,000 bytes, found more.")
    assert ask(url, body=iter([b'{"text": ', b'"fine"}']))[0] == 200


def test_a_body_that_never_ends_is_not_read_for_ever(url):
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        with pytest.raises(OSError):  # the server closes the connection
            for _ in range(100_000):
                connection.sendall(b"400\r\n" + b"a" * 1_024 + b"\r\n")


def test_a_body_that_does_not_arrive(url):
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n{")
        answer = connection.makefile("rb").read().decode()  # until the server closes it
    assert answer.startswith("HTTP/1.1 408 ")
    assert "The body must arrive within 1 seconds; 1 bytes did." in answer


def test_a_client_that_goes_away(model, capfd):
    with serving(model) as (url, server):
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n{")
            wait_until(lambda: server.metrics.accepted == 1)
        wait_until(lambda: server.metrics.answered == 1)
        assert ask(url, body={"text": "fine"})[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_a_compressed_body(url):
    message = refused(url, b"\x1f\x8b", 415, headers={"Content-Encoding": "gzip"})
    assert message.startswith("The body must not be compressed, found Content-Encoding: gzip.")


def test_other_paths_and_methods(url):
    status, _, answer = ask(url, "/prediction")
    assert (status, answer["error"][:10]) == (404, "Not Found.")
    status, headers, answer = ask(url, "/predict")
    assert (status, headers["Allow"]) == (405, "POST")
    assert "POST is for /predict" in answer["error"]
    assert ask(url, "/metrics", {}, method="POST")[0] == 405
    assert ask(url, "/health", method="HEAD")[0] == 200


def test_what_the_server_says_of_itself(url):
    _, _, about = ask(url, "/")
    assert about["task"] == "text-classification" and about["labels"] == ["bad", "good"]
    assert about["predict"]["together"] == [["text"], ["text", "text_pair"]]
    limits = {"body_bytes": 4_000, "texts": 6, "characters": 200, "tokens": 32}
    assert about["limits"] == limits
    assert ask(url, "/health")[2] == {"status": "ok"}
    assert ask(url, "/ready")[2] == {"status": "ready"}


def test_metrics(url):
    before = {name: metric(url, name) for name in ("predictions_total", "request_seconds_count")}
    refusals = 'requests_total{path="/predict",status="400"}'
    refused(url, {"text": 3})
    first = metric(url, refusals)
    refused(url, {"text": 4})
    ask(url, body={"text": TEXTS[:3]})
    assert metric(url, refusals) == first + 1
    assert metric(url, "predictions_total") == before["predictions_total"] + 3
    assert metric(url, "request_seconds_count") == before["request_seconds_count"] + 1
    assert metric(url, 'request_seconds_bucket{le="+Inf"}') == metric(url, "request_seconds_count")
    assert metric(url, "queue_rows") == 0
    assert metric(url, "requests_in_progress") == 1  # this one
    ask(url, "/no/such/path")
    assert metric(url, 'requests_total{path="other",status="404"}') >= 1
    content_type = ask(url, "/metrics")[1]["Content-Type"]
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"


def test_a_full_queue_and_the_end(model):
    """While the model is busy, requests wait, further ones are refused, and the end waits."""
    with serving(model, max_batch=2, max_wait=0, max_waiting=3) as (url, server):
        may_run, begun = threading.Event(), threading.Event()
        compute = server._batcher._compute

        def slowly(requests):
            begun.set()
            assert may_run.wait(30)
            return compute(requests)

        server._batcher._compute = slowly
        with ThreadPoolExecutor(4) as pool:
            running = pool.submit(ask, url, body={"text": "a good film"})
            assert begun.wait(30)
            waiting = pool.submit(ask, url, body={"text": TEXTS[:3]})
            wait_until(lambda: metric(url, "queue_rows") == 3)
            status, headers, answer = ask(url, body={"text": "fine"})
            assert (status, int(headers["Retry-After"]) >= 1) == (503, True)
            assert answer["error"].startswith("The server is busy: its queue is full.")
            server.stop()
            wait_until(lambda: not can_connect(url))
            assert not running.done() and not waiting.done()
            may_run.set()
            assert running.result(30)[0] == 200
            assert len(waiting.result(30)[2]["predictions"]) == 3
        wait_until(lambda: server.metrics.answered == server.metrics.accepted)


def test_a_model_that_fails_is_an_error_of_the_server(model, capfd):
    with serving(model) as (url, server):
        compute = server._batcher._compute

        def broken(requests):
            raise RuntimeError("no memory left")

        server._batcher._compute = broken
        message = refused(url, {"text": "fine"}, 500)
        assert message == "The server failed; its log says why."
        server._batcher._compute = compute
        assert ask(url, body={"text": "fine"})[0] == 200
    assert "no memory left" in capfd.readouterr().err
