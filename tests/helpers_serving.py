"""Servers of small models, in this process or in one of their own, and requests to them."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.serving.address import bound, url_of
from finetune_tf.serving.model_server import ModelServer

ROOT = Path(__file__).resolve().parents[1]


def trained(model):
    """The same model with a head that counts as trained: its weights are other random numbers."""
    random = np.random.default_rng(0)
    for name in model.info.head_layers:
        for variable in model.get_layer(name).weights:
            variable.assign(random.normal(0, 0.3, variable.shape))
    return model


def write_model(checkpoint, folder, task=None, **options):
    """Saves a model with such a head; returns the folder."""
    with ft.messages.quiet():
        return trained(ft.load(checkpoint, task, **options)).save_pretrained(folder)


def ask(url, path="/predict", body=None, *, method=None, headers=None, timeout=300):
    """Sends one request on a connection of its own.

    Args:
        url: The address of the server.
        path: The path.
        body: An object for JSON, or bytes, or an iterator of bytes, which is sent in chunks.
        method: By default POST if there is a body.
        headers: Further headers.
        timeout: Seconds.

    Returns:
        Status, headers, and the object in the answer, or its text.
    """
    parts = urlsplit(url)
    if isinstance(body, dict | list | str | int | float):
        body = json.dumps(body).encode()
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    with contextlib.closing(connection):
        chunked = body is not None and not isinstance(body, bytes)
        connection.request(
            method or ("GET" if body is None else "POST"),
            path,
            body,
            {"Content-Type": "application/json", **(headers or {})},
            encode_chunked=chunked,
        )
        response = connection.getresponse()
        text = response.read().decode()
        is_json = response.headers["Content-Type"] == "application/json" and method != "HEAD"
        return response.status, response.headers, json.loads(text) if is_json else text


@contextlib.contextmanager
def serving(model, limits=None, **options):
    """A server of a model in a thread of this process; yields its address and the server."""
    with ft.messages.quiet():
        server, listener = ModelServer(model, limits, **options), bound("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=[listener], daemon=True)
    url = url_of(listener)
    thread.start()
    wait_until(lambda: can_connect(url))
    try:
        yield url, server
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive()


@contextlib.contextmanager
def serving_process(folder, *arguments):
    """The command `serve` in a process; yields its address and the process, which is ended."""
    command = [sys.executable, "-m", "finetune_tf", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in process.stdout:
            if found := re.match(r"Serving .* on (http://\S+)$", line):
                yield found[1], process
                break
        else:
            raise AssertionError(f"The server did not start: {process.stderr.read()}")
    finally:
        process.kill()
        process.communicate()


def end(process, signum=signal.SIGTERM):
    """Sends a signal; returns the exit code, standard output and standard error."""
    process.send_signal(signum)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def can_connect(url):
    """Whether something listens at an address."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=5).close()
    except OSError:
        return False
    return True


def wait_until(is_true, seconds=30):
    """Waits for a condition, and fails if it does not come true."""
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def metric(url, name):
    """The value of a metric, whose name may have labels."""
    (line,) = [
        line
        for line in ask(url, "/metrics")[2].splitlines()
        if line.rpartition(" ")[0] == f"finetune_tf_{name}"
    ]
    return float(line.rpartition(" ")[2])


def assert_close(found, expected):
    """Compares answers whose numbers may differ in the last digits."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_close(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=2e-5)
    else:
        assert found == expected
