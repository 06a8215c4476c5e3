"""The command `serve` as a process: its start, its end under load, and why it does not start."""

import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from helpers_serving import ROOT, ask, can_connect, end, metric, serving_process, write_model

import finetune_tf as ft

TEXT = "a very good film and a fine story"


@pytest.fixture(scope="module")
def folder(tiny_bert, tmp_path_factory):
    return write_model(tiny_bert, tmp_path_factory.mktemp("saved") / "m", labels=["bad", "good"])


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_loses_no_accepted_request(folder, signum, interruptible):
    """Clients ask until the server is gone; it answers as many requests as clients get answers."""
    expected = ft.predict(ft.load(folder), TEXT)
    answers, stop = [], threading.Event()

    def client():
        while not stop.is_set():
            try:
                answers.append(ask(url, body={"text": TEXT}))
            except OSError:  # refused: the server accepts no more connections
                return

    with serving_process(folder, "--max-batch", 4) as (url, process):
        clients = [threading.Thread(target=client) for _ in range(12)]
        for each in clients:
            each.start()
        time.sleep(1)
        code, out, err = end(process, signum)
        stop.set()
        for each in clients:
            each.join()
        assert not can_connect(url)
    assert code == 0 and "Traceback" not in err and "ERROR" not in err, err
    assert len(answers) > 12
    assert f"Stopped: {len(answers):,} of {len(answers):,} accepted requests are answered." in out
    for status, _, answer in answers:
        assert status == 200
        assert answer["prediction"]["label"] == expected.label
        assert answer["prediction"]["score"] == pytest.approx(expected.score, abs=1e-5)


@pytest.mark.slow
def test_options_reach_the_server(folder):
    options = ["--max-batch", 3, "--max-length", 8, "--max-texts", 2, "--max-characters", 99]
    options += ["--max-body-bytes", 500, "--max-wait-ms", 0.5, "--max-waiting", 4]
    with serving_process(folder, *options) as (url, process):
        limits = {"body_bytes": 500, "texts": 2, "characters": 99, "tokens": 8}
        assert ask(url, "/")[2]["limits"] == limits
        assert ask(url, body={"text": TEXT})[0] == 413
        assert ask(url, body={"text": "a good film"})[0] == 200
        assert metric(url, "predictions_total") == 1
        assert end(process)[0] == 0


@pytest.fixture
def taken_port():
    """A port on which another server listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.slow
def test_a_command_that_does_not_start_prints_one_line(folder, taken_port):
    command = [sys.executable, "-m", "finetune_tf", "serve", folder, "--port", str(taken_port)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    message = f"finetune-tf: The port {taken_port} of 127.0.0.1 is taken by another process."
    assert found.returncode == 2
    assert found.stderr.splitlines()[-1].startswith(message)


def test_why_a_server_does_not_start(folder, tiny_bert, taken_port, tmp_path):
    for given, options, message in (
        (folder, {"port": taken_port}, f"The port {taken_port} of 127.0.0.1 is taken by another"),
        (folder, {"host": "no such host"}, "host must be an address of this machine"),
        (folder, {"host": "192.0.2.1"}, "The address 192.0.2.1 does not belong to this machine"),
        (folder, {"max_length": 4_000}, "max_length must be at most 32, the tokens that the"),
        (tmp_path / "none", {}, "There is no folder '.*none'. serve takes a folder that"),
        (tmp_path, {}, "config.json"),
        (tiny_bert, {}, r"The head of this model \(classifier\) is not trained"),
    ):
        with pytest.raises(ft.errors.FinetuneError, match=message):
            ft.serve(given, **{"port": 0, **options})


def test_numbers_out_of_range(folder):
    for name, wrong in (("port", 65_536), ("max_batch", 0), ("max_wait_ms", -1)):
        with pytest.raises(ft.errors.ArgumentError, match=f"^{name} must be"):
            ft.serve(folder, **{name: wrong})


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_the_extra(folder, missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ft.errors.MissingExtraError) as caught:
        ft.serve(folder)
    message = f"serve needs Starlette and uvicorn, and {missing} is not installed."
    assert str(caught.value).startswith(message)
    assert "pip install 'finetune-tf[serve]'" in str(caught.value)
